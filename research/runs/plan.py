"""The plan of a sweep, in its folder: plan.jsonl has a point a line, plan.key says what it was made from."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.runs.files import atomic_write, write_json
from research.runs.hashes import hash_strings
from research.runs.identity import PLACE
from research.runs.layout import is_name
from research.types import Json

FILE, KEY = "plan.jsonl", "plan.key"
COPIES, VALUE_FILES = "plans", "args"
LATER, WRITTEN = "later", "written"
JSON_FILE = "${args_json_file}"
VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


class PlannedPoint(NamedTuple):
    """A point of a plan.

    Attributes:
        point: its id.
        values: parameter → value, as the sweep has them.
        argv: the command as it starts here, with {point} where its id belongs.
        facts: what describing it says: trained_parameters, adapter_bytes, memory, …; `later`: numbers of the words that
            are filled in where the command starts, `written`: the command before that. On the disk `written` is what stands
            as argv: the value of a variable may be a secret.
    """

    point: str
    values: dict[str, Json]
    argv: list[str]
    facts: dict[str, Json] = {}  # noqa: RUF012 (never changed)


def read_plan(folder: Path, path: Path | None = None) -> list[PlannedPoint]:
    """Read the points of a plan, with commands as they start here.

    Args:
        folder: of the sweep.
        path: of the plan; None: the folder's own.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = path or folder / FILE
    points: list[PlannedPoint] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            points.append(_point(folder, line))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a planned sweep. Run `research sweep plan FILE` first.") from None
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise UserError(
            f"{path}:{len(points) + 1} is damaged ({error}); expected a point a line. Plan the sweep again."
        ) from None
    return points


def points_so_far(folder: Path) -> list[PlannedPoint]:
    """Read the points of a plan that grows, in the order in which they were proposed; none before the first."""
    return read_plan(folder) if (folder / FILE).exists() else []


def _point(folder: Path, line: str) -> PlannedPoint:
    planned = PlannedPoint(**json.loads(line))
    if not is_name(planned.point):  # it becomes a folder, a log and a lock
        raise ValueError(f"point is {json.dumps(planned.point)}")
    if not isinstance(planned.values, dict) or not isinstance(planned.facts, dict):
        raise ValueError("values or facts are no mapping")
    if not isinstance(planned.argv, list) or not all(isinstance(word, str) for word in planned.argv):
        raise ValueError("argv is no list of words")
    if later := planned.facts.get(LATER):
        argv = fill_in(planned.argv, later, str(_value_file(folder, planned.point)))
        return planned._replace(argv=argv, facts=planned.facts | {WRITTEN: planned.argv})
    return planned


def write_plan(folder: Path, points: list[PlannedPoint], key: str = "") -> None:
    """Write all points of a sweep.

    Args:
        folder: of the sweep.
        points: all of them.
        key: hash of what the plan was made from, beside the data.
    """
    (folder / KEY).unlink(missing_ok=True)  # first: a key beside another plan would be believed
    write_points(folder / FILE, points)
    with atomic_write(folder / KEY) as stream:
        stream.write(key)


def write_points(path: Path, points: list[PlannedPoint]) -> None:
    """Write points, a line each."""
    with atomic_write(path) as stream:
        stream.writelines(_line(planned) for planned in points)


def _line(planned: PlannedPoint) -> str:
    facts = {name: value for name, value in planned.facts.items() if name != WRITTEN}
    return json.dumps(planned._replace(argv=as_written(planned), facts=facts)._asdict()) + "\n"


def is_planned(folder: Path, key: str) -> bool:
    """Return whether the plan in this folder was made from inputs with this hash."""
    try:
        return (folder / KEY).read_text(encoding="utf-8") == key and (folder / FILE).exists()
    except OSError:
        return False


def copy_plan(folder: Path, name: str, text: str, points: list[PlannedPoint] | None) -> tuple[Path, Path | None]:
    """Copy a sweep's file and its plan, for workers: what they run does not change when either does.

    Args:
        folder: of the sweep.
        name: of its file.
        text: its YAML.
        points: its plan; None of a search, whose plan grows.
    """
    lines = [] if points is None else [_line(planned) for planned in points]
    place = folder / COPIES / hash_strings([text, *lines])[:16]
    with atomic_write(place / name) as stream:
        stream.write(text)
    if points is None:
        return place / name, None
    write_points(place / FILE, points)
    return place / name, place / FILE


# ---- the command of a point -----------------------------------------------------------------------------------------


def fill_in(argv: list[str], later: Iterable[int], json_file: str) -> list[str]:
    """Fill in a command with variables of this environment; one that is not there is its name, as for W&B's agent.

    Args:
        argv: the command as it is written.
        later: numbers of the words that are filled in.
        json_file: what stands for ${args_json_file}.
    """
    filled = list(argv)
    for i in later:
        filled[i] = json_file if argv[i] == JSON_FILE else VARIABLE.sub(lambda m: os.environ.get(m[1], m[1]), argv[i])
    return filled


def as_written(planned: PlannedPoint) -> list[str]:
    """Return the command without what this machine's environment fills in."""
    return planned.facts.get(WRITTEN, planned.argv)


def startable(folder: Path, planned: PlannedPoint) -> PlannedPoint:
    """Return the point as it can be started: the file of its values is there.

    Args:
        folder: of the sweep.
        planned: the point, planned here or read.
    """
    written = as_written(planned)
    if JSON_FILE not in (written[i] for i in planned.facts.get(LATER, ())):
        return planned
    path = _value_file(folder, planned.point)
    write_json(path, planned.values)
    return planned._replace(argv=fill_in(written, planned.facts[LATER], str(path)))


def _value_file(folder: Path, point: str) -> Path:
    return (folder / VALUE_FILES / f"{point}.json").resolve()


def with_id(argv: list[str], point: str) -> list[str]:
    """Return the command with the point's id in its place."""
    return [word.replace(PLACE, point) for word in argv]
