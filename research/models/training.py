"""Preparing a model for training: dropout is set, what never gets a gradient is frozen."""

from torch import nn

from research.errors import UserError


def set_dropout(model: nn.Module, p: float | None) -> None:
    """Give every dropout layer, and attention, the probability `p`; None leaves the model's own.

    Raises:
        UserError: p is not in [0, 1).
    """
    if p is None:
        return
    if not 0 <= p < 1:
        raise UserError(
            f"dropout={p}; expected 0 to below 1, or null for the model's own. Correct it in the configuration."
        )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        for name in ("attention_dropout", "dropout_prob", "dropout_p"):  # models that call functional dropout
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, p)


def freeze_pooler(model: nn.Module) -> None:
    """No gradient for an encoder's pooler: it stands beside the hidden states that are pooled here, so it gets none anyway,
    and DDP would wait for it for ever."""
    for name, parameter in model.named_parameters():
        if ".pooler." in f".{name}":
            parameter.requires_grad = False
