"""Where a number came from: command, code, packages, machine."""

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

PACKAGES = "torch lightning transformers tokenizers sentence-transformers peft trl hnswlib bm25s numpy datasets".split()


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
