"""A batch of texts as chunks of similar length: less padding, the same loss."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from research.types import TokenBatch

CHUNK_TOKENS = 512  # what one more chunk costs on a CPU, in tokens of work: its weight gradients are written and added
LENGTH_MULTIPLE = 16  # models/folder.py pads to it


Row = TypeVar("Row")


def chunked(
    rows: Sequence[Row], length: Callable[[Row], int], collate: Callable[[list], dict], overhead: int | None
) -> TokenBatch:
    """Put tokenised texts into chunks of similar length.

    Args:
        rows: one a text.
        length: tokens of a row.
        collate: rows → tensors, padded to the longest of them.
        overhead: what a further chunk costs, in tokens; None makes one chunk in the given order.
    """
    if overhead is None:
        return TokenBatch((collate(list(rows)),), torch.arange(len(rows)))
    groups = plan_chunks([length(row) for row in rows], overhead)
    laid = [i for group in groups for i in group]
    return TokenBatch(tuple(collate([rows[i] for i in group]) for group in groups), torch.tensor(laid).argsort())


def plan_chunks(lengths: Sequence[int], overhead: int = CHUNK_TOKENS, multiple: int = LENGTH_MULTIPLE) -> list[list[int]]:
    """Split a batch into groups of similar length, so that padding and per-group overhead cost least together.

    Args:
        lengths: tokens of each row.
        overhead: what a further group costs, in tokens.
        multiple: rows are padded to the next multiple of this.

    Returns:
        Row numbers by group, shortest first; every row once. The same lengths always give the same groups.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    padded = [-(-lengths[i] // multiple) * multiple for i in order]
    # a group starts where the padded length changes: elsewhere its first row would fit the group before for nothing. So
    # groups end there too, or with the batch: no other place needs a cost, and there are as many as padded lengths
    starts = [i for i in range(len(order)) if i == 0 or padded[i] != padded[i - 1]]
    best, cut = {0: 0}, {}  # best[j]: cost of the j shortest rows; cut[j]: where their last group starts
    for number, j in enumerate([*starts[1:], len(order)][: len(starts)], 1):
        best[j], cut[j] = min((best[i] + overhead + (j - i) * padded[j - 1], i) for i in starts[:number])
    groups, end = [], len(order)
    while end:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]
