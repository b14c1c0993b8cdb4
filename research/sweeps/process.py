"""The command of one point: our own verbs run within this process, any other program as its child."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from research.errors import INTERRUPTED, PREEMPTED, WRONG_INPUT, UserError
from research.runs.disk import disk_errors
from research.sweeps.command import ours

ERROR_CHARACTERS = 400
GRACE = 60  # seconds that the processes of a foreign command get to end after a signal

_children: list[subprocess.Popen] = []
stop_signals: list[int] = []  # those that this process got


def run_command(
    argv: list[str], shown: list[str], log: Path, run: Callable[[list[str]], int], variables: dict[str, str], point: str
) -> tuple[int, str]:
    """Run the command of a point.

    Args:
        argv: the command.
        shown: the same as the log has it, without what may be secret.
        log: that the command's output is added to.
        run: our verbs: arguments → exit code.
        variables: of the environment, beside this process's own.
        point: the id.

    Returns:
        The exit code, and the last line of the output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = ours(argv)
    if arguments is not None:  # of a foreign command the id is that of its words, which a `fit` within it cannot know
        variables = variables | {"TANDEM_POINT": point}
    with disk_errors(log):
        stream = open(log, "a", encoding="utf-8")
        stream.write(f"$ {' '.join(shown)}\n")
        stream.flush()
    try:
        if arguments is None:
            code = _run_child(argv, stream, variables)
        else:
            code = _run_in_process(arguments, _Lossy(stream), run, variables)
    finally:
        with contextlib.suppress(OSError):
            stream.close()
    return code, last_line(log)


class _Lossy:
    """A log that drops what a full disk does not take: an error of the log must not end a training.

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

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


def _run_child(argv: list[str], stream: io.TextIOBase, variables: dict[str, str]) -> int:
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
        if stop_signals:  # before it was there
            _signal_group(child, stop_signals[-1])
        code = child.wait()
        if stop_signals:
            _await_group(child.pid)
    finally:
        _children.remove(child)
    stops = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)  # of a command within it a shell says 128 more
    if (stop_signals and code) or code in (*(-number for number in stops), *(128 + number for number in stops)):
        return PREEMPTED  # told to stop, as this worker was
    return 128 - code if code < 0 else code


def _signal_group(child: subprocess.Popen, number: int) -> None:
    """Send a signal to the command and to all processes that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _await_group(group: int) -> None:
    """End the processes that the command has started, or the point would run twice at a time."""
    limit = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < limit:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


def _die_with_parent() -> None:
    """Let a killed worker take its command along (Linux): else the point would be run twice at a time."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals that end a sweep (Ctrl-C, SIGTERM, SLURM's SIGUSR1); their handlers come back afterwards."""
    earlier = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, old in earlier.items():
            signal.signal(number, old)


_nested: list[bool] = []


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Pass signals on to the command that runs, and end the work after it; our own trainings catch them themselves.

    A signal that came within an outer such context holds in an inner one.
    """
    if not _nested:
        stop_signals.clear()

    def stop(number: int, _frame: FrameType | None) -> None:
        stop_signals.append(number)
        for child in _children:
            _signal_group(child, number)

    _nested.append(True)
    try:
        with on_signals(stop):
            yield
    finally:
        _nested.pop()


def _run_in_process(argv: list[str], stream: io.TextIOBase, run: Callable[[list[str]], int], variables: dict[str, str]) -> int:
    with _environment(variables), contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        # the ranks of DDP are started by this process's own command line: it must be the point's, not the worker's
        earlier, sys.argv = sys.argv, [sys.argv[0], *argv]
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
            sys.argv = earlier


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set these variables, and restore the environment afterwards: a point must not see those of the point before."""
    earlier = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - earlier.keys():
            del os.environ[name]
        os.environ.update(earlier)


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, without what would move a terminal."""
    with open(log, "rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 4096))
        lines = stream.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    plain = (re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]", "", line).strip() for line in reversed(lines))
    return next((line for line in plain if line), "")[:ERROR_CHARACTERS]
