"""Rows of all ranks, with their gradient."""

import lightning as L
import torch
from torch import Tensor


def gather_rows(module: L.LightningModule, rows: Tensor) -> tuple[Tensor, int]:
    """The rows of every rank, one rank after the other, whatever their numbers.

    The gradient of a gathered row flows back to the rank that made it, summed over the losses of all ranks. DDP then
    averages the ranks, so that with each rank's loss over its own queries the result is the single process's gradient:
    no factor of the world size is missing or too many.

    Args:
        module: knows the ranks.
        rows: (N, …) of this rank.

    Returns:
        (ΣN, …) and where this rank's rows begin.
    """
    if module.trainer.world_size == 1:
        return rows, 0
    counts = module.all_gather(torch.tensor(len(rows), device=rows.device)).tolist()
    longest = max(counts)
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    gathered = module.all_gather(padded, sync_grads=rows.requires_grad)  # (W, longest, …)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)]), sum(
        counts[: module.trainer.global_rank]
    )
