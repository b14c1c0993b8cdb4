"""Finds texts in earlier stores of the same model and settings, so that a changed file costs its own passages and no others.

A row depends on its batch by rounding (padding, kernels): by less than 1e-5 in fp32, and more in bf16. So only `search` reuses
rows, and keeps them apart; what `retrieve`, `mine` and `encode` compute is the same to the bit every time.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.errors import UserError
from research.retrieval.earlier import DIGEST, Known, digest_texts, facts_of, has_key
from research.retrieval.store import open_store
from research.runs.hashes import hash_json

STORES = 8  # that are read, the newest ones: the last states of a folder of notes
LEAST = 0.1  # of the texts: fewer save too little for a store that only `search` can use


class Place(NamedTuple):
    """Where embeddings lie or are to be made, and those that need not be computed again."""

    folder: Path
    known: Sequence[Known] = ()


def cached_place(cache: Path, key: str, reuse: bool, made_with: str, texts: Sequence[str], dim: int) -> Place:
    """Choose the folder of a cache: with new embeddings of all texts, or, with `reuse`, one that has rows of earlier stores.

    Args:
        cache: of embeddings.
        key: of the store.
        reuse: take rows of earlier stores where there are enough.
        made_with: as `store.made_with` gives it.
        texts: one a row.
        dim: of an embedding.
    """
    new, mixed = (cache / "embeddings" / of[:32] for of in (key, hash_json([key, "reused"])))
    if not reuse or has_key(new, key):
        return Place(new)
    if has_key(mixed, key):
        return Place(mixed)
    known = known_texts(_similar(cache, made_with), made_with, texts, dim)
    enough = sum(len(part.positions) for part in known) >= LEAST * len(texts)
    return Place(mixed, known) if known and enough else Place(new)


def own_place(folder: Path, key: str, reuse: bool, made_with: str, texts: Sequence[str], dim: int) -> Place:
    """Return the user's own folder, with the rows of the store in it that are still wanted; see `cached_place`."""
    return Place(folder, known_texts([folder], made_with, texts, dim) if reuse and not has_key(folder, key) else ())


def known_texts(folders: Iterable[Path], made_with: str, texts: Sequence[str], dim: int) -> list[Known]:
    """Find the embeddings of equal texts in other stores.

    Args:
        folders: stores, those to be preferred first; what is damaged or made with another model is passed over.
        made_with: as `store.made_with` gives it.
        texts: whose embeddings are wanted.
        dim: of an embedding.
    """
    wanted: dict[bytes, list[int]] = {}
    for position, row in enumerate(digest_texts(texts)):
        wanted.setdefault(row[:DIGEST].tobytes(), []).append(position)
    found = []
    for folder in folders:
        try:
            if not wanted or facts_of(folder).get("made_with") != made_with:
                continue
            store, digests = open_store(folder), np.load(folder / "texts.npy")
        except (UserError, OSError, ValueError, EOFError):
            continue
        if digests.shape != (len(store.ids), DIGEST + 1) or store.embeddings.shape[1] != dim:
            continue
        pairs = [(at, row) for row, text in enumerate(digests) for at in wanted.pop(text[:DIGEST].tobytes(), ())]
        if pairs:
            positions, rows = np.array(pairs).T
            found.append(Known(positions, rows, store.embeddings, digests[rows, -1]))
    return found


def _similar(cache: Path, made_with: str) -> list[Path]:
    """List the newest finished stores of a cache that were made with this model and these settings."""
    found = []
    for path in cache.glob("embeddings/*/store.json"):
        try:
            if facts_of(path.parent).get("made_with") == made_with:
                found.append((path.stat().st_mtime_ns, path.parent))
        except (UserError, OSError):  # damaged, or removed meanwhile
            continue
    return [folder for _, folder in sorted(found, reverse=True)[:STORES]]
