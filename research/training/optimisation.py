"""AdamW and its schedule: warmup, then decay."""

import math
from dataclasses import dataclass
from typing import Literal

import lightning as L
import torch
from torch import nn

from research.errors import UserError
from research.ranges import BelowOne, FiniteNonNegative, FinitePositive, PositiveFloat, PositiveInt, check_types


@dataclass
class Optimisation:
    """AdamW and its schedule.

    Args:
        lr: at its highest.
        weight_decay: norms, biases and other vectors have none.
        warmup: share of all steps over which the rate rises.
        decay: of the rate, after the warmup.
        clip: largest L2 norm of the gradient; null for no limit.
        accumulate: micro-batches of one step.
        betas, eps: AdamW's.
    """

    lr: FinitePositive = 2e-5
    weight_decay: FiniteNonNegative = 0.01
    warmup: BelowOne = 0.1
    decay: Literal["linear", "cosine", "constant"] = "linear"
    clip: PositiveFloat | None = 1.0
    accumulate: PositiveInt = 1
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: FinitePositive = 1e-8

    def __post_init__(self):
        check_types(Optimisation, vars(self), "optimisation.")


def build_optimizer(module: nn.Module, settings: Optimisation, steps: int, rates: dict[str, float] | None = None) -> dict:
    """Make AdamW over the trainable parameters, and its schedule, as Lightning takes them.

    Args:
        module: its parameters with two dimensions or more are decayed, the others are not.
        settings: see there.
        steps: optimizer steps of the whole training.
        rates: learning rates of single parameters, by name.
    """
    rates = rates or {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(settings.lr, settings.weight_decay): []}  # the first is logged
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rates.get(name, settings.lr), decay), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items() if params],
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )
    warmup = round(settings.warmup * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, warmup, settings.decay))
    return {"optimizer": optimizer, "lr_scheduler": schedule}


def total_steps(trainer: L.Trainer, accumulate: int) -> int:
    """Count the optimizer steps of the whole training; a window of micro-batches ends with its epoch.

    Raises:
        UserError: neither epochs nor steps are limited.
    """
    batches = trainer.estimated_stepping_batches  # under manual optimisation: micro-batches, or max_steps
    if batches == float("inf"):
        raise UserError(
            "trainer.max_epochs=-1 and trainer.max_steps=-1; expected a limit, since warmup and decay are shares "
            "of it. Set one."
        )
    epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
    if epochs is None or trainer.num_training_batches == float("inf"):  # a stream has no epochs
        return trainer.max_steps
    steps = epochs * -(-int(trainer.num_training_batches) // accumulate)
    return steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)


def rate(step: int, steps: int, warmup: int, decay: str) -> float:
    """Return the factor of the learning rate at a step.

    Args:
        step: optimizer steps already taken, 0 to steps − 1.
        steps: of the whole training.
        warmup: steps over which the factor rises linearly, from 1 / (warmup + 1) at step 0.
        decay: "linear" to 0, "cosine" to 0, or "constant".

    Returns:
        in (0, 1].
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, steps - warmup)  # of the decay
    if decay == "constant":
        return 1.0
    return 1 - share if decay == "linear" else (1 + math.cos(math.pi * share)) / 2
