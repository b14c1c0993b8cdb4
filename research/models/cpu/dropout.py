"""Dropout whose random masks cost little on a CPU, and are a function of a seed alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 2**15  # resolution of a dropout rate
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}


class DropoutBits:
    """Random masks for dropout, many bits at a time: PyTorch's CPU generator takes 6 ns an element, this 0.5.

    Args:
        seed: equal seeds give equal masks, whatever the number of threads.
    """

    def __init__(self, seed: int = 0):
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Restart the masks from the seed: at every training step, and before a forward that is replayed with equal masks."""
        self.generator = np.random.Generator(np.random.SFC64(seed))

    def dropped(self, shape: Sequence[int], p: float) -> tuple[Tensor, float]:
        """Draw an independent mask.

        Args:
            shape: of the mask.
            p: probability to drop an element, within 1/32768.

        Returns:
            int16 of `shape`, −1 (all bits) where dropped and 0 where kept; and the factor 1 / (1 − p) that goes with it.
        """
        threshold = round(p * LEVELS)
        count = int(np.prod(shape))
        random = self.generator.integers(0, 2**64, size=-(-count // 4), dtype=np.uint64)
        bits = torch.from_numpy(random.view(np.int16))[:count].view(*shape)
        # 15 random bits from −16384 up; minus the threshold, the sign says dropped and nothing overflows
        bits = bits.bitwise_right_shift_(1).sub_(threshold - LEVELS // 2).bitwise_right_shift_(15)
        return bits, LEVELS / (LEVELS - threshold) if threshold < LEVELS else 0.0


class FastDropout(nn.Dropout):
    """nn.Dropout with masks from `bits`."""

    def __init__(self, p: float, bits: DropoutBits):
        super().__init__(p)
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p or x.device.type != "cpu" or x.dtype not in BITS:
            return super().forward(x)
        return _Dropout.apply(x, *self.bits.dropped(x.shape, self.p))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, dropped: Tensor, factor: float) -> Tensor:
        mask = dropped.bitwise_not_()
        ctx.save_for_backward(mask)
        ctx.factor = factor
        return _keep(x, mask).mul_(factor)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (mask,) = ctx.saved_tensors
        return _keep(grad, mask).mul_(ctx.factor), None, None


def _keep(x: Tensor, mask: Tensor) -> Tensor:
    """Return x where `mask` has all bits, 0 where it has none: on bits, since masked products of bf16 are 5 times slower."""
    as_int = BITS[x.dtype]
    return x.view(as_int).bitwise_and(mask.to(as_int)).view(x.dtype)
