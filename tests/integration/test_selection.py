"""The model that is kept is the one that was measured, and the best of those that were."""

import json
import math

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging

from research.runs.hashes import hash_file
from research.runs.reading import read_json

KINDS = ["dual_encoder", "sft"]  # saved whole, and as an adapter: who keeps the best model asks nothing else


class Swapping(L.Callback):
    """Other weights for as long as a validation lasts, from the first hook to the last that stands beside its step."""

    def __init__(self, start: str, end: str):
        self.hooks = start, end
        setattr(self, start, lambda trainer, module, *_: self.times(module, 1.5))
        setattr(self, end, lambda trainer, module, *_: self.times(module, 1 / 1.5))

    @staticmethod
    def times(module, factor: float) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad and parameter.ndim > 1:
                    parameter.mul_(factor)


def measured_again(run) -> float:
    """The monitored metric of the saved model."""
    name, _ = run.monitor
    module, data = run.parts()
    if hasattr(module, "restore"):
        module.restore(run.out / "model")
    else:
        run.model = run.out / "model"
        module, data = run.parts()
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False
    )
    trainer.validate(module, datamodule=data, verbose=False)
    return module.means()[name.removeprefix("val/")]


def kept(run) -> float:
    """The same as metrics.json has it, to rounding."""
    name, _ = run.monitor
    return pytest.approx(read_json(run.out / "metrics.json")["metrics"][name.removeprefix("val/")], abs=1e-5)


SHORT = {"max_epochs": 1, "val_check_interval": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_averaged_weights_are_saved_where_averaged_weights_were_measured(training, kind):
    run = training(kind, "averaged", trainer=SHORT)
    run.run(callbacks=(EMAWeightAveraging(decay=0.5),))
    plain = training(kind, "plain", trainer=SHORT)
    plain.run()
    files = [hash_file(next((one.out / "model").glob("*model.safetensors"))) for one in (run, plain)]
    assert files[0] != files[1]
    assert measured_again(run) == kept(run)


@pytest.mark.parametrize("around", ["", "_epoch", "_batch"])
def test_whatever_is_swapped_in_for_a_validation_is_what_is_kept(training, around):
    hooks = [f"on_validation{around}_{end}" for end in ("start", "end")]
    run = training("sft", "swapped", trainer=SHORT)
    run.run(callbacks=(Swapping(*hooks),))
    assert measured_again(run) == kept(run)


def test_swa_keeps_what_it_measured(training):
    run = training("sft", "swa", trainer={"max_epochs": 3, "val_check_interval": 1.0})
    run.run(callbacks=(StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1),))
    assert measured_again(run) == kept(run)


@pytest.mark.parametrize("kind", KINDS)
def test_averaging_stopped_and_resumed_equals_straight(training, kind):
    def average():
        return (EMAWeightAveraging(decay=0.5),)

    straight, stopped = training(kind, "straight"), training(kind, "stopped")
    straight.run(callbacks=average())
    stopped.run(stop=4, callbacks=average())
    stopped.run(callbacks=average())
    assert stopped.curve() == straight.curve()
    files = [hash_file(next((one.out / "model").glob("*model.safetensors"))) for one in (straight, stopped)]
    assert files[0] == files[1]


def test_nan_is_worse_than_any_number_and_json_has_none(training, monkeypatch):
    """The first validation and a later one give no number: the best of the others is kept, and the files are JSON."""
    from research.training.dual_encoder import DualEncoderModule

    given = iter([0.5, math.nan, 0.1, -math.inf, 0.3, 0.2])  # untrained, then five of the training

    def means(self):
        if not hasattr(self, "value") or self.value[0] is not self.per_query:
            self.value = self.per_query, next(given)
        return {"mrr@10": self.value[1], "recall@100": math.nan}

    monkeypatch.setattr(DualEncoderModule, "means", means)
    run = training("dual_encoder", "nan", trainer={"max_epochs": 1, "val_check_interval": 1})
    run.run()

    def strict(text: str) -> dict:
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    facts = strict((run.out / "metrics.json").read_text())
    assert (facts["step"], facts["metrics"]) == (4, {"mrr@10": 0.3, "recall@100": None})
    lines = [strict(line) for line in (run.out / "curves.jsonl").read_text().splitlines()]
    assert [line["val/mrr@10"] for line in lines if "val/mrr@10" in line] == [
        pytest.approx(0.5),
        None,
        pytest.approx(0.1),
        None,
        pytest.approx(0.3),
        pytest.approx(0.2),
    ]
    read = [line["val/mrr@10"] for line in run.curve() if "val/mrr@10" in line]
    assert math.isnan(read[1])  # as a number again
