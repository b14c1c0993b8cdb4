"""Several processes compute what one computes: gradients in float64, and resuming to the bit."""

import pytest
import torch

from tests.integration.ranks import run_ranks
from tests.integration.small import KeepGradients

EXACT = {"clip": None, "trainer": {"precision": "64-true", "max_steps": 1, "limit_val_batches": 0}}
CASES = {
    "hard negatives": ("dual_encoder", {"dropout": 0.0}),
    "symmetric": ("dual_encoder", {"dropout": 0.0, "symmetric": True}),
    "separate towers": ("dual_encoder", {"dropout": 0.0, "towers": "separate"}),
    "softmax": ("cross_encoder", {"dropout": 0.0}),
    "bce": ("cross_encoder", {"dropout": 0.0, "loss": "bce"}),
    "sft, whole": ("sft", {}),
    "sft, LoRA": ("sft", {"label_smoothing": 0.1}),
    "dpo, LoRA": ("dpo", {"reference": "adapter_off", "sft_weight": 0.5}),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_ranks_give_the_single_process_gradient(training, case, world):
    """A global batch of 12; the queries' negatives and the completions' tokens differ in number, so the ranks' rows do too."""
    kind, module = CASES[case]
    data = {"dual_encoder": {"hard_negatives": 5}, "sft": {"chunk_overhead": 16}, "dpo": {"chunk_overhead": 16}}.get(kind, {})
    more = {"adapter": "full" if "whole" in case else "still", **EXACT}
    alone = training(kind, "alone", module=module, data={"batch_size": 12, **data}, **more)
    alone.run(callbacks=(KeepGradients(alone.out / "gradients.pt"),))
    expected = torch.load(alone.out / "gradients.pt")
    ranks = training(kind, "ranks", module=module, data=alone.options["data"] | {"batch_size": 12 // world}, **more)
    run_ranks(ranks, world)
    found = torch.load(ranks.out / "gradients.pt")
    assert found.keys() == expected.keys()
    assert ("log_temperature" in found) == (kind == "dual_encoder")
    for name, gradient in expected.items():
        assert gradient.dtype == torch.float64
        # direction and size: the residual, not only the ratio
        assert (found[name] - gradient).norm() <= 1e-12 * max(1.0, float(gradient.norm())), name


def test_last_smaller_batch_weighs_its_examples_on_every_rank(training):
    """20 examples in global batches of 8 leave 4; accumulating the epoch's three batches is one step over all 20."""
    options = {"module": {"dropout": 0.0}, "accumulate": 3, **EXACT}
    alone = training("cross_encoder", "alone", data={"batch_size": 8, "drop_last": False}, **options)
    alone.run(callbacks=(KeepGradients(alone.out / "gradients.pt"),))
    whole = training("cross_encoder", "whole", data={"batch_size": 20}, module={"dropout": 0.0}, **EXACT)
    whole.run(callbacks=(KeepGradients(whole.out / "gradients.pt"),))
    ranks = training("cross_encoder", "ranks", data={"batch_size": 4, "drop_last": False}, **options)
    run_ranks(ranks, 2)
    expected = torch.load(whole.out / "gradients.pt")
    for other in (alone, ranks):
        for name, gradient in torch.load(other.out / "gradients.pt").items():
            assert (gradient - expected[name]).norm() <= 1e-12 * max(1.0, float(gradient.norm())), name


@pytest.mark.parametrize("kind", ["dual_encoder", "cross_encoder"])
def test_two_ranks_resumed_equal_straight(training, kind):
    straight = training(kind, "straight", data={"batch_size": 2})
    run_ranks(straight, 2)
    stopped = training(kind, "stopped", data={"batch_size": 2})
    run_ranks(stopped, 2, stop=4)
    run_ranks(stopped, 2)
    assert stopped.curve() == straight.curve()
    weights = [torch.load(t.out / "weights.pt") for t in (straight, stopped)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_two_ranks_validate_as_one(training):
    """Ranks share the encoding of the validation collection; its metrics are the single process's."""
    options = {"data": {"batch_size": 4}, "trainer": {"max_steps": 1, "precision": "64-true", "val_check_interval": 1}}
    alone, ranks = training("dual_encoder", "alone", **options), training("dual_encoder", "ranks", **options)
    alone.run()
    run_ranks(ranks, 2)
    assert ranks.curve()[0] == alone.curve()[0]  # step 0: the same weights
    assert "val/mrr@10" in ranks.curve()[0]
