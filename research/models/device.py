"""The device that a command names: how it is written, and which one it means; torch is loaded only if one is requested."""

import argparse
import contextvars
import re

DEVICES = "auto | cpu | cuda | cuda:1 | mps"
HELP = f"{DEVICES}: where it computes (auto: the first CUDA GPU where there is one, else the CPU)"

chosen: contextvars.ContextVar[str] = contextvars.ContextVar("device", default="auto")
"""What the running command was given; inference.best_device makes a torch.device of it."""


def add_device(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare --device."""
    parser.add_argument("--device", type=device_name, default="auto", metavar="NAME", help=HELP)


def device_name(text: str) -> str:
    """Check how a device is written; whether it exists is checked once torch is loaded.

    Raises:
        ArgumentTypeError: no possible name.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; expected {DEVICES}")
    return text


def trainer_options(name: str) -> list[str]:
    """Return the options of Lightning's Trainer for a device; none for auto, which keeps the configuration's."""
    if name == "auto":
        return []
    kind, _, number = name.partition(":")
    devices = f"[{number}]" if number else "1"
    return [f"--trainer.accelerator={'gpu' if kind == 'cuda' else kind}", f"--trainer.devices={devices}"]
