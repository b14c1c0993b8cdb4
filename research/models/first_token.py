"""Saves work in the last layer where only the first token's last hidden state is read.

Of that layer only keys and values of the other tokens matter; queries, output projection and the feed-forward block, ten
twelfths of its matrix products, are then one row a text. Exact: the row is the same, and so is every gradient.
"""

import functools

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

LAYERS = ("BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer")
"""Their models' heads for sequence classification read nothing but the first token."""


def keep_first_token(transformer: nn.Module) -> bool:
    """Let the last layer of a BERT-like encoder give (B, 1, H), the first token's row alone.

    Args:
        transformer: changed in place, where its layers are known (LAYERS); weights and names stay as they are.

    Returns:
        Whether it was changed.
    """
    modules = (m for m in transformer.modules() if type(m).__module__.startswith("transformers.models."))
    layers = [module for module in modules if type(module).__name__ in LAYERS]
    if not layers or layers[-1].is_decoder:
        return False
    attention = layers[-1].attention
    attention.forward = functools.partial(_first_token, attention)
    return True


def _first_token(attention: nn.Module, hidden: Tensor, mask: Tensor | None = None, **_) -> tuple[Tensor, None]:
    """Compute BertAttention's block for one query a text. hidden: (B, T, H); returns (B, 1, H)."""
    part, first = attention.self, hidden[:, :1]
    query, key, value = (
        layer(x).unflatten(-1, (-1, part.attention_head_size)).transpose(1, 2)
        for layer, x in ((part.query, first), (part.key, hidden), (part.value, hidden))
    )  # (B, heads, 1 or T, D)
    if mask is not None and mask.ndim == 4:
        mask = mask[:, :, :1]
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(part.config._attn_implementation, sdpa_attention_forward)
    out, _ = attend(part, query, key, value, mask, dropout=part.dropout.p if part.training else 0.0, scaling=part.scaling)
    return attention.output(out.flatten(2), first), None
