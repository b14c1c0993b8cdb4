"""The points of a sweep: planned before or now, and which of them are to be run."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.progress import say
from research.runs.fingerprint import plan_fingerprint
from research.runs.hashes import hash_json
from research.runs.ledger import AGAIN, Ledger
from research.runs.plan import PlannedPoint, is_planned, points_so_far, read_plan, write_plan
from research.runs.state import is_finished, stale_reason
from research.sweeps.command import ours
from research.sweeps.configs import configs_of, kept_points, refuse_changed, typed
from research.sweeps.folder import claimed, folder_of, known_ids, refuse_other_sweep, with_earlier_ids
from research.sweeps.plan import describer, is_fit, plan, watched
from research.sweeps.queue import active_tasks
from research.sweeps.sampling import count_of
from research.sweeps.search import open_search, refuse_other_search
from research.sweeps.spec import Sweep
from research.sweeps.standing import note_finished, standings_now
from research.sweeps.trainer import Program


def planned_points(sweep: Sweep, seed: int, program: Program) -> list[PlannedPoint]:
    """Return the points, checked: from the plan where it is this sweep's, else planned now; of a search, those so far.

    Raises:
        UserError: a point cannot be run, or the folder is another sweep's.
    """
    if not sweep.is_exhaustive and not sweep.is_searched:
        raise UserError(
            f"{sweep.path}: random without run_cap has no end; expected a number of trials. Add run_cap: 24, or "
            "run it by `wandb agent`."
        )
    folder, key = folder_of(sweep), plan_key(sweep, seed)
    refuse_other_sweep(folder, sweep, seed)
    if sweep.is_searched:
        refuse_other_search(folder, sweep, seed)
        if points := points_so_far(folder):
            if not _are_current(points, program):
                raise UserError(
                    f"{folder} holds a search over other data or another model than are there now; expected the "
                    "same, to go on. Give the sweep another name, or move that folder."
                )
            return points
    elif is_planned(folder, key):
        if _are_current(points := read_plan(folder), program):
            return points
        say("data or model have changed since the plan: it is made anew, and its points are others")
    points = with_earlier_ids(folder, plan(sweep, describer(sweep, program), seed, watched))
    refuse_changed(sweep, folder, points)
    with claimed(folder, sweep, seed):
        if sweep.is_searched:
            open_search(folder, sweep, seed)
            return []  # those were its extremes; its points are proposed one by one
        points = kept_points(points, sweep, folder)
        write_plan(folder, points, key)
    return points


def _are_current(points: list[PlannedPoint], program: Program) -> bool:
    """Return whether the data and models that a plan was made of are still there: one point of each kind is described again."""
    trainings = [planned for planned in points if is_fit(planned)]
    kinds = {json.dumps([planned.facts.get("base_hash"), planned.facts.get("data")]): planned for planned in trainings}
    try:
        for planned in kinds.values():
            facts = program.describe(ours(planned.argv), None, None)
            if planned.point not in known_ids(facts["point"], facts):
                return False
    except UserError:
        return False  # planning says what is wrong
    return True


def plan_key(sweep: Sweep, seed: int) -> str:
    """Hash the sweep, its command as it stands now, the configurations that this names, the seed and the code."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in configs_of(sweep.command)]
    sweep = typed(sweep, folder_of(sweep))  # a copy is as good as its file
    command = sweep.argv_of({})  # with the variables of the environment
    return hash_json([sweep.facts, command, seed, plan_fingerprint(), texts])


class Again(NamedTuple):
    """Points that the user wants to be run again.

    Attributes:
        stale: those that other code has finished (--rerun-stale).
        failed: those that have failed as often as they are tried (--retry).
    """

    stale: bool
    failed: bool


def begin_again(sweep: Sweep, folder: Path, points: list[PlannedPoint], again: Again) -> list[PlannedPoint]:
    """Note in the ledger what is finished, and what runs again: the user asks for it, or what was made is gone."""
    note_finished(folder, points, sweep)
    ledger, chosen = Ledger(folder), points_again(folder, points, again)
    for planned in chosen:
        run = folder / planned.point
        if again.stale and stale_reason(run, planned.facts.get("data")):
            _move_aside(run)
        ledger.append(planned.point, "missing", reason="run again")
    return chosen


def points_again(folder: Path, points: list[PlannedPoint], again: Again) -> list[PlannedPoint]:
    """List the points that are run again; nothing is changed."""
    standings = Ledger(folder).standings([planned.point for planned in points])
    reasons = [stale_reason(folder / planned.point, planned.facts.get("data")) for planned in points]
    stale = [planned for planned, reason in zip(points, reasons, strict=True) if reason]
    if stale and not again.stale:
        listed = "; ".join(dict.fromkeys(filter(None, reasons)))
        say(f"{count_of(len(stale), 'point')} made by other code or of other data ({listed}); --rerun-stale runs them again")
    ended = [planned for planned in points if standings[planned.point].state in ("done", "pruned")]
    gone = [planned for planned in ended if is_fit(planned) and not is_finished(folder / planned.point)]
    failed = [planned for planned in points if standings[planned.point].state in ("failed", "killed")]
    return [*(stale if again.stale else []), *gone, *(failed if again.failed else [])]


def task_numbers(sweep: Sweep, points: list[PlannedPoint], is_wanted: Callable[[PlannedPoint], bool]) -> list[int]:
    """List the numbers of an array's tasks: of the wanted points; of a search, as many as are wanted or not proposed yet."""
    wanted = [i for i, planned in enumerate(points) if is_wanted(planned)]
    return list(range(len(wanted) + max(0, sweep.run_cap - len(points)))) if sweep.is_searched else wanted


def tasks_to_submit(sweep: Sweep, folder: Path, points: list[PlannedPoint], again: Again, dry_run: bool) -> list[int]:
    """List the numbers of the tasks of an array; a dry run leaves the ledger as it is."""
    chosen = points_again(folder, points, again) if dry_run else begin_again(sweep, folder, points, again)
    repeated = {planned.point for planned in chosen}
    standings = standings_now(folder, points, sweep)
    return task_numbers(sweep, points, lambda planned: standings[planned.point].state in AGAIN or planned.point in repeated)


def without_queued(
    sweep: Sweep, folder: Path, points: list[PlannedPoint], tasks: list[int]
) -> tuple[list[int], dict[str, int]]:
    """Leave out what earlier submissions' tasks, that wait or run, will do; return also array → tasks left out for it."""
    active = active_tasks(folder)
    if sweep.is_searched:  # a task that runs has proposed its point
        queued = Counter(task.array for task in active if task.waits)
        return list(range(max(0, len(tasks) - queued.total()))), dict(queued)
    arrays = {task.point: task.array for task in active}
    left = [i for i in tasks if points[i].point not in arrays]
    return left, dict(Counter(arrays[points[i].point] for i in tasks if points[i].point in arrays))


def _move_aside(run: Path) -> None:
    """Keep what other code made, under another name."""
    n = 1
    while (aside := run.with_name(f"{run.name}.stale-{n}")).exists():
        n += 1
    run.rename(aside)
