"""Which tasks of a sweep's arrays wait or run on SLURM: each submission notes its array, and SLURM says what became of it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.runs.files import write_json
from research.runs.reading import read_json
from research.sweeps.submission import numbers

ASKED = 60  # seconds that an answer may take


class Task(NamedTuple):
    """A task that waits or runs.

    Attributes:
        array: id of its array.
        point: id of its point; "" of a search, whose tasks propose theirs.
        waits: it has not begun, or not again.
    """

    array: str
    point: str
    waits: bool


def note_array(path: Path, array: str, finish: str, name: str, points: dict[int, str]) -> None:
    """Note an array that was submitted.

    Args:
        path: of the note.
        array: its id.
        finish: id of the job after it.
        name: of the job.
        points: number of a task → id of its point, "" of none.
    """
    write_json(path, {"array": array, "finish": finish, "name": name, "points": {str(n): point for n, point in points.items()}})


def active_tasks(folder: Path) -> list[Task]:
    """List the tasks of a sweep's submissions that wait or run now; [] where SLURM does not say it."""
    points = {}
    for path in sorted(folder.glob("submit/*/array-*.json")):
        try:
            note = read_json(path)
            names = {str(task): str(point) for task, point in note["points"].items()}
            points[str(note["array"])] = str(note["name"]), names
        except (UserError, KeyError, TypeError, AttributeError):
            continue  # of another version
    found = []
    for line in _lines(["squeue", "-h", "-r", "-j", ",".join(points), "-o", "%F %K %T %j"]) if points else ():
        array, number, state, name = [*line.split(None, 3), "", "", ""][:4]
        noted, names = points.get(array, ("", {}))
        if state not in ("", "COMPLETING") and name == noted and number in names:  # ids come again: a name tells
            found.append(Task(array, names[number], state in ("PENDING", "CONFIGURING", "REQUEUED")))
    return found


def cancelled_tasks(array: str) -> set[int]:
    """Return the numbers of an array's tasks that somebody has cancelled; SLURM knows it for minutes, its accounting longer."""
    found = _lines(["squeue", "-h", "-r", "-t", "CANCELLED", "-j", array, "-o", "%K"])
    if not found:
        accounted = (line.partition("|") for line in _lines(["sacct", "-n", "-X", "-P", "-j", array, "-o", "JobID,State"]))
        found = [job.partition("_")[2] for job, _, state in accounted if state.startswith("CANCELLED")]
    tasks: set[int] = set()
    for text in found:
        try:
            tasks |= {*numbers(text.strip("[]").partition("%")[0])}
        except ValueError:
            continue
    return tasks


def _lines(command: Sequence[str]) -> list[str]:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASKED)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()] if answer.returncode == 0 else []
