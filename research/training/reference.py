"""Log-probabilities of preference pairs under the reference, on disk: one computation for every run and sweep cell.

The key is what they are a function of: the reference's weights, the token rows, and the precision, device, attention and layout
that they are computed by; and rows of every part are computed again before a cache is believed. They lie in the cache in parts,
each written whole, so that an interrupted computation goes on at its last part.
"""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from peft import PeftConfig

from research.models.adapter_rules import plain
from research.models.cpu import attention
from research.progress import bar, say
from research.runs.files import atomic_write
from research.runs.hashes import hash_json
from research.runs.layout import cache_folder
from research.runs.locks import exclusive
from research.training.ranks import all_gather_rows

PART = 256  # pairs of one file
BATCH = 8  # pairs at a time, as many as in validation
NOISE = {True: 1e-4, False: 0.04}
"""Nats a token that one sequence may move by rounding, in float32 and not. Tiny models in bf16 are .016 off float32 at most, so
that two kernels' bf16 may lie .032 apart; float32 with medium products is 1.3e-6 off."""
FEW = 8  # tokens: of fewer the noise does not cancel, and is that of so many


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
    """Return the reference's log-probabilities (P, 2), float64, chosen first."""
    made_of = {
        "weights": module.language.reference_hash,
        "rows": pairs.fingerprint,
        # by the adapter at its start, where it has moved a part of the base into itself
        "adapter": None if _is_off(module) else _plain(module.language.adapter),
        "precision": f"{module.trainer.precision} {module.model.table.dtype} {torch.get_float32_matmul_precision()}",
        "device": module.device.type,
        # without dropout ours is PyTorch's own kernel: a validation that trains nothing finds what the training has cached
        "attention": str(module.model.base.config._attn_implementation).replace(attention.NAME, "sdpa"),
        "layout": "one row" if _collate(module).shared else "two rows",
        "version": 4,
    }
    mine = pairs.rows[module.trainer.global_rank :: module.trainer.world_size]
    # as validation groups them: in bf16 a sequence's sum moves by .2 nats with its neighbours' lengths
    order = by_length(mine)
    out = np.zeros((len(mine), 2))
    parts = {f"{at // PART:05d}.npy": [mine[i] for i in order[at : at + PART]] for at in range(0, len(order), PART)}
    folder = _folder(module, made_of)
    if not folder.exists() and _exact(module) and _fits(module, parts, older := _folder(module, _older(module, made_of))):
        folder = older if older.exists() else folder
    with exclusive(folder):
        trusted = _fits(module, parts, folder)
        values = [_part(module, rows, folder / file, name, len(mine), trusted) for file, rows in parts.items()]
        if order:
            out[order] = np.concatenate(values)
    return all_gather_rows(module, out, len(pairs.rows))


def _folder(module: L.LightningModule, made_of: dict) -> Path:
    folder = cache_folder() / "reference" / hash_json(made_of)[:32]
    world = module.trainer.world_size
    return folder if world == 1 else folder.with_name(f"{folder.name}.rank-{module.trainer.global_rank}-of-{world}")


def _older(module: L.LightningModule, made_of: dict) -> dict:
    """Return the key of version 3, without device, attention and layout: in float32 they do not matter."""
    precision = f"{module.trainer.precision} {module.model.table.dtype}"
    moved = None if _is_off(module) or module.language.adapter is None else str(module.language.adapter.init_lora_weights)
    return {name: made_of[name] for name in ("weights", "rows")} | {"precision": precision, "adapter": moved, "version": 3}


def _exact(module: L.LightningModule) -> bool:
    return "32" in str(module.trainer.precision) and module.model.table.dtype == torch.float32


def _is_off(module: L.LightningModule) -> bool:
    """Return whether the reference is the model without its adapter.

    Not where an adapter is trained on, which is part of its own reference; nor where the model without the adapter is another
    one than the base (PiSSA): there the base is both of them, as long as nothing is trained.
    """
    return not module.language.continued and module.language.start.off_is_base


def _plain(config: PeftConfig | None) -> dict | None:
    """Return an adapter's configuration as values for JSON."""
    if config is None:
        return None
    return {name: sorted(value) if isinstance(value, set) else str(value) for name, value in plain(config).items()}


def _collate(module: L.LightningModule) -> Callable[[list], NamedTuple]:
    collate = module.trainer.datamodule.collate(module.model)
    if module.model.virtual_tokens and _is_off(module):
        collate.shared = True  # the reference has no virtual tokens
    return collate


def by_length(rows: list[dict]) -> list[int]:
    """List the positions of the pairs, the longest first."""
    return sorted(range(len(rows)), key=lambda i: -sum(map(len, (rows[i]["prompt_ids"], rows[i]["chosen_ids"]))))


def _load_part(path: Path, rows: list[dict]) -> np.ndarray | None:
    """Load a part of the cache; None if it is absent, damaged, or made from other rows."""
    try:
        cached = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return cached if cached.shape == (len(rows), 2) and np.isfinite(cached).all() else None


def _fits(module: L.LightningModule, parts: dict[str, list[dict]], folder: Path) -> bool:
    """Return whether this model gives what the cache holds, by one pair or more of each part that is there.

    A cache that was filled by something that the key does not record is not believed.
    """
    cached, rows = [], []
    for file, part_rows in parts.items():
        values = _load_part(folder / file, part_rows)
        step = max(1, len(part_rows) * len(parts) // BATCH)
        for i in range(0, len(part_rows) if values is not None else 0, min(step, len(part_rows))):
            cached.append(values[i])
            rows.append(part_rows[i])
    if not rows:
        return True
    tokens = np.array([[len(row["chosen_ids"]), len(row["rejected_ids"])] for row in rows])
    limit = NOISE[_exact(module) and torch.get_float32_matmul_precision() == "highest"] * np.maximum(tokens, FEW)
    if (np.abs(np.array(cached) - _compute(module, rows)) <= limit).all():
        return True
    say(f"warning: the log-probabilities in {folder} are not this model's; they are computed again")
    return False


def _part(module: L.LightningModule, rows: list[dict], path: Path, name: str, total: int, trusted: bool) -> np.ndarray:
    if trusted and (cached := _load_part(path, rows)) is not None:
        return cached
    if path.name == "00000.npy" and module.trainer.is_global_zero:
        say(f"log-probabilities of {total:,} {name} pairs under the reference, once for these weights and data: {path.parent}")
    values = _compute(module, rows)
    stream = io.BytesIO()
    np.save(stream, values)
    with atomic_write(path, "wb") as file:
        file.write(stream.getvalue())
    return values


@torch.no_grad()
def _compute(module: L.LightningModule, rows: list[dict]) -> np.ndarray:
    collate = _collate(module)
    out = np.zeros((len(rows), 2))
    was_training = module.model.training
    module.model.eval()
    progress = bar(len(rows), "reference", "pair") if module.trainer.is_global_zero else None  # ranks share one terminal
    with (
        module.model.adapter_off() if _is_off(module) else contextlib.nullcontext(),
        module.trainer.precision_plugin.forward_context(),
    ):
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            for chunk in collate(batch).chunks:
                chunk = {key: value.to(module.device) for key, value in chunk.items()}
                logps, _ = module.logps(chunk)
                out[[start + i for i in chunk["number"].tolist()]] = logps.double().cpu().numpy()
            if progress is not None:
                progress.update(len(batch))
    if progress is not None:
        progress.close()
    module.model.train(was_training)
    return out
