"""The best model of a training, by its monitor: `model/` and metrics.json in the run folder."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch

from research.errors import UserError
from research.progress import say
from research.runs.disk import write_errors
from research.runs.files import replace_folder
from research.runs.layout import MODEL
from research.runs.writers import write_metrics
from research.training.certainty import doubts
from research.types import Direction


def log_values(module: L.LightningModule, values: dict[str, float]) -> None:
    """Pass the numbers of the last step to the callbacks and loggers; pass validation metrics to the best model, too.

    Lightning would write them after the callbacks of the step, one of which takes the checkpoint: a run stopped there
    would lose a line of its curve for ever. And callbacks change the weights around a validation (WeightAveraging measures
    an average of them): only here, in the validation's own step, are they sure to be the ones that were measured.
    """
    module.log_dict(values, logger=False, batch_size=1)
    for logger in module.loggers if module.trainer.is_global_zero else []:
        logger.log_metrics(values, module.trainer.global_step)
    for callback in module.trainer.callbacks:
        if isinstance(callback, BestModel) and any(name.startswith("val/") for name in values):
            callback.judge(module.trainer, module)


class BestModel(L.Callback):
    """Keeps the weights of the best validation as `model/`, and its metrics in metrics.json.

    The weights are those that were measured, whatever callbacks make of them before and after. A value that is no number is
    the worst.

    A disk that does not take them while training is a warning: they wait in memory, and are written at the end. Until
    then no checkpoint may be taken (`pending`), since one would promise a model that is nowhere.

    Args:
        folder: the run folder.
        monitor: a validation metric.
        lower: whether lower is better.
    """

    def __init__(self, folder: Path, monitor: str, lower: bool = False):
        self.folder, self.monitor, self.sign = Path(folder), monitor, -1 if lower else 1
        self.best: dict | None = None
        self.validated = -1  # optimizer step of the last validation
        self.first: dict | None = None  # metrics of the untrained model
        self.first_per_query: dict | None = None
        self.checkpoints: dict[int, dict[str, float]] = {}  # step → the monitor's values by example, since the process began
        self.pending: tuple[dict, dict] | None = None  # weights and metrics.json that the disk did not take

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("best", "first", "first_per_query", "validated")}

    def load_state_dict(self, state_dict: dict) -> None:
        self.best, self.first, self.validated = (state_dict[name] for name in ("best", "first", "validated"))
        self.first_per_query = state_dict.get("first_per_query")  # checkpoints of earlier versions have none

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Validate the untrained model, with which a new curve begins."""
        if trainer.global_step or not self._can_validate(trainer):
            return
        self.first = self._validate(trainer, module, "untrained")
        self.first_per_query = module.per_query

    def judge(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the model if its latest validation is the best so far."""
        if trainer.sanity_checking:
            return
        self.validated = trainer.global_step
        values, name = module.means(), self.monitor.removeprefix("val/")
        if not math.isfinite(values[name]) and trainer.is_global_zero:
            say(f"warning: {self.monitor} is {values[name]} at step {trainer.global_step}, and counts as the worst")
        if trainer.is_global_zero and name in module.per_query:
            self.checkpoints[trainer.global_step] = module.per_query[name]
        with _as_stored(module):
            if self.best is None or self._worth(values[name]) > self._worth(self.best["metrics"][name]):
                self.best = {"step": trainer.global_step, "metrics": values}
                if trainer.is_global_zero:
                    self._keep(module, None, self._facts(trainer.global_step, module, measured=True))
            elif self.pending is not None:
                self._keep(module, *self.pending)

    def _worth(self, value: float) -> float:
        """Return the value with a sign by which higher is better; −∞ if it is no number."""
        return self.sign * value if math.isfinite(value) else -math.inf

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Validate at the end of a training that ends between two validations."""
        if self.validated != trainer.global_step and self._can_validate(trainer):
            self._validate(trainer, module, f"step {trainer.global_step}")
            self.judge(trainer, module)
        self.finish(trainer, module)

    def catch_up(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Validate a training that was stopped after its last step and before its last validation.

        Resumed there, Lightning trains nothing, and validates nothing.
        """
        if trainer.global_step and self.validated != trainer.global_step and self._can_validate(trainer):
            trainer.validate(module, datamodule=trainer.datamodule, verbose=False)

    @staticmethod
    def _can_validate(trainer: L.Trainer) -> bool:
        return "val" in trainer.datamodule.collections and bool(trainer.limit_val_batches)

    @staticmethod
    def _validate(trainer: L.Trainer, module: L.LightningModule, when: str) -> dict[str, float]:
        """Run a validation outside Lightning's loop; it is announced, and logged at this step."""
        module.eval()
        with torch.no_grad(), trainer.precision_plugin.val_step_context(), module.measuring():
            values = module.evaluate("val")
        module.train()
        if trainer.is_global_zero:
            say(f"{when}: " + ", ".join(f"val/{name} {value:.4f}" for name, value in values.items()))
            for logger in trainer.loggers:
                logger.log_metrics({f"val/{name}": value for name, value in values.items()}, trainer.global_step)
        return values

    def finish(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write what is not written yet: a best model that the disk had no room for, or the last one if nothing was validated.

        Lightning calls this at the end of a training; a run that is resumed at its very end has none.

        Raises:
            UserError: the disk does not take it now either.
        """
        if not trainer.is_global_zero:
            return
        if self.best is None:
            self._write(module, None, self._facts(trainer.global_step, module, measured=False))
        elif self.pending is not None:
            self._write(module, *self.pending)
            self.pending = None

    def doubts(self) -> list[str]:
        """Return what speaks against the best model: it is worse than the untrained one, or not told from it or the others."""
        if self.best is None:
            return []
        name = self.monitor.removeprefix("val/")
        trained, untrained, against = self.best["metrics"][name], (self.first or {}).get(name), []
        if untrained is not None and self._worth(trained) < self._worth(untrained):
            against.append(
                f"the training has made the model worse: {name} {trained:.4f} at its best step ({self.best['step']}), "
                f"{untrained:.4f} untrained. Lower --model.optimisation.lr, train on more data, or keep the untrained model"
            )
        return against + doubts(name, self.best["step"], self.checkpoints, (self.first_per_query or {}).get(name))

    def _keep(self, module: L.LightningModule, weights: dict | None, facts: dict) -> None:
        try:
            self._write(module, weights, facts)
            self.pending = None
        except UserError as error:
            say(f"warning: the best model so far is not on the disk ({error}) Training goes on, and tries again later")
            self.pending = weights or _copied(module), facts

    def _write(self, module: L.LightningModule, weights: dict | None, facts: dict) -> None:
        """Write metrics.json, and model/ from `weights` or from the module's present weights.

        Raises:
            UserError: they cannot be written.
        """
        now = weights and _copied(module)
        if weights:
            module.load_state_dict(weights)
        try:
            with write_errors(self.folder / MODEL):
                with replace_folder(self.folder / MODEL) as new:
                    module.save(new)
                write_metrics(self.folder, facts)
        finally:
            if now:
                module.load_state_dict(now)

    def _directions(self, module: L.LightningModule) -> dict[str, Direction]:
        """Map each metric to its better side, for reports of this run; metrics without one are left out."""
        monitored = {self.monitor.removeprefix("val/"): "lower" if self.sign < 0 else "higher"}
        sides = {name: monitored.get(name) or module.better(name) for name in (self.best or {}).get("metrics", {})}
        return {name: side for name, side in sides.items() if side is not None}

    def _facts(self, step: int, module: L.LightningModule, measured: bool) -> dict:
        facts = {
            "kind": "fit",
            "monitor": self.monitor,
            "step": step,
            "metrics": (self.best or {}).get("metrics", {}),
            "directions": self._directions(module),
            "untrained": self.first,
            "per_query": module.per_query if measured else None,
            "intervals": module.intervals() if measured else None,
            "untrained_per_query": self.first_per_query,
        }
        answers = getattr(module, "answers", None) if measured else None
        return facts if answers is None else facts | {"answers": answers}


@contextlib.contextmanager
def _as_stored(module: L.LightningModule) -> Iterator[None]:
    """Switch off the validation's autocast: it would round the weights that are merged for saving."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast(module.device.type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)


def _copied(module: L.LightningModule) -> dict:
    return {name: value.clone() for name, value in module.state_dict().items()}
