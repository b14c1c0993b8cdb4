"""Stopped and resumed on a GPU: bit for bit with deterministic kernels, and how far from it without."""

import pytest
import torch

pytestmark = pytest.mark.gpu
KINDS = ["dual_encoder", "cross_encoder", "sft", "dpo"]


def weights(module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def straight_and_resumed(training, kind: str, trainer: dict) -> tuple[dict, dict]:
    """Weights after 15 steps, and after as many with a stop at the fourth."""
    straight = training(kind, "straight", trainer=trainer)
    expected = weights(straight.run())
    stopped = training(kind, "stopped", trainer=trainer)
    stopped.run(stop=4)
    return expected, weights(stopped.run())


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_with_deterministic_kernels_equals_straight_bit_for_bit(training, accelerator, kind):
    try:
        expected, found = straight_and_resumed(training, kind, accelerator | {"deterministic": True})
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_with_the_fastest_kernels_stays_close(training, accelerator, record_property, kind, precision):
    expected, found = straight_and_resumed(training, kind, accelerator | {"precision": precision})
    largest = max(float((found[name].double() - value.double()).abs().max()) for name, value in expected.items())
    record_property("bit_for_bit", all(torch.equal(found[name], value) for name, value in expected.items()))
    record_property("largest_difference", largest)
    assert largest <= 1e-3  # a step moves a weight by the rate, 1e-3: less than one step in fifteen
