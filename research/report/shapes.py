"""What the files of a run may hold: a value of another type is refused where it is read, with its place and its cure."""

import json
from pathlib import Path
from typing import Any

from research.errors import UserError

CURE = "Make the run again, or leave it out"
LARGEST = 10**300  # no float is larger
COUNTS = ("seconds", "steps", "temperature")


def check_metrics(path: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """metrics.json or test.json of a training, if each metric, value of an example and count is a number or null.

    Raises:
        UserError: one is not.
    """
    _numbers(path, "metrics", metrics.get("metrics"))
    for name, values in _named(path, "per_query", metrics.get("per_query")).items():
        _numbers(path, f"per_query.{name}", values)
    _numbers(path, "trained", metrics.get("trained"))
    for name in COUNTS:
        _number(path, name, metrics.get(name))
    for example, one in _named(path, "answers", metrics.get("answers"), "examples with answers").items():
        prompt = one.get("prompt") if isinstance(one, dict) else None
        if not isinstance(one, dict) or (isinstance(prompt, list) and not all(isinstance(turn, dict) for turn in prompt)):
            raise _wrong(path, f"answers.{example}", one, "a prompt, a reference and an answer")
    monitor = metrics.get("monitor")
    if not isinstance(monitor, str | None):
        raise _wrong(path, "monitor", monitor, "a metric, such as val/loss")
    sides = _named(path, "directions", metrics.get("directions"), "metrics with lower or higher")
    if wrong := [side for side in sides.values() if side not in ("lower", "higher")]:
        raise _wrong(path, "directions", wrong[0], "lower or higher")
    return metrics


def check_provenance(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """provenance.json, if what the page lists of it has the form that it is listed in.

    Raises:
        UserError: it has not.
    """
    _named(path, "packages", facts.get("packages"), "names with values")
    command = facts.get("command")
    if command is not None and not (isinstance(command, list) and all(isinstance(word, str) for word in command)):
        raise _wrong(path, "command", command, "a list of words")
    made_by = [facts.get("fingerprint"), *_listed(path, "earlier_fingerprints", facts.get("earlier_fingerprints"))]
    if not all(isinstance(one, str | None) for one in made_by):
        raise _wrong(path, "fingerprint", made_by, "hashes of code")
    return facts | ({"earlier_fingerprints": made_by[1:]} if made_by[1:] else {})


def _listed(path: Path, where: str, value: Any) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise _wrong(path, where, value, "a list")
    return value or []


def _named(path: Path, where: str, value: Any, expected: str = "names with numbers") -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise _wrong(path, where, value, expected)
    return value or {}


def _numbers(path: Path, where: str, value: Any) -> None:
    for name, one in _named(path, where, value).items():
        _number(path, f"{where}.{name}", one)


def _number(path: Path, where: str, value: Any) -> None:
    huge = isinstance(value, int) and abs(value) > LARGEST
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or huge):
        raise _wrong(path, where, value, "a number")


def _wrong(path: Path, where: str, value: Any, expected: str) -> UserError:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return UserError(f"{path}: {where} is {text if len(text) <= 60 else text[:59] + '…'}; expected {expected}. {CURE}.")
