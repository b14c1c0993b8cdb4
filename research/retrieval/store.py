"""Embedding stores: a folder that survives a kill.

`embeddings.npy` (N, D) float32 in the order of `ids.json`, `texts.npy`, by which a later store finds texts that it need not
encode again, and `store.json`, which is written last and says what the embeddings were made from. Without store.json the folder
is unfinished work, and the journal says which batches are done.
"""

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.errors import UserError
from research.models.cut import CutCount
from research.models.dual_encoder import Encoder
from research.progress import bar, say
from research.retrieval import encode
from research.retrieval.earlier import NEXT, Known, digest_texts, drop_other, has_key, move
from research.retrieval.journal import Journal, Rows, journal_header, read_journal
from research.runs.disk import disk_errors, require_space
from research.runs.files import atomic_write, write_json
from research.runs.hashes import hash_file, hash_json, hash_strings
from research.runs.layout import check_store_folder
from research.runs.locks import exclusive
from research.runs.reading import read_json

WRITTEN = 2**14  # rows that are copied together
FORMAT = 1  # to be raised when code changes what is encoded: older stores then no longer match


class Store(NamedTuple):
    """A finished embedding store, opened for reading."""

    folder: Path
    ids: list[str]
    embeddings: np.ndarray  # (N, D) float32, memory-mapped
    meta: dict


def store_key(model_hash: str, encoder: Encoder, role: str, precision: str, texts_hash: str) -> str:
    """Hash what a store's content depends on: weights, tokenizer, every setting of the role, precision, ids and texts."""
    return hash_json([FORMAT, model_hash, role, encoder.settings.identity(role), precision, texts_hash])


def made_with(model_hash: str, encoder: Encoder, role: str, precision: str) -> str:
    """Hash what the embedding of one text depends on besides the text, and its company in a batch."""
    return hash_json([FORMAT, model_hash, role, encoder.settings.identity(role), precision])


def hash_texts(ids: Sequence[str], texts: Sequence[str]) -> str:
    """Hash texts with their ids, in order."""
    return hash_strings(part for pair in zip(ids, texts, strict=True) for part in pair)


def build_store(
    folder: Path,
    encoder: Encoder,
    ids: Sequence[str],
    texts: Sequence[str],
    role: str,
    key: str,
    facts: dict,
    token_budget: int | None = None,
    known: Sequence[Known] = (),
) -> Store:
    """Encode into `folder`, or finish or open the store that an earlier process began there.

    Args:
        folder: made if absent.
        encoder: one tower, on its device.
        ids: of the texts, in the order of the rows.
        texts: one a row.
        role: "query" or "doc".
        key: as `store_key` gives it.
        facts: further lines for store.json (model, settings), to be read by people and sidecars.
        token_budget: tokens of one batch; None takes the device's default.
        known: embeddings that need not be computed again. With them a finished store of other texts in `folder` is replaced
            in the end; without, it is refused.

    Raises:
        UserError: the folder holds other embeddings, or the disk has no room.
    """
    check_store_folder(folder)
    if _is_finished(folder, key, known):  # finished work needs no lock: it may lie on a disk that cannot be written
        say(f"{folder}: finished before; nothing is encoded again")
        return _opened(folder, encoder, role, key)
    with exclusive(folder):  # two jobs of a sweep that want one store: the second waits and finds it finished
        if not _is_finished(folder, key, known):
            new = folder / NEXT
            if (folder / "store.json").exists() and not has_key(new, key):
                drop_other(new, key)
                _encode(new, encoder, ids, texts, role, key, facts, token_budget, known)
            if has_key(new, key):  # as it is also after a kill while the files took their places
                move(new, folder)
            else:
                shutil.rmtree(new, ignore_errors=True)
                _encode(folder, encoder, ids, texts, role, key, facts, token_budget, known)
    return _opened(folder, encoder, role, key)


def _is_finished(folder: Path, key: str, known: Sequence[Known]) -> bool:
    """Return whether there is a finished store; with `known` only one of this key."""
    return (folder / "store.json").exists() and (not known or has_key(folder, key))


def _encode(
    folder: Path,
    encoder: Encoder,
    ids: Sequence[str],
    texts: Sequence[str],
    role: str,
    key: str,
    facts: dict,
    token_budget: int | None,
    known: Sequence[Known],
) -> None:
    """Make a store, or go on with it."""
    folder.mkdir(parents=True, exist_ok=True)
    cut, dim = CutCount(), encoder.dim
    require_space(folder, len(ids) * dim * 4, f"embeddings of {len(ids):,} texts")
    header, left = journal_header(key, encoder, token_budget), np.arange(len(ids))
    if known:
        left = np.delete(left, np.concatenate([part.positions for part in known]))
        header |= {"left": hash_strings([left.tobytes().hex()])}
        say(
            f"{folder}: {len(ids) - len(left):,} of {len(ids):,} texts were encoded before and are taken from there; the last "
            "digits may be others than if all were encoded now"
        )
    say(f"{folder}: encoding {len(left):,} texts ({role})")
    finished = read_journal(folder, header)
    if not finished:  # an old journal must not outlive its rows, or a later run would take zeros for finished work
        (folder / "journal.jsonl").unlink(missing_ok=True)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(disk_errors(folder))
        rows = stack.enter_context(Rows(folder / "embeddings.npy", len(ids), dim, fresh=not finished))
        journal = stack.enter_context(Journal(folder / "journal.jsonl", header, rows, fresh=not finished))
        progress = stack.enter_context(bar(len(left), f"encode {role}", "text"))
        for part in known:
            for at in range(0, len(part.rows), WRITTEN):
                some = slice(at, at + WRITTEN)
                rows.write(part.positions[some], part.embeddings[part.rows[some]])

        def skip(batch: int) -> bool:
            if batch in finished:
                progress.update(finished[batch])
            return batch in finished

        for batch in encode.encode_batches(encoder, [texts[i] for i in left], role, token_budget, skip, cut):
            rows.write(left[batch.positions], batch.embeddings)
            journal.add(batch.number, len(batch.positions))
            progress.update(len(batch.positions))
    seconds = time.perf_counter() - start
    write_json(folder / "ids.json", list(ids), indent=None)
    digests = digest_texts(texts)
    digests[left[cut.which], -1] = 1
    for part in known:
        digests[part.positions, -1] = part.cut
    with atomic_write(folder / "texts.npy", "wb") as stream:
        np.save(stream, digests)
    meta = {
        "key": key,
        "ids": hash_strings(ids),
        "role": role,
        "count": len(ids),
        "dim": dim,
        "cut": int(digests[:, -1].sum()),
        "reused": len(ids) - len(left),
        "resumed_batches": len(finished),
        "seconds": round(seconds, 3),
        "texts_per_second": round((len(left) - sum(finished.values())) / seconds, 2),  # of this process, not of earlier ones
        "sha256": hash_file(folder / "embeddings.npy"),
        "environment": header["environment"],
        **facts,
    }
    write_json(folder / "store.json", meta)
    (folder / "journal.jsonl").unlink()


def _opened(folder: Path, encoder: Encoder, role: str, key: str) -> Store:
    """Open a finished store, and say how many of its texts were cut."""
    store = open_store(folder, key)
    count = CutCount(store.meta["count"], store.meta.get("cut", 0))  # stores of before do not know
    encode.say_cut(count, encoder, role, str(store.meta.get("model", "the model")))
    return store


def open_store(folder: Path, key: str | None = None) -> Store:
    """Open a finished store, memory-mapped.

    Args:
        folder: as `build_store` left it.
        key: refuse the store if it was made from anything else; None takes it as it is.

    Raises:
        UserError: unfinished, damaged, or of another model, data or setting.
    """
    meta = read_json(folder / "store.json")
    if not isinstance(meta, dict) or not {"key", "ids", "count", "dim", "sha256"} <= meta.keys():
        raise UserError(
            f"{folder / 'store.json'} is not one this tool wrote; expected key, ids, count, dim and sha256. Delete "
            f"{folder} and encode again."
        )
    if key is not None and meta.get("key") != key:
        raise UserError(
            f"{folder} holds embeddings of model {meta.get('model')!r}, {meta.get('count')} texts, role "
            f"{meta.get('role')} (key {str(meta.get('key'))[:12]}…), expected key {key[:12]}…: weights, "
            "texts or settings differ. Name the folder made from these, or another to make it anew."
        )
    ids = read_json(folder / "ids.json")
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids) or hash_strings(ids) != meta["ids"]:
        raise UserError(
            f"{folder / 'ids.json'} does not hold the ids that the embeddings were made for, expected "
            f"{meta['count']} of sha256 {str(meta['ids'])[:12]}…; the store is damaged. Delete {folder} and encode "
            "again."
        )
    try:
        embeddings = np.load(folder / "embeddings.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{folder / 'embeddings.npy'} cannot be read ({error}); expected {len(ids)} float32 rows of dimension "
            f"{meta['dim']}. Delete {folder} and encode again."
        ) from None
    if embeddings.shape != (len(ids), meta["dim"]) or embeddings.dtype != np.float32:
        raise UserError(
            f"{folder / 'embeddings.npy'} holds {embeddings.dtype} of shape {embeddings.shape}, expected float32 "
            f"of {(len(ids), meta['dim'])}; the store is damaged. Delete {folder} and encode again."
        )
    if hash_file(folder / "embeddings.npy") != meta["sha256"]:
        raise UserError(
            f"{folder / 'embeddings.npy'} is not the file that was written (sha256 differs from store.json's); the "
            f"store is damaged. Delete {folder} and encode again."
        )
    return Store(folder, ids, embeddings, meta)
