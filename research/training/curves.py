"""Numbers of a training run, in its folder: curves.jsonl, one line a logged step; the best model and its metrics."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from research.progress import say
from research.runfolder import atomic_write, replace_folder, write_json

FILE = "curves.jsonl"


class Curves(Logger):
    """Writes every logged number to curves.jsonl, and hands it to W&B.

    A line is {"step": optimizer steps taken, name: value, …, "seconds": since the process began}. On resuming, lines
    after the checkpoint's step are dropped: they are computed again.

    Args:
        folder: the run folder.
        send: what else gets the numbers (W&B): values, step → None. Its failures are its own to report.
    """

    def __init__(self, folder: Path, send: Callable[[dict[str, float], int], None] = lambda values, step: None):
        super().__init__()
        self.path, self.send = Path(folder) / FILE, send
        self.started = time.perf_counter()
        self.lost = False

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The configuration is in config.yaml."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        seconds = round(time.perf_counter() - self.started, 3)
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step or 0, **values, "seconds": seconds}) + "\n")
        except OSError as error:
            if not self.lost:
                say(f"warning: {self.path} cannot be written ({error}); training goes on without its curves")
            self.lost = True
        self.send(values, step or 0)

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`."""
        lines = read_curves(self.path.parent)
        kept = [line for line in lines if line["step"] <= step]
        if len(kept) < len(lines) or self.path.exists():
            with atomic_write(self.path) as stream:
                stream.writelines(json.dumps(line) + "\n" for line in kept)


def read_curves(folder: Path) -> list[dict]:
    """The lines of a run's curves.jsonl; a line that a killed process left unfinished is dropped."""
    path = Path(folder) / FILE
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def log_values(module: L.LightningModule, values: dict[str, float]) -> None:
    """Numbers of a step that was just taken: to callbacks, and at once to the loggers.

    Lightning would write them after the callbacks of the step, one of which takes the checkpoint: a run stopped there
    would lose a line of its curve for ever.
    """
    module.log_dict(values, logger=False, batch_size=1)
    for logger in module.loggers if module.trainer.is_global_zero else []:
        logger.log_metrics(values, module.trainer.global_step)


class BestModel(L.Callback):
    """Keeps the weights of the best validation as `model/`, and its metrics in metrics.json.

    Args:
        folder: the run folder.
        monitor: a validation metric, higher is better.
    """

    def __init__(self, folder: Path, monitor: str):
        self.folder, self.monitor = Path(folder), monitor
        self.best: dict | None = None
        self.first: dict | None = None

    def state_dict(self) -> dict:
        return {"best": self.best, "first": self.first}

    def load_state_dict(self, state_dict: dict) -> None:
        self.best, self.first = state_dict["best"], state_dict["first"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Curves go on from the checkpoint's step; a new one begins with the untrained model."""
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, Curves):
                logger.rewind(trainer.global_step or -1)
        if trainer.global_step or "val" not in trainer.datamodule.collections or not trainer.limit_val_batches:
            return
        module.eval()
        with trainer.precision_plugin.val_step_context():
            values = module.evaluate("val")
        module.train()
        self.first = values
        for logger in trainer.loggers if trainer.is_global_zero else []:
            logger.log_metrics({f"val/{name}": value for name, value in values.items()}, 0)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        values = {name.removeprefix("val/"): float(value) for name, value in trainer.callback_metrics.items()
                  if name.startswith("val/")}  # fmt: skip
        value = values[self.monitor.removeprefix("val/")]
        if self.best is None or value > self.best["metrics"][self.monitor.removeprefix("val/")]:
            self.best = {"step": trainer.global_step, "metrics": values}
            self._save(trainer, module, per_query=module.per_query)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.best is None:  # nothing was validated: the last weights are the model
            self._save(trainer, module, per_query=None)

    def _save(self, trainer: L.Trainer, module: L.LightningModule, per_query: dict | None) -> None:
        if not trainer.is_global_zero:
            return
        try:
            with replace_folder(self.folder / "model") as new:
                module.save(new)
            write_json(self.folder / "metrics.json", {
                "kind": "fit", "monitor": self.monitor, "step": trainer.global_step,
                "metrics": (self.best or {}).get("metrics", {}), "untrained": self.first, "per_query": per_query,
            })  # fmt: skip
        except OSError as error:
            say(
                f"warning: {self.folder / 'model'} cannot be written ({error}); training goes on, the model before is kept"
            )
