"""Estimates how long a training would take from its first steps."""

import math
import time

import lightning as L
import torch

from research.training.optimisation import total_steps

WARM = 2  # steps before the clock: kernels are chosen, memory is taken


class Measuring(L.Callback):
    """Times some steps and a validation, and ends the training there. It comes after the other callbacks, whose work counts.

    Args:
        steps: to time, 1 or more.
    """

    def __init__(self, steps: int):
        self.wanted = WARM + steps
        self.marks: list[float] = []  # when each step ended, without the validations between
        self.validating, self.validation = 0.0, 0.0  # all of them, one
        self.begun = 0.0
        self.steps, self.validations, self.devices = 0, 0, 1  # of the whole training
        self.device = ""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        accumulate = module.settings.accumulate
        self.steps, self.devices = int(total_steps(trainer, accumulate)), trainer.world_size
        self.validations = self._validations(trainer, self.steps, accumulate)
        root = trainer.strategy.root_device
        self.device = (
            torch.cuda.get_device_name(root) if root.type == "cuda" else f"{root.type}, {torch.get_num_threads()} threads"
        )

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
        if trainer.global_step > len(self.marks):
            self.marks.append(time.perf_counter() - self.validating)
            if len(self.marks) >= self.wanted:
                trainer.should_stop = True  # and Lightning validates

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.validation = time.perf_counter() - self.begun
        self.validating += self.validation

    def total_seconds(self, seconds: float) -> float:
        """Estimate the seconds of the whole training.

        Args:
            seconds: of this one, from its command to its end: start, untrained model, the timed steps, one validation.
        """
        timed_steps = len(self.marks)
        if self.steps <= timed_steps:
            return seconds
        timed = self.marks[WARM - 1 :] if timed_steps > WARM else self.marks
        step = (timed[-1] - timed[0]) / max(1, len(timed) - 1)
        more = max(0, self.validations - (1 if self.validating else 0))
        return seconds + (self.steps - timed_steps) * step + more * self.validation

    @staticmethod
    def _validations(trainer: L.Trainer, steps: int, accumulate: int) -> int:
        """Count the validations of the whole training, without that of the untrained model."""
        if "val" not in trainer.datamodule.collections or not trainer.limit_val_batches:
            return 0
        epoch, every = trainer.num_training_batches, trainer.check_val_every_n_epoch
        if math.isinf(epoch) or every is None:  # counted over all of the training
            # a window ends with its epoch, where that has an end
            batches = steps * accumulate if math.isinf(epoch) else _batches(steps, int(epoch), accumulate)
            between = trainer.val_check_batch
            return max(1, math.ceil(batches / between)) if between and not math.isinf(between) else 1
        a_epoch = -(-int(epoch) // accumulate)  # steps
        whole, rest = divmod(steps, a_epoch)
        if trainer.val_check_batch > epoch:
            return 1
        between = int(trainer.val_check_batch)
        checked = whole // every * (int(epoch) // between)  # within the epochs that validate at all
        if rest and (whole + 1) % every == 0:
            checked += rest * accumulate // between
        ends_on_one = whole % every == 0 and not rest and not int(epoch) % between
        ends_on_one |= bool(rest) and (whole + 1) % every == 0 and not rest * accumulate % between
        return checked + (not ends_on_one)  # a training that ends elsewhere is validated there


def _batches(steps: int, epoch: int, accumulate: int) -> int:
    """Return how many micro-batches that many steps have."""
    whole, rest = divmod(steps, -(-epoch // accumulate))
    return whole * epoch + min(rest * accumulate, epoch)
