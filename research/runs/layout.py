"""Names of files in a run folder, and which folders a command may write into."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from research.errors import UserError
from research.runs.disk import disk_error

MODEL_FACTS = "tandem.json"  # in a model's folder: an adapter's base, by name and hash; once, lengths of an encoder
SCHEMA = 1  # of what is written into a run folder, noted in provenance.json; a folder without a number is of schema 0
PROVENANCE = "provenance.json"  # a folder that holds this file is a run folder: verbs may write into it again
CONFIG = "config.yaml"  # the resolved configuration
METRICS = "metrics.json"  # summary, and values per query
TEST = "test.json"  # of a training: what `research test` has measured
EXAMPLES = "examples.json"  # of a retrieval: texts of some queries
CURVES = "curves.jsonl"  # one line a logged step of a training
CHECKPOINTS = "checkpoints.json"  # of a training: which ones there are, with their hashes
SWEEP = "sweep.json"  # in a sweep's folder: whose it is
WANDB = "wandb.json"  # id of the W&B run, and the names of its summary
LOCK = "lock"  # held by the command that writes into the folder
MODEL = "model"  # folder of the best checkpoint: what verbs load
STORE_FILES = (LOCK, "journal.jsonl", "embeddings.npy", "ids.json", "texts.npy", "store.json")
LONGEST = 240  # bytes of a name: disks take 255, and a log of the name has an ending


@contextlib.contextmanager
def without_empty(out: Path) -> Iterator[None]:
    """Remove a folder that is made within and still empty where the user's input is refused there."""
    existed = out.exists()
    try:
        yield
    except UserError:
        if not existed:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def open_run_folder(out: Path) -> Path:
    """Create `out`, or accept an earlier run folder to continue in.

    Raises:
        UserError: `out` is a file, cannot be written, or holds something that is not a run folder.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder. Name another.")
    if out.is_dir() and not (out / PROVENANCE).exists() and any(not leftover(path) for path in out.iterdir()):
        raise UserError(
            f"--out {out} holds files but no {PROVENANCE}, so it is not a run folder; nothing was touched. "
            "Name a new or empty folder."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except FileNotFoundError as error:  # in a folder of the system's, such as /proc
        raise UserError(
            f"--out {out}: no folder can be made there ({error.strerror}); expected a writable place. Name another."
        ) from None
    except OSError as error:
        raise disk_error(error, out) from error
    return out


def check_store_folder(out: Path, option: str = "--out") -> None:
    """Refuse what cannot become an embedding store, before anything is computed or written.

    Raises:
        UserError: `out` is a file, or holds what is neither a store nor the unfinished part of one.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{option} {out} is a file; expected a folder. Name another.")
    for path in out.iterdir() if out.is_dir() else ():
        if path.name not in STORE_FILES and not leftover(path):
            raise UserError(
                f"{out} holds other files ({path.name}); expected a new or empty folder for embeddings. Name another."
            )


def leftover(path: Path) -> bool:
    """Return whether a path is one that a command leaves when it is killed at its start: the lock, or a temporary file."""
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def is_name(text: object) -> bool:
    """Return whether a text can name a folder within another: no path, no control characters, not too long for a disk."""
    if not isinstance(text, str) or text in ("", ".", "..") or re.search(r"[/\x00-\x1f\x7f\ud800-\udfff]", text):
        return False
    return len(text.encode()) <= LONGEST


def cache_folder(given: Path | None = None) -> Path:
    """Return where content-addressed embeddings, indexes and models live: --cache, TANDEM_CACHE, ~/.cache/tandem."""
    return Path(given or os.environ.get("TANDEM_CACHE") or Path.home() / ".cache" / "tandem")
