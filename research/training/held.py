"""Micro-batches that wait for the last of their optimizer step: a router's loss weighs with the tokens of them all.

A step's loss is Σ token losses / N + c · mean of the micro-batches' router losses, and N is known when the last one is there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from research.training.optimisation import Window


class Held:
    """What `Window.add_parts` takes, of a model with or without a router's loss.

    Args:
        window: of the trainer.
        coefficient: of the router's loss; 0 for none, and nothing waits.
        count: losses of a chunk, before they are computed.
    """

    def __init__(self, window: Window, coefficient: float, count: Callable[[dict[str, Tensor]], int]):
        self.window, self.coefficient, self.count = window, coefficient, count
        self.batches: list[Any] = []

    def parts(self, batch: Any, part: Callable[..., tuple[Tensor, dict]]) -> list[partial] | None:
        """The parts of a micro-batch, or of all that have waited; None where this one waits too.

        Args:
            batch: with chunks; one, where there is a router's loss.
            part: chunk, share → losses and sums; share is what a chunk's router loss is multiplied by in a sum over losses.
        """
        if not self.coefficient:
            return [partial(part, chunk) for chunk in batch.chunks]
        self.batches.append(batch)
        if self.window.hold():
            return None
        chunks = [chunk for one in self.batches for chunk in one.chunks]
        self.batches = []
        trainer = self.window.module.trainer
        total = torch.tensor(float(sum(map(self.count, chunks))), device=self.window.module.device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(total)
        share = float(total) / (len(chunks) * trainer.world_size)
        return [partial(part, chunk, share) for chunk in chunks]

    def with_router(self, losses: Tensor, sums: dict, loss: Tensor | None, share: float) -> tuple[Tensor, dict]:
        """Losses whose sum holds the router's too, and router_loss among the sums."""
        if loss is None:
            return losses, sums
        # the sum over a window is divided by all of its losses: what is left is the coefficient times the mean
        spread = self.coefficient * loss.to(losses.dtype) * share / len(losses)
        return losses + spread, sums | {"router_loss": loss.detach() * share}
