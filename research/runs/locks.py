"""Locks between processes that share a disk."""

import contextlib
import errno
import fcntl
import os
import random
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from research.errors import UserError
from research.progress import say
from research.runs.disk import disk_errors
from research.runs.layout import LOCK

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
TRIES = 10  # for a lock that is held, half a second together
LOCKLESS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}  # EBADF: NFS, of a file only read


def open_lock(path: Path, append: bool = False) -> IO:
    """Open the file of a lock, made if absent: what is in it stays, and a link is not followed.

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
    """Lock a file by flock.

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


def try_lock(stream: IO, path: Path) -> bool:
    """Return whether this process got the lock. It tries again for some ms: `is_held` of another process locks for a moment."""
    for attempt in range(TRIES):
        try:
            lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
            return True
        except BlockingIOError:
            time.sleep(random.random() * 0.01 * (attempt + 1))
    return False


def is_held(path: Path) -> bool:
    """Return whether another process holds the lock of this file now."""
    if not path.exists():
        return False
    with open_lock(path) as stream:
        try:
            lock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB, path)
        except BlockingIOError:
            return True
    return False


def is_in_use(folder: Path) -> bool:
    """Return whether another process holds this folder as `exclusive` does."""
    return is_held(folder / LOCK)


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
    path = Path(folder) / LOCK
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
        if not try_lock(stream, path):
            if not wait:
                raise UserError(
                    f"another command is writing into {folder}; expected to be alone there. Wait for it, or name another --out."
                ) from None
            say(f"waiting for another process that makes {folder}")
            lock(stream, fcntl.LOCK_EX, path)
        yield
