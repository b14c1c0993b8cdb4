"""The gradient of a training step on a GPU is that of the CPU in float64, which tests/integration holds against oracles."""

import socket

import pytest
import torch

from tests.integration.small import KeepGradients

pytestmark = pytest.mark.gpu
KINDS = {
    "dual_encoder": {"module": {"dropout": 0.0, "symmetric": True}, "data": {"hard_negatives": 3}},
    "cross_encoder": {"module": {"dropout": 0.0}},
    "sft": {"module": {"label_smoothing": 0.1}, "adapter": "still", "data": {"chunk_overhead": 16}},
    "dpo": {"module": {"reference": "adapter_off"}, "adapter": "still", "data": {"chunk_overhead": 16}},
}
ONE = {"max_steps": 1, "limit_val_batches": 0}
TOLERANCE = {"64-true": 1e-10, "32-true": 1e-5, "bf16-mixed": 1e-1}
"""Largest ‖gradient − float64's‖ over ‖float64's‖: rounding of 2⁻⁵³, 2⁻²⁴ and 2⁻⁹ through two layers, with room."""
LLAMA = {"64-true": 2e-6}
"""Its norms and rotations are float32 in every precision."""


@pytest.fixture
def training(training, tiny_reranker):
    """The cross-encoder begins with a head that tells candidates apart: else its gradient is a small difference of large
    sums, and the more of it is rounding."""

    def make(kind: str, name: str, **options):
        made = training(kind, name, **options)
        if kind == "cross_encoder":
            made.model = tiny_reranker
        return made

    return make


def gradients(training, kind: str, name: str, trainer: dict) -> dict[str, torch.Tensor]:
    run = training(kind, name, clip=None, trainer=ONE | trainer, **KINDS[kind])
    run.run(callbacks=(KeepGradients(run.out / "gradients.pt"),))
    return torch.load(run.out / "gradients.pt", map_location="cpu")


def difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Of all gradients as one vector, relative; log τ is one number among thousands, whose gradient outweighs them."""
    assert found.keys() == expected.keys()
    expected = {name: value for name, value in expected.items() if name != "log_temperature"}
    squares = [
        sum(float(value.double().square().sum()) for value in values)
        for values in ([found[name].double() - expected[name].double() for name in expected], expected.values())
    ]
    return (squares[0] / squares[1]) ** 0.5


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_s_gradient_is_the_cpu_s_in_float64(training, accelerator, record_property, kind, precision):
    exact = gradients(training, kind, "exact", {"precision": "64-true"})
    found = gradients(training, kind, "found", accelerator | {"precision": precision})
    error = difference(found, exact)
    record_property("relative_difference", error)
    tolerance = TOLERANCE[precision] if kind in ("dual_encoder", "cross_encoder") else (TOLERANCE | LLAMA)[precision]
    record_property("tolerance", tolerance)
    assert error <= tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_ddp_of_one_rank_is_the_training_alone(training, accelerator, record_property, kind, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))
    alone = gradients(training, kind, "alone", accelerator | {"precision": "64-true"})
    try:
        ranks = gradients(training, kind, "ranks", accelerator | {"precision": "64-true", "strategy": "ddp"})
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    error = difference(ranks, alone)
    record_property("relative_difference", error)
    assert error <= 1e-12
