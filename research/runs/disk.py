"""Errors of the disk that are the user's to mend, and room on it."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from research.errors import UserError

DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP}
TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "unexpected pos")  # in errors of torch.save on a full disk


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk below this line into UserErrors about `path`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing a model or a checkpoint into UserErrors, whichever library meets the disk first.

    A RuntimeError that is not torch's writer's is none of the disk: it stays as it is.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and not any(name in reason for name in TORCH_WRITER):
            raise
        raise UserError(
            f"cannot write {path}: {reason[:300]}; expected a writable place with room. "
            "Free space or name another folder, then run the same command again."
        ) from error


def disk_error(error: OSError, path: Path) -> OSError | UserError:
    """Return a UserError of a full, read-only or forbidden disk, which the user can mend; any other OSError as it is."""
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
