"""What became of each point: an append-only file that any number of processes on one file system write.

A line is an event: {"point", "state", "attempt", "time", "host", "job", "pid", "error"}. It is appended whole, under a lock,
and flushed to the disk; a line that a killed writer left unfinished is closed by the next one, and not read. Who runs a point
holds a lock on its claim, which the kernel takes back when the process dies: a point whose last event is `running` and
whose claim is free was killed.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import NamedTuple

from research.errors import WRONG_INPUT
from research.runs.locks import is_held, lock, open_lock, try_lock
from research.types import Json

STATES = ("missing", "running", "preempted", "failed", "diverged", "killed", "pruned", "done", "stale")
AGAIN = ("missing", "preempted", "failed", "killed")
"""States in which a point is run when the sweep is run again."""
ATTEMPTS = 3  # of a point that crashes
FILE = "ledger.jsonl"
NUMBER = int | float
FIELDS: dict[str, type | UnionType] = {
    **dict.fromkeys(("seconds", "cpu_seconds", "value"), NUMBER),
    "code": int,
    "step": int,
    "error": str,
    "pid": int,
}
"""Fields of an event that are read, with their types."""


class Standing(NamedTuple):
    """Where a point stands.

    Attributes:
        state: one of STATES.
        attempts: how often it was begun.
        failures: how often it has failed since the user asked for it.
        last: its last event; {} of none.
        steps: from which its latest starts went on, one for each start since it last ended, failed or was asked for.
    """

    state: str
    attempts: int
    failures: int
    last: dict[str, Json]
    steps: tuple[int | None, ...] = ()


def should_run(standing: Standing) -> bool:
    """Return whether a point is to be run: not done, and not one that would only fail again."""
    if standing.state == "failed":
        return standing.failures < ATTEMPTS and standing.last.get("code") != WRONG_INPUT
    return standing.state in AGAIN


def is_stuck(standing: Standing, step: int) -> bool:
    """Return whether a point has been begun ATTEMPTS times from this very step, and stopped each time before it got further."""
    return standing.steps[-ATTEMPTS:] == (step,) * ATTEMPTS


class Ledger:
    """The ledger of a sweep.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = Path(folder), Path(folder) / FILE

    def append(self, point: str, state: str, **more: Json) -> None:
        """Add an event.

        Raises:
            OSError: the disk.
        """
        event = {
            "point": point,
            "state": state,
            "time": round(time.time(), 3),
            "host": socket.gethostname(),
            "job": job_id(),
            "pid": os.getpid(),
            **more,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with open_lock(self.path, append=True) as stream:
            lock(stream, fcntl.LOCK_EX, self.path)
            size = stream.seek(0, os.SEEK_END)
            torn = False
            if size:
                stream.seek(size - 1)
                torn = stream.read(1) != b"\n"
            stream.write((b"\n" if torn else b"") + json.dumps(event).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def events(self) -> list[dict[str, Json]]:
        """Read all complete events, in order."""
        events = []
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict) and all(isinstance(event.get(name), str) for name in ("point", "state")):
                    events.append({name: value for name, value in event.items() if _is_read(name, value)})
        return events

    def standings(self, points: list[str]) -> dict[str, Standing]:
        """Return where each of the points stands now."""
        last: dict[str, dict] = {}
        attempts: Counter[str] = Counter()
        failures: Counter[str] = Counter()
        steps: dict[str, tuple[int | None, ...]] = {}
        for event in self.events():
            point, state = event["point"], event["state"]
            last[point] = event
            attempts[point] += state == "running"
            if state == "running":
                steps[point] = (*steps.get(point, ()), event.get("step"))
            elif state != "preempted":
                steps.pop(point, None)
            failures[point] = 0 if state == "missing" else failures[point] + (state == "failed")
        standings = {}
        for point in points:
            event = last.get(point, {})
            state = event.get("state", "missing")
            if state not in STATES:  # of a later version: the point's folder tells the rest
                state = "missing"
            if state == "running" and not self.is_claimed(point):
                state = "killed"
            standings[point] = Standing(state, attempts[point], failures[point], event, steps.get(point, ()))
        return standings

    @contextlib.contextmanager
    def claim(self, point: str) -> Iterator[bool]:
        """Hold the point for this process; False where another one does."""
        path = self._claim_file(point)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_lock(path) as stream:
            yield try_lock(stream, path)

    def is_claimed(self, point: str) -> bool:
        """Return whether a process holds the point now."""
        return is_held(self._claim_file(point))

    def _claim_file(self, point: str) -> Path:
        return self.folder / "claims" / f"{point}.lock"


def _is_read(name: str, value: Json) -> bool:
    """Return whether a field of an event has its type; one of another type was written by another program and is left out."""
    return name not in FIELDS or (isinstance(value, FIELDS[name]) and not isinstance(value, bool))


def job_id() -> str | None:
    """Return SLURM's id of this job, with the array's task; None elsewhere."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    return os.environ.get("SLURM_JOB_ID")
