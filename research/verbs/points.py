"""Points of a sweep as its verbs see them: where they lie, which of them are to be run, and which were made by other code."""

import argparse
import contextlib
import io
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.progress import bar, say


def folder_of(sweep: Any) -> Path:
    """Where a sweep's points lie: what --out of its command says before {point}; else runs/sweeps/NAME."""
    from research.sweeps.plan import PLACE

    words = list(sweep.command)
    for flag, value in itertools.pairwise(words):
        if flag == "--out" and PLACE in value:
            return Path(value.partition(PLACE)[0])
    return Path("runs/sweeps") / sweep.name


def planned_points(args: argparse.Namespace, sweep: Any) -> list:
    """The points, checked: from the plan where it is this sweep's, else planned now; of a search, those so far."""
    from research.sweeps.plan import is_exhaustive, is_planned, plan, read_plan, write_plan
    from research.sweeps.search import open_search, points_so_far
    from research.verbs.searching import describe_for, is_searched

    if not is_exhaustive(sweep) and not is_searched(sweep):
        raise UserError(f"{args.file}: random without run_cap has no end; expected a number of trials. Add run_cap: 24, or "
                        "run it by `wandb agent`.")  # fmt: skip
    folder, key = folder_of(sweep), plan_key(args, sweep)
    if is_searched(sweep):
        open_search(folder, sweep, args.seed)
        if points := points_so_far(folder):
            return points
    elif is_planned(folder, key):  # fit refuses a point whose data have changed since
        return read_plan(folder)
    points, problems = plan(sweep, describe_for(sweep), args.seed, watched)
    if problems:
        raise UserError(f"{args.file}: {len(problems)} points cannot be run, the first: {problems[0].reason}")
    if is_searched(sweep):
        return []  # those were its extremes; its points are proposed one by one
    write_plan(folder, points, key)
    return points


def plan_key(args: argparse.Namespace, sweep: Any) -> str:
    """Hash of the sweep, the configurations that its command names, the seed and the code."""
    from research.runfolder import hash_json
    from research.verbs.identity import code_fingerprint

    files = [Path(word) for word in sweep.command if word.endswith((".yaml", ".yml")) and Path(word).is_file()]
    return hash_json([sweep.facts, args.seed, code_fingerprint(), [path.read_text(encoding="utf-8") for path in files]])


def due_again(args: argparse.Namespace, ledger: Any, points: list, folder: Path) -> list:
    """Points that are run again because the user asks for it, or because what they made is gone."""
    standings = ledger.standings([one.point for one in points])
    stale = [one for one in points if is_stale(folder / one.point)]
    if stale and not args.rerun_stale:
        say(f"{len(stale)} points were done by other code; --rerun-stale runs them again")
    again = stale if args.rerun_stale else []
    gone = [
        one
        for one in points
        if standings[one.point].state == "done" and is_fit(one) and not is_done(folder / one.point)
    ]
    failed = [one for one in points if standings[one.point].state in ("failed", "killed")] if args.retry else []
    for one in again:
        _move_aside(folder / one.point)
    return [*again, *gone, *failed]


def to_do(args: argparse.Namespace, sweep: Any, points: list, folder: Path) -> list[int]:
    """Numbers of the points that are to be run, after the ledger was told of those that the user asks for again."""
    from research.sweeps.ledger import AGAIN, Ledger

    ledger = Ledger(folder)
    for one in due_again(args, ledger, points, folder):
        ledger.append(one.point, "missing", reason="run again")
    standings = ledger.standings([one.point for one in points])
    return task_numbers(sweep, points, lambda one: standings[one.point].state in AGAIN)


def task_numbers(sweep: Any, points: list, is_wanted: Callable[[Any], bool]) -> list[int]:
    """Numbers of an array's tasks: of the points that are wanted; of a search, as many as are wanted or not proposed yet."""
    from research.verbs.searching import is_searched

    wanted = [i for i, one in enumerate(points) if is_wanted(one)]
    return list(range(len(wanted) + sweep.run_cap - len(points))) if is_searched(sweep) else wanted


def is_fit(one: Any) -> bool:
    """Whether the point is a training of ours."""
    from research.sweeps.spec import ours

    return (ours(one.argv) or [""])[0] == "fit"


def is_done(run: Path) -> bool:
    """Whether a run folder holds a finished training."""
    try:
        return bool(json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("finished"))
    except (OSError, ValueError, AttributeError):
        return False


def is_stale(run: Path) -> bool:
    """Whether a finished run was made by other code than this."""
    from research.runfolder import MARKER
    from research.verbs.identity import code_fingerprint

    if not is_done(run):
        return False
    try:
        return json.loads((run / MARKER).read_text(encoding="utf-8")).get("fingerprint") != code_fingerprint()
    except (OSError, ValueError):
        return True


def _move_aside(run: Path) -> None:
    """Keep what other code made, under another name."""
    n = 1
    while (aside := run.with_name(f"{run.name}.stale-{n}")).exists():
        n += 1
    run.rename(aside)


def write_report(folder: Path, points: list) -> Path | None:
    """The page of a sweep's finished trainings, in the order of the plan; None where there is none, or it cannot be made."""
    from research import cli

    runs = [str(folder / one.point) for one in points if is_fit(one) and is_done(folder / one.point)]
    out = folder / "report"
    if not runs:
        return None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(["report", *runs, "--out", str(out)])
    except UserError as error:  # the points are done whatever becomes of their page
        say(f"warning: no report ({error})")
        return None
    return out / "index.html" if code == 0 else None


def watched(points: Iterable) -> Iterable:
    """The points, with a bar that shows how far the plan is."""
    points = list(points)
    with bar(len(points), "plan", "point") as progress:
        for point in points:
            yield point
            progress.update(1)
