"""Gradients of our attention in bf16 against float64: as near as PyTorch's own kernel, wherever the scores stand."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from research.models.cpu.attention import _Attention, _DroppedAttention
from research.models.cpu.dropout import DropoutBits

TOKENS, WIDTH = 48, 32
SCALE = WIDTH**-0.5


def operands(offset: float, spread: float) -> list[Tensor]:
    """Query, key, value and the gradient of the output, whose scores have that mean (all keys share a part) and that spread."""
    torch.manual_seed(0)
    query, key, value, grad = (torch.randn(2, 4, TOKENS, WIDTH, dtype=torch.float64) for _ in range(4))
    query *= spread
    query[..., 0] = key[..., 0] = (offset / SCALE) ** 0.5
    return [x.bfloat16() for x in (query, key, value, grad)]


def causal(dtype: torch.dtype) -> Tensor:
    hidden = ~torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    return torch.zeros(1, 1, TOKENS, TOKENS, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)


def gradients(attend, tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    *inputs, grad = (x.to(dtype) for x in tensors)
    inputs = [x.requires_grad_() for x in inputs]
    return list(torch.autograd.grad(attend(*inputs, causal(dtype)), inputs, grad))


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (30, 1), (100, 1), (300, 1), (0, 5), (0, 20)])
def test_bf16_gradients_are_as_near_as_the_kernel_s(offset, spread):
    tensors = operands(offset, spread)

    def kernel(q, k, v, mask):
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=SCALE)

    def ours(q, k, v, mask):
        return _Attention.apply(q, k, v, mask, SCALE)

    exact = gradients(kernel, tensors, torch.float64)
    for mine, theirs in zip(
        errors(gradients(ours, tensors, torch.bfloat16), exact),
        errors(gradients(kernel, tensors, torch.bfloat16), exact),
        strict=True,
    ):
        assert mine <= 1.5 * theirs
        assert mine < 0.025


@pytest.mark.parametrize(("offset", "spread"), [(100, 1), (0, 20)])
def test_bf16_gradients_under_dropout_are_near_too(offset, spread):
    """The same masks in both precisions: they are a function of seed and shape."""

    def ours(q, k, v, mask):
        return _DroppedAttention.apply(q, k, v, mask, SCALE, 0.25, DropoutBits(1))

    tensors = operands(offset, spread)
    exact = gradients(ours, tensors, torch.float64)
    assert max(errors(gradients(ours, tensors, torch.bfloat16), exact)) < 0.02
