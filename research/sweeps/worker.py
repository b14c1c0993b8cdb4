"""One process that runs points of a sweep, one after the other, and writes down what becomes of them.

It keeps its process between points of our own verbs (importing torch takes longer than a small training); a foreign command is
a process of its own.
"""

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from research.errors import DIVERGED, INTERRUPTED, PREEMPTED, WRONG_INPUT, UserError
from research.progress import say
from research.runs.disk import disk_errors
from research.runs.folder import RunFolder
from research.runs.ledger import ATTEMPTS, Ledger, is_stuck, should_run
from research.runs.locks import is_in_use
from research.runs.plan import PlannedPoint, as_written, points_so_far, read_plan, startable, with_id
from research.runs.state import is_finished
from research.sweeps.command import ours
from research.sweeps.folder import folder_of
from research.sweeps.outcome import is_target_reached, outcome_of, until_target, variables_of
from research.sweeps.plan import describer, is_fit
from research.sweeps.process import run_command, stop_signals, stoppable
from research.sweeps.search import points_to_run
from research.sweeps.spec import Sweep
from research.sweeps.submission import numbers
from research.sweeps.trainer import Program

STATE = {0: "done", DIVERGED: "diverged", PREEMPTED: "preempted", INTERRUPTED: "preempted"}


def run_worker(
    sweep: Sweep,
    program: Program,
    seed: int = 0,
    folder: Path | None = None,
    plan: Path | None = None,
    index: int | None = None,
    of: str | None = None,
) -> int:
    """Run the points of a plan or a search, or the one of a cluster's task; return the exit code.

    Args:
        sweep: see spec.
        program: see there.
        seed: of a search.
        folder: of the sweep; None: where its command says.
        plan: a copy of the folder's plan; None: the folder's own.
        index: of the one point that is run; None runs all.
        of: points that `index` counts, as 0-3,7; None: all of the plan.

    Raises:
        UserError: there is no plan, or no such point.
    """
    folder = folder or folder_of(sweep)
    if sweep.is_searched:
        # on a cluster, a task is one point: whichever is to be run, or the next to be proposed
        proposed = points_to_run(folder, sweep, seed, describer(sweep, program), once=index is not None)
        points = until_target(folder, sweep, partial(points_so_far, folder), proposed)
        found = variables_of(folder, sweep), outcome_of(folder, sweep)
        return work(Ledger(folder), points, program.run, *found, requeues=index is not None)
    chosen = everything = read_plan(folder, plan)
    if index is not None:
        chosen = [_numbered(everything, index, of)]
        if is_target_reached(folder, sweep, everything):
            return 0
        if int(os.environ.get("SLURM_PROCID", "0")):  # another rank of this point: the first one keeps the books
            return _run_rank(folder, chosen[0], program)
    points = until_target(folder, sweep, lambda: everything, chosen)
    found = variables_of(folder, sweep, plan), outcome_of(folder, sweep)
    code = work(Ledger(folder), points, program.run, *found, requeues=index is not None)
    if code or index is None:
        return code
    standing = Ledger(folder).standings([chosen[0].point])[chosen[0].point]
    return int(standing.last.get("code") or 1) if standing.state in ("failed", "diverged") else 0


def _run_rank(folder: Path, planned: PlannedPoint, program: Program) -> int:
    arguments = ours(with_id(planned.argv, planned.point))
    return 0 if arguments is None or is_finished(folder / planned.point) else program.run(arguments)


def _numbered(points: list[PlannedPoint], index: int, of: str | None) -> PlannedPoint:
    """Return a task's point: `index` counts the plan's points, or those that `of` lists (0-3,7), as Kubernetes numbers them."""
    try:
        chosen = list(range(len(points))) if of is None else numbers(of)
        if index < 0:
            raise IndexError(index)
        return points[chosen[index]]
    except (IndexError, ValueError):
        raise UserError(
            f"--index {index}{f' --of {of}' if of else ''}: the plan has {len(points)} points; expected one of "
            "them. It was made anew since: submit again."
        ) from None


def run_point(
    ledger: Ledger,
    planned: PlannedPoint,
    run: Callable[[list[str]], int],
    variables: dict[str, str],
    outcome: Callable[[PlannedPoint], dict[str, object]] = lambda planned: {},
    requeues: bool = False,
) -> int | None:
    """Run a point that nobody else runs and that is not done.

    Args:
        ledger: of the sweep.
        planned: the point.
        run: our verbs: arguments → exit code.
        variables: of the environment that the point gets, beside its own id.
        outcome: what a point that ended well adds to its event: the value of the sweep's metric; `state`, where it is another
            than done.
        requeues: a cluster begins a point again that was stopped, for ever: one that gets nowhere is to fail.

    Returns:
        The exit code; None where there was nothing to do.
    """
    with ledger.claim(planned.point) as is_ours:
        if not is_ours:
            return None
        standing = ledger.standings([planned.point])[planned.point]  # the claim is ours: a `running` here was killed
        state = "killed" if standing.state == "running" else standing.state
        if not should_run(standing._replace(state=state)):
            return None
        if is_in_use(ledger.folder / planned.point):
            say(f"{planned.point} is being trained by another command, and is left to it")
            return None
        step = _last_step(ledger.folder / planned.point) if requeues and is_fit(planned) else None
        if step is not None and is_stuck(standing, step):
            error = (
                f"it was begun {ATTEMPTS} times at step {step} and stopped each time before its next checkpoint; expected a "
                "task that gets further. Submit with a longer --time or a shorter --warning, or a smaller --save_every, and "
                "with --retry"
            )
            say(f"{planned.point}: {error}")
            ledger.append(planned.point, "failed", code=WRONG_INPUT, error=error)
            return WRONG_INPUT
        with disk_errors(ledger.path):  # at its start a point costs nothing yet
            ledger.append(planned.point, "running", attempt=standing.attempts + 1, **({} if step is None else {"step": step}))
        started, cpu = time.perf_counter(), _cpu_seconds()
        log = ledger.folder / "logs" / f"{planned.point}.log"
        planned = startable(ledger.folder, planned)
        shown = with_id(as_written(planned), planned.point)
        if stop_signals:  # while torch was loaded
            code, error = PREEMPTED, "stopped before it began"
        else:
            code, error = run_command(with_id(planned.argv, planned.point), shown, log, run, variables, planned.point)
        state = STATE.get(code, "failed")
        if state == "diverged" and ours(planned.argv) is None:  # of a foreign command 3 may mean anything
            state = "failed"
        more = {"state": state} | (outcome(planned) if code == 0 else {"code": code, "error": error})
        try:
            seconds, cpu = round(time.perf_counter() - started, 3), round(_cpu_seconds() - cpu, 3)
            ledger.append(planned.point, seconds=seconds, cpu_seconds=cpu, **more)
        except OSError as error:  # it counts as killed, and is found finished when the sweep is run again
            say(f"warning: {ledger.path} does not take what became of {planned.point} ({error.strerror})")
        return code


def _last_step(run: Path) -> int:
    """Return the step of a training's last checkpoint; 0 where it has none."""
    try:
        return int(RunFolder(run).checkpoints[-1]["step"])
    except (UserError, IndexError, ValueError, TypeError):  # `fit` says what is wrong with it
        return 0


def _cpu_seconds() -> float:
    """Return the processor time of this process and of those it has waited for: a point's cost on a shared machine."""
    return sum(os.times()[:4])


def _has_ended(ledger: Ledger, planned: PlannedPoint) -> bool:
    """Return whether a point is not to be run again: a requeued task would find nothing to do, and be told to stop again."""
    return not should_run(ledger.standings([planned.point])[planned.point])


def work(
    ledger: Ledger,
    points: Iterable[PlannedPoint],
    run: Callable[[list[str]], int],
    variables: dict[str, str],
    outcome: Callable[[PlannedPoint], dict[str, object]] = lambda planned: {},
    requeues: bool = False,
) -> int:
    """Run all that is to be run, until nothing is left or this process is told to stop; return the exit code.

    The arguments are those of run_point. A stop counts against a point that is requeued, even if it came before its start.
    """
    with stoppable():
        for planned in points:
            code = None if stop_signals and not requeues else run_point(ledger, planned, run, variables, outcome, requeues)
            # a crash: again, up to ATTEMPTS times
            while code not in (None, 0, PREEMPTED, INTERRUPTED) and not stop_signals:
                code = run_point(ledger, planned, run, variables, outcome, requeues)
            if code in (PREEMPTED, INTERRUPTED) or (stop_signals and not (requeues and _has_ended(ledger, planned))):
                return PREEMPTED
    return 0
