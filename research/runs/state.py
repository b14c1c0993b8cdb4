"""What became of a run: whether it is finished, and whether its numbers are those that this code would give it."""

import json
from pathlib import Path

from research.errors import UserError
from research.runs.known_code import fingerprints_of, stale_because
from research.runs.layout import CONFIG, METRICS, PROVENANCE
from research.runs.reading import read_json, read_yaml


def is_finished(run: Path) -> bool:
    """Whether a run folder holds a finished training."""
    try:
        return bool(json.loads((run / METRICS).read_text(encoding="utf-8")).get("finished"))
    except (OSError, ValueError, AttributeError):
        return False


def stale_reason(run: Path, data: dict | None = None) -> str:
    """Why a finished run does not have the numbers that this code would give it; "" where it has them.

    Args:
        run: its folder.
        data: the facts of its data as they are counted now, where they are known.
    """
    if not is_finished(run):
        return ""
    try:
        facts, config = read_json(run / PROVENANCE), read_yaml(run / CONFIG, "configuration")
        return stale_because(fingerprints_of(facts), config, run, (facts.get("data") or {}, data or {}))
    except (UserError, AttributeError, TypeError):
        return "what it was made of cannot be read"
