"""Stopped anywhere and resumed equals straight, bit for bit: weights, loss curve, metrics, best model."""

import random

import pytest
import torch

from research.errors import UserError
from research.runs.hashes import hash_file
from research.runs.reading import read_json
from research.training.resume import last_checkpoint, seed_step

KINDS = ["dual_encoder", "cross_encoder", "sft", "dpo"]


def same(a, b) -> None:
    """Two trainings ended with the same weights, curves and best model."""
    (module_a, training_a), (module_b, training_b) = a, b
    assert training_b.curve() == training_a.curve()
    for (name, value), other in zip(module_a.state_dict().items(), module_b.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    best = [hash_file(next((t.out / "model").glob("*model.safetensors"))) for t in (training_a, training_b)]
    assert best[0] == best[1]


def stopped_and_resumed(training, kind: str, stops: list[int], **options):
    interrupted = training(kind, f"stopped-{'-'.join(map(str, stops))}", **options)
    for stop in stops:
        interrupted.run(stop=stop)
    return interrupted.run(), interrupted


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_twice_gives_the_same_curve_and_metrics(training, kind):
    first, second = training(kind, "first"), training(kind, "second")
    same((first.run(), first), (second.run(), second))


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_another_curve(training, kind):
    first, second = training(kind, "first"), training(kind, "second", module={"seed": 1})
    first.run(), second.run()
    assert first.curve() != second.curve()  # dropout alone differs


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_at_random_steps_equals_straight(training, kind):
    """15 steps in 3 epochs of 5, validation every 3: three stops drawn anew in every run, whatever they fall on."""
    straight = training(kind, "straight")
    expected = straight.run(), straight
    steps = max(line["step"] for line in straight.curve())
    for stop in random.sample(range(1, steps), 3):
        same(expected, stopped_and_resumed(training, kind, [stop]))


@pytest.mark.parametrize("stops", [[5], [3], [1, 6, 14]], ids=["epoch's end", "validation", "three times"])
def test_resumed_at_awkward_steps_equals_straight(training, stops):
    straight = training("dual_encoder", "straight")
    same((straight.run(), straight), stopped_and_resumed(training, "dual_encoder", stops))


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_with_workers_equals_straight_without(training, kind):
    straight = training(kind, "straight")
    same((straight.run(), straight), stopped_and_resumed(training, kind, [4], data={"workers": 2}))


def test_resumed_with_torch_s_own_dropout_equals_straight(training):
    """As on a GPU: the masks come from torch's generator."""
    straight = training("dual_encoder", "straight", module={"fast": False})
    same((straight.run(), straight), stopped_and_resumed(training, "dual_encoder", [4], module={"fast": False}))


@pytest.mark.parametrize(
    ("kind", "adapter", "reference"),
    [
        ("sft", "prefix", {}),
        ("sft", "full", {}),
        ("dpo", "full", {"reference": "copy"}),
        ("dpo", "lora", {"reference": "adapter_off"}),
    ],
)
def test_resumed_language_model_equals_straight(training, kind, adapter, reference):
    """Prefix projection, which PEFT's own export drops; full fine-tuning, whose reference is the model before the first "
    "step."""
    straight = training(kind, "straight", adapter=adapter, module=reference)
    expected = straight.run(), straight
    same(expected, stopped_and_resumed(training, kind, [4, 7], adapter=adapter, module=reference))


def test_checkpoint_of_an_adapter_holds_no_frozen_weight_and_another_base_is_refused(training, tmp_path):
    from tests.lm import save_tiny

    run = training("sft", "run")
    run.run(stop=3)
    path = last_checkpoint(run.out)
    names = torch.load(path, weights_only=True)["state_dict"]
    assert names
    assert all("lora_" in name for name in names)
    other = training("sft", "run", module={"model": str(save_tiny(tmp_path / "other", seed=1))})
    with pytest.raises(UserError, match="was trained on a base of hash"):
        other.run()


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_in_bf16_equals_straight(training, kind):
    straight = training(kind, "straight", trainer={"precision": "bf16-mixed"})
    same((straight.run(), straight), stopped_and_resumed(training, kind, [4], trainer={"precision": "bf16-mixed"}))


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_resumed_with_accumulation_equals_straight(training, stop):
    """Windows of two micro-batches, the last of an epoch of one: 3 steps an epoch."""
    straight = training("cross_encoder", "straight", accumulate=2)
    expected = straight.run(), straight
    assert max(line["step"] for line in straight.curve()) == 9
    same(expected, stopped_and_resumed(training, "cross_encoder", [stop], accumulate=2))


def test_early_stopping_stops_and_a_resumed_run_stops_at_the_same_step(training):
    """The metric cannot grow (rate 1e-12): with patience 1 the second validation after the first ends the training."""
    from lightning.pytorch.callbacks import EarlyStopping

    from research.training.optimisation import Optimisation

    still = {"optimisation": Optimisation(lr=1e-12), "dropout": 0.0}

    def stop_early():
        return (EarlyStopping("val/mrr@10", mode="max", patience=1),)

    straight, stopped = (training("dual_encoder", "straight", module=still), training("dual_encoder", "stopped", module=still))
    straight.run(callbacks=stop_early())
    stopped.run(stop=4, callbacks=stop_early())
    stopped.run(callbacks=stop_early())
    validated = [line["step"] for line in straight.curve() if "val/mrr@10" in line]
    assert validated == [0, 3, 8]  # every third batch of an epoch of 5
    assert max(line["step"] for line in straight.curve()) == 8
    assert stopped.curve() == straight.curve()
    # the signal comes in the very step whose validation ends the training: it is over, not to be gone on with
    late = training("dual_encoder", "late", module=still)
    late.run(stop=8, callbacks=stop_early())
    late.run(callbacks=stop_early())
    assert late.curve() == straight.curve()


class Killed(Exception):
    pass


def test_validation_inside_a_window_is_logged_once_after_a_resume(training):
    """Validation every 3 micro-batches, steps of 2: a checkpoint is older than the validation after it."""
    import lightning as L

    class KillAfterValidation(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == 3:
                raise Killed

    straight = training("dual_encoder", "straight", accumulate=2)
    expected = straight.run(), straight
    killed = training("dual_encoder", "killed", accumulate=2)
    with pytest.raises(Killed):
        killed.run(every=1, callbacks=(KillAfterValidation(),))
    same(expected, (killed.run(), killed))


def test_training_that_ends_between_validations_is_validated_where_it_ends(training):
    run = training("dual_encoder", "short", trainer={"max_steps": 2, "val_check_interval": 5})
    run.run()
    assert [line["step"] for line in run.curve() if "val/mrr@10" in line] == [0, 2]
    assert read_json(run.out / "metrics.json")["step"] == 2
    assert read_json(run.out / "metrics.json")["metrics"]


def test_after_a_damaged_checkpoint_the_good_ones_are_kept(training):
    run = training("dual_encoder", "damaged")
    run.run(stop=4)
    run.run(stop=8)
    (run.out / "step-00000008.ckpt").write_bytes(b"torn")
    run.run(stop=5)
    listed = [entry["step"] for entry in read_json(run.out / "checkpoints.json")]
    assert listed[-1] == 5
    assert 8 not in listed
    assert not (run.out / "step-00000008.ckpt").exists()


def test_a_callback_s_numbers_stand_at_optimizer_steps(training):
    """Lightning counts micro-batches where optimisation is manual."""
    from lightning.pytorch.callbacks import LearningRateMonitor

    run = training("dual_encoder", "monitored", accumulate=2, trainer={"log_every_n_steps": 1})
    run.run(callbacks=(LearningRateMonitor("step"),))
    steps = [line["step"] for line in run.curve()]
    assert steps == sorted(steps)
    assert any("lr-AdamW" in name for line in run.curve() for name in line)


def test_killed_inside_an_accumulation_window_computes_the_window_again(training):
    """No checkpoint is taken within a window: the last one, from before it, leads to the straight result."""
    import lightning as L

    class KillAfterBatch(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 4 and module.window.open:
                raise Killed

    straight = training("dual_encoder", "straight", accumulate=2)
    expected = straight.run(), straight
    killed = training("dual_encoder", "killed", accumulate=2)
    with pytest.raises(Killed):
        killed.run(every=1, callbacks=(KillAfterBatch(),))
    assert last_checkpoint(killed.out).name == "step-00000004.ckpt"
    same(expected, (killed.run(), killed))


def test_damaged_last_checkpoint_falls_back_loudly(training, capsys):
    straight = training("dual_encoder", "straight")
    expected = straight.run(), straight
    damaged = training("dual_encoder", "damaged")
    damaged.run(stop=4)
    damaged.run(stop=8)
    newest = last_checkpoint(damaged.out)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    module = damaged.run()
    assert f"warning: checkpoint {newest} is damaged" in capsys.readouterr().err
    same(expected, (module, damaged))


def test_all_checkpoints_damaged_is_refused(training):
    damaged = training("dual_encoder", "damaged")
    damaged.run(stop=4)
    for path in damaged.out.glob("*.ckpt"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of them is what was written"):
        last_checkpoint(damaged.out)


def test_checkpoint_of_another_seed_is_refused(training):
    first = training("dual_encoder", "run")
    first.run(stop=4)
    other = training("dual_encoder", "run", data={"seed": 1})
    with pytest.raises(UserError, match="seed 0, now 1"):
        other.run()


def test_no_more_than_two_checkpoints_are_kept(training):
    run = training("cross_encoder", "run")
    run.run(every=1)
    assert len(list(run.out.glob("*.ckpt"))) == 2


def test_every_generator_is_seeded_by_seed_rank_and_micro_batch():
    import numpy as np

    def draw(*key):
        seed_step(*key)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(0, 0, 5) == draw(0, 0, 5)
    values = [draw(*key) for key in [(0, 0, 5), (1, 0, 5), (0, 1, 5), (0, 0, 6)]]
    assert len({number for triple in values for number in triple}) == 12
