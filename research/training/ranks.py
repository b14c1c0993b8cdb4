"""Collects what the ranks of a training compute in parts."""

import lightning as L
import numpy as np
import torch


def all_gather_rows(module: L.LightningModule, mine: np.ndarray, count: int) -> np.ndarray:
    """Gather the rows of all ranks in their common order.

    Args:
        module: knows the ranks.
        mine: (n, …) of this rank: every world_size-th row, from its rank on.
        count: rows of all ranks.

    Returns:
        (count, …).
    """
    world = module.trainer.world_size
    if world == 1:
        return mine
    parts: list = [None] * world
    torch.distributed.all_gather_object(parts, mine)
    out = np.empty((count, *mine.shape[1:]), mine.dtype)
    for global_rank, part in enumerate(parts):
        out[global_rank::world] = part
    return out
