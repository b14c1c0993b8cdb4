"""What became of a run: whether it is finished, and whether its numbers are those that this code would give it."""

from pathlib import Path

from research.errors import UserError
from research.runs.folder import RunFolder
from research.runs.known_code import fingerprints_of, stale_because


def is_finished(run: Path) -> bool:
    """Return whether a run folder holds a finished training."""
    return bool(RunFolder(run).result.get("finished"))


def stale_reason(run: Path, data: dict | None = None) -> str:
    """Return why a finished run does not have the numbers that this code would give it; "" where it has them.

    Args:
        run: its folder.
        data: the facts of its data as they are counted now, where they are known.
    """
    if not is_finished(run):
        return ""
    try:
        folder = RunFolder(run)
        facts = folder.provenance
        return stale_because(fingerprints_of(facts), folder.config, run, (facts.get("data") or {}, data or {}))
    except (UserError, AttributeError, TypeError):
        return "what it was made of cannot be read"
