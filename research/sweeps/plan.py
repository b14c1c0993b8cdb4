"""A sweep's points, each through the real parser and the adapters' guard, before any of them costs compute."""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError
from research.runs.plan import JSON_FILE, LATER, WRITTEN, PlannedPoint, fill_in
from research.sweeps.command import Point, lost_in_text, ours
from research.sweeps.sampling import points_of
from research.sweeps.spec import Sweep


class Problem(NamedTuple):
    """A point that cannot be run, and why."""

    values: Point
    reason: str


def plan(
    sweep: Sweep,
    describe: Callable[[list[str]], dict[str, Any]],
    seed: int = 0,
    watch: Callable[[Iterable[Point]], Iterable[Point]] = iter,
) -> tuple[list[PlannedPoint], list[Problem]]:
    """Every point of a grid or a random sweep; of a bayes sweep, or a random one without run_cap, points at its extremes.

    Args:
        sweep: see spec.
        describe: a command → {"point": its id, …}; raises UserError where the command would end in one.
        seed: of a random sweep's draws.
        watch: wraps the points, to show progress.
    """
    good: list[PlannedPoint] = []
    bad: list[Problem] = []
    for values in watch(points_of(sweep, seed)):
        try:
            good.append(planned(sweep, values, describe))
        except UserError as error:
            bad.append(Problem(values, str(error)))
    seen: dict[str, Point] = {}
    for one in good if sweep.is_exhaustive else ():
        if one.point in seen:
            bad.append(
                Problem(
                    one.values,
                    f"it computes what {shown(seen[one.point])} computes (point {one.point}); expected "
                    "each "
                    "point once. Leave one out.",
                )
            )
        seen.setdefault(one.point, one.values)
    return good, bad


def planned(sweep: Sweep, values: Point, describe: Callable[[list[str]], dict[str, Any]]) -> PlannedPoint:
    """A point, described.

    Raises:
        UserError: its command would end in one.
    """
    argv, later = sweep.command_of(values)
    text = json.dumps(values)  # of a foreign command the file's content is what it computes
    filled_in = fill_in(argv, later, text)
    if ours(filled_in) is not None and (lost := lost_in_text(values, sweep.command)):  # W&B's agent hands "None" to any program
        raise UserError(
            f"{lost[0]} is null, which the command carries as the text None; expected a value that text can carry. "
            'Write "null" in quotes.'
        )
    if any(argv[i] == JSON_FILE for i in later) and ours(filled_in) is not None:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "args.json"
            path.write_text(text, encoding="utf-8")
            facts = describe(fill_in(argv, later, str(path)))
    else:
        facts = describe(filled_in)
    return PlannedPoint(facts.pop("point"), values, filled_in, facts | ({LATER: later, WRITTEN: argv} if later else {}))


def equivalents(points: list[PlannedPoint]) -> list[tuple[PlannedPoint, PlannedPoint]]:
    """Pairs of different points that compute the same function of the data: another spelling of one update's scale, say."""
    first: dict[str, PlannedPoint] = {}
    pairs = []
    for one in points:
        key = one.facts.get("computes", one.point)
        if key in first and first[key].point != one.point:
            pairs.append((first[key], one))
        first.setdefault(key, one)
    return pairs


def shown(values: Point) -> str:
    """A point as a user reads it."""
    words = (f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items())
    return " ".join(words) or "the only point"
