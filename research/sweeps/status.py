"""Where the points of a sweep stand, as a table; and the page that shows what came of them."""

import contextlib
import io
import json
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console

from research.errors import UserError
from research.progress import say
from research.runs.ledger import STATES, Ledger, Standing
from research.runs.plan import PlannedPoint, is_planned, read_plan
from research.runs.state import is_finished, stale_reason
from research.sweeps.folder import folder_of, refuse_other_sweep
from research.sweeps.plan import is_fit
from research.sweeps.points import found_finished, plan_key
from research.sweeps.shown import errors, table
from research.sweeps.spec import Sweep
from research.sweeps.trainer import Program

WIDTH, WIDEST = 80, 10_000  # columns, where there is no terminal; of --wide


def show_status(sweep: Sweep, seed: int = 0, wide: bool = False, as_json: bool = False) -> int:
    """Print where each point stands; 0.

    Args:
        sweep: see spec.
        seed: of a random sweep's draws.
        wide: show whole names and values, however wide the table gets.
        as_json: print one JSON line.

    Raises:
        UserError: it is not planned, or the folder is another sweep's.
    """
    folder = folder_of(sweep)
    refuse_other_sweep(folder, sweep, seed)
    points = read_plan(folder)
    if not sweep.is_searched and not is_planned(folder, plan_key(sweep, seed)):
        say(f"{sweep.path}, its configurations or the code have changed since the plan that is shown; plan or run it again")
    standings = standings_now(folder, points)
    if as_json:
        rows = [{"point": planned.point, "values": planned.values, **standings[planned.point]._asdict()} for planned in points]
        print(json.dumps({"out": str(folder), "states": counted(standings), "points": rows}))
        return 0
    if wide:
        Console(width=WIDEST).print(table(points, standings, is_wide=True))
    else:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        console.print(table(points, standings))
    for error in errors(points, standings):
        print(error)
    print(", ".join(f"{n} {state}" for state, n in counted(standings).items()))
    return 0


def standings_now(folder: Path, points: list[PlannedPoint]) -> dict[str, Standing]:
    """Where each point stands, by the ledger and by the run that it has made, which may be gone or of other code."""
    standings = Ledger(folder).standings([planned.point for planned in points])
    for planned in found_finished(folder, points, standings):
        standings[planned.point] = standings[planned.point]._replace(state="done")
    for planned in points:
        state = standings[planned.point].state
        if state in ("done", "pruned") and is_fit(planned):
            run, data = folder / planned.point, planned.facts.get("data")
            state = "stale" if stale_reason(run, data) else state if is_finished(run) else "missing"
            standings[planned.point] = standings[planned.point]._replace(state=state)
    return standings


def write_report(folder: Path, points: list[PlannedPoint], program: Program) -> Path | None:
    """The page of a sweep, as `research report FOLDER` makes it; None where nothing is finished, or it cannot be made."""
    out = folder / "report"
    if not any(is_fit(planned) and is_finished(folder / planned.point) for planned in points):
        return None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = program.run(["report", str(folder), "--out", str(out)])
    except UserError as error:  # the points are done whatever becomes of their page
        say(f"warning: no report ({error})")
        return None
    return out / "index.html" if code == 0 else None


def count(ledger: Ledger, points: list[PlannedPoint]) -> dict[str, int]:
    """State → how many points, in the order of STATES."""
    return counted(ledger.standings([planned.point for planned in points]))


def counted(standings: dict[str, Standing]) -> dict[str, int]:
    """State → how many points, in the order of STATES."""
    numbers = Counter(standing.state for standing in standings.values())
    return {state: numbers[state] for state in STATES if numbers[state]}
