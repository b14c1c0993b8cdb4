"""Under autocast every layer casts its input for itself: here query, key and value share one cast, on any device."""

import weakref

import torch
from torch import Tensor, nn


def share_casts(model: nn.Module) -> None:
    """Make the linear layers of `model` that read one tensor share its cast, in place; the same numbers of fewer kernels."""
    cast = SharedCast()
    for module in model.modules():
        if type(module) is nn.Linear:
            module.register_forward_pre_hook(cast)


class SharedCast:
    """A forward pre-hook that casts an input for autocast once, for all layers that read it (query, key and value).

    Their gradients are then summed before one cast back.
    """

    def __init__(self):
        self.source, self.version, self.result = None, -1, None

    def __call__(self, module: nn.Module, inputs: tuple) -> tuple | None:
        x = inputs[0] if inputs and torch.is_grad_enabled() else None
        if not isinstance(x, Tensor) or x.dtype != torch.float32 or not torch.is_autocast_enabled(x.device.type):
            return None
        if self.source is None or self.source() is not x or self.version != x._version or self.result() is None:
            cast = x.to(torch.get_autocast_dtype(x.device.type))
            self.source, self.version, self.result = weakref.ref(x), x._version, weakref.ref(cast)
            return (cast, *inputs[1:])
        return (self.result(), *inputs[1:])
