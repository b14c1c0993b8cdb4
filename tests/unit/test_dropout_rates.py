"""set_dropout reaches every rate of a model, of whatever type its configuration has it."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from research.models.training import set_dropout

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(("kind", "zero"), [("llama", 0), ("llama", 0.0), ("qwen2", 0), ("mistral", 0)])
def test_dropout_of_attention_is_set_where_the_config_has_an_int(kind, zero):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, attention_dropout=zero)).train()
    ids = torch.arange(12)[None]
    set_dropout(model, 0.5)
    assert model.model.layers[0].self_attn.attention_dropout == 0.5
    assert not torch.equal(model(ids).logits, model(ids).logits)  # it is drawn
    flag = model.model.layers[0].self_attn.is_causal
    assert flag is True or flag is False  # no rate, and left alone
