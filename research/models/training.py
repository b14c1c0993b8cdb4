"""Prepares a model for training on any device: sets dropout, and freezes parameters that never get a gradient."""

from torch import nn

RATES = ("attention_dropout", "dropout_prob", "dropout_p", "dropout", "hidden_dropout", "activation_dropout")
"""Attributes of modules that call functional dropout."""


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
