"""The folder that a report, or a comparison of two, is written into: which one may be, and what an earlier command left."""

import json
from pathlib import Path

from research.errors import UserError
from research.runs.layout import leftover
from research.types import Json

REPORT = "report.json"  # a folder that holds this file is a report: the verb may write into it again


def open_target(out: Path, marker: str, verb: str, holds: str, instead: str) -> None:
    """Refuse a folder that holds something else than what an earlier command of the same kind wrote.

    Args:
        out: need not exist.
        marker: the file by which a command knows its own folder.
        verb: that the marker names.
        holds, instead: of the message: what the marker is of, and what may be named instead.

    Raises:
        UserError: a file, or a folder of other files.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder. Name another.")
    if out.is_dir() and not all(map(leftover, out.iterdir())) and _read(out / marker).get("verb") != verb:
        raise UserError(f"--out {out} holds files but no {marker} of {holds}; nothing was touched. Name a new or {instead}.")


def files_of(marker: Path) -> list[str]:
    """List what an earlier command wrote beside its marker: a table that the new one has not must not stay there."""
    files = _read(marker).get("files")
    return [str(name) for name in files] if isinstance(files, list) else []


def _read(marker: Path) -> dict[str, Json]:
    """Read the marker; {} where it is damaged or missing."""
    try:
        value = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
