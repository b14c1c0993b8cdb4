"""What plugins, strategies and callbacks bring in is judged by what it does, and refused with a cure that works."""

import re

import lightning as L
import pytest
from lightning.pytorch import callbacks as cb
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy

from research.errors import UserError
from research.training.supported import check_monitors, check_named, check_trainer


class Narrow(Precision):
    """One of a user's own, that says it is what it is not."""

    def convert_module(self, module):
        return module.bfloat16()


def trainer(**options) -> L.Trainer:
    return L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"precision": "32-true"},
        {"plugins": DoublePrecision()},
        {"plugins": MixedPrecision("bf16-mixed", "cpu")},
        {"strategy": "ddp", "devices": 2},
        {"strategy": DDPStrategy(find_unused_parameters=True), "devices": 2},
    ],
    ids=lambda one: str(one).partition(" object at")[0],
)
def test_what_the_optimisation_handles_is_taken(options):
    made = trainer(**options)
    check_trainer(made)  # which refuses what follows
    assert made.precision in {"32-true", "bf16-mixed", "64-true"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"plugins": MixedPrecision("16-mixed", "cpu")}, r"MixedPrecision \(16-mixed\)"),
        ({"plugins": HalfPrecision("bf16-true")}, r"HalfPrecision \(bf16-true\)"),
        ({"plugins": HalfPrecision("16-true")}, r"HalfPrecision \(16-true\)"),
        ({"plugins": MixedPrecision("bf16-mixed", "cuda")}, r"MixedPrecision \(bf16-mixed\) on cpu"),  # which computes in fp32
        ({"plugins": Narrow()}, r"Narrow \(32-true\)"),
        ({"strategy": DDPStrategy(precision_plugin=HalfPrecision("bf16-true")), "devices": 2}, r"HalfPrecision"),
    ],
    ids=lambda one: str(one)[:40],
)
@pytest.mark.filterwarnings("ignore:User provided device_type")
def test_a_precision_that_a_plugin_brings_in_is_refused(options, says):
    with pytest.raises(UserError, match=rf"{says}.*expected 32-true, bf16-mixed, 64-true.*set trainer.precision: bf16-mixed"):
        check_trainer(trainer(**options))
    check_trainer(trainer(precision="bf16-mixed"))  # the cure


@pytest.mark.parametrize(
    ("option", "value"),
    [("ddp_comm_hook", print), ("model_averaging_period", 2), ("start_method", "spawn"), ("mixed_precision", object())],
)
def test_gradients_that_a_strategy_changes_are_refused(option, value):
    with pytest.raises(UserError, match=f"{option} of DDPStrategy; expected none.*Leave it out"):
        check_trainer(trainer(strategy=DDPStrategy(**{option: value}), devices=2))


def test_other_strategies_are_refused_by_what_they_are():
    class Copying(DDPStrategy):
        pass

    with pytest.raises(UserError, match="makes a Copying; expected one device, or ddp"):
        check_trainer(trainer(strategy=Copying(), devices=2))


METRICS = {"val/loss": "lower", "val/mrr@10": "higher", "val/mine": None}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"monitor": "val/mrr@10"}, "'min' ends a training that gets better; expected 'max'. Set its mode: max"),
        ({"monitor": "val/loss", "mode": "max"}, "'max' ends a training that gets better; expected 'min'"),
        (
            {"monitor": "val/ndcg@10", "mode": "max"},
            "'val/ndcg@10', which is not computed; expected one of val/loss, val/mrr@10, val/mine",
        ),
        ({"monitor": "loss"}, "'loss', which is not computed"),
    ],
)
def test_early_stopping_that_cannot_be_meant_is_refused(options, says):
    with pytest.raises(UserError, match=re.escape(says)):
        check_monitors(trainer(callbacks=[cb.EarlyStopping(**options)]), METRICS)


@pytest.mark.parametrize(
    "options",
    [
        {"monitor": "val/loss"},
        {"monitor": "val/mrr@10", "mode": "max"},
        {"monitor": "val/mine", "mode": "max"},
        {"monitor": "train/loss"},
        {"monitor": "val/later", "strict": False},
    ],
)
def test_early_stopping_on_what_is_measured_is_taken(options):
    check_monitors(trainer(callbacks=[cb.EarlyStopping(**options)]), METRICS)
    with pytest.raises(UserError, match="and there is none"):
        check_monitors(trainer(callbacks=[cb.EarlyStopping("val/loss")]), {})


def test_callbacks_that_do_what_an_option_does_are_refused():
    for one in (
        cb.GradientAccumulationScheduler,
        cb.BatchSizeFinder,
        cb.LearningRateFinder,
        cb.ModelCheckpoint,
        cb.RichModelSummary,
        cb.TQDMProgressBar,
        cb.ModelPruning,
    ):
        with pytest.raises(UserError, match=f"{one.__name__} does not go with this optimisation; expected .*Leave it out"):
            check_named([one])
    check_named([cb.EarlyStopping, cb.LearningRateMonitor, cb.EMAWeightAveraging, cb.StochasticWeightAveraging, cb.Timer])


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        ("{class_path: lightning.pytorch.plugins.FSDPPrecision, init_args: {precision: bf16-true}}", "FSDPPrecision; expected"),
        ("{class_path: lightning.pytorch.plugins.BitsandbytesPrecision, init_args: {mode: nf4}}", "BitsandbytesPrecision"),
        ("[{class_path: lightning.pytorch.plugins.io.AsyncCheckpointIO}]", "AsyncCheckpointIO writes checkpoints"),
    ],
    ids=lambda one: one[13:60],
)
def test_a_refused_plugin_is_exit_2_and_writes_nothing(plugin, says, research, collection, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(f"""
out: run
model:
  class_path: research.training.dual_encoder.DualEncoderModule
  init_args: {{model: {tiny_bert}}}
data:
  class_path: research.data.pairs.PairData
  init_args: {{train: "beir:{collection}", train_split: test, val_split: dev, batch_size: 2}}
trainer: {{accelerator: cpu, max_epochs: 1, plugins: {plugin}}}
""")
    result = research("fit", "-c", "c.yaml")
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()
