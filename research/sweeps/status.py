"""Where the points of a sweep stand, as a table; and the page that shows what came of them."""

import contextlib
import io
import json
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from research.errors import UserError
from research.progress import say
from research.runs.ledger import STATES, Ledger, Standing
from research.runs.plan import PlannedPoint, is_planned, read_plan
from research.runs.state import is_done, stale_reason
from research.sweeps.folder import folder_of, refuse_other_sweep
from research.sweeps.plan import is_fit
from research.sweeps.points import plan_key
from research.sweeps.spec import Sweep
from research.sweeps.trainer import Trainer


def show_status(sweep: Sweep, seed: int = 0, as_json: bool = False) -> int:
    """Print where each point stands; 0.

    Args:
        sweep: see spec.
        seed: of a random sweep's draws.
        as_json: print one JSON line.

    Raises:
        UserError: it is not planned, or the folder is another sweep's.
    """
    folder = folder_of(sweep)
    refuse_other_sweep(folder, sweep, seed)
    points = read_plan(folder)
    if not sweep.is_searched and not is_planned(folder, plan_key(sweep, seed)):
        say(f"{sweep.path}, its configurations or the code have changed since the plan that is shown; plan or run it again")
    standings = Ledger(folder).standings([planned.point for planned in points])
    for planned in points:
        state = standings[planned.point].state
        if state in ("done", "pruned") and is_fit(planned):
            run, data = folder / planned.point, planned.facts.get("data")
            state = "stale" if stale_reason(run, data) else state if is_done(run) else "missing"
            standings[planned.point] = standings[planned.point]._replace(state=state)
    if as_json:
        rows = [{"point": planned.point, "values": planned.values, **standings[planned.point]._asdict()} for planned in points]
        print(json.dumps({"out": str(folder), "states": counted(standings), "points": rows}))
        return 0
    Console(soft_wrap=True).print(table(points, standings))
    return 0


def write_report(folder: Path, points: list[PlannedPoint], trainer: Trainer) -> Path | None:
    """The page of a sweep, as `research report FOLDER` makes it; None where nothing is finished, or it cannot be made."""
    out = folder / "report"
    if not any(is_fit(planned) and is_done(folder / planned.point) for planned in points):
        return None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = trainer.run(["report", str(folder), "--out", str(out)])
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


def table(points: list[PlannedPoint], standings: dict[str, Standing]) -> Table:
    """rich's table of points and where they stand."""
    rows = Table(box=None, pad_edge=False)
    names = list(points[0].values) if points else []
    varied = [name for name in names if len({str(planned.values.get(name)) for planned in points}) > 1]
    measured = any(standing.last.get("value") is not None for standing in standings.values())
    for name in ("point", *varied, "state", "attempts", "seconds", *(["value"] if measured else []), ""):
        rows.add_column(escape(name), overflow="fold", no_wrap=name in ("point", "state"))  # an id is there to be copied
    for planned in points:
        standing = standings[planned.point]
        seconds, value = standing.last.get("seconds"), standing.last.get("value")
        values = [escape(_short(planned.values.get(name))) for name in varied]
        rows.add_row(
            planned.point,
            *values,
            standing.state,
            str(standing.attempts),
            "" if seconds is None else f"{seconds:.1f}",
            *([("" if value is None else f"{value:.4f}")] if measured else []),
            escape(str(standing.last.get("error") or "")),
        )  # gloo's errors have brackets
    return rows


def _short(value: object) -> str:
    """A drawn rate has more digits than a table needs."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
