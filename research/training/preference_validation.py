"""Validation of preference pairs: losses, rewards and log-probabilities of each pair, and KL of a sample of them."""

import math
from collections.abc import Sequence
from typing import Protocol

import lightning as L
import numpy as np
import torch

from research.metrics.language import PREFERENCES
from research.progress import bar
from research.training.ranks import all_gather_rows
from research.training.reference import BATCH, by_length

METRICS = tuple(PREFERENCES)
KL_PAIRS = 64  # of a validation, for kl


class PairRows(Protocol):
    """Tokenised pairs, and what each is called."""

    rows: Sequence[dict]
    index: Sequence[object]


@torch.no_grad()
def evaluate_preferences(module: L.LightningModule, pairs: PairRows, measure_kl: bool) -> dict[str, dict[str, float]]:
    """Compute {metric: {pair: value}} for every pair, kl for a sample; the pairs are divided among the ranks.

    Args:
        module: a DPOModule.
        pairs: with their reference's log-probabilities, where the module keeps these.
        measure_kl: whether the reference is there to measure kl against.
    """
    mine = pairs.rows[module.trainer.global_rank :: module.trainer.world_size]
    out = np.full((len(mine), len(METRICS)), np.nan)
    every = -(-len(pairs.rows) // KL_PAIRS) if measure_kl else 0
    order = by_length(mine)
    collate = module.trainer.datamodule.collate(module.model)
    with bar(len(mine), "validate", "pair", quiet=not module.trainer.is_global_zero) as progress:
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            for chunk in collate([mine[i] for i in batch]).chunks:
                chunk = {key: value.to(module.device) for key, value in chunk.items()}
                logps, tokens = module.logps(chunk)
                losses, reported = module.losses(logps, module.reference_logps(chunk), tokens)
                columns = [losses, *(reported[key] for key in METRICS[1:-1])]
                at = [batch[i] for i in chunk["number"].tolist()]
                out[at, :-1] = torch.stack(columns, 1).double().cpu().numpy()
                if every and start // BATCH % every == 0:
                    out[at, -1] = module.kl(chunk).double().cpu().numpy()
            progress.update(len(batch))
    rows = all_gather_rows(module, out, len(pairs.rows))
    ids = [str(i) for i in pairs.index]
    values = {key: dict(zip(ids, map(float, rows[:, i]), strict=True)) for i, key in enumerate(METRICS)}
    values["kl"] = {pair: value for pair, value in values["kl"].items() if every and not math.isnan(value)}
    return values
