"""AdamW and its schedule: warmup, then decay."""

import math
from dataclasses import dataclass

import lightning as L
import torch
from torch import nn

from research.errors import UserError

DECAYS = ("linear", "cosine", "constant")


@dataclass
class Optimisation:
    """AdamW and its schedule.

    Args:
        lr: > 0, at its highest.
        weight_decay: ≥ 0; norms, biases and other vectors have none.
        warmup: share of all steps, 0 to 1, over which the rate rises.
        decay: linear | cosine | constant, after the warmup.
        clip: largest L2 norm of the gradient; null for no limit.
        accumulate: micro-batches of one step, 1 or more.
        betas, eps: AdamW's.
    """

    lr: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    decay: str = "linear"
    clip: float | None = 1.0
    accumulate: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self):
        ranges = {
            "lr": (0 < self.lr < math.inf, "a finite number above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a finite number, 0 or more"),
            "warmup": (0 <= self.warmup < 1, "0 to below 1, the share of all steps"),
            "decay": (self.decay in DECAYS, " | ".join(DECAYS)),
            "clip": (self.clip is None or self.clip > 0, "above 0, or null for no limit"),
            "accumulate": (self.accumulate >= 1, "1 or more"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "two numbers, 0 to below 1"),
            "eps": (0 < self.eps < math.inf, "a finite number above 0"),
        }
        for name, (good, expected) in ranges.items():
            if not good:
                raise UserError(
                    f"optimisation.{name}={getattr(self, name)}; expected {expected}. Correct it in the configuration."
                )


def build_optimizer(module: nn.Module, settings: Optimisation, steps: int, rates: dict[str, float] | None = None) -> dict:
    """AdamW over the trainable parameters, and its schedule, as Lightning takes them.

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
    """Optimizer steps of the whole training; a window of micro-batches ends with its epoch.

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
    """The factor of the learning rate at a step.

    Args:
        step: optimizer steps already taken, 0 to steps − 1.
        steps: of the whole training.
        warmup: steps over which the factor rises linearly; step 0 then has 1/warmup... of it, never 0.
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
