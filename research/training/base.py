"""What the four trainers have in common: options, the optimizer, what is logged, what a checkpoint holds."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import lightning as L
from torch import nn

from research.errors import UserError, did_you_mean
from research.models.adapters import keep_trained
from research.models.cpu.dropout import DropoutBits
from research.models.training import cheaper_parts
from research.training.best_model import log_values
from research.training.certainty import intervals
from research.training.optimisation import Optimisation, build_optimizer, total_steps
from research.training.step import Window
from research.types import Direction


class TrainingModule(L.LightningModule):
    """A LightningModule that `research fit` trains.

    A subclass sets `model` and `base_hash`, and has `training_step`, `evaluate` and `save`. Its evaluation leaves `per_query`:
    metric → example → value.

    Args:
        optimisation: see there.
        metrics: of the validation.
        fast: train through the device's cheaper parts; see `cheaper_parts`.
        seed: of dropout: every micro-batch seeds its generators by it (see Resume).

    Attributes:
        reads: type of its batches; the DataModule `gives` the same.
        directions: metric of its validation, without split and cut → which side is better; None: neither. A subclass with
            metrics of its own adds them: `directions = SFTModule.directions | {"my_loss": "lower"}`.
        rates: learning rates of single parameters, by name.
        weights: of the examples of the last evaluation, where its means over tokens weigh them.
        measuring: entered around an evaluation: a training that is told to stop leaves it there (see Resume).
    """

    reads: ClassVar[type]
    directions: ClassVar[Mapping[str, Direction | None]]
    model: nn.Module
    base_hash: str
    rates: Mapping[str, float] = {}
    weights: Mapping[str, float] | None = None
    measuring: Callable[[], AbstractContextManager] = contextlib.nullcontext

    def __init__(self, optimisation: Optimisation, metrics: list[str], fast: bool, seed: int):
        super().__init__()
        self.automatic_optimization = False
        self.settings, self.metrics, self.fast, self.seed = optimisation, metrics, fast, seed
        self.window = Window(self, optimisation)
        self.bits: DropoutBits | None = None  # of the CPU's dropout masks

    @staticmethod
    def check_options() -> None:
        """Refuse options that are wrong whatever the model is; the arguments are some of the class's own.

        Raises:
            UserError: such an option.
        """

    @classmethod
    def better(cls, metric: str) -> Direction | None:
        """Return the side of a metric that is declared as better."""
        name = metric.removeprefix("val/")
        return cls.directions.get(name) or cls.directions.get(name.partition("@")[0])

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.fast:
            self.bits = cheaper_parts(self.model, self.trainer.strategy.root_device.type)

    def log_split(self, split: str, values: Mapping[str, float]) -> None:
        """Log numbers of train, val or test."""
        log_values(self, {f"{split}/{name}": value for name, value in values.items()})

    def validation_step(self, name: str, batch_idx: int) -> None:
        with self.measuring():
            values = self.evaluate(name)
        self.log_split(name, values)

    test_step = validation_step

    def evaluate(self, name: str) -> dict[str, float]:
        """Compute the mean metrics of the DataModule's examples of that name."""
        raise NotImplementedError

    def means(self) -> dict[str, float]:
        """Return the unrounded metrics of the last evaluation; logged values are rounded to float32."""
        return {metric: math.fsum(values.values()) / len(values) for metric, values in self.per_query.items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Compute 95% bootstrap intervals of the last evaluation's metrics over its examples."""
        by_metric = intervals(self.per_query, self.weights)
        return {name: by_metric[name] for name in self.means() if name in by_metric}

    def prepare(self, data: L.LightningDataModule) -> list[str]:
        """Make the data ready that need the model's tokenizer, before anything is written.

        Returns:
            What a user must know of them: rows that are cut, or left out.

        Raises:
            UserError: they do not fit the model.
        """
        return []

    def say_cut(self, data: L.LightningDataModule, name: str) -> dict[str, int]:
        """Report the training texts of which the model reads only a part, before the training; count them for provenance.json.

        Args:
            data: of the training.
            name: of the model, for the message.
        """
        return {}

    def configure_optimizers(self) -> dict:
        return build_optimizer(self, self.settings, total_steps(self.trainer, self.settings.accumulate), self.rates)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        keep_trained(checkpoint, self)

    def save(self, folder: Path) -> None:
        """Write the model in the format that other verbs, and its library, load."""
        raise NotImplementedError

    def compare_saved(self, folder: Path) -> list[str]:
        """Return what a user of the plain library must know about the model that `save` wrote."""
        return []


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse an option's value that is not among the known ones.

    Raises:
        UserError: the value of an option is not among the known ones.
    """
    if value not in (known := list(known)):
        near = did_you_mean(value, known)
        raise UserError(f"{name}={value!r}; expected {' | '.join(known)}.{near} Correct it in the configuration.")
