"""The loss that keeps the router of a mixture of experts balanced, as the model's own class computes it.

It is a function of all tokens of a forward together (the share of tokens an expert gets times its mean probability), so it is
taken over a whole micro-batch, and added as the config says: router_aux_loss_coef times its mean over the micro-batches.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")  # of transformers' classes


def router_coefficient(model: nn.Module) -> float:
    """Return the factor of the router's loss; 0 if the model has no router.

    It is there where the config names router_aux_loss_coef (whatever output_router_logits says: TRL trains so), or where
    output_router_logits is true under another name of the coefficient; and where the model gives such a loss.

    Args:
        model: a transformers causal language model.
    """
    config = model.config.get_text_config()
    has_router = hasattr(config, "router_aux_loss_coef") or getattr(config, "output_router_logits", False)
    coefficient = next((value for name in COEFFICIENTS if (value := getattr(model, name, None))), 0.0) if has_router else 0.0
    if not coefficient or not hasattr(config, "output_router_logits") or next(model.parameters()).is_meta:
        return 0.0
    ids = torch.zeros(1, 4, dtype=torch.long, device=next(model.parameters()).device)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_router_logits=True, use_cache=False)
    return float(coefficient) if isinstance(getattr(output, "aux_loss", None), Tensor) else 0.0


def router_loss(
    model: nn.Module,
    states: ModelOutput,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    embedded: Tensor | None = None,
) -> Tensor:
    """Compute the model's own aux_loss, (), from states of its body; runs the model's forward on them, for one token's logits.

    Args:
        model: a transformers causal language model.
        states: what its body gave with output_router_logits=True.
        input_ids, embedded: (B, T) or (B, T, H), what the body got.
        attention_mask: (B, T), 1 for the tokens that count; None for all.
    """
    inputs = {"input_ids": input_ids} if embedded is None else {"inputs_embeds": embedded}
    with _given(model.base_model, states):
        output = model(**inputs, attention_mask=attention_mask, output_router_logits=True, use_cache=False, logits_to_keep=1)
    return output.aux_loss


def packed_tokens(input_ids: Tensor, position_ids: Tensor, pad: int) -> Tensor:
    """Return a (B, T) mask for rows of several texts: 1 for tokens, 0 for the padding at the end, which has position 0."""
    padding = (input_ids == pad) & (position_ids == 0)
    return 1 - padding.long().flip(1).cumprod(1).flip(1)


@contextlib.contextmanager
def _given(body: nn.Module, states: ModelOutput) -> Iterator[None]:
    """Within this context the body returns `states` and computes nothing."""
    body.forward = lambda *_, **__: states
    try:
        yield
    finally:
        del body.forward
