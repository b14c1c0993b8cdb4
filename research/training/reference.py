"""Log-probabilities of preference pairs under the reference, on disk: one computation for every run and sweep cell.

The key is what they are a function of: the reference's weights, the token rows, and the precision. They lie in the cache in
parts, each written whole, so that an interrupted computation goes on at its last part.
"""

import contextlib
import io
from pathlib import Path

import lightning as L
import numpy as np
import torch

from research.progress import bar, say
from research.runfolder import atomic_write, cache_folder, exclusive, hash_json
from research.training.validation import together

PART = 256  # pairs of one file
BATCH = 8  # pairs at a time, as many as in validation


def attach_reference(module: L.LightningModule, names: list[str]) -> None:
    """Give every row of the named pairs its reference_chosen and reference_rejected.

    Args:
        module: a DPOModule whose model is as it was loaded: without a new adapter it is the reference.
        names: of the DataModule's `tokens`.
    """
    for name in names:
        pairs = module.trainer.datamodule.tokens[name]
        if pairs.rows and "reference_chosen" in pairs.rows[0]:
            continue
        for row, (chosen, rejected) in zip(pairs.rows, reference_of(module, name, pairs), strict=True):
            row["reference_chosen"], row["reference_rejected"] = float(chosen), float(rejected)


def reference_of(module: L.LightningModule, name: str, pairs) -> np.ndarray:
    """(P, 2) float64, chosen first."""
    precision = f"{module.trainer.precision} {module.model.table.dtype}"
    made_of = {
        "weights": module.language.reference_hash,
        "rows": pairs.fingerprint,
        "precision": precision,
        "adapter": None if _off(module) else module.language.moved,  # rounded as the base with its part moved out
        "version": 3,
    }
    key = hash_json(made_of)
    folder = cache_folder() / "reference" / key[:32]
    world = module.trainer.world_size
    if world > 1:
        folder = folder.with_name(f"{folder.name}.rank-{module.trainer.global_rank}-of-{world}")
    mine = pairs.rows[module.trainer.global_rank :: world]
    order = by_length(
        mine
    )  # as validation groups them: in bf16 a sequence's sum moves by .2 nats with its neighbours' lengths
    out = np.zeros((len(mine), 2))
    with exclusive(folder):
        for start in range(0, len(order), PART):
            some = order[start : start + PART]
            out[some] = _part(module, [mine[i] for i in some], folder / f"{start // PART:05d}.npy", name, len(mine))
    return together(module, out, len(pairs.rows))


def _off(module: L.LightningModule) -> bool:
    """Whether the reference is the model without its adapter.

    Not where an adapter is trained on, which is part of its own reference; nor where the adapter's initialisation has moved a
    part of the base into it: there the base is both of them, as long as nothing is trained.
    """
    return not module.language.continued and module.language.moved is None


def by_length(rows: list[dict]) -> list[int]:
    """Positions of the pairs, the longest first."""
    return sorted(range(len(rows)), key=lambda i: -sum(map(len, (rows[i]["prompt_ids"], rows[i]["chosen_ids"]))))


def _part(module: L.LightningModule, rows: list[dict], path: Path, name: str, total: int) -> np.ndarray:
    with contextlib.suppress(OSError, ValueError):  # absent, or damaged: it is computed again
        kept = np.load(path, allow_pickle=False)
        if kept.shape == (len(rows), 2) and np.isfinite(kept).all():
            return kept
    if path.name == "00000.npy" and module.trainer.is_global_zero:
        say(
            f"log-probabilities of {total:,} {name} pairs under the reference, once for these weights and data: {path.parent}"
        )
    values = _compute(module, rows)
    stream = io.BytesIO()
    np.save(stream, values)
    with atomic_write(path, "wb") as file:
        file.write(stream.getvalue())
    return values


@torch.no_grad()
def _compute(module: L.LightningModule, rows: list[dict]) -> np.ndarray:
    from research.training.dpo import sequence_logps

    collate = module.trainer.datamodule.collate(module.model)
    if module.model.virtual_tokens and _off(module):
        collate.shared = True  # the reference has no virtual tokens
    out = np.zeros((len(rows), 2))
    was_training = module.model.training
    module.model.eval()
    progress = (
        bar(len(rows), "reference", "pair") if module.trainer.is_global_zero else None
    )  # ranks share one terminal
    with (
        module.model.adapter_off() if _off(module) else contextlib.nullcontext(),
        module.trainer.precision_plugin.forward_context(),
    ):
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            for chunk in collate(some).chunks:
                chunk = {key: value.to(module.device) for key, value in chunk.items()}
                logps, _ = sequence_logps(module.model, chunk)
                out[[start + i for i in chunk["number"].tolist()]] = logps.double().cpu().numpy()
            if progress is not None:
                progress.update(len(some))
    if progress is not None:
        progress.close()
    module.model.train(was_training)
    return out
