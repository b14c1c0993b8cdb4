"""Files and folders that are written whole or not at all."""

import contextlib
import ctypes
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from research.runs.disk import disk_error, disk_errors
from research.types import Json


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Write to a temporary neighbour, then rename: a killed process leaves the complete old file or the complete new.

    Raises:
        UserError: the disk is full or the place cannot be written; nothing is left behind.
    """
    path = Path(path)
    handle = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        handle = Path(name)
        with open(fd, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(handle, 0o666 & ~_umask())  # mkstemp makes 0600, which a shared group folder would not let others read
        os.replace(handle, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        if handle is not None:
            handle.unlink(missing_ok=True)


def write_json(path: Path, value: Json, indent: int | None = 1) -> None:
    """Write a file of JSON that every reader takes: see `strict`."""
    with atomic_write(path) as stream:
        json.dump(strict(value), stream, indent=indent, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def strict(value: Json) -> Json:
    """Return the value with null in place of NaN and ±infinity, which JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: strict(inner) for name, inner in value.items()}
    return [strict(inner) for inner in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary neighbour; on success it becomes `path` in one step, and what was there is gone.

    Raises:
        OSError: the disk; what was there is kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield new
        os.chmod(new, 0o777 & ~_umask())
        for file in new.rglob("*"):
            if file.is_file():
                os.chmod(file, 0o666 & ~_umask())  # safetensors makes its files for the owner alone
                with open(file, "rb") as stream:
                    os.fsync(stream.fileno())
        if path.exists():
            _exchange(new, path)
        else:
            new.rename(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def replace_files(out: Path, first: str, former: Iterable[str] = ()) -> Iterator[Path]:
    """Fill a temporary folder inside `out`; on success its files take their places in `out`, a rename each.

    Until all of them are on the disk nothing in `out` has changed: a full disk leaves what was there. `out` itself stays, be it
    a mount or where the user stands.

    Args:
        out: made if absent.
        first: the file that is placed first: by it the next command knows the folder as its own.
        former: files that an earlier command wrote, relative to `out`; those that are not written again are removed.

    Raises:
        UserError: the disk.
    """
    fresh = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new.", suffix=".tmp", dir=out))
    except OSError as error:
        raise disk_error(error, out) from error
    try:
        yield new
        written = [path.relative_to(new) for path in sorted(new.rglob("*")) if path.is_file()]
        with disk_errors(out):
            for name in sorted(written, key=lambda name: (name != Path(first), name)):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(new / name, out / name)
            for name in {Path(file) for file in former} - {*written}:
                if not name.is_absolute() and ".." not in name.parts:
                    (out / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if fresh:
            with contextlib.suppress(OSError):
                out.rmdir()  # if nothing came of it


def _exchange(a: Path, b: Path) -> None:
    """Swap two folders; in one step where the file system can (renameat2), else in three."""
    try:
        exchanged = ctypes.CDLL(None).renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
    except (AttributeError, OSError):
        exchanged = False
    if not exchanged:
        aside = a.with_suffix(".old.tmp")
        b.rename(aside)
        a.rename(b)
        aside.rename(a)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
