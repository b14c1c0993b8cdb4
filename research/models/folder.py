"""Loads transformer and tokenizer of a Hugging Face folder, or refuses an incomplete one; tells which lengths it can take."""

import contextlib
import contextvars
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from research.errors import UserError
from research.models.contents import check_tokenizer, weight_files
from research.progress import say

LANGUAGE = "CausalLM|LMHead"  # in names of classes that predict the next token
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NO_LIMIT = 10**9  # tokenizers without a limit say 10^30
DEFAULT_LENGTH = 512  # of models without any limit
LENGTH_MULTIPLE = 16
TOKENIZE_CHARACTERS = 2**22

_META = contextvars.ContextVar("meta", default=False)

transformers_logging.disable_progress_bar()  # loading takes a tenth of a second


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Within this context models are loaded without weights (torch's meta device): to count parameters, not to compute."""
    token = _META.set(True)
    try:
        yield
    finally:
        _META.reset(token)


def is_without_weights() -> bool:
    """Return whether models are loaded without weights here."""
    return _META.get()


@contextlib.contextmanager
def loading(loaded: list[tuple[PreTrainedModel, dict]]) -> Iterator[None]:
    """Within this context list every transformers model that is loaded, with the weights that its files lacked.

    sentence-transformers loads models without asking for that, and transformers then only warns of weights left random.
    """
    plain = PreTrainedModel.__dict__["from_pretrained"]

    def with_loading_info(cls, *args, output_loading_info: bool = False, **kwargs):
        kwargs.setdefault("ignore_mismatched_sizes", True)  # so that they are listed, by name
        model, info = plain.__func__(cls, *args, output_loading_info=True, **kwargs)
        loaded.append((model, info))
        return (model, info) if output_loading_info else model

    PreTrainedModel.from_pretrained = classmethod(with_loading_info)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = plain


def load_transformer(folder: Path, auto_class, precision: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model of a folder, on the CPU, and its tokenizer.

    Args:
        folder: as `sources.resolve` gives it.
        auto_class: the transformers class to load with (AutoModelForCausalLM).
        precision: "fp32" or "bf16", of the weights.

    Raises:
        UserError: no safetensors, no vocabulary, damaged or incomplete weights, a tokenizer of another model, own code.
    """
    weight_files(folder)
    check_tokenizer(folder)
    loaded: list[tuple[PreTrainedModel, dict]] = []
    shared = {"local_files_only": True, "trust_remote_code": False}
    try:
        if _META.get():
            config = AutoConfig.from_pretrained(folder, **shared)
            with quiet(), torch.device("meta"):
                transformer = auto_class.from_config(config, trust_remote_code=False)
        else:
            with quiet(), loading(loaded):
                transformer = auto_class.from_pretrained(folder, dtype=DTYPES[precision], use_safetensors=True, **shared)
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, **shared)
        rows, highest = transformer.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, SafetensorError, … for bad folders
        raise unreadable(folder, error) from error
    for model, info in loaded:
        check_weights(folder, model, info)
    if highest >= rows and not _META.get():
        raise UserError(
            f"model folder {folder} has a tokenizer with ids up to {highest}, expected below {rows}, the rows of "
            "the embedding table: it is another model's. Copy or download it again."
        )
    return transformer, tokenizer


def check_weights(folder: Path, model: PreTrainedModel, info: dict, new_head: bool = False) -> None:
    """Refuse a model some of whose weights would be random.

    Args:
        folder: for the message.
        model: as it was loaded.
        info: what transformers says of the loading.
        new_head: a classification head is expected to be missing; it was drawn at random.

    Raises:
        UserError: the files lack weights of the model, or have them in other shapes, or the adapter is another model's.
    """
    if getattr(model, "peft_config", None):
        wrong = sorted({*info["missing_keys"], *info["unexpected_keys"], *map(str, info["mismatched_keys"])})
        if wrong:
            raise UserError(
                f"the adapter in {folder} does not fit its base ({len(wrong)} weights without a place, "
                f"{wrong[0]}, …); expected the model that it was trained on. Correct base_model_name_or_path in "
                f"its adapter_config.json."
            )
        return
    body = f"{model.base_model_prefix}."  # the head is what lies beside the body
    new = [name for name in info["missing_keys"] if not name.startswith(body) or "pooler." in name] if new_head else []
    missing = [name for name in info["missing_keys"] if not name.startswith("pooler.") and name not in new]
    if missing or info["mismatched_keys"]:
        wrong = sorted(missing) or [str(key) for key in info["mismatched_keys"]]
        kinds = model.config.architectures or [""]
        if re.search(LANGUAGE, type(model).__name__) and kinds[0] and not re.search(LANGUAGE, kinds[0]):
            raise UserError(
                f"model folder {folder} has no head that predicts the next token: it is a {kinds[0]}, an encoder for "
                "--retriever; expected a causal language model (…ForCausalLM in config.json). Name one."
            )
        raise UserError(
            f"model folder {folder} lacks {len(wrong)} weights that its config.json asks for ({wrong[0]}, …); "
            "they would be random. Expected the weights of this architecture; save the model again."
        )
    if new and not _META.get():
        say(f"{folder} has no head that scores; a new one is drawn at random, to be trained")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' tables of missing weights: those that matter are reported, or refused, by name."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def unreadable(folder: Path, error: Exception) -> UserError:
    """Explain a library's error about a model folder, with a cure."""
    if "trust_remote_code" in str(error):
        return UserError(
            f"model folder {folder} needs code of its own, which is never run here; expected an architecture that "
            "transformers has, and modules that sentence-transformers has. Name another model."
        )
    if find_spec("sentencepiece") is None and ("tiktoken" in str(error) or "sentencepiece" in str(error).lower()):
        # transformers tries tiktoken instead, and asks for that
        return UserError(
            f"model folder {folder} has its vocabulary in a *.model file, and the package sentencepiece, which "
            "reads it, is not installed; expected it, or a tokenizer.json. pip install sentencepiece, or save "
            "the tokenizer again by save_pretrained where it is."
        )
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"model folder {folder} cannot be loaded ({type(error).__name__}: {reason}); expected a complete "
        "Hugging Face folder of a text encoder. Copy or download it again."
    )


def position_count(transformer: nn.Module) -> int:
    """Return how many tokens the position table can hold."""
    positions = getattr(transformer.config, "max_position_embeddings", None) or NO_LIMIT
    if positions < 1:  # XLNet says -1 for no limit
        return NO_LIMIT
    for name, module in transformer.named_modules():
        # RoBERTa and its kin count positions from padding_idx + 1, so the first rows of the table are never used
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return positions - module.padding_idx - 1
    return positions


def default_length(positions: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the model's own limit in tokens: the tokenizer's, but no more than the position table holds."""
    limit = min(tokenizer.model_max_length, positions)
    return DEFAULT_LENGTH if limit >= NO_LIMIT else limit


def slices_within(sizes: Sequence[int], limit: int = TOKENIZE_CHARACTERS) -> Iterator[slice]:
    """Yield consecutive slices whose sizes add up to `limit` at most, of one item at least.

    A tokenizer keeps what it cuts off from long texts until its call ends, so a call must not get many of them.
    """
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > limit:
            yield slice(start, i)
            start, total = i, 0
        total += size
    yield slice(start, len(sizes))


def padded_length(length: int, positions: int) -> int:
    """Round up to a multiple of 16 that the position table holds: at other lengths bf16 attention on a CPU is 1.5× slower."""
    return max(length, min(-(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, positions))
