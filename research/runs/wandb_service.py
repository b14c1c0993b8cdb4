"""End the background process of W&B's client in time."""

import atexit
import contextlib
import sys
import threading
from types import ModuleType

FAREWELL = 10.0  # seconds for it to end, when it has no more to do


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
    waiting = threading.Thread(target=_end, args=(wandb,), daemon=True)
    waiting.start()
    waiting.join(FAREWELL)  # a service that still runs then sees our exit, and ends


def _end(wandb: ModuleType) -> None:
    with contextlib.suppress(Exception):  # the verb has ended: a failure here concerns nobody
        wandb.teardown()
