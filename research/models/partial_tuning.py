"""Partial fine-tuning: some layers or parameters of a model are trained whole, and the rest is frozen."""

import re

from torch import nn

from research.errors import UserError
from research.models.adapter_rules import check
from research.models.adapters import blocks_of, layer_count


def freeze(model: nn.Module, train_layers: int | None, train_pattern: str | None) -> None:
    """Freeze all parameters except the last layers, or those that a regular expression matches.

    Args:
        model: a transformers model without an adapter.
        train_layers: the last so many blocks, and the norm after them; embeddings and output layer stay frozen.
        train_pattern: searched in parameter names.

    Raises:
        UserError: nothing would be trained.
    """
    if train_layers is None and train_pattern is None:
        return
    check({}, layers=layer_count(model), train_layers=train_layers, train_pattern=train_pattern)
    if train_pattern is not None:
        try:
            wanted = re.compile(train_pattern)
        except re.error as error:
            raise UserError(
                f"train_pattern={train_pattern!r} is no regular expression ({error}); expected one that is "
                "searched in parameter names. Correct it."
            ) from None
        chosen = {name for name, _ in model.named_parameters() if wanted.search(name)}
    else:
        blocks = blocks_of(model)
        last = {id(p) for block in blocks[len(blocks) - train_layers :] for p in block.parameters()}
        last |= {id(p) for p in _final_norm(model)}
        chosen = {name for name, p in model.named_parameters() if id(p) in last}
    if not chosen:
        names = [name for name, _ in model.named_parameters()]
        raise UserError(
            f"train_pattern={train_pattern!r} finds none of the model's parameters; expected some to train, of "
            f"names like {names[len(names) // 2]}. Correct it."
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in chosen


def _final_norm(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the norm after the last block: the body's own children that are norms."""
    body = model.base_model if hasattr(model, "base_model") else model
    norms = [m for name, m in body.named_children() if "norm" in type(m).__name__.lower() or name in ("norm", "ln_f")]
    return [p for norm in norms for p in norm.parameters()]
