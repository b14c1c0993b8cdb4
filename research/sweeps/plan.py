"""A sweep's points, each through the real parser and the adapters' guard, before any of them costs compute."""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError
from research.runs.files import atomic_write, write_json
from research.runs.hashes import hash_strings
from research.runs.layout import is_name
from research.sweeps.spec import JSON_FILE, Point, Sweep, command_of, drawn, filled, grid, lost_in_text, ours, probes

PLACE = "{point}"
FILE, KEY = "plan.jsonl", "plan.key"
KEPT, FILES = "plans", "args"
LATER, WRITTEN = "later", "written"


class Planned(NamedTuple):
    """A point of a plan.

    Attributes:
        point: its id.
        values: parameter → value, as the sweep has them.
        argv: the command as it starts here, with {point} where its id belongs.
        facts: what `describe` says: trained_parameters, adapter_bytes, memory, …; `later`: numbers of the words that are filled
            in where the command starts, `written`: the command before that. On the disk `written` is what stands as argv: the
            value of a variable may be a secret.
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
    sweep: Sweep,
    describe: Callable[[list[str]], dict[str, Any]],
    seed: int = 0,
    watch: Callable[[Iterable[Point]], Iterable[Point]] = iter,
) -> tuple[list[Planned], list[Problem]]:
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
        try:
            good.append(planned(sweep, values, describe))
        except UserError as error:
            bad.append(Problem(values, str(error)))
    seen: dict[str, Point] = {}
    for one in good if is_exhaustive(sweep) else ():
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


def planned(sweep: Sweep, values: Point, describe: Callable[[list[str]], dict[str, Any]]) -> Planned:
    """A point, described.

    Raises:
        UserError: its command would end in one.
    """
    argv, later = command_of(sweep, values)
    text = json.dumps(values)  # of a foreign command the file's content is what it computes
    filled_in = filled(argv, later, text)
    if is_ours(filled_in) and (lost := lost_in_text(values, sweep.command)):  # W&B's agent hands "None" to any program
        raise UserError(
            f"{lost[0]} is null, which the command carries as the text None; expected a value that text can carry. "
            'Write "null" in quotes.'
        )
    if any(argv[i] == JSON_FILE for i in later) and is_ours(filled_in):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "args.json"
            path.write_text(text, encoding="utf-8")
            facts = describe(filled(argv, later, str(path)))
    else:
        facts = describe(filled_in)
    return Planned(facts.pop("point"), values, filled_in, facts | ({LATER: later, WRITTEN: argv} if later else {}))


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
    write_points(folder / FILE, points)
    with atomic_write(folder / KEY) as stream:
        stream.write(key)


def write_points(path: Path, points: list[Planned]) -> None:
    """A line each."""
    with atomic_write(path) as stream:
        stream.writelines(_line(one) for one in points)


def _line(one: Planned) -> str:
    facts = {name: value for name, value in one.facts.items() if name != WRITTEN}
    return json.dumps(one._replace(argv=one.facts.get(WRITTEN, one.argv), facts=facts)._asdict()) + "\n"


def keep_plan(folder: Path, file: Path, points: list[Planned] | None) -> tuple[Path, Path | None]:
    """Copies of a sweep's file and its plan, for workers: what they run does not change when either does.

    Args:
        folder: of the sweep.
        file: its YAML.
        points: its plan; None of a search, whose plan grows.
    """
    text = Path(file).read_text(encoding="utf-8")
    lines = [] if points is None else [_line(one) for one in points]
    place = folder / KEPT / hash_strings([text, *lines])[:16]
    with atomic_write(place / Path(file).name) as stream:
        stream.write(text)
    if points is None:
        return place / Path(file).name, None
    write_points(place / FILE, points)
    return place / Path(file).name, place / FILE


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
        return [_read(folder, line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a planned sweep. Run `research sweep plan FILE` first.") from None
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); expected one point a line. Plan the sweep again.") from None


def _read(folder: Path, line: str) -> Planned:
    one = Planned(**json.loads(line))
    if not is_name(one.point):  # it becomes a folder, a log and a lock
        raise ValueError(f"point is {json.dumps(one.point)}")
    if not isinstance(one.values, dict) or not isinstance(one.facts, dict):
        raise ValueError("values or facts are no mapping")
    if not isinstance(one.argv, list) or not all(isinstance(word, str) for word in one.argv):
        raise ValueError("argv is no list of words")
    if later := one.facts.get(LATER):
        argv = filled(one.argv, later, str((folder / FILES / f"{one.point}.json").resolve()))
        return one._replace(argv=argv, facts=one.facts | {WRITTEN: one.argv})
    return one


def ready(folder: Path, one: Planned) -> Planned:
    """The point as it can be started: the file of its values is there.

    Args:
        folder: of the sweep.
        one: the point, planned here or read.
    """
    written = one.facts.get(WRITTEN, one.argv)
    if JSON_FILE not in (written[i] for i in one.facts.get(LATER, ())):
        return one
    path = (folder / FILES / f"{one.point}.json").resolve()
    write_json(path, one.values)
    return one._replace(argv=filled(written, one.facts[LATER], str(path)))


def placed(argv: list[str], point: str) -> list[str]:
    """The command with the point's id in its place."""
    return [word.replace(PLACE, point) for word in argv]


def is_ours(argv: list[str]) -> bool:
    return ours(argv) is not None
