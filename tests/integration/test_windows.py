"""Prefix tuning and attention windows: an answer does not depend on its neighbours, whatever the model forgets."""

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from research.errors import UserError
from research.models import adapters
from research.models.causal_lm import CausalLM
from research.models.generate import Decoding, generate, padding_is_exact
from research.training.sft import SFTModule
from tests.lm import byte_tokenizer

SMALL = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "bos_token_id": None,
}
WINDOWS = {
    "mistral": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen2": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["local", "global"], 1]], "window_size": 16},
    "llama": {},
}
PROMPTS = [[5 + (i * 7 + k * 3) % 250 for k in range(n)] for i, n in enumerate((2, 30, 11, 7, 11))]


def model_of(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    values = {k: v for k, v in SMALL.items() if kind != "gpt_neo" or k != "num_key_value_heads"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values, **WINDOWS.get(kind, {}))).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def prefix(**more):
    return peft.PrefixTuningConfig(**({"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"} | more))


def plain(transformer, prompt: list[int], new: int) -> list[int]:
    """Greedy, by PEFT's own forward, one text at a time and without a cache."""
    ids = list(prompt)
    for _ in range(new):
        tensor = torch.tensor([ids])
        with torch.no_grad():
            following = transformer(input_ids=tensor, attention_mask=torch.ones_like(tensor), use_cache=False).logits
        if (token := int(following[0, -1].argmax())) == 0:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", WINDOWS)
def test_answers_under_a_prefix_are_those_of_one_at_a_time(kind):
    model = CausalLM(adapters.attach(model_of(kind), prefix(), init_scale=1.0), byte_tokenizer()).eval()
    expected = [model.tokenizer.decode(plain(model.transformer, one, 6), skip_special_tokens=True).strip() for one in PROMPTS]
    for size in (1, 4):
        assert [one.text for one in generate(model, PROMPTS, Decoding(max_new_tokens=6), size)] == expected
    assert padding_is_exact(model, PROMPTS, 6) == (kind == "llama")


@pytest.mark.parametrize("kind", [kind for kind in WINDOWS if kind != "llama"])
def test_a_prefix_is_seen_in_padded_training_batches_as_alone(kind):
    model = CausalLM(adapters.attach(model_of(kind), prefix(), init_scale=1.0), byte_tokenizer()).eval()
    ids = torch.zeros(len(PROMPTS), 32, dtype=torch.long)
    for i, one in enumerate(PROMPTS):
        ids[i, : len(one)] = torch.tensor(one)
    lengths = torch.tensor([len(one) for one in PROMPTS])
    with torch.no_grad():
        found = model.hidden(ids, (torch.arange(32) < lengths[:, None]).long()) @ model.head["weight"].T
        for i, one in enumerate(PROMPTS):
            tensor = torch.tensor([one])
            alone = model.transformer(input_ids=tensor, attention_mask=torch.ones_like(tensor), use_cache=False).logits[0]
            torch.testing.assert_close(found[i, : len(one)], alone[-len(one) :], rtol=0, atol=2e-4)


def test_a_window_that_holds_the_prefix_at_first_is_found_out():
    """Of two lengths only: at the start both texts have the prefix, and at the end neither."""
    model = CausalLM(adapters.attach(model_of("mistral"), prefix(), init_scale=1.0), byte_tokenizer()).eval()
    prompts = [PROMPTS[0], PROMPTS[0] * 3]
    assert padding_is_exact(model, prompts, 2)
    assert not padding_is_exact(model, prompts, 60)


def test_a_recurrence_that_reads_padding_answers_one_by_one():
    """RWKV has no mask: padding on the left is text to it."""
    model = CausalLM(model_of("rwkv"), byte_tokenizer()).eval()
    assert not padding_is_exact(model, PROMPTS, 4)
    alone = [one.text for one in generate(model, PROMPTS, Decoding(max_new_tokens=4), 1)]
    assert [one.text for one in generate(model, PROMPTS, Decoding(max_new_tokens=4), 4)] == alone


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("rwkv", "gives the same numbers with 4 virtual tokens"),
        ("mamba", "MambaForCausalLM does not run with these virtual tokens"),
    ],
)
def test_a_model_without_attention_has_no_prefix(kind, says, tmp_path):
    model_of(kind).save_pretrained(tmp_path / kind)
    byte_tokenizer().save_pretrained(tmp_path / kind)
    with pytest.raises(UserError, match=says):
        SFTModule(str(tmp_path / kind), adapter=prefix())
    prompt = peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    assert SFTModule(str(tmp_path / kind), adapter=prompt).model.virtual_tokens == 4  # the cure of the message
