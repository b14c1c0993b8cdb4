"""Where a model runs when no gradient is wanted: the best device, and the fastest layers there."""

import torch
from torch import nn

from research.errors import UserError
from research.models.cpu.packed import pack
from research.models.device import chosen


def use_device(name: str) -> None:
    """Compute on a device from here on: all that this process does not train.

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
    """The device that the command names; where it names none the GPU if there is one, else the CPU."""
    name = chosen.get()
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


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
