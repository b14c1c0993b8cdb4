"""Signals that end a training: at once while there is nothing to save, later at the end of a step (see Resume)."""

import contextlib
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
PREEMPTED = 85


class Stopped(BaseException):  # as KeyboardInterrupt: no `except Exception` on the way may keep it
    """Training was asked to stop, and what can be saved is saved. `signal` is the number of the signal."""

    def __init__(self, signal: int):
        super().__init__(f"signal {signal}")
        self.signal = signal

    @property
    def exit_code(self) -> int:
        return 130 if self.signal == signal.SIGINT else PREEMPTED


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """A signal raises Stopped wherever the program is; the handlers before are put back at the end."""

    def stop(number: int, frame) -> None:
        raise Stopped(number)

    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
