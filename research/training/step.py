"""One optimizer step, by hand: accumulation, the mean over all examples of the step, clipping.

Lightning's automatic optimisation averages micro-batches and ranks as if they were of equal size, and refuses its own
clipping and accumulation as soon as a step needs two passes (GradCache). Manual optimisation has neither fault.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import lightning as L
import torch
from torch import Tensor, nn

from research.training.optimisation import Optimisation


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
        self.last_count = 0.0  # losses of the last step, over all ranks

    @property
    def open(self) -> bool:
        """Return whether gradients of an unfinished step are accumulated."""
        return self.micro > 0

    def postpone(self) -> bool:
        """Count a micro-batch whose losses are added with those of the window's last one; return False for that last one."""
        if self._is_last():
            return False
        self.micro += 1
        return True

    def backward_and_step(self, losses: Tensor, **sums: Tensor | float) -> dict[str, float] | None:
        """Run the backward pass of a micro-batch's losses; after the window's last one, take the optimizer step.

        Args:
            losses: (B,) per-example losses.
            sums: further numbers of the micro-batch, to be summed over the window.

        Returns:
            None within the window; at its end loss (mean over examples), grad_norm (before clipping), lr, and the sums;
            over all ranks.
        """
        return self.backward_parts_and_step([lambda: (losses, sums)])

    def backward_parts_and_step(self, parts: Sequence[Callable[[], tuple[Tensor, dict]]]) -> dict[str, float] | None:
        """Run the backward pass of a micro-batch in independent parts, so that memory holds only one part's graph at a time.

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
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # DDP has averaged the ranks' sums, hence the world size: what is left is the sum over all ranks
        scale = trainer.world_size / totals[0]
        for dtype in {p.grad.dtype for p in parameters}:
            torch._foreach_mul_([p.grad for p in parameters if p.grad.dtype == dtype], scale.to(self.module.device, dtype))
        limit = self.settings.clip or float("inf")
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        # the one place of a step where the host waits for the device
        count, *sums, norm = torch.cat([totals, norm.to(totals)[None]]).tolist()
        totals, self.last_count = dict(zip(self.sums, sums, strict=True)), count
        lr = optimizer.param_groups[0]["lr"]
        if norm == norm and norm != float("inf"):
            optimizer.step()
        else:
            raise FloatingPointError(f"the gradient's norm is {norm} at step {trainer.global_step}")
        optimizer.zero_grad()
        self.module.lr_schedulers().step()
        self.micro, self.count, self.sums = 0, 0, {}
        return {"loss": totals.pop("loss") / count, "grad_norm": norm, "lr": lr} | totals

    def _totals(self) -> Tensor:
        """Sum the window's count, and its numbers after it, over all ranks: (1 + sums,)."""
        device = self.module.device if self.module.device.type != "mps" else torch.device("cpu")  # mps has no float64
        values = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in (self.count, *self.sums.values())]
        totals = torch.stack(values)
        if self.module.trainer.world_size > 1:
            torch.distributed.all_reduce(totals)
        return totals

    def _is_last(self) -> bool:
        return self.micro + 1 == self.settings.accumulate or self.module.trainer.is_last_batch

    @contextlib.contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Make ranks exchange gradients once for each window, not once for each micro-batch."""
        model = self.module.trainer.model
        if last or not hasattr(model, "no_sync"):
            yield
        else:
            with model.no_sync():
                yield


class Chunks(Protocol):
    """A micro-batch in chunks."""

    chunks: Sequence[dict[str, Tensor]]


class ChunkParts:
    """Makes the parts that `Window.backward_parts_and_step` takes, of a model with or without a router's loss.

    A router's loss weighs with the tokens of all micro-batches of its optimizer step: they wait for the last one. The loss of
    a step is Σ token losses / N + c · mean of the micro-batches' router losses, and N is known when the last one is there.

    Args:
        window: of the trainer.
        coefficient: of the router's loss; 0 for none, and nothing waits.
        count: losses of a chunk, before they are computed.
    """

    def __init__(self, window: Window, coefficient: float, count: Callable[[dict[str, Tensor]], int]):
        self.window, self.coefficient, self.count = window, coefficient, count
        self.batches: list[Chunks] = []

    def parts(self, batch: Chunks, part: Callable[..., tuple[Tensor, dict]]) -> list[partial] | None:
        """Return the parts of a micro-batch and of all postponed ones; None if this one is postponed, too.

        Args:
            batch: with chunks; one, where there is a router's loss.
            part: chunk, share → losses and sums; share is what a chunk's router loss is multiplied by in a sum over losses.
        """
        if not self.coefficient:
            return [partial(part, chunk) for chunk in batch.chunks]
        self.batches.append(batch)
        if self.window.postpone():
            return None
        chunks = [chunk for waiting in self.batches for chunk in waiting.chunks]
        self.batches = []
        trainer = self.window.module.trainer
        total = torch.tensor(float(sum(map(self.count, chunks))), device=self.window.module.device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(total)
        share = float(total) / (len(chunks) * trainer.world_size)
        return [partial(part, chunk, share) for chunk in chunks]

    def with_router(self, losses: Tensor, sums: dict, loss: Tensor | None, share: float) -> tuple[Tensor, dict]:
        """Add the router's loss to the losses' sum, and router_loss to the sums to report."""
        if loss is None:
            return losses, sums
        # the sum over a window is divided by all of its losses: what is left is the coefficient times the mean
        of_each = self.coefficient * loss.to(losses.dtype) * share / len(losses)
        return losses + of_each, sums | {"router_loss": loss.detach() * share}
