"""curves.jsonl, what a training has logged, a line a step: the one reader of it."""

import json
import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from research.errors import UserError
from research.runs.layout import CURVES
from research.types import Json

Curve = list[tuple[int, float]]  # (optimizer steps taken, value)
CURE = "Copy the run folder again, make the run again, or leave it out"
DAMAGED = object()


def read_lines(folder: Path, about: str = "") -> list[dict[str, Json]]:
    """Read the lines of a run's curves, in order; one that a killed process left unfinished is dropped.

    Args:
        folder: of the run.
        about: a name; only the lines that have it, without parsing the others.

    Raises:
        UserError: no UTF-8, or a whole line that is something else than a step and its numbers.
    """
    file, key = folder / CURVES, json.dumps(about) if about else ""
    chosen = [(number, text) for number, text in enumerate(_text(file).splitlines(), 1) if key in text]
    values = _parsed([text for _, text in chosen])
    lines = [_checked(file, number, value) for (number, _), value in zip(chosen, values, strict=True) if value is not DAMAGED]
    return [line for line in lines if not about or about in line]


def whole_lines(folder: Path, finished: bool, command: str) -> list[dict[str, Json]]:
    """Read the lines of a run whose page draws its curves: each is there and in order.

    Args:
        folder: of the run.
        finished: of an unfinished one the last line may be cut short, and is left out.
        command: that goes on with it, for messages.

    Raises:
        UserError: no line, or one that is damaged or out of order.
    """
    file = folder / CURVES
    texts = _text(file).split("\n")
    cut = texts.pop()  # "" after the last line's end
    if cut and finished:
        texts.append(cut)
    lines = []
    for number, text in enumerate(texts, 1):
        value = _parsed_alone(text)
        lines.append(_checked(file, number, text if value is DAMAGED else value))
    if not lines:
        cure = CURE if finished else f"Let it go on: {command}; or leave it out"
        raise UserError(f"training {folder} has no lines in {CURVES}, so nothing to show; expected one a step. {cure}.")
    for number, (before, line) in enumerate(pairwise(lines), 2):
        if line["step"] < before["step"]:
            raise UserError(
                f"{file}:{number}: step {line['step']} after step {before['step']}; expected steps in order. {CURE}."
            )
    return lines


def history(folder: Path, name: str) -> Curve:
    """Read (step, value) of one logged number of a run."""
    return [(line["step"], line[name]) for line in read_lines(folder, name)]


def curves_of(lines: Iterable[dict[str, Json]]) -> dict[str, Curve]:
    """Collect {metric: (step, value)}; of a step that a resumed run took again, the last."""
    curves: dict[str, dict[int, float]] = {}
    for line in lines:
        for name, value in line.items():
            if "/" in name and isinstance(value, int | float):
                curves.setdefault(name, {})[line["step"]] = value
    return {name: sorted(values.items()) for name, values in curves.items()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") if file.exists() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 ({error}); expected lines of JSON. {CURE}.") from None


def _checked(file: Path, number: int, line: object) -> dict[str, Json]:
    if isinstance(line, dict) and None in line.values():  # a number that JSON has no word for
        line = {name: math.nan if value is None and name != "step" else value for name, value in line.items()}
    good = isinstance(line, dict) and isinstance(line.get("step"), int) and line["step"] >= 0
    if not good or not all(isinstance(value, int | float) for value in line.values()):
        text = shortened(line)
        raise UserError(f"{file}:{number}: {text} is damaged; expected an object of a step and its numbers. {CURE}.")
    return line


def _parsed(texts: list[str]) -> list[object]:
    """Parse each line, DAMAGED where it is no JSON; all at once where none is: a call a line takes twice as long."""
    try:
        whole = json.loads(f"[{','.join(texts)}]")
    except (ValueError, RecursionError):
        whole = []
    return whole if len(whole) == len(texts) else [_parsed_alone(text) for text in texts]


def _parsed_alone(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return DAMAGED


def shortened(value: object, most: int = 60) -> str:
    """Write a value as JSON, for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"
