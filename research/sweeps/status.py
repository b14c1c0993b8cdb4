"""Where the points of a sweep stand, as a table; and the page that shows what came of them."""

import contextlib
import io
import json
import sys
from pathlib import Path

from rich.console import Console

from research.errors import UserError
from research.progress import say
from research.runs.folder import RunFolder
from research.runs.plan import FILE as PLAN
from research.runs.plan import PlannedPoint, is_planned, read_plan
from research.runs.state import is_finished
from research.sweeps.configs import changes
from research.sweeps.folder import folder_of, refuse_other_sweep
from research.sweeps.plan import is_fit
from research.sweeps.points import plan_key
from research.sweeps.sampling import count_of
from research.sweeps.shown import errors, lost_rows, table
from research.sweeps.spec import Sweep
from research.sweeps.standing import counted, standings_now
from research.sweeps.trainer import Program

WIDTH, WIDEST = 80, 10_000  # columns, where there is no terminal; of --wide


def show_status(sweep: Sweep, seed: int = 0, wide: bool = False, as_json: bool = False) -> int:
    """Print where each point stands; return 0.

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
    if not sweep.is_exhaustive and not (folder / PLAN).exists():
        return _show_runs(sweep, folder, as_json)
    points = read_plan(folder)
    if not sweep.is_searched and not is_planned(folder, plan_key(sweep, seed)):
        what = "; ".join(changes(sweep, folder)) or f"{sweep.path}, its configurations or the code have"
        say(f"{what} changed since the plan that is shown; plan or run it again")
    standings = standings_now(folder, points, sweep)
    if as_json:
        rows = [{"point": planned.point, "values": planned.values, **standings[planned.point]._asdict()} for planned in points]
        print(json.dumps({"out": str(folder), "states": counted(standings), "points": rows}))
        return 0
    if wide:
        Console(width=WIDEST).print(table(points, standings, is_wide=True))
    else:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        console.print(table(points, standings))
    for line in [*errors(points, standings), *lost_rows(points)]:
        print(line)
    print(", ".join(f"{n} {state}" for state, n in counted(standings).items()))
    return 0


def _show_runs(sweep: Sweep, folder: Path, as_json: bool) -> int:
    """Count the runs of a sweep without a plan, whose points W&B's server or a search proposes one by one; return 0."""
    runs = [path for path in sorted(folder.iterdir()) if RunFolder(path).is_training] if folder.is_dir() else []
    finished = sum(map(is_finished, runs))
    if as_json:
        states = {state: count for state, count in (("done", finished), ("unfinished", len(runs) - finished)) if count}
        print(json.dumps({"out": str(folder), "states": states, "points": []}))
        return 0
    print(f"{sweep.path}: points of a {sweep.method} sweep are proposed one by one, so none is planned")
    print(
        f"{folder} holds {count_of(len(runs), 'run')}, {finished} of them finished"
        + (f"; `research report {folder}` shows them" if runs else "")
    )
    return 0


def write_report(folder: Path, points: list[PlannedPoint], program: Program) -> Path | None:
    """Write the page of a sweep, as `research report FOLDER` does; None where nothing is finished, or it cannot be made."""
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
