"""Device and layers for inference: the best device, and the fastest layers on it."""

import torch
from torch import nn

from research.errors import UserError
from research.models.cpu.packed import pack
from research.models.device import chosen


def use_device(name: str) -> None:
    """Set the device of all later inference in this process.

    Args:
        name: auto | cpu | cuda | cuda:1 | mps.

    Raises:
        UserError: it is not there.

    Example:
        >>> from research import use_device
        >>> use_device("cpu")
    """
    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    if name != "auto" and not any(device == name or device.startswith(f"{name}:") for device in there):
        raise UserError(f"--device {name} is not there; expected one of {', '.join(there)}, or auto. Name one of them.")
    chosen.set(name)


def best_device() -> torch.device:
    """Return the device that the command names; if none, the GPU if there is one, else the CPU."""
    name = chosen.get()
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16() -> bool:
    """Return whether bf16 is faster on the best device: any GPU of this decade, and CPUs with bf16 matrix instructions."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def for_inference(model: nn.Module, device: torch.device) -> nn.Module:
    """Move `model` to `device`, in eval mode, and pack its linear layers if possible. Not for training.

    Args:
        model: changed in place.
        device: where it will run.
    """
    model = model.to(device).eval()
    if device.type == "cpu":
        pack(model)
    return model
