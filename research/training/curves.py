"""Writes every number that a training logs to curves.jsonl in its run folder, one line for each logged step."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import Logger

from research.progress import say
from research.runs.curves import read_lines
from research.runs.files import atomic_write, strict
from research.runs.layout import CURVES


class Curves(Logger):
    """Writes every logged number to curves.jsonl, and passes it to W&B.

    A line is {"step": optimizer steps taken, name: value, …, "seconds": since the process began}; what is no number is null.
    On resuming, lines after the checkpoint are dropped: they are computed again.

    Args:
        folder: the run folder.
        send: what else gets the numbers (W&B): values, step → None. Its failures are its own to report.
    """

    def __init__(self, folder: Path, send: Callable[[dict[str, float], int], None] = lambda values, step: None):
        super().__init__()
        self.path, self.send = Path(folder) / CURVES, send
        self.started = time.perf_counter()
        self.lost = False
        self.lines = 0  # in the file
        self.trainer: L.Trainer | None = None  # says the step; callbacks that log would give micro-batches

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Do nothing: the configuration is in config.yaml."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        step = (step or 0) if self.trainer is None else self.trainer.global_step
        seconds = round(time.perf_counter() - self.started, 3)
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(_line({"step": step, **values, "seconds": seconds}))
            self.lines += 1
        except OSError as error:
            if not self.lost:
                say(f"warning: {self.path} cannot be written ({error}); training goes on without its curves")
            self.lost = True
        self.send(values, step)

    def rewind(self, count: int) -> None:
        """Drop what was logged after the first `count` lines."""
        lines = read_lines(self.path.parent)
        remaining = lines[:count]
        self.lines = len(remaining)
        if len(remaining) < len(lines) or self.path.exists():
            with atomic_write(self.path) as stream:
                stream.writelines(map(_line, remaining))


def _line(values: dict) -> str:
    return json.dumps(strict(values), allow_nan=False) + "\n"
