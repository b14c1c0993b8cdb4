"""Caches tokenised rows on the disk by what they were made from, so that all points of a sweep read the same ones.

A damaged file is made again, and a disk that takes none is a warning: tokenising is only slower.
"""

import contextlib
import functools
import inspect
import sys
import zipfile
from importlib.metadata import version

import numpy as np
from numpy.lib.npyio import NpzFile
from transformers import PreTrainedTokenizerBase

from research.data import chat_tokens
from research.errors import UserError
from research.progress import say
from research.runs.files import atomic_write
from research.runs.fingerprint import code_digest
from research.runs.hashes import hash_json
from research.runs.layout import cache_folder
from research.types import Json

MADE_BY = ("transformers", "tokenizers", "jinja2")
"""Packages whose version can change the tokens of a text."""
FEWEST = 64  # rows worth a file

Made = tuple[list[dict[str, list[int]]], list[int], dict[str, int]]
"""Rows, all of the same fields; which example each is of; counts."""


def cached(make: functools.partial, tokenizer: PreTrainedTokenizerBase, rows: int, **settings: Json) -> Made:
    """Return the result of `make`, from the disk if it was made before.

    Args:
        make: () → Made: tokenises.
        tokenizer: a fast one; others are not cached, since what they do cannot be told from outside. Neither are chats under
            a template that writes the date of today.
        rows: how many there are.
        settings: all else that the result depends on, the texts' fingerprint among it.
    """
    made_with = _fingerprint(tokenizer)
    if rows < FEWEST or made_with is None:
        return make()
    # tokens that older code made are others
    code = [code_digest(inspect.getsource(part)) for part in (sys.modules[make.func.__module__], chat_tokens)]
    key = hash_json([made_with, code, [version(name) for name in MADE_BY], settings])[:32]
    path = cache_folder() / "tokens" / f"{key}.npz"
    if path.exists():
        # numpy's errors of a file that is cut or is none of its own
        damaged = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
        with contextlib.suppress(*damaged), open(path, "rb") as stream, np.load(stream) as arrays:
            return _unpacked(arrays)
    tokens = make()
    try:
        with atomic_write(path, "wb") as stream:
            np.savez(stream, **_packed(*tokens))
    except UserError as error:
        say(f"warning: the tokens are not kept for the next run ({error})")
    return tokens


def _fingerprint(tokenizer: PreTrainedTokenizerBase) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "strftime" in str(tokenizer.chat_template):
        return None
    return hash_json(
        [
            type(tokenizer).__name__,
            _text_hash(backend.to_str()),
            tokenizer.chat_template,
            {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
            str(tokenizer.padding_side),
            tokenizer.model_max_length,
        ]
    )


@functools.lru_cache(maxsize=4)
def _text_hash(text: str) -> str:
    return hash_json(text)


def _packed(rows: list[dict[str, list[int]]], index: list[int], counts: dict[str, int]) -> dict[str, np.ndarray]:
    arrays = {f"count.{name}": np.array(value) for name, value in counts.items()} | {"index": np.array(index, dtype=np.int64)}
    for name in rows[0]:
        values = [row[name] for row in rows]
        arrays[f"values.{name}"] = np.array([token for value in values for token in value], dtype=np.int64)
        arrays[f"lengths.{name}"] = np.array([len(value) for value in values], dtype=np.int64)
    return arrays


def _unpacked(arrays: NpzFile) -> Made:
    names = [name.removeprefix("values.") for name in arrays.files if name.startswith("values.")]
    fields = {}
    for name in names:
        ends = np.cumsum(arrays[f"lengths.{name}"])
        fields[name] = [part.tolist() for part in np.split(arrays[f"values.{name}"], ends[:-1])]
    counts = {name.removeprefix("count."): int(arrays[name]) for name in arrays.files if name.startswith("count.")}
    rows = [dict(zip(names, values, strict=True)) for values in zip(*fields.values(), strict=True)]
    if not rows:
        raise ValueError("no rows")
    return rows, arrays["index"].tolist(), counts
