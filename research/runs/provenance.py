"""Where a number came from: command, code, packages, machine."""

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from research.types import Json

PACKAGE = Path(__file__).parents[1]
PACKAGES = "torch lightning transformers tokenizers sentence-transformers peft trl hnswlib bm25s numpy datasets".split()


def provenance(command: list[str], classes: Iterable[Path] = (), **extra: Json) -> dict:
    """Collect where a number came from: command, code, packages, machine.

    Args:
        command: as the user typed it.
        classes: files of the classes that a configuration names, with the user's own that they import.
        extra: what the caller knows: hashes of data and model.
    """
    return {
        "command": command,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **git_state(PACKAGE, classes),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        **extra,
    }


def cpu_count() -> int | None:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state(package: Path = PACKAGE, classes: Iterable[Path] = ()) -> dict:
    """Return the commit of the code that runs, and whether code that computes is not in it.

    Notes, data and runs beside the package, which git does not know, compute nothing.

    Args:
        package: this one's folder, wherever the user stands.
        classes: files that count even where git does not know them.
    """
    commit = _git(package, "rev-parse", "HEAD") if _git(package, "ls-files", "__init__.py") else None
    if commit is None:  # installed: a repository above its folder is another's
        return {"git_commit": None, "git_dirty": None}
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", ".")
    return {"git_commit": commit, "git_dirty": bool(changed) or any(map(_is_uncommitted, classes))}


def _is_uncommitted(path: Path) -> bool:
    return _git(path.parent, "status", "--porcelain", "--ignored", path.name) != ""


def _git(folder: Path, *args: str) -> str | None:
    """Return the output of a git command in a folder; None where it fails."""
    try:
        result = subprocess.run(["git", "-C", folder, *args], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
