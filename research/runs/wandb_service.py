"""The background process of W&B's client: it may be gone before us, and ends in time."""

import atexit
import contextlib
import signal
import sys
import threading
from types import ModuleType

FAREWELL = 10.0  # seconds for it to end, when it has no more to do


def start_service(wandb: ModuleType) -> None:
    """Start W&B's service, or leave it running; SLURM's USR1, which srun sends to every process of a task, does not end it.

    It inherits the signals that are blocked here; one that comes to this process meanwhile waits. SIGINT and SIGTERM it takes
    all the same (wandb 0.31), see `forget_service`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        wandb.setup()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forget_service() -> None:
    """Close the client's side of a service that has ended, so that Python's exit does not fail on it.

    SLURM's TERM ends every process of a task that is preempted, W&B's service too.
    """
    _part_from(sys.modules["wandb"])


def leave_in_time() -> None:
    """End W&B's service within FAREWELL seconds when Python ends. To be called once the service runs.

    W&B's client waits for its service without a limit, and the service for a word of the client, which is lost where the
    connection closes upon an answer that came too late (wandb 0.31).
    """
    atexit.unregister(_part)
    atexit.register(_part)  # Python calls the latest first: this one before W&B's own


def _part() -> None:
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is not None:  # not loaded; or W&B still uploads an open run, and ends the service itself
        return
    _part_from(wandb)  # a service that still runs then sees our exit, and ends


def _part_from(wandb: ModuleType) -> None:
    waiting = threading.Thread(target=_end, args=(wandb,), daemon=True)
    waiting.start()
    waiting.join(FAREWELL)


def _end(wandb: ModuleType) -> None:
    with contextlib.suppress(Exception):  # the verb has ended: a failure here concerns nobody
        wandb.teardown()
