"""What a store takes from earlier ones: embeddings of equal texts, and the place of the one that it replaces."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.runs.reading import read_json

NEXT = ".next.tmp"  # in a store: the one that will take its place
DIGEST = 16  # bytes of a text's hash


class Known(NamedTuple):
    """Texts whose embeddings another store holds."""

    positions: np.ndarray  # (K,) in the sequence of texts
    rows: np.ndarray  # (K,) of that store
    embeddings: np.ndarray  # (N, D) float32, memory-mapped: all of that store
    cut: np.ndarray  # (K,) whether the text is longer than what the model read of it


def digest_texts(texts: Sequence[str]) -> np.ndarray:
    """Hash each text: (N, 17) uint8, 16 bytes a hash, and one that is set of texts that were cut."""
    digests = np.zeros((len(texts), DIGEST + 1), np.uint8)
    for row, text in zip(digests, texts, strict=True):
        row[:DIGEST] = np.frombuffer(
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest(), np.uint8
        )
    return digests


def facts_of(folder: Path) -> dict:
    """Read what a finished store was made from; {} of another folder."""
    meta = read_json(folder / "store.json") if (folder / "store.json").exists() else None
    return meta if isinstance(meta, dict) else {}


def has_key(folder: Path, key: str) -> bool:
    """Return whether a finished store was made from what this key hashes."""
    return facts_of(folder).get("key") == key


def drop_other(folder: Path, key: str) -> None:
    """Remove what was begun of other texts: nobody will want to finish it."""
    with (
        contextlib.suppress(OSError, ValueError, KeyError, TypeError),
        open(folder / "journal.jsonl", encoding="utf-8") as stream,
    ):
        if json.loads(stream.readline())["key"] == key:
            return
    shutil.rmtree(folder, ignore_errors=True)


def move(new: Path, folder: Path) -> None:
    """Put a finished store in the place of another; a kill on the way leaves no store that looks finished."""
    (folder / "store.json").unlink(missing_ok=True)
    for name in ("embeddings.npy", "ids.json", "texts.npy", "store.json"):
        if (new / name).exists():
            os.replace(new / name, folder / name)
    shutil.rmtree(new, ignore_errors=True)
