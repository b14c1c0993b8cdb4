"""Attention for training on a CPU: exact, with a cheaper backward than the fused kernel's, and cheaper dropout masks.

Registered with transformers under NAME; whatever it does not cover goes to transformers' own function.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from research.models.cpu.dropout import BITS, DropoutBits

NAME = "tandem_cpu"  # in transformers' registry and in config._attn_implementation
HALF = (torch.bfloat16, torch.float16)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Compute attention as transformers' registry asks for it: query (B, H, T, D), the result (B, T, H, D).

    Without dropout the forward is PyTorch's fused kernel and the backward computes the probabilities again, which is
    faster than the kernel's own. With dropout the probabilities are kept, each with its sign bit set where dropped.
    """
    query, key, value = _one_dtype(query, key, value)
    bits = getattr(module, "dropout_bits", None)
    if not _applies(module, query, key, value, attention_mask, kwargs) or (dropout and bits is None):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if key.shape[1] < query.shape[1]:  # grouped queries
        key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for x in (key, value))
    if attention_mask is None and _is_causal(module, kwargs):
        length = query.shape[2]
        attention_mask = torch.ones(length, length, dtype=torch.bool).tril_()[None, None]
    mask = None if attention_mask is None else _additive(attention_mask, query.dtype)
    if dropout:
        out = _DroppedAttention.apply(query, key, value, mask, scaling, dropout, bits)
    else:
        out = _Attention.apply(query, key, value, mask, scaling)
    return out.transpose(1, 2), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        ctx.save_for_backward(query, key, value, mask)
        ctx.scaling, ctx.key_shape = scaling, key.shape
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        query, key, value, mask = ctx.saved_tensors
        shape = query.shape
        query, key, value, grad = map(_flat, (query, key, value, grad))  # (B·H, T, D)
        probabilities = _probabilities(query, key, mask, ctx.scaling, shape)
        grad_value = torch.bmm(probabilities.transpose(1, 2), grad)
        grad_probabilities = torch.bmm(grad, value.transpose(1, 2))
        grads = _grads(query, key, probabilities, grad_probabilities, ctx.scaling, shape, ctx.key_shape)
        return *grads, grad_value.view(ctx.key_shape), None, None


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, p: float, bits: DropoutBits
    ) -> Tensor:
        shape, key_shape = query.shape, key.shape
        query, key, value = map(_flat, (query, key, value))
        signed = _probabilities(query, key, mask, scaling, shape)  # (B·H, T, T)
        as_int = BITS[signed.dtype]
        dropped, factor = bits.dropped(signed.shape, p)
        signed.view(as_int).bitwise_or_(dropped.to(as_int).bitwise_left_shift_(torch.iinfo(as_int).bits - 1))
        ctx.save_for_backward(query, key, value, signed)
        ctx.scaling, ctx.factor, ctx.shapes = scaling, factor, (shape, key_shape)
        return _scaled_bmm(signed.clamp_min(0), value, factor).view(shape)

    @staticmethod
    def backward(ctx, grad: Tensor):
        query, key, value, signed = ctx.saved_tensors
        grad, bits = _flat(grad), signed.view(BITS[signed.dtype])
        grad_value = _scaled_bmm(signed.clamp_min(0).transpose(1, 2), grad, ctx.factor)
        grad_probabilities = _scaled_bmm(grad, value.transpose(1, 2), ctx.factor)
        mask = (bits >> torch.iinfo(bits.dtype).bits - 1).bitwise_not_()
        grad_probabilities.view(bits.dtype).bitwise_and_(mask)
        probabilities = bits.bitwise_and(torch.iinfo(bits.dtype).max).view(signed.dtype)
        grads = _grads(query, key, probabilities, grad_probabilities, ctx.scaling, *ctx.shapes)
        return *grads, grad_value.view(ctx.shapes[1]), None, None, None, None


def _probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, shape: torch.Size) -> Tensor:
    """Compute softmax(q kᵀ · scaling + mask), (B·H, T, S).

    Scores of half precision are rounded by up to 1/256 of their size, which is a tenth of a probability where they stand at
    100 (keys with a bias), and more where they spread. So the row's highest score is taken off within the product's float32
    accumulator, and what is rounded is small wherever a probability is not.
    """
    scores = _masked(_scaled_bmm(query, key.transpose(1, 2), scaling), mask, shape)
    if scores.dtype in HALF:
        highest = scores.amax(-1, keepdim=True)
        scores.copy_(highest.neg_().expand_as(scores))
        torch.baddbmm(scores, query, key.transpose(1, 2), alpha=scaling, out=scores)
        _masked(scores, mask, shape)
    return torch.ops.aten._softmax.out(scores, -1, False, out=scores)


def _masked(scores: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
    if mask is not None:
        scores.view(*shape[:2], *scores.shape[1:]).add_(mask)
    return scores


def _grads(
    query: Tensor,
    key: Tensor,
    probabilities: Tensor,
    grad_probabilities: Tensor,
    scaling: float,
    shape: torch.Size,
    key_shape: torch.Size,
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of query and key, (B, H, T, D), from those of the probabilities (overwritten)."""
    grad_scores = torch.ops.aten._softmax_backward_data.out(
        grad_probabilities, probabilities, -1, probabilities.dtype, grad_input=grad_probabilities
    )
    grad_query = _scaled_bmm(grad_scores, key, scaling)
    grad_key = _scaled_bmm(grad_scores.transpose(1, 2), query, scaling)
    return grad_query.view(shape), grad_key.view(key_shape)


def _scaled_bmm(a: Tensor, b: Tensor, factor: float) -> Tensor:
    """Compute factor · a b: the factor is applied in the product's own accumulator, not in a pass of its own."""
    out = a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    return torch.baddbmm(out, a, b, beta=0, alpha=factor, out=out)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[2:])


def _one_dtype(*tensors: Tensor) -> list[Tensor]:
    """Convert the operands of a matrix product to one dtype, as autocast would."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        return [x.to(dtype) if x.dtype == torch.float32 else x for x in tensors]
    return list(tensors)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where `mask` (B, 1, T, T) is True and the lowest number elsewhere; one row for all queries where they agree."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    if mask.stride(2) == 0:
        mask = mask[:, :, :1]  # (B, 1, 1, T)
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _is_causal(module: nn.Module, options: dict) -> bool:
    causal = options.get("is_causal")
    return getattr(module, "is_causal", True) if causal is None else causal


def _applies(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: dict) -> bool:
    return (
        query.device.type == "cpu"
        and key.shape == value.shape
        and (query.shape[0], query.shape[3]) == (key.shape[0], key.shape[3])
        and (query.shape[2] == key.shape[2] or mask is not None)
        and query.shape[1] % key.shape[1] == 0
        and query.dtype == key.dtype == value.dtype
        and query.dtype in BITS
        and all(options.get(name) is None for name in ("position_bias", "cache", "softcap", "s_aux"))
    )
