"""`sweep finish`, the job after a SLURM array: submits again what is missing, a few times; then writes what there is."""

import json
from pathlib import Path

from research.errors import UserError
from research.progress import say
from research.runs.files import write_json
from research.runs.ledger import Ledger, should_run
from research.runs.plan import points_so_far, read_plan
from research.runs.reading import read_json
from research.sweeps.directives import Options
from research.sweeps.outcome import is_target_reached, sweep_exit_code
from research.sweeps.points import task_numbers, without_queued
from research.sweeps.queue import cancelled_tasks
from research.sweeps.sampling import count_of
from research.sweeps.slurm import ROUNDS, submit
from research.sweeps.spec import Sweep
from research.sweeps.standing import count
from research.sweeps.status import write_report
from research.sweeps.submission import Submission
from research.sweeps.trainer import Program


def finish_array(
    sweep: Sweep, program: Program, folder: Path, plan: Path, round: int, options: str, seed: int = 0, array: str | None = None
) -> int:
    """Submit what is missing again, or write the report; return the exit code.

    Args:
        sweep: see spec.
        program: see there.
        folder: of the sweep.
        plan: a copy of its plan.
        round: how often it was submitted.
        options: what the user said of the cluster, as `submit` wrote it.
        seed: of the sweep's draws.
        array: id of the array that has ended.
    """
    points = points_so_far(folder) if sweep.is_searched else read_plan(folder, plan)
    ledger = Ledger(folder)
    standings = ledger.standings([planned.point for planned in points])
    tasks = task_numbers(sweep, points, lambda planned: should_run(standings[planned.point]))
    tasks = _without_cancelled(sweep, tasks, array, [planned.point for planned in points], plan.parent / f"array-{round}.json")
    tasks = without_queued(sweep, folder, points, tasks)[0]
    if tasks and round < ROUNDS and not is_target_reached(folder, sweep, points):
        copies = Submission(sweep.name, sweep.path, plan, folder, seed)
        names = () if sweep.is_searched else [planned.point for planned in points]
        again, _ = submit(copies, tasks, _options(options), round + 1, names)
        missing = f"{len(tasks)} of {count_of(len(points), 'point')} {'is' if len(tasks) == 1 else 'are'} missing"
        say(f"{missing}: submitted again as array {again}")
        return 0
    counts = count(ledger, points)
    page = write_report(folder, points, program)
    write_json(folder / "finished.json", {"states": counts, "rounds": round, "report": page and str(page)})
    say(", ".join(f"{n} {state}" for state, n in counts.items()) + (f"; {page}" if page else ""))
    return 0 if set(counts) <= {"done", "pruned"} else sweep_exit_code(folder, sweep, points, 1, counts)


def _without_cancelled(sweep: Sweep, tasks: list[int], array: str | None, points: list[str], note: Path) -> list[int]:
    """Leave out the tasks that the user has cancelled: who cancels a task does not want it again."""
    cancelled = cancelled_tasks(array) if array else set()
    if not cancelled:
        return tasks
    if sweep.is_searched:
        left = tasks[: max(0, len(tasks) - len(cancelled))]
    else:
        noted = read_json(note)["points"] if note.exists() else {}
        names = {noted.get(str(task)) for task in cancelled}
        left = [i for i in tasks if points[i] not in names]
    if len(left) < len(tasks):
        was = "was" if len(cancelled) == 1 else "were"
        say(f"{count_of(len(cancelled), 'task')} of array {array} {was} cancelled: not submitted again")
    return left


def _options(text: str) -> Options:
    """Read what the user said of the cluster when the sweep was submitted.

    Raises:
        UserError: it cannot be read.
    """
    try:
        values = json.loads(text)
        return Options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"--options {text[:60]!r} are not read ({error}); expected those that `sweep submit` wrote. Submit again."
        ) from None
