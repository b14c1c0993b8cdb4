"""Models of known shapes with random weights, texts of made-up words for them, and the arithmetic that they need: for a machine
without a network, where speed is asked and quality is not.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

ENCODERS = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "110m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
"""BERT's: all-MiniLM-L6-v2, BERT-base."""
DECODERS = {
    "tiny": {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
    },
    "135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "1.5b": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151936,
    },
}
"""SmolLM2-135M, Qwen2.5-1.5B; input and output embeddings are one matrix."""
WORDS = 30518


def word_tokenizer(words: int, special: dict[str, str], single: str, pair: str | None = None):
    """A token a word w0, w1, …; special tokens first."""
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*special.values(), *(f"w{i}" for i in range(words))]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [(token, vocabulary[token]) for token in special.values() if token in f"{single} {pair}"]
    if marks:
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=marks)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **special)


def encoder_folder(shape: str, folder: Path, labels: int = 0) -> Path:
    """A Hugging Face folder of an encoder; with `labels`, of a cross-encoder with so many."""
    torch.manual_seed(0)
    more = {"num_labels": labels} if labels else {}
    config = BertConfig(vocab_size=WORDS + 4, max_position_embeddings=512, **ENCODERS[shape], **more)
    (BertForSequenceClassification if labels else BertModel)(config).save_pretrained(folder)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    word_tokenizer(WORDS, special, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1").save_pretrained(folder)
    return folder


def decoder_folder(shape: str, folder: Path, device: str = "cpu") -> Path:
    """A Hugging Face folder of a causal language model, its weights drawn on `device` and kept in bf16."""
    torch.manual_seed(0)
    words = DECODERS[shape]["vocab_size"] - 2
    config = AutoConfig.for_model(
        **DECODERS[shape],
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()
    special = {"eos_token": "<end>", "unk_token": "<unk>", "pad_token": "<end>"}
    word_tokenizer(words, special, "$A").save_pretrained(folder)
    return folder


def texts_of(count: int, tokens: int | None = None, words: int = WORDS, seed: int = 0) -> list[str]:
    """Texts of `tokens` words; without, of lengths like squad's passages, log-normal around 140 words."""
    rng = np.random.default_rng(seed)
    if tokens is None:
        lengths = np.exp(rng.normal(np.log(140), 0.4, size=count)).astype(int).clip(20, 400)
    else:
        lengths = np.full(count, tokens)
    return [" ".join(f"w{i}" for i in rng.integers(0, words, size=n)) for n in lengths]


def forward_flops(folder: Path, lengths: Iterable[int], labelled: int = 0) -> float:
    """Floating-point operations of a forward pass over texts without padding.

    Args:
        folder: its config.json says the shape; BERT's or a gated decoder's.
        lengths: tokens of each text. Attention counts every position against every other, in a decoder half of them.
        labelled: positions whose logits are computed.
    """
    config = json.loads((Path(folder) / "config.json").read_text())
    hidden, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    shared = config.get("num_key_value_heads", config["num_attention_heads"]) / config["num_attention_heads"]
    decoder = config["model_type"] != "bert"
    weights = hidden * hidden * (2 + 2 * shared) + hidden * inner * (3 if decoder else 2)
    lengths = np.asarray(list(lengths), dtype=np.float64)
    attention = 4 * hidden * (lengths**2).sum() * (0.5 if decoder else 1)
    return layers * (2 * weights * lengths.sum() + attention) + 2 * labelled * hidden * config.get("vocab_size", 0)


def reranker_of(folder: Path, target: Path) -> Path:
    """A cross-encoder with the encoder's body and a random head: its speed is a trained one's."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return target
