"""What W&B knows of one run, whether its logs or its server say it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from research.types import Json

API = "wandb:"  # what the address of a project on the server begins with


class WandbRun(NamedTuple):
    """What W&B knows of one run.

    Attributes:
        id, name: as W&B shows them; a name may be "".
        path: of its log, or its page.
        sweep: its sweep, else its group, else "".
        state, error: as RunRecord has them.
        commit, host: "" where they are not known.
        config, summary: nested.
        history: metric → (step, value), in order.
        monitor, goal: the metric of its sweep, and maximize or minimize; "" and None where there is none.
        swept: parameters of its sweep.
    """

    id: str
    name: str
    path: Path
    sweep: str
    state: str
    error: str
    commit: str
    host: str
    config: dict[str, Json]
    summary: dict[str, Json]
    history: Callable[[str], list[tuple[int, float]]]
    monitor: str = ""
    goal: str | None = None
    swept: tuple[str, ...] = ()
