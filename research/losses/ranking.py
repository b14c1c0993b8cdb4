"""Losses of a cross-encoder over a query's candidate group. Pure functions: scores and labels in, losses out.

A loss is a function of `pointwise_bce`'s signature with a row in LOSSES; a configuration names it (`model.loss`).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def pointwise_bce(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Binary cross-entropy of every candidate by itself, averaged over the query's candidates.

    L_i = −(1/|C_i|) Σ_{j ∈ C_i} y_ij log σ(s_ij) + (1 − y_ij) log σ(−s_ij)

    Args:
        scores: (B, N) logits s, before any sigmoid.
        labels: (B, N) y in [0, 1].
        present: (B, N) bool, False for padding of groups smaller than N; each row has a True.

    Returns:
        (B,) losses, float32 or float64.

    Source: Nogueira & Cho 2019, Eq. 1.
    """
    losses = F.binary_cross_entropy_with_logits(_wide(scores), labels.to(_wide(scores).dtype), reduction="none")
    return (losses * present).sum(1) / present.sum(1)


def listwise_softmax(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy between the labels, scaled to sum to 1, and the softmax of the scores over the query's candidates.

    L_i = −Σ_j (y_ij / Σ_k y_ik) log softmax(s_i)_j;  with one positive: −log softmax(s_i)_pos

    Args:
        scores: (B, N) logits.
        labels: (B, N) y ≥ 0, with one > 0 a row.
        present: (B, N) bool, False for padding, which gets no probability and no label.

    Returns:
        (B,) losses, float32 or float64.

    Source: ListNet's top-one loss, Cao et al. 2007, §4; Gao et al. 2021 (localized contrastive estimation), Eq. 2.
    """
    logits = _wide(scores).masked_fill(~present, -torch.inf)
    labels = labels.to(logits.dtype) * present
    target = labels / labels.sum(1, keepdim=True)
    log_probabilities = F.log_softmax(logits, 1).masked_fill(~present, 0.0)  # 0 · −inf would be nan
    return -(target * log_probabilities).sum(1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"softmax": listwise_softmax, "bce": pointwise_bce}
"""Name → loss."""


def _wide(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()
