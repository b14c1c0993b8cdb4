"""A sweep's points, each through the real parser and the adapters' guard, before any of them costs compute."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError
from research.runfolder import atomic_write
from research.sweeps.spec import Point, Sweep, argv_of, drawn, grid, lost_in_text, ours, probes

PLACE = "{point}"
FILE, KEY = "plan.jsonl", "plan.key"


class Planned(NamedTuple):
    """A point of a plan.

    Attributes:
        point: its id.
        values: parameter → value, as the sweep has them.
        argv: the command, with {point} where its id belongs.
        facts: what `describe` says: trained_parameters, adapter_bytes, memory, …
    """

    point: str
    values: Point
    argv: list[str]
    facts: dict[str, Any]


class Problem(NamedTuple):
    """A point that cannot be run, and why."""

    values: Point
    reason: str


def plan(
    sweep: Sweep, describe: Callable[[list[str]], dict[str, Any]], seed: int = 0,
    watch: Callable[[Iterable[Point]], Iterable[Point]] = iter,
) -> tuple[list[Planned], list[Problem]]:  # fmt: skip
    """Every point of a grid or a random sweep; of a bayes sweep, or a random one without run_cap, points at its extremes.

    Args:
        sweep: see spec.
        describe: a command → {"point": its id, …}; raises UserError where the command would end in one.
        seed: of a random sweep's draws.
        watch: wraps the points, to show progress.
    """
    good: list[Planned] = []
    bad: list[Problem] = []
    for values in watch(points_of(sweep, seed)):
        argv = argv_of(sweep, values)
        if lost := lost_in_text(values):
            bad.append(Problem(values, f"{lost[0]} is null, which the command carries as the text None; expected a value that "
                                       "text "
                               'can carry. Write "null" in quotes.'))  # fmt: skip
            continue
        try:
            facts = describe(argv)
        except UserError as error:
            bad.append(Problem(values, str(error)))
            continue
        good.append(Planned(facts.pop("point"), values, argv, facts))
    seen: dict[str, Point] = {}
    for one in good if is_exhaustive(sweep) else ():
        if one.point in seen:
            bad.append(Problem(one.values, f"it computes what {shown(seen[one.point])} computes (point {one.point}); expected "
                                           "each "
                               "point once. Leave one out."))  # fmt: skip
        seen.setdefault(one.point, one.values)
    return good, bad


def is_exhaustive(sweep: Sweep) -> bool:
    """Whether the plan is what will be run, and not a sample of it."""
    return sweep.method == "grid" or (sweep.method == "random" and sweep.run_cap is not None)


def points_of(sweep: Sweep, seed: int) -> list[Point]:
    if sweep.method == "grid":
        return list(grid(sweep))
    return drawn(sweep, seed, sweep.run_cap) if is_exhaustive(sweep) else probes(sweep, seed)


def equivalents(points: list[Planned]) -> list[tuple[Planned, Planned]]:
    """Pairs of different points that compute the same function of the data: another spelling of one update's scale, say."""
    first: dict[str, Planned] = {}
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


def write_plan(folder: Path, points: list[Planned], key: str = "") -> None:
    """
    Args:
        folder: of the sweep.
        points: all of them.
        key: hash of what the plan was made from, beside the data.
    """
    (folder / KEY).unlink(missing_ok=True)  # first: a key beside another plan would be believed
    with atomic_write(folder / FILE) as stream:
        stream.writelines(json.dumps(one._asdict()) + "\n" for one in points)
    with atomic_write(folder / KEY) as stream:
        stream.write(key)


def is_planned(folder: Path, key: str) -> bool:
    """Whether the plan there was made from what hashes to `key`."""
    try:
        return (folder / KEY).read_text(encoding="utf-8") == key and (folder / FILE).exists()
    except OSError:
        return False


def read_plan(folder: Path, path: Path | None = None) -> list[Planned]:
    """
    Args:
        folder: of the sweep.
        path: of the plan; None: the folder's own.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = path or folder / FILE
    try:
        return [Planned(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; expected a planned sweep. Run `research sweep plan FILE` first."
        ) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); expected one point a line. Plan the sweep again.") from None


def placed(argv: list[str], point: str) -> list[str]:
    """The command with the point's id in its place."""
    return [word.replace(PLACE, point) for word in argv]


def is_ours(argv: list[str]) -> bool:
    return ours(argv) is not None
