"""Early termination of a sweep's trainings after a validation."""

from collections.abc import Callable
from pathlib import Path

import lightning as L

from research.progress import say
from research.runs.curves import history


class Pruning(L.Callback):
    """Ends a training after a validation whose value an early-termination rule of the sweep refuses.

    Args:
        folder: the run folder, whose curves hold the values so far.
        metric: a validation metric, such as val/loss.
        is_stopped: values of the metric so far, in order → why to stop, or None.
    """

    def __init__(self, folder: Path, metric: str, is_stopped: Callable[[list[float]], str | None]):
        self.folder, self.metric, self.is_stopped = Path(folder), metric, is_stopped
        self.pruned: dict | None = None  # the step and the number of values at which it was stopped

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        stop = False
        if trainer.is_global_zero:
            # the curves get the value of this step only after this hook
            earlier = [value for step, value in history(self.folder, self.metric) if step < trainer.global_step]
            values = [*earlier, module.means()[self.metric.removeprefix("val/")]]
            why = self.is_stopped(values)
            stop = why is not None
            if stop:
                self.pruned = {"step": trainer.global_step, "values": len(values), "why": why}
                say(f"step {trainer.global_step}: pruned, {self.metric} {why}")
        if trainer.strategy.broadcast(stop):  # all ranks, or the others wait for ever
            trainer.should_stop = True
