"""A sweep on this machine: worker processes run its points, and a table shows where they stand."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live

from research.errors import INTERRUPTED, PREEMPTED, UserError
from research.progress import say
from research.runs.ledger import AGAIN, Ledger, Standing
from research.runs.plan import PlannedPoint, copy_plan, points_so_far
from research.sweeps.configs import kept
from research.sweeps.folder import folder_of
from research.sweeps.outcome import sweep_exit_code
from research.sweeps.plan import WARNING, say_counted
from research.sweeps.points import Again, begin_again, planned_points
from research.sweeps.process import last_line, on_signals
from research.sweeps.sampling import count_of
from research.sweeps.shown import outcome_text, progress_text, short_options, table
from research.sweeps.spec import Sweep
from research.sweeps.standing import count
from research.sweeps.status import write_report
from research.sweeps.trainer import Program

POLL = 0.5  # seconds


def run_sweep(
    sweep: Sweep,
    program: Program,
    seed: int = 0,
    workers: int = 1,
    gpus: str = "",
    threads: int | None = None,
    rerun_stale: bool = False,
    retry: bool = False,
    as_json: bool = False,
) -> int:
    """Run what is missing, failed or was stopped, on this machine; return the exit code.

    Args:
        sweep: see spec.
        program: see there.
        seed: of a random sweep's draws.
        workers: processes at a time.
        gpus: ids that the workers share out, as 0,1; empty on a CPU.
        threads: of each worker on a CPU; None shares the processors out.
        rerun_stale, retry: see Again.
        as_json: print one JSON line.

    Raises:
        UserError: a point cannot be run, or the folder is another sweep's.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}; expected 1 or more. Correct it.")
    folder = folder_of(sweep)
    points = planned_points(sweep, seed, program)
    begin_again(sweep, folder, points, Again(rerun_stale, retry))
    threads = threads or max(1, len(os.sched_getaffinity(0)) // workers)
    file, plan = copy_plan(folder, sweep.path.name, kept(sweep, folder).text, None if sweep.is_searched else points)
    command = [sys.executable, "-m", "research", "sweep", "worker", str(file), "--seed", str(seed)]
    command += ["--folder", str(folder), *(["--plan", str(plan)] if plan else [])]
    if sweep.is_searched:
        now, cap = partial(points_so_far, folder), sweep.run_cap
    else:
        now, cap = lambda: points, len(points)
    code = run_workers(folder, now, cap, command, workers, [gpu for gpu in gpus.split(",") if gpu], threads, sweep.metric)
    counts = count(Ledger(folder), now())
    code = sweep_exit_code(folder, sweep, now(), code, counts) if code == 1 else code
    page = None if code == PREEMPTED else write_report(folder, now(), program)
    if as_json:
        print(json.dumps({"out": str(folder), "states": counts, "report": page and str(page)}))
    elif page is not None:
        print(page)
    return code


def run_workers(
    folder: Path,
    points: Callable[[], list[PlannedPoint]],
    cap: int,
    command: list[str],
    workers: int,
    gpus: list[str],
    threads: int,
    metric: str | None = None,
) -> int:
    """Run what is to be run with `workers` processes; return 0 when all points are done, 85 or 130 when stopped, else 1.

    Args:
        folder: of the sweep.
        points: all of them; of a search, those so far.
        cap: how many they will be, at most.
        command: what a worker is.
        workers: how many at a time.
        gpus: ids, shared out among the workers; empty on a CPU.
        threads: of each worker on a CPU.
        metric: whose value a point that has ended is shown with.
    """
    ledger = Ledger(folder)
    standings = ledger.standings([planned.point for planned in points()]).values()
    todo = sum(standing.state in AGAIN for standing in standings) + max(0, cap - len(standings))
    if not todo:
        return _say_counts(ledger, points())
    known = len(standings)
    say(
        f"{todo} of {count_of(max(cap, known), 'point')} {'is' if todo == 1 else 'are'} to be run, by "
        f"{'1 process' if min(workers, todo) == 1 else f'{min(workers, todo)} processes'}; what they say is in "
        f"{folder / 'logs'}"
    )
    children = [_start(command, i, gpus, threads, folder) for i in range(min(workers, todo))]
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    with on_signals(stop), _watch(ledger, points, Shown(max(cap, known), len(children), metric)) as draw:
        while any(child.poll() is None for child in children):
            draw()
            time.sleep(POLL)
        draw()
    for i, child in enumerate(children):
        if not stopped and child.returncode not in (0, PREEMPTED):
            say(f"worker {i} ended with {child.returncode}: {last_line(worker_log(folder, i))}")
    _repeat_warnings(folder, points())
    if stopped:
        _say_counts(ledger, points())
        say("stopped; the same command goes on")
        return INTERRUPTED if stopped[0] == signal.SIGINT else PREEMPTED
    return _say_counts(ledger, points())


def _start(command: list[str], i: int, gpus: list[str], threads: int, folder: Path) -> subprocess.Popen:
    variables = {"OMP_NUM_THREADS": str(threads)} if not gpus else {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]}
    log = worker_log(folder, i)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as stream:
        # a session of its own: Ctrl-C reaches the runner, which tells the workers once
        return subprocess.Popen(
            command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True, env=os.environ | variables
        )


def _repeat_warnings(folder: Path, points: list[PlannedPoint]) -> None:
    """Print each warning of the points once: nobody reads the logs of points that succeeded."""
    warnings: dict[str, int] = {}
    for planned in points:
        log = folder / "logs" / f"{planned.point}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        for line in dict.fromkeys(line.strip() for line in lines if WARNING in line):
            warnings[line] = warnings.get(line, 0) + 1
    say_counted(warnings, len(points))


def worker_log(folder: Path, i: int) -> Path:
    """Return the path of a worker's log."""
    return folder / "logs" / f"worker-{i}.log"


def _say_counts(ledger: Ledger, points: list[PlannedPoint]) -> int:
    """Say where the points stand; the exit code of a sweep of them."""
    counts = count(ledger, points)
    say(", ".join(f"{n} {state}" for state, n in counts.items()))
    return 0 if set(counts) <= {"done", "pruned"} else 1


class Shown(NamedTuple):
    """What the running statement says beside the ledger.

    Attributes:
        total: points that there will be.
        workers: that run them.
        metric: whose value a point that has ended is shown with.
    """

    total: int
    workers: int
    metric: str | None


@contextlib.contextmanager
def _watch(ledger: Ledger, points: Callable[[], list[PlannedPoint]], shown: Shown) -> Iterator[Callable[[], None]]:
    """Show a live table on a terminal; elsewhere a line for each point that begins or ends."""

    def standings() -> dict[str, Standing]:
        return ledger.standings([planned.point for planned in points()])

    if sys.stderr.isatty():
        with Live(console=Console(stderr=True), refresh_per_second=2) as live:

            def draw() -> None:
                planned, now = points(), standings()
                live.update(Group(table(planned, now), progress_text(planned, now, shown.total, shown.workers)))

            yield draw
        return
    earlier = {point: (standing.state, standing.attempts) for point, standing in standings().items()}

    def say_changes() -> None:
        all_points, now = points(), standings()
        for planned, options in zip(all_points, short_options(planned.values for planned in all_points), strict=True):
            standing = now[planned.point]
            if earlier.get(planned.point, ("missing", 0)) == (standing.state, standing.attempts):
                continue
            earlier[planned.point] = (standing.state, standing.attempts)
            text = f"{options or 'the only point'} ({planned.point}) {outcome_text(standing, shown.metric)}"
            is_running = standing.state == "running"
            say(text if is_running else f"{progress_text(all_points, now, shown.total, shown.workers)}: {text}")

    yield say_changes
