"""Compares a model that has a new adapter with its base, by running both: an initialisation or variant may change anything."""

from typing import NamedTuple

import torch
from torch import Tensor

from research.errors import UserError
from research.models.causal_lm import CausalLM

SAME = 1e-3  # of the largest logit: what a decomposition of the weights rounds


class Start(NamedTuple):
    """How a model with a new adapter differs from its base.

    Attributes:
        off_is_base: without the adapter it is the base, to the bit.
        on_is_base: with the adapter it is the base, but for rounding.
        base_trained: something of the base itself is trained: later it will not be the base without the adapter.
    """

    off_is_base: bool
    on_is_base: bool
    base_trained: bool


def start_of(model: CausalLM, base: Tensor) -> Start:
    """Compare a model that has just got its adapter with the model before.

    Args:
        model: with the adapter.
        base: its `probe` before.
    """
    with model.adapter_off():
        off = model.probe()
        with torch.enable_grad():
            ids = torch.zeros(1, 2, dtype=torch.long, device=off.device)
            head = model.head
            reached = [model.hidden(ids, torch.ones_like(ids)), head["weight"], head["bias"]]
    on = model.probe()
    near = off.shape == base.shape == on.shape and float((on - base).abs().max()) <= SAME * float(base.abs().max())
    return Start(torch.equal(off, base), near, any(part is not None and part.requires_grad for part in reached))


def check_virtual(model: CausalLM) -> None:
    """Refuse a model that ignores its virtual tokens, or does not run with them.

    Args:
        model: with virtual tokens.

    Raises:
        UserError: it does not run with them, or gives the same numbers as without them.
    """
    name, count = type(model.base).__name__, model.virtual_tokens
    try:
        on = model.probe()
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise UserError(
            f"{name} does not run with these virtual tokens ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); expected a model that takes them. Choose peft.LoraConfig, or "
            "peft.PromptTuningConfig, whose tokens are embeddings."
        ) from error
    with model.adapter_off():
        off = model.probe()
    if on.shape == off.shape and torch.equal(on, off):
        raise UserError(
            f"{name} gives the same numbers with {count} virtual tokens as without them: it does not read them; "
            "expected a model with attention to all that stands before. Choose peft.LoraConfig, or "
            "peft.PromptTuningConfig, whose tokens are embeddings."
        )


def check_reference(reference: str, start: Start, adapter: dict) -> None:
    """Refuse a reference that would not be the base.

    Raises:
        UserError: the reference that is asked for would not be the base.
    """
    adapter_at_start = f"the adapter (init_lora_weights={adapter.get('init_lora_weights')}, layer_replication="
    adapter_at_start += f"{adapter.get('layer_replication')})"
    if reference == "adapter_off" and not start.off_is_base:
        raise UserError(
            f"reference='adapter_off': without {adapter_at_start} the model is not its base; expected an adapter that leaves "
            "the base alone. Choose reference: copy, the model as the training finds it."
        )
    if reference == "adapter_off" and start.base_trained:
        raise UserError(
            "reference='adapter_off': the adapter trains parameters of the base, which stay trained when it is "
            "off; expected copy or cached. Choose one."
        )
    if reference == "cached" and not (start.off_is_base or start.on_is_base):
        raise UserError(
            f"reference='cached': neither with nor without {adapter_at_start} is the model its base, which is what a cache "
            "holds; expected an adapter that leaves the base alone. Choose reference: copy, the model as the "
            "training finds it."
        )
