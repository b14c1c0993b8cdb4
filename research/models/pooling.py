"""Pools token vectors into one vector for each text."""

import torch
from torch import Tensor

POOLINGS = ("mean", "cls", "last")


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool the hidden states of real tokens; padding, on either side, is ignored.

    Args:
        hidden: (B, T, D) last hidden states.
        mask: (B, T) 1 for the tokens to pool, 0 for padding (and, where excluded, the prompt); each row has a 1.
        pooling: "mean" over real tokens, "cls" the first, "last" the last.

    Returns:
        (B, D), float32 (float64 stays): sums over hundreds of bfloat16 values lose digits.

    Source: Reimers & Gurevych 2019, §3 (mean, cls); Ma et al. 2023, RepLLaMA (last).
    """
    hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
        return (hidden * weights).sum(1) / weights.sum(1)
    if pooling == "cls":
        position = mask.argmax(1)  # argmax takes the first of equal values: the first 1
    elif pooling == "last":
        position = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    else:
        raise ValueError(f"pooling {pooling!r} is not one of {POOLINGS}")
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), position]
