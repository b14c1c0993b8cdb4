"""A tiny causal language model with a byte tokenizer and a chat template, for tests."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (  # says which tokens the assistant wrote
    "{% for message in messages %}<|{{ message['role'] }}|>{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] }}<|end|>{% endgeneration %}{% else %}{{ message['content'] }}<|end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token a byte, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    vocab = {token: i for i, token in enumerate([*special, *alphabet])}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=special[1:],
        model_max_length=512,
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_llama(layers: int = 2, seed: int = 0, **more) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=None,
        initializer_range=0.2,
        attention_dropout=0.0,
        **more,
    )
    return LlamaForCausalLM(config).eval()


def save_tiny(folder: Path, template: str | None = TEMPLATE, **more) -> Path:
    """The model and its tokenizer as a folder."""
    tiny_llama(**more).save_pretrained(folder)
    byte_tokenizer(template).save_pretrained(folder)
    return folder


def rows(count: int = 40) -> list[dict]:
    """Conversational prompts and completions of various lengths."""
    words = "the of a to and in is it you that he was for on are with as his they be at one have this".split()
    out = []
    for i in range(count):
        prompt = " ".join(words[(i * 7 + k) % len(words)] for k in range(2 + i % 9))
        answer = " ".join(words[(i * 5 + 3 * k) % len(words)] for k in range(1 + i % 6))
        out.append({"prompt": [{"role": "user", "content": prompt}], "completion": [{"role": "assistant", "content": answer}]})
    return out
