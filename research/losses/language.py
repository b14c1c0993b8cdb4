"""Losses of a causal language model's labelled tokens, from hidden states: the output layer runs on labelled positions only.

A loss is a function of `token_losses`'s signature with a row in LOSSES; a configuration names it (`model.loss`).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK_LOGITS = 2**24  # logits held at a time: 64 MiB in float32


class TokenLosses(NamedTuple):
    """Losses of N labelled tokens.

    Attributes:
        losses: (N,) float32 (float64 stays), differentiable; label-smoothed where asked.
        nll: (N,) negative log-likelihood of the label, without smoothing and without gradient.
        correct: (N,) bool, the label is the most likely token.
    """

    losses: Tensor
    nll: Tensor
    correct: Tensor


def token_losses(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    smoothing: float = 0.0,
    scale: float = 1.0,
    softcap: float | None = None,
) -> TokenLosses:
    """Compute the cross-entropy of each labelled token, with label smoothing.

    −(1 − ε) log p(label) − ε/V Σ_v log p(v) with p = softmax(z), z = scale · (W h + b), then softcap · tanh(z / softcap).

    The (N, V) logits are never held at once, forward or backward. Where the output layer is frozen, the forward already
    computes ∂loss/∂h, (N, H): the loss of a token depends on its own h alone, so the backward is a multiplication.

    Args:
        hidden: (N, H) last hidden states, of the positions that predict the labels.
        weight, bias: (V, H) and (V,) of the output layer.
        labels: (N,) token ids.
        smoothing: ε in [0, 1), shared evenly by the vocabulary.
        scale, softcap: as some models (Granite, Cohere; Gemma 2) treat their logits; softcap > 0.

    Returns:
        TokenLosses. In bf16 the logits are rounded to bf16 as anywhere, and the softmax is float32: a bf16 log-softmax
        loses 1e-2.

    Source: label smoothing, Szegedy et al. 2016, §7.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return TokenLosses(*_TokenLosses.apply(hidden, weight.to(hidden.dtype), bias, labels, smoothing, scale, softcap))


LOSSES: dict[str, Callable[..., TokenLosses]] = {"cross_entropy": token_losses}
"""Name → loss."""


@torch.no_grad()
def kl_divergence(hidden: Tensor, head: dict, reference_hidden: Tensor, reference_head: dict) -> Tensor:
    """Compute KL(p ‖ p_ref) over the vocabulary at each position, (N,), in nats, without gradient.

    Args:
        hidden, reference_hidden: (N, H) last hidden states of both models at the same positions.
        head, reference_head: weight, bias, scale and softcap of each, as `token_losses` takes them.
    """
    out = []
    for part in _parts(len(hidden), len(head["weight"])):
        log_p, log_ref = (
            _logits(h[part].to(top["weight"].dtype), top["weight"], top["bias"], top["scale"], top["softcap"])[1].log_softmax(
                -1
            )
            for h, top in ((hidden, head), (reference_hidden, reference_head))
        )
        out.append((log_p.exp() * (log_p - log_ref)).sum(-1))
    return torch.cat(out)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, smoothing, scale, softcap):
        head_frozen = not (weight.requires_grad or (bias is not None and bias.requires_grad))
        computes_gradient = hidden.requires_grad and head_frozen
        per_token = torch.empty_like(hidden) if computes_gradient else None
        losses, nll, correct = [], [], []
        for part in _parts(len(hidden), len(weight)):
            z, capped = _logits(hidden[part], weight, bias, scale, softcap)
            log_p = capped.log_softmax(-1)
            label_nll = -log_p.gather(1, labels[part, None]).squeeze(1)
            nll.append(label_nll)
            losses.append(label_nll if not smoothing else (1 - smoothing) * label_nll - smoothing * log_p.mean(-1))
            correct.append(capped.argmax(-1) == labels[part])
            if computes_gradient:
                grad = _grad_logits(log_p, labels[part], smoothing, scale, softcap, z)
                per_token[part] = grad.to(weight.dtype) @ weight
        ctx.settings = smoothing, scale, softcap
        ctx.save_for_backward(*((per_token,) if head_frozen else (hidden, weight, bias, labels)))
        ctx.head_frozen = head_frozen
        result = torch.cat(losses), torch.cat(nll), torch.cat(correct)
        ctx.mark_non_differentiable(result[1], result[2])
        return result

    @staticmethod
    def backward(ctx, grad_losses, *_):
        if ctx.head_frozen:
            (per_token,) = ctx.saved_tensors
            grad = None if per_token is None else (per_token * grad_losses[:, None]).to(per_token.dtype)
            return grad, None, None, None, None, None, None
        hidden, weight, bias, labels = ctx.saved_tensors
        smoothing, scale, softcap = ctx.settings
        grad_hidden = torch.empty_like(hidden)
        # summed in float32: parts of a batch must not round a weight's gradient once each
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=wide)
        for part in _parts(len(hidden), len(weight)):
            z, capped = _logits(hidden[part], weight, bias, scale, softcap)
            grad = _grad_logits(capped.log_softmax(-1), labels[part], smoothing, scale, softcap, z)
            grad = (grad * grad_losses[part, None]).to(weight.dtype)
            grad_hidden[part] = grad @ weight
            grad_weight += grad.T @ hidden[part]
            if bias is not None:
                grad_bias += grad.sum(0)
        grad_bias = None if bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None, None, None


def _parts(tokens: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_LOGITS // vocabulary)
    return [slice(start, start + size) for start in range(0, tokens, size)] or [slice(0, 0)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None):
    z = torch.nn.functional.linear(hidden, weight, None if bias is None else bias.to(weight.dtype))
    z = z if z.dtype == torch.float64 else z.float()
    z = z if scale == 1 else z * scale
    return z, z if softcap is None else softcap * torch.tanh(z / softcap)


def _grad_logits(log_p, labels, smoothing, scale, softcap, z) -> Tensor:
    """∂loss/∂(W h + b), (n, V); `log_p` is overwritten."""
    grad = log_p.exp_()
    if smoothing:
        grad -= smoothing / grad.shape[1]
    grad[torch.arange(len(labels), device=labels.device), labels] -= 1 - smoothing
    if softcap is not None:
        grad *= 1 - torch.tanh(z / softcap) ** 2
    return grad if scale == 1 else grad.mul_(scale)
