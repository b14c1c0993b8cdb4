"""Where the points of a sweep stand: by the ledger, and by the run that lies in a point's folder, whoever has made it.

A worker notes in the ledger what it runs. W&B's agents and a typed `fit --out …/{point}` do not: what they have finished is
known by its folder, whose name is the point's id; what they are training now holds that folder's lock.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from research.runs.folder import RunFolder
from research.runs.ledger import STATES, Ledger, Standing
from research.runs.locks import is_in_use
from research.runs.plan import PlannedPoint
from research.runs.state import is_finished, stale_reason
from research.sweeps.outcome import outcome_of
from research.sweeps.plan import is_fit
from research.sweeps.spec import Sweep
from research.types import Json

UNFINISHED = ("missing", "preempted", "killed")
"""States of a point that another command may have finished since."""


def standings_now(folder: Path, points: list[PlannedPoint], sweep: Sweep) -> dict[str, Standing]:
    """Return where each point stands; a run may have been made by another command, be gone, or be of other code."""
    standings = Ledger(folder).standings([planned.point for planned in points])
    outcome = outcome_of(folder, sweep)
    for planned in filter(is_fit, points):
        standing, run = standings[planned.point], folder / planned.point
        if standing.state in UNFINISHED and is_finished(run):
            standing = _finished_elsewhere(planned, run, standing, outcome)
        elif standing.state in UNFINISHED and is_in_use(run):
            standing = standing._replace(state="running")
        if standing.state in ("done", "pruned"):
            state = "stale" if stale_reason(run, planned.facts.get("data")) else standing.state
            standing = standing._replace(state=state if is_finished(run) else "missing")
        standings[planned.point] = standing
    return standings


def _finished_elsewhere(
    planned: PlannedPoint, run: Path, standing: Standing, outcome: Callable[[PlannedPoint], dict[str, Json]]
) -> Standing:
    """Return the standing of a point whose run no worker has noted as finished."""
    seconds = RunFolder(run).result.get("seconds")
    timed = {"seconds": seconds} if isinstance(seconds, int | float) else {}
    last = {"point": planned.point, "state": "done"} | timed | outcome(planned)
    return standing._replace(state=last["state"], last=last)


def note_finished(folder: Path, points: list[PlannedPoint], sweep: Sweep) -> None:
    """Note in the ledger the points that other commands have finished: they are not begun again."""
    ledger = Ledger(folder)
    noted = ledger.standings([planned.point for planned in points])
    for point, standing in standings_now(folder, points, sweep).items():
        if noted[point].state in UNFINISHED and standing.state not in (*UNFINISHED, "running"):
            event = {name: value for name, value in standing.last.items() if name not in ("point", "state")}
            ledger.append(point, standing.last["state"], reason="finished by another command", **event)


def counted(standings: dict[str, Standing]) -> dict[str, int]:
    """Count the points of each state, in the order of STATES."""
    numbers = Counter(standing.state for standing in standings.values())
    return {state: numbers[state] for state in STATES if numbers[state]}


def count(ledger: Ledger, points: list[PlannedPoint]) -> dict[str, int]:
    """Count the points of each state by the ledger alone, in the order of STATES."""
    return counted(ledger.standings([planned.point for planned in points]))
