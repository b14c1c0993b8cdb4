"""Where a model runs when no gradient is wanted: the best device, and the fastest layers there."""

import torch
from torch import nn

from research.models.cpu.packed import pack


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16() -> bool:
    """Whether bf16 is a gain on the best device: any GPU of this decade, and CPUs with bf16 matrix instructions."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def for_inference(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` on `device`, in eval mode, with its linear layers packed where that is possible. Not for training.

    Args:
        model: changed in place.
        device: where it will run.
    """
    model = model.to(device).eval()
    if device.type == "cpu":
        pack(model)
    return model
