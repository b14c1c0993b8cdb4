"""One process that runs points of a sweep, one after the other, and writes down what becomes of them.

It keeps its process between points of our own verbs (importing torch takes longer than a small training); a foreign command is
a process of its own.
"""

import contextlib
import ctypes
import io
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.progress import say
from research.runs.disk import disk_errors
from research.runs.ledger import AGAIN, Ledger, Standing
from research.runs.plan import WRITTEN, PlannedPoint, startable, with_id
from research.sweeps.command import ours

PREEMPTED, WRONG_INPUT, DIVERGED, INTERRUPTED = 85, 2, 3, 130
FINAL = (WRONG_INPUT, DIVERGED)  # the same command would end so again
STATE = {0: "done", DIVERGED: "diverged", PREEMPTED: "preempted", INTERRUPTED: "preempted"}
ATTEMPTS = 3  # of a point that crashes
ERROR_CHARACTERS = 400
GRACE = 60  # seconds that what a foreign command has started gets to end, once it was told to


def is_due(standing: Standing) -> bool:
    """Whether a point is to be run: not done, and not one that would only fail again."""
    if standing.state == "failed":
        return standing.failures < ATTEMPTS and standing.last.get("code") != WRONG_INPUT
    return standing.state in AGAIN


def run_point(
    ledger: Ledger,
    one: PlannedPoint,
    run: Callable[[list[str]], int],
    variables: dict[str, str],
    outcome: Callable[[PlannedPoint], dict[str, Any]] = lambda one: {},
) -> int | None:
    """Run a point that nobody else runs and that is not done.

    Args:
        ledger: of the sweep.
        one: the point.
        run: our verbs: arguments → exit code.
        variables: of the environment that the point gets, beside its own id.
        outcome: what a point that ended well adds to its event: the value of the sweep's metric; `state`, where it is another
            than done.

    Returns:
        The exit code; None where there was nothing to do.
    """
    with ledger.claim(one.point) as mine:
        if not mine:
            return None
        standing = ledger.standings([one.point])[one.point]  # the claim is ours: a `running` here was killed
        state = "killed" if standing.state == "running" else standing.state
        if not is_due(standing._replace(state=state)):
            return None
        with disk_errors(ledger.path):  # at its start a point costs nothing yet
            ledger.append(one.point, "running", attempt=standing.attempts + 1)
        started = time.perf_counter()
        log = ledger.folder / "logs" / f"{one.point}.log"
        one = startable(ledger.folder, one)
        shown = with_id(one.facts.get(WRITTEN, one.argv), one.point)
        code, error = _run(with_id(one.argv, one.point), shown, log, run, variables, one.point)
        state = STATE.get(code, "failed")
        if state == "diverged" and ours(one.argv) is None:  # of a foreign command 3 may mean anything
            state = "failed"
        more = {"state": state} | (outcome(one) if code == 0 else {"code": code, "error": error})
        try:
            ledger.append(one.point, seconds=round(time.perf_counter() - started, 3), **more)
        except OSError as error:  # it counts as killed, and is found finished when the sweep is run again
            say(f"warning: {ledger.path} does not take what became of {one.point} ({error.strerror})")
        return code


def work(
    ledger: Ledger,
    points: Iterable[PlannedPoint],
    run: Callable[[list[str]], int],
    variables: dict[str, str],
    outcome: Callable[[PlannedPoint], dict[str, Any]] = lambda one: {},
) -> int:
    """Run all that is to be run, until nothing is left or this process is told to stop; the exit code."""
    with _stoppable():
        for one in points:
            code = None if _stopped else run_point(ledger, one, run, variables, outcome)
            # a crash: again, up to ATTEMPTS times
            while code not in (None, 0, PREEMPTED, INTERRUPTED) and not _stopped:
                code = run_point(ledger, one, run, variables, outcome)
            if code in (PREEMPTED, INTERRUPTED) or _stopped:
                return PREEMPTED
    return 0


def _run(
    argv: list[str], shown: list[str], log: Path, run: Callable[[list[str]], int], variables: dict[str, str], point: str
) -> tuple[int, str]:
    """Exit code, and the last line of what the command said; the log has the command as it is `shown`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    own = ours(argv)
    if own is not None:  # of a foreign command the id is that of its words, which a `fit` within it cannot know
        variables = variables | {"TANDEM_POINT": point}
    with disk_errors(log):
        stream = open(log, "a", encoding="utf-8")
        stream.write(f"$ {' '.join(shown)}\n")
        stream.flush()
    try:
        code = _foreign(argv, stream, variables) if own is None else _in_process(own, _Lossy(stream), run, variables)
    finally:
        with contextlib.suppress(OSError):
            stream.close()
    return code, last_line(log)


class _Lossy:
    """A log that a full disk cuts short: what a training says must not end it.

    Args:
        stream: the file.
    """

    def __init__(self, stream: io.TextIOBase):
        self.stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_children: list[subprocess.Popen] = []
_stopped: list[int] = []  # signals that this worker got


def _foreign(argv: list[str], stream: io.TextIOBase, variables: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(
            argv,
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            env=os.environ | variables,
            preexec_fn=_die_with_parent,
            start_new_session=True,
        )
    except OSError as error:
        print(f"error: {argv[0]} cannot be started ({error.strerror}); expected a command. Correct the sweep's.", file=stream)
        return WRONG_INPUT
    _children.append(child)
    try:
        if _stopped:  # before it was there
            _tell(child, _stopped[-1])
        code = child.wait()
        if _stopped:
            _await_group(child.pid)
    finally:
        _children.remove(child)
    told = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)  # of a command within it a shell says 128 more
    if (_stopped and code) or code in (*(-number for number in told), *(128 + number for number in told)):
        return PREEMPTED  # told to stop, as this worker was
    return 128 - code if code < 0 else code


def _tell(child: subprocess.Popen, number: int) -> None:
    """A signal to the command and to all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _await_group(group: int) -> None:
    """What the command has started ends with it, or the point would be run twice at a time."""
    limit = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < limit:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


def _die_with_parent() -> None:
    """A worker that is killed takes its command along (Linux): else the point would be run twice at a time."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Signals go to the command that runs, and end the work after it; our own trainings catch them themselves."""
    _stopped.clear()

    def stop(number: int, _frame: object) -> None:
        _stopped.append(number)
        for child in _children:
            _tell(child, number)

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _in_process(argv: list[str], stream: io.TextIOBase, run: Callable[[list[str]], int], variables: dict[str, str]) -> int:
    with _environment(variables), contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        # the ranks of DDP are started by this process's own command line: it must be the point's, not the worker's
        kept, sys.argv = sys.argv, [sys.argv[0], *argv]
        try:
            return run(argv)
        except KeyboardInterrupt:
            return INTERRUPTED
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return WRONG_INPUT
        except Exception:  # the point failed; the worker goes on
            traceback.print_exc(file=stream)
            return 1
        finally:
            sys.argv = kept


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """With these variables, and afterwards as it was: a point must not see what the one before has set."""
    kept = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept)


def last_line(log: Path) -> str:
    """What a program said last."""
    with open(log, "rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 4096))
        lines = stream.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    plain = (re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]", "", line).strip() for line in reversed(lines))
    return next((line for line in plain if line), "")[:ERROR_CHARACTERS]  # nothing that a terminal would obey
