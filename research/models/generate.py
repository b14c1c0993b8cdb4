"""Answers of a causal language model, with any adapter: token ids in, texts out."""

import contextlib
import inspect
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from research.models.causal_lm import CausalLM
from research.progress import bar

BATCH = 16
EXACT, HALF = 1e-4, 3e-2  # of the largest hidden state: what rounding moves in float32, and in half precision


class Decoding(NamedTuple):
    """How an answer is chosen; the same for every method that is compared.

    Attributes:
        max_new_tokens: the longest answer.
        temperature: 0 takes the most likely token; above it tokens are drawn.
        top_p: of a draw: the smallest set of tokens with that much probability.
        seed: of the draws, which depend on the batch too.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Answer(NamedTuple):
    """A generated text, and whether it ended by itself (not at max_new_tokens)."""

    text: str
    tokens: int
    ended: bool


@torch.inference_mode()
def generate(model: CausalLM, prompts: list[list[int]], decoding: Decoding, batch_size: int = BATCH) -> list[Answer]:
    """Generate one answer a prompt.

    Prompts of similar length are generated together, padded on the left; virtual tokens stand where each method was
    trained with them, and positions are counted from the mask: an answer does not depend on its neighbours. Where a model is
    found to give other numbers with padding all the same, there is none: under a prefix, which padding pushes out of a window,
    prompts of equal length are answered together; elsewhere (a recurrence) one by one.

    Args:
        model: on its device, in eval mode.
        prompts: token ids, one or more each.
        decoding: see there.
        batch_size: prompts at a time.
    """
    tokenizer = model.tokenizer
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[Answer | None] = [None] * len(prompts)
    ends = _ends(model)
    drawn = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    settings = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=model.pad_token_id,
        eos_token_id=ends or None,
        **(drawn if decoding.temperature else {}),
    )
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len({*map(len, prompts)}) > 1 and batch_size > 1 and not padding_is_exact(model, prompts, decoding.max_new_tokens):
        batches = [[i] for i in order]
        if model.prefix:  # what reads padding as text may well mix up neighbours: that is answered one by one
            equal = [list(group) for _, group in itertools.groupby(order, lambda i: len(prompts[i]))]
            batches = [some[start : start + batch_size] for some in equal for start in range(0, len(some), batch_size)]
    with bar(len(prompts), "generate", "answer") as progress:
        for some in batches:
            inputs, before = prompt_inputs(model, [prompts[i] for i in some])
            if decoding.temperature:
                torch.manual_seed(decoding.seed * 1_000_003 + some[0])
            with _same_decoding(model.base, settings):
                out = model.base.generate(**inputs, generation_config=settings)
            for i, row in zip(some, out.tolist(), strict=True):
                answers[i] = _answer(row[before:], tokenizer, ends)
            progress.update(len(some))
    return answers


@torch.inference_mode()
def padding_is_exact(model: CausalLM, prompts: list[list[int]], new: int) -> bool:
    """Test whether the shortest prompt has the hidden states beside the longest that it has alone.

    Under a prefix both get as many more tokens as will be generated: a window may hold all of it at first. In half precision a
    partly lost prefix cannot be distinguished from rounding: there it counts as lost.

    Args:
        model: in eval mode.
        prompts: of unlike lengths.
        new: tokens to come.
    """
    half = model.table.dtype != torch.float32
    if model.prefix and half:
        return False
    two = [min(prompts, key=len), max(prompts, key=len)]
    if model.prefix:
        two = [prompt + (prompt * new)[:new] for prompt in two]
    alone, beside = (_states(model, rows)[0, -len(two[0]) :].float() for rows in (two[:1], two))
    limit = (HALF if half else EXACT) * max(1.0, float(alone.abs().max()))
    return float((alone - beside).abs().max()) <= limit


def _states(model: CausalLM, prompts: list[list[int]]) -> torch.Tensor:
    """Compute (B, T, H) hidden states of the prompts, padded on the left as `generate` has them."""
    inputs, _ = prompt_inputs(model, prompts)
    body, mask = model.base.base_model, inputs["attention_mask"]
    if "past_key_values" in inputs:
        inputs["input_ids"] = inputs["input_ids"][:, model.virtual_tokens :]
    if "position_ids" in inspect.signature(body.forward).parameters:
        count = inputs["input_ids" if "input_ids" in inputs else "inputs_embeds"].shape[1]
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -count:]
    return body(**inputs, use_cache="past_key_values" in inputs).last_hidden_state


def prompt_inputs(model: CausalLM, prompts: list[list[int]]) -> tuple[dict, int]:
    """Build what transformers' generate takes for prompts behind the model's virtual tokens.

    Returns:
        its arguments, and how many tokens its rows begin with before the new ones.
    """
    device, rows = next(model.parameters()).device, len(prompts)
    longest = max(map(len, prompts))
    ids = torch.full((rows, longest), model.pad_token_id)
    mask = torch.zeros(rows, longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    count = model.virtual_tokens
    if not count:
        return {"input_ids": ids, "attention_mask": mask}, longest
    if model.prefix:  # generate takes the first tokens for those of the cache
        standing = torch.cat([ids.new_zeros(rows, count), ids], 1)
        return {
            "input_ids": standing,
            "attention_mask": torch.cat([mask.new_ones(rows, count), mask], 1),
            "past_key_values": model.transformer.get_prompt(rows),
        }, count + longest
    # padding, then virtual tokens, then the text: between the latter two it would move the text's positions
    text = model.base.get_input_embeddings()(ids)  # (B, T, H)
    virtual = model.transformer.get_prompt(rows).to(text.dtype)  # (B, n, H)
    embedded, wide = text.new_zeros(rows, count + longest, text.shape[2]), mask.new_zeros(rows, count + longest)
    for row, prompt in enumerate(prompts):
        padding = longest - len(prompt)
        embedded[row, padding:] = torch.cat([virtual[row], text[row, padding:]])
        wide[row, padding:] = 1
    return {"inputs_embeds": embedded, "attention_mask": wide}, 0


def _ends(model: CausalLM) -> list[int]:
    """List the tokens that end an answer: the tokenizer's, and those of the model's own settings (an end of turn, say)."""
    named = model.base.generation_config.eos_token_id
    named = named if isinstance(named, list) else [] if named is None else [named]
    ends = {*named, model.tokenizer.eos_token_id} - {None}
    return sorted(ends)


@contextlib.contextmanager
def _same_decoding(base: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Remove the model's own penalties and temperatures, so that decoding is the same for every model."""
    before, base.generation_config = base.generation_config, settings
    try:
        yield
    finally:
        base.generation_config = before


def _answer(row: list[int], tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> Answer:
    end = next((i for i, token in enumerate(row) if token in ends), len(row))
    return Answer(tokenizer.decode(row[:end], skip_special_tokens=True).strip(), end, end < len(row))
