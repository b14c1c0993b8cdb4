"""Embedding stores: a folder that survives a kill.

`embeddings.npy` (N, D) float32 in the order of `ids.json`, and `store.json`, which is written last and says what the
embeddings were made from. Without store.json the folder is unfinished work, and the journal says which batches are done.
"""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from research.errors import UserError
from research.models.dual_encoder import Encoder
from research.progress import bar, say
from research.retrieval import encode
from research.runs.disk import disk_error, disk_errors, require_space
from research.runs.files import atomic_write, write_json
from research.runs.hashes import hash_file, hash_json, hash_strings
from research.runs.layout import check_store_folder
from research.runs.locks import exclusive
from research.runs.reading import read_json

FORMAT = 1  # to be raised when code changes what is encoded: older stores then no longer match
SYNC_SECONDS = 2.0  # a batch counts as done once its rows are on the disk; a crash loses at most this much work


class Store(NamedTuple):
    """A finished embedding store, opened for reading."""

    folder: Path
    ids: list[str]
    embeddings: np.ndarray  # (N, D) float32, memory-mapped
    meta: dict


def store_key(model_hash: str, encoder: Encoder, role: str, precision: str, texts_hash: str) -> str:
    """What a store's content depends on: weights, tokenizer, every setting of the role, precision, ids and texts."""
    return hash_json([FORMAT, model_hash, role, encoder.settings.identity(role), precision, texts_hash])


def hash_texts(ids: Sequence[str], texts: Sequence[str]) -> str:
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
) -> Store:
    """Encode into `folder`, or finish what an earlier process began there, or open what it finished.

    Args:
        folder: made if absent.
        encoder: one tower, on its device.
        ids: of the texts, in the order of the rows.
        texts: one a row.
        role: "query" or "doc".
        key: as `store_key` gives it.
        facts: further lines for store.json (model, settings), to be read by people and sidecars.
        token_budget: tokens of one batch; None takes the device's default.

    Raises:
        UserError: the folder holds other embeddings, or the disk has no room.
    """
    check_store_folder(folder)
    if (folder / "store.json").exists():  # finished work needs no lock: it may lie on a disk that cannot be written
        say(f"{folder}: finished before; nothing is encoded again")
        return open_store(folder, key)
    with exclusive(folder):  # two jobs of a sweep that want one store: the second waits and finds it finished
        if (folder / "store.json").exists():
            return open_store(folder, key)
        dim = encoder.dim
        require_space(folder, len(ids) * dim * 4, f"embeddings of {len(ids):,} texts")
        header = _journal_header(key, encoder, token_budget)
        done = _read_journal(folder, header)
        if not done:  # an old journal must not outlive its rows, or a later run would take zeros for finished work
            (folder / "journal.jsonl").unlink(missing_ok=True)
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            stack.enter_context(disk_errors(folder))
            rows = stack.enter_context(_Rows(folder / "embeddings.npy", len(ids), dim, fresh=not done))
            journal = stack.enter_context(_Journal(folder / "journal.jsonl", header, rows, fresh=not done))
            progress = stack.enter_context(bar(len(ids), f"encode {role}", "text"))

            def skip(batch: int) -> bool:
                if batch in done:
                    progress.update(done[batch])
                return batch in done

            for batch in encode.encode_batches(encoder, texts, role, token_budget, skip):
                rows.write(batch.positions, batch.embeddings)
                journal.add(batch.number, len(batch.positions))
                progress.update(len(batch.positions))
        seconds = time.perf_counter() - start
        write_json(folder / "ids.json", list(ids), indent=None)
        meta = {
            "key": key,
            "ids": hash_strings(ids),
            "role": role,
            "count": len(ids),
            "dim": dim,
            "resumed_batches": len(done),
            "seconds": round(seconds, 3),
            "texts_per_second": round((len(ids) - sum(done.values())) / seconds, 2),  # of this process, not of earlier ones
            "sha256": hash_file(folder / "embeddings.npy"),
            "environment": header["environment"],
            **facts,
        }
        write_json(folder / "store.json", meta)
        (folder / "journal.jsonl").unlink()
    return open_store(folder, key)


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


def device_name(device: torch.device) -> str:
    """What the numbers were computed on: the GPU's name, or the CPU's vector instructions."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {torch.backends.cpu.get_cpu_capability()}"


# ---- the store on disk -------------------------------------------------------------------------------------------------


class _Rows:
    """embeddings.npy while it is written. The space is taken at the start, and rows go in by ordinary writes: a disk
    that fills up under a memory map would kill the process with SIGBUS."""

    def __init__(self, path: Path, count: int, dim: int, fresh: bool):
        self.path, self.row_bytes = path, dim * 4
        try:
            if fresh:
                with open(path, "wb") as stream:
                    np.lib.format.write_array_header_1_0(
                        stream, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
                    )
                    self.offset = stream.tell()
                    if count:
                        os.posix_fallocate(stream.fileno(), self.offset, count * self.row_bytes)
            else:
                self.offset = path.stat().st_size - count * self.row_bytes
            self.fd = os.open(path, os.O_WRONLY)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise disk_error(error, path) from error

    def write(self, positions: np.ndarray, embeddings: np.ndarray) -> None:
        for position, row in zip(positions, embeddings.astype("<f4"), strict=True):
            os.pwrite(self.fd, row.tobytes(), self.offset + int(position) * self.row_bytes)

    def sync(self) -> None:
        os.fsync(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


class _Journal:
    """Numbers of finished batches, appended only after their rows were synced to the disk."""

    def __init__(self, path: Path, header: dict, rows: _Rows, fresh: bool):
        self.rows, self.waiting, self.synced = rows, [], time.monotonic()
        self.stream = open(path, "w" if fresh else "a", encoding="utf-8")
        if fresh:
            try:
                self._append(header)
            except OSError:
                with contextlib.suppress(OSError):  # closing tries to write once more
                    self.stream.close()
                raise

    def add(self, batch: int, count: int) -> None:
        self.waiting.append([batch, count])
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.flush()

    def flush(self) -> None:
        self.rows.sync()
        for entry in self.waiting:
            self._append(entry)
        self.waiting, self.synced = [], time.monotonic()

    def _append(self, entry: dict | list) -> None:
        self.stream.write(json.dumps(entry) + "\n")
        self.stream.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.stream:
            self.flush()


def _journal_header(key: str, encoder: Encoder, token_budget: int | None) -> dict:
    """Embeddings are bitwise the same only under the same batches, kernels and threads: all are in the header."""
    device = next(encoder.parameters()).device
    environment = {
        "torch": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "token_budget": token_budget or encode.default_budget(encoder),
        "window": encode.WINDOW,
    }
    return {"key": key, "environment": environment}


def _read_journal(folder: Path, header: dict) -> dict[int, int]:
    """{batch: rows} finished by an earlier process; empty if there was none or its batches cannot be continued.

    Raises:
        UserError: the folder holds unfinished embeddings of something else.
    """
    path = folder / "journal.jsonl"
    if not path.exists() or not (folder / "embeddings.npy").exists():
        return {}
    entries = []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # a kill cut the last line short: its batch is done again
        with atomic_write(path) as stream:
            stream.write(whole)
    for line in whole.splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            raise UserError(f"{path} is damaged ({line[:60]!r} is not JSON); delete {folder} and encode again.") from None
    if not entries:
        return {}
    if entries[0]["key"] != header["key"]:
        raise UserError(
            f"{folder} holds unfinished embeddings of another model, data or setting; finish those first, or "
            "name another folder, or delete it."
        )
    if entries[0] != header:
        say(f"{folder}: starting afresh, since the unfinished part was made elsewhere ({entries[0]['environment']})")
        return {}
    done = {batch: count for batch, count in entries[1:]}
    say(f"{folder}: resuming after {len(done)} finished batches ({sum(done.values())} texts)")
    return done
