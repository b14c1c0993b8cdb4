"""Prepares a model for training: dropout, parameters that never get a gradient, and a device's cheaper parts."""

from torch import nn

from research.models.casts import share_casts
from research.models.cpu.dropout import DropoutBits
from research.models.cpu.training import for_training
from research.models.norms import fuse_rms_norms

RATES = ("attention_dropout", "dropout_prob", "dropout_p", "dropout", "hidden_dropout", "activation_dropout")
"""Attributes of modules that call functional dropout."""


def cheaper_parts(model: nn.Module, device: str) -> DropoutBits | None:
    """Make `model` train faster on a kind of device, in place: the same loss and gradients; names and state_dict stay.

    Args:
        model: any Hugging Face model, or a module that holds some.
        device: "cpu", "cuda", "mps".

    Returns:
        The generator of all dropout masks, to be seeded at every step, where the parts have one of their own.
    """
    if device == "cpu":
        return for_training(model)
    share_casts(model)
    fuse_rms_norms(model)
    return None


def set_dropout(model: nn.Module, p: float | None) -> None:
    """Give every dropout layer, and attention, the probability `p` in [0, 1); None leaves the model's own."""
    if p is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        for name in RATES:
            rate = getattr(module, name, None)  # an int where config.json says 0
            if isinstance(rate, int | float) and not isinstance(rate, bool):
                setattr(module, name, p)


def freeze_pooler(model: nn.Module) -> None:
    """Freeze an encoder's pooler, which gets no gradient: hidden states are pooled here, and DDP would wait for it for ever."""
    if any("pooler_output" in str(getattr(module, "modality_config", "")) for module in model.modules()):
        return  # a stack of sentence-transformers that reads it
    for name, parameter in model.named_parameters():
        if ".pooler." in f".{name}":
            parameter.requires_grad = False
