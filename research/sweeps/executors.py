"""Who runs a sweep's points: worker processes on this machine. A table shows where they stand."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from research.progress import say
from research.runs.ledger import AGAIN, STATES, Ledger, Standing
from research.runs.plan import PlannedPoint
from research.sweeps.worker import INTERRUPTED, PREEMPTED, last_line

POLL = 0.5  # seconds


def run_local(
    folder: Path,
    points: Callable[[], list[PlannedPoint]],
    cap: int,
    command: list[str],
    workers: int,
    gpus: list[str],
    threads: int,
) -> int:
    """Run what is to be run with `workers` processes; 0 when all points are done, 85 or 130 when stopped, else 1.

    Args:
        folder: of the sweep.
        points: all of them; of a search, those so far.
        cap: how many they will be, at most.
        command: what a worker is.
        workers: how many at a time.
        gpus: ids, shared out among the workers; empty on a CPU.
        threads: of each worker on a CPU.
    """
    ledger = Ledger(folder)
    standings = ledger.standings([one.point for one in points()]).values()
    todo = sum(standing.state in AGAIN for standing in standings) + max(0, cap - len(standings))
    if not todo:
        return _ended(ledger, points())
    known = len(standings)
    say(
        f"{todo} of {max(cap, known)} points are to be run, by {min(workers, todo)} processes; what they say is in "
        f"{folder / 'logs'}"
    )
    children = [_start(command, i, gpus, threads, folder) for i in range(min(workers, todo))]
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    with _signals(stop), _table(ledger, points) as draw:
        while any(child.poll() is None for child in children):
            draw()
            time.sleep(POLL)
        draw()
    for i, child in enumerate(children):
        if not stopped and child.returncode not in (0, PREEMPTED):
            say(f"worker {i} ended with {child.returncode}: {last_line(worker_log(folder, i))}")
    _repeat_warnings(folder, points())
    if stopped:
        _ended(ledger, points())
        say("stopped; the same command goes on")
        return INTERRUPTED if stopped[0] == signal.SIGINT else PREEMPTED
    return _ended(ledger, points())


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
    """What points were warned of, once each: nobody reads the logs of points that went well."""
    found: dict[str, int] = {}
    for one in points:
        log = folder / "logs" / f"{one.point}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        for line in dict.fromkeys(line.strip() for line in lines if "warning:" in line):
            found[line] = found.get(line, 0) + 1
    for line, count in found.items():
        say(f"{count} of {len(points)} points: {line}")


def worker_log(folder: Path, i: int) -> Path:
    return folder / "logs" / f"worker-{i}.log"


def _ended(ledger: Ledger, points: list[PlannedPoint]) -> int:
    counts = count(ledger, points)
    say(", ".join(f"{n} {state}" for state, n in counts.items()))
    return 0 if set(counts) <= {"done", "pruned"} else 1


def count(ledger: Ledger, points: list[PlannedPoint]) -> dict[str, int]:
    """State → how many points, in the order of STATES."""
    return counted(ledger.standings([one.point for one in points]))


def counted(standings: dict[str, Standing]) -> dict[str, int]:
    """State → how many points, in the order of STATES."""
    found = Counter(standing.state for standing in standings.values())
    return {state: found[state] for state in STATES if found[state]}


@contextlib.contextmanager
def _signals(handler) -> Iterator[None]:
    kept = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, old in kept.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _table(ledger: Ledger, points: Callable[[], list[PlannedPoint]]) -> Iterator:
    """A live table on a terminal; elsewhere a line for each point that ends."""
    from rich.console import Console
    from rich.live import Live

    def standings() -> dict[str, Standing]:
        return ledger.standings([one.point for one in points()])

    if sys.stderr.isatty():
        with Live(console=Console(stderr=True), refresh_per_second=2) as live:
            yield lambda: live.update(table(points(), standings()))
        return
    said: dict[str, int] = {}

    def lines() -> None:
        for point, standing in standings().items():
            if standing.state not in ("missing", "running") and said.get(point) != standing.attempts:
                said[point] = standing.attempts
                say(f"{point} {standing.state}" + (f": {standing.last['error']}" if standing.last.get("error") else ""))

    said.update({point: s.attempts for point, s in standings().items() if s.state not in ("missing", "running")})
    yield lines


def table(points: list[PlannedPoint], standings: dict[str, Standing]):
    """rich's table of points and where they stand."""
    from rich.markup import escape
    from rich.table import Table

    out = Table(box=None, pad_edge=False)
    names = list(points[0].values) if points else []
    varied = [name for name in names if len({str(one.values.get(name)) for one in points}) > 1]
    measured = any(standing.last.get("value") is not None for standing in standings.values())
    for name in ("point", *varied, "state", "attempts", "seconds", *(["value"] if measured else []), ""):
        out.add_column(escape(name), overflow="fold", no_wrap=name in ("point", "state"))  # an id is there to be copied
    for one in points:
        standing = standings[one.point]
        seconds, value = standing.last.get("seconds"), standing.last.get("value")
        values = [escape(_short(one.values.get(name))) for name in varied]
        out.add_row(
            one.point,
            *values,
            standing.state,
            str(standing.attempts),
            "" if seconds is None else f"{seconds:.1f}",
            *([("" if value is None else f"{value:.4f}")] if measured else []),
            escape(str(standing.last.get("error") or "")),
        )  # gloo's have brackets
    return out


def _short(value: object) -> str:
    """A drawn rate has more digits than a table needs."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
