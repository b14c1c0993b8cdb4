"""A store that is being written: rows of embeddings, and a journal of finished batches; both survive a kill."""

import contextlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from research.errors import UserError
from research.models.dual_encoder import Encoder
from research.progress import say
from research.retrieval import encode
from research.runs.disk import disk_error
from research.runs.files import atomic_write

SYNC_SECONDS = 2.0  # a batch counts as done once its rows are on the disk; a crash loses at most this much work


def device_name(device: torch.device) -> str:
    """Return the device's name for the journal: the GPU's name, or the CPU's vector instructions."""
    if device.type == "mps":
        return "Apple GPU"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {torch.backends.cpu.get_cpu_capability()}"


class Rows:
    """The file embeddings.npy while it is written.

    The space is taken at the start, and rows go in by ordinary writes: a disk that fills up under a memory map would kill the
    process with SIGBUS.
    """

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
        """Put embeddings into their rows."""
        for position, row in zip(positions, embeddings.astype("<f4"), strict=True):
            os.pwrite(self.fd, row.tobytes(), self.offset + int(position) * self.row_bytes)

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        os.fsync(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


class Journal:
    """Numbers of finished batches, appended only after their rows were synced to the disk."""

    def __init__(self, path: Path, header: dict, rows: Rows, fresh: bool):
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
        """Record a batch; it counts as finished once its rows are on the disk."""
        self.waiting.append([batch, count])
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sync the rows, then write down the batches that they belong to."""
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


def journal_header(key: str, encoder: Encoder, token_budget: int | None) -> dict:
    """Return what embeddings depend on: they are equal bit for bit only with the same batches, kernels and threads."""
    device = next(encoder.parameters()).device
    environment = {
        "torch": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "token_budget": token_budget or encode.default_budget(encoder),
        "window": encode.WINDOW,
    }
    return {"key": key, "environment": environment}


def read_journal(folder: Path, header: dict) -> dict[int, int]:
    """Read {batch: rows} finished by an earlier process; empty if there was none or its batches cannot be continued.

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
    finished = {batch: count for batch, count in entries[1:]}
    say(f"{folder}: resuming after {len(finished)} finished batches ({sum(finished.values())} texts)")
    return finished
