"""RMS norms by torch's own function, which CUDA computes in one kernel forward and one backward.

transformers' modules take some twenty for the two. The numbers differ by rounding alone: the function rounds once, at its end.
"""

import functools

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5  # of float32; a weight that is read otherwise (1 + weight) changes far more


def fuse_rms_norms(model: nn.Module) -> int:
    """Give the RMS norms of `model` torch's forward, in place; return how many.

    A class is known by its name's end, and by its numbers: where they are not weight · x / rms(x) it is left alone.
    """
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm") and _is_plain(module)]
    for module in norms:
        module.forward = functools.partial(_forward, module)
    return len(norms)


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, module.weight.dtype)
    return nn.functional.rms_norm(x.to(dtype), module.weight.shape, module.weight.to(dtype), _eps(module))


def _eps(module: nn.Module) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


@torch.no_grad()
def _is_plain(module: nn.Module) -> bool:
    """Return whether the module computes what `_forward` does, on a few numbers."""
    weight = getattr(module, "weight", None)
    parameters = [*module.parameters()]
    if not isinstance(weight, Tensor) or len(parameters) != 1 or weight.ndim != 1 or weight.is_meta or _eps(module) is None:
        return False
    x = torch.linspace(-2, 3, 4 * len(weight), device=weight.device).view(4, -1).sin() * 3
    x[0] *= 1e-4  # eps counts here
    try:
        expected = module(x)
    except TypeError:  # it takes more than the states
        return False
    return expected.shape == x.shape and torch.allclose(expected.float(), _forward(module, x).float(), rtol=TOLERANCE, atol=0)
