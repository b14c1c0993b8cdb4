"""One optimizer step, by hand: accumulation, the mean over all examples of the step, clipping, warmup and decay.

Lightning's automatic optimisation averages micro-batches and ranks as if they were of equal size, and refuses its own
clipping and accumulation as soon as a step needs two passes (GradCache). Manual optimisation has neither fault.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import lightning as L
import torch
from torch import Tensor, nn

from research.errors import UserError
from research.training.schedules import DECAYS, rate


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


class Window:
    """The micro-batches of one optimizer step.

    The loss of a step is the mean over all of its examples, on whatever micro-batch and rank they are: sums are
    differentiated, and the gradient is divided by the count at the end. So unequal micro-batches weigh what they should.

    Args:
        module: the LightningModule whose optimizer steps.
        settings: see there.
    """

    def __init__(self, module: L.LightningModule, settings: Optimisation):
        self.module, self.settings = module, settings
        self.micro, self.count, self.sums = 0, 0, {}
        self.counted = 0.0  # losses of the last step, over all ranks

    @property
    def open(self) -> bool:
        """Whether gradients of an unfinished step are waiting."""
        return self.micro > 0

    def hold(self) -> bool:
        """Count a micro-batch whose losses are added with those of the window's last one; False for that one."""
        if self._is_last():
            return False
        self.micro += 1
        return True

    def add(self, losses: Tensor, **sums: Tensor | float) -> dict[str, float] | None:
        """Differentiate the losses of a micro-batch; the last one of the window steps.

        Args:
            losses: (B,) per-example losses.
            sums: further numbers of the micro-batch, to be summed over the window.

        Returns:
            None within the window; at its end loss (mean over examples), grad_norm (before clipping), lr, and the sums;
            over all ranks.
        """
        return self.add_parts([lambda: (losses, sums)])

    def add_parts(self, parts: Sequence[Callable[[], tuple[Tensor, dict]]]) -> dict[str, float] | None:
        """`add` for a micro-batch in parts that do not depend on each other: only one part's graph is held at a time.

        Args:
            parts: each computes its losses (b,) and its sums.
        """
        last = self._is_last()
        for number, part in enumerate(parts, 1):
            losses, sums = part()
            total = losses.sum()
            # under autocast the gradients of what is computed in fp32 on purpose (scores) would be rounded to bf16
            with self._synchronised(last and number == len(parts)), torch.autocast(total.device.type, enabled=False):
                self.module.manual_backward(total)
            self.count += len(losses)
            for name, value in ({"loss": losses.detach().sum()} | sums).items():
                self.sums[name] = self.sums.get(name, 0.0) + value
        self.micro += 1
        return self._step() if last else None

    def _step(self) -> dict[str, float]:
        trainer, optimizer = self.module.trainer, self.module.optimizers()
        totals = self._totals()
        count = self.counted = totals.pop("count")
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # DDP has averaged the ranks' sums, hence the world size: what is left is the sum over all ranks
        torch._foreach_mul_([p.grad for p in parameters], trainer.world_size / count)
        limit = self.settings.clip or float("inf")
        norm = float(nn.utils.clip_grad_norm_(parameters, limit))
        lr = optimizer.param_groups[0]["lr"]
        if norm == norm and norm != float("inf"):
            optimizer.step()
        else:
            raise FloatingPointError(f"the gradient's norm is {norm} at step {trainer.global_step}")
        optimizer.zero_grad()
        self.module.lr_schedulers().step()
        self.micro, self.count, self.sums = 0, 0, {}
        return {"loss": totals.pop("loss") / count, "grad_norm": norm, "lr": lr} | totals

    def _totals(self) -> dict[str, float]:
        """Every sum of the window and its count, over all ranks."""
        names = ["count", *self.sums]
        values = torch.tensor(
            [float(self.count), *map(float, self.sums.values())],
            dtype=torch.float64,
            device=self.module.device if self.module.device.type != "mps" else "cpu",
        )
        if self.module.trainer.world_size > 1:
            torch.distributed.all_reduce(values)
        return dict(zip(names, values.tolist(), strict=True))

    def _is_last(self) -> bool:
        return self.micro + 1 == self.settings.accumulate or self.module.trainer.is_last_batch

    @contextlib.contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Ranks exchange gradients once a window, not once a micro-batch."""
        model = self.module.trainer.model
        if last or not hasattr(model, "no_sync"):
            yield
        else:
            with model.no_sync():
                yield
