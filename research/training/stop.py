"""Signals that end a training: at once while there is nothing to save, later at the end of a step (see Resume)."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from research.errors import INTERRUPTED, PREEMPTED
from research.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
AGAIN = 0.05  # seconds after which a signal that came during an import is sent again


class Stopped(BaseException):  # as KeyboardInterrupt: no `except Exception` on the way may keep it
    """Training was asked to stop, and what can be saved is saved. `signal` is the number of the signal."""

    def __init__(self, signal: int):
        super().__init__(f"signal {signal}")
        self.signal = signal

    @property
    def exit_code(self) -> int:
        """Return the exit code of the signal that stopped the training."""
        return INTERRUPTED if self.signal == signal.SIGINT else PREEMPTED


def say_stopped(stopped: Stopped, checkpoint: Path | None = None) -> int:
    """Print where the same command will continue; return the exit code.

    Args:
        stopped: of this process.
        checkpoint: that a run resumes from.
    """
    if not is_first_process():
        return 0  # Lightning kills the first process, which is still saving, when another one fails
    say("stopped; the same command " + ("begins anew" if checkpoint is None else f"goes on from {checkpoint.name}"))
    return stopped.exit_code


def is_first_process() -> bool:
    """Return whether this is the process that writes: DDP's other ranks run the same command."""
    ranks = [os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")]
    return all(value == "0" for value in ranks)


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """Within this context a signal raises Stopped at once; the former handlers are restored at the end.

    Not in the middle of an import, though: half a module would be left, and libraries make other errors of what ends theirs.
    There the signal comes again until the import is through.
    """
    waiting: dict[int, threading.Timer] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        if not is_importing(frame):
            waiting.pop(number, None)
            raise Stopped(number)
        waiting[number] = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
        waiting[number].daemon = True
        waiting[number].start()

    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
        for number in waiting:
            raise Stopped(number)
    finally:
        for timer in waiting.values():
            timer.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)


def is_importing(frame: FrameType | None) -> bool:
    """Return whether a signal came in the middle of an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
