"""Run folders: atomic files, content hashes, finished stages, provenance."""

import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import yaml

from research.errors import UserError
from research.progress import say

MODEL_FACTS = "tandem.json"  # in a model's folder: an adapter's base, by name and hash; once, lengths of an encoder
MARKER = "provenance.json"  # a folder that holds this file is a run folder: verbs may write into it again
STORE_FILES = ("lock", "journal.jsonl", "embeddings.npy", "ids.json", "store.json")
DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP}
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
LOCKLESS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}  # EBADF: NFS, of a file only read
LONGEST = 240  # bytes of a name: disks take 255, and a log of the name has an ending
PACKAGES = "torch lightning transformers tokenizers sentence-transformers peft trl hnswlib bm25s numpy datasets".split()


# ---- hashes ---------------------------------------------------------------------------------------------------------


def hash_json(value: Any) -> str:
    """sha256 of a JSON-able value; dict order does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def hash_strings(strings: Iterable[str]) -> str:
    """sha256 of a sequence of strings; lengths are hashed too, so ["ab", "c"] differs from ["a", "bc"]."""
    digest = hashlib.sha256()
    for string in strings:
        data = string.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    facts = os.stat(path)
    return _hash_of(os.path.realpath(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.lru_cache(maxsize=256)
def _hash_of(path: str, *_unchanged: int) -> str:
    """Once a process, as long as the file is the same: a sweep's points share half a gigabyte of weights."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- atomic writes --------------------------------------------------------------------------------------------------


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


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write a file of JSON that every reader takes: see `strict`."""
    with atomic_write(path) as stream:
        json.dump(strict(value), stream, indent=indent, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def strict(value: Any) -> Any:
    """The value with null for what is no number (NaN, ±infinity), for which JSON has no word."""
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
        made = [path.relative_to(new) for path in sorted(new.rglob("*")) if path.is_file()]
        with disk_errors(out):
            for name in sorted(made, key=lambda name: (name != Path(first), name)):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(new / name, out / name)
            for name in {Path(one) for one in former} - {*made}:
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


def read_json(path: Path) -> Any:
    """Read one of our own JSON files.

    Raises:
        UserError: missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the folder is not one this tool finished. Make it again.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not readable JSON ({error}); expected a file this tool wrote. Delete it and run again."
        ) from None
    except RecursionError:
        raise UserError(
            f"{path} is JSON nested too deeply to be read; expected a file this tool wrote. Delete it and run again."
        ) from None


def read_yaml(path: Path, what: str) -> Any:
    """Read a YAML file that a user has written.

    Args:
        path: of the file.
        what: it is, for messages.

    Raises:
        UserError: it cannot be read, is no YAML, or gives a name twice, of which the last would silently win.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Unique)
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read ({error.strerror}); expected a YAML file. Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{what} {path} is not readable YAML ({' '.join(str(error).split())[:300]}); expected `name: value` "
            "lines. Mend the file."
        ) from None
    except RecursionError:
        raise UserError(
            f"{what} {path} is nested too deeply to be read; expected `name: value` lines. Mend the file."
        ) from None


class _Unique(yaml.SafeLoader):
    """A name given twice is an error, not the last one."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # as it is written: `<<: *other` puts names in that may stand here too
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        names = [self.construct_object(key, deep=True) for key in keys]
        if doubled := [name for i, name in enumerate(names) if name in names[:i]]:
            raise yaml.constructor.ConstructorError(None, None, f"{doubled[0]!r} is there twice", node.start_mark)
        return node


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Errors of the disk below this line become UserErrors about `path`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> OSError | UserError:
    """A full, read-only or forbidden disk is the user's to mend; any other OSError is returned as it is."""
    if error.errno in DISK_ERRNOS or isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return UserError(
            f"cannot write {path}: {error.strerror or error}; expected a writable place with room. Free "
            "space or name another folder, then run the same command again."
        )
    return error


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse at the start what would fill the disk at the end.

    Raises:
        UserError: fewer than `needed` bytes (and 1 MiB to spare) are free where `folder` lies.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + 2**20:
        raise UserError(
            f"{what} needs {needed / 2**20:,.1f} MiB but {place} has {free / 2**20:,.1f} MiB free; free "
            "space, or name another folder (--out, or --cache for embeddings and indexes)."
        )


def open_lock(path: Path, append: bool = False) -> IO:
    """The file of a lock, made if absent: what is in it stays, and a link is not followed.

    Args:
        path: of the file.
        append: lines are added to it.

    Raises:
        UserError: it is a link or no file.
        OSError: the disk.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_APPEND if append else 0)
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _no_lock_file(path) from error
        if error.errno not in READ_ONLY or append or not path.is_file() or path.is_symlink():
            raise
        number = os.open(path, os.O_RDONLY | flags)  # another user's, in a group's folder: a lock need not be written
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _no_lock_file(path)
    return open(number, "ab+" if append else "rb")


def _no_lock_file(path: Path) -> UserError:
    return UserError(
        f"the lock {path} is a symbolic link, or no file at all; expected a file, which this tool makes. Look "
        "where it points and who made it, then remove it, or name another folder."
    )


def lock(stream: IO, how: int, path: Path) -> None:
    """flock.

    Args:
        stream: as open_lock gives it; closing it gives the lock back.
        how: fcntl's LOCK_EX or LOCK_SH, with LOCK_NB.
        path: of the file.

    Raises:
        BlockingIOError: with LOCK_NB, another process holds it.
        UserError: the file system has no locks.
    """
    try:
        fcntl.flock(stream, how)
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        raise UserError(
            f"{path} cannot be locked ({error.strerror}), and without locks two commands could write one file; "
            "expected a file system with flock, as local disks and most network mounts have. Name another folder "
            "(--out; --cache or TANDEM_CACHE for caches), or mount this one with locks."
        ) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file (made if absent, with its folder); another process that asks for it waits.

    Raises:
        UserError: the disk, no locks, or no file of ours.
    """
    with _opened(path) as stream:
        lock(stream, fcntl.LOCK_EX, path)
        yield


def _opened(path: Path) -> IO:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return open_lock(path)


@contextlib.contextmanager
def exclusive(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold `folder` (made if absent) for this process; another that asks for it waits until it is released.

    A folder that this user cannot write into is not held: what is complete there can be read, and nothing else can be done.

    Raises:
        UserError: with wait=False, another process holds it; or the file system has no locks.
    """
    path = Path(folder) / "lock"
    try:
        stream = _opened(path)
    except UserError as error:
        if getattr(error.__cause__, "errno", None) not in READ_ONLY or not path.parent.is_dir():
            raise
        stream = None
    if stream is None:
        yield
        return
    with stream:
        try:
            lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
        except BlockingIOError:
            if not wait:
                raise UserError(
                    f"another command is writing into {folder}; expected to be alone there. Wait for it, or name another --out."
                ) from None
            say(f"waiting for another process that makes {folder}")
            lock(stream, fcntl.LOCK_EX, path)
        yield


def is_name(text: Any) -> bool:
    """Whether a text can name a folder within another: no path, no control characters, not too long for a disk."""
    if not isinstance(text, str) or text in ("", ".", "..") or re.search(r"[/\x00-\x1f\x7f\ud800-\udfff]", text):
        return False
    return len(text.encode()) <= LONGEST


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- run folders ----------------------------------------------------------------------------------------------------


def open_run_folder(out: Path) -> Path:
    """Create `out`, or accept an earlier run folder to continue in.

    Raises:
        UserError: `out` is a file, cannot be written, or holds something that is not a run folder.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder. Name another.")
    if out.is_dir() and not (out / MARKER).exists() and any(not leftover(path) for path in out.iterdir()):
        raise UserError(
            f"--out {out} holds files but no {MARKER}, so it is not a run folder; nothing was touched. "
            "Name a new or empty folder."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise disk_error(error, out) from error
    return out


def check_store_folder(out: Path) -> None:
    """Refuse what cannot become an embedding store, before anything is computed or written.

    Raises:
        UserError: `out` is a file, or holds what is neither a store nor the unfinished part of one.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder. Name another.")
    for path in out.iterdir() if out.is_dir() else ():
        if path.name not in STORE_FILES and not leftover(path):
            raise UserError(
                f"{out} holds other files ({path.name}); expected a new or empty folder for embeddings. Name another."
            )


def leftover(path: Path) -> bool:
    """What a command that was killed at its start leaves: the lock, and a file that was not renamed yet."""
    return path.name == "lock" or (path.name.startswith(".") and path.name.endswith(".tmp"))


def provenance(command: list[str], **extra: Any) -> dict:
    """Where a number came from: command, code, packages, machine, and what the caller knows (data, model hashes)."""
    return {
        "command": command,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **_git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        **extra,
    }


def cpu_count() -> int | None:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict:
    """Commit and dirty flag of the code that runs (not of the folder the user happens to stand in)."""
    here = Path(__file__).parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return {"git_commit": commit, "git_dirty": None if commit is None else bool(git("status", "--porcelain"))}


class Stages:
    """Which stages of a run folder are finished, with the hash of what each was made from.

    A stage is skipped when its inputs hash to the same key and its file is byte for byte what was written then.
    """

    FILE = "stages.json"

    def __init__(self, out: Path):
        self.out = out
        path = out / self.FILE
        self.done: dict[str, dict] = read_json(path) if path.exists() else {}
        if not isinstance(self.done, dict):
            raise UserError(f"{path} is not one this tool wrote; expected an object. Delete it, and the stages are made again.")

    def finished(self, name: str, key: str) -> dict | None:
        """The recorded facts of stage `name` if it still stands for `key`, else None."""
        entry = self.done.get(name)
        if not entry or entry["key"] != key:
            return None
        path = self.out / entry["file"]
        return entry["facts"] if path.exists() and hash_file(path) == entry["sha256"] else None

    def finish(self, name: str, key: str, file: str, facts: dict) -> None:
        made = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "cpus": cpu_count(), **_git_state()}
        digest = hash_file(self.out / file)
        self.done[name] = {"key": key, "file": file, "sha256": digest, "facts": facts, "made": made}
        write_json(self.out / self.FILE, self.done)

    def made(self) -> dict[str, dict]:
        """When, by which commit and on how many processors each stage was computed: a later command may only keep it."""
        return {name: entry.get("made", {}) for name, entry in self.done.items()}

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove the files of stages that this command does not have: a stale run must not reach a report."""
        for name in sorted(set(self.done) - set(names)):
            file = self.done.pop(name)["file"]
            say(f"{name}: not part of this command; {file}, which an earlier one made, is removed")
            (self.out / file).unlink(missing_ok=True)
        write_json(self.out / self.FILE, self.done)


def cache_folder(given: Path | None = None) -> Path:
    """Where content-addressed embeddings, indexes and converted models live: --cache, TANDEM_CACHE, ~/.cache/tandem."""
    return Path(given or os.environ.get("TANDEM_CACHE") or Path.home() / ".cache" / "tandem")
