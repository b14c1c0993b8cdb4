"""Answers of a causal language model, with any adapter: token ids in, texts out."""

from collections import defaultdict
from typing import NamedTuple

import torch

from research.models.causal_lm import CausalLM
from research.progress import bar

BATCH = 16


class Decoding(NamedTuple):
    """How an answer is chosen; the same for every method that is compared.

    Attributes:
        max_new_tokens: the longest answer.
        temperature: 0 takes the most likely token; above it tokens are drawn.
        top_p: of a draw: the smallest set of tokens with that much probability.
        seed: of the draws of each answer.
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
    """One answer a prompt.

    Prompts of equal length are generated together, without any padding: padding on the left would stand between virtual
    tokens and text, and this way every method decodes alike.

    Args:
        model: on its device, in eval mode.
        prompts: token ids, one or more each.
        decoding: see there.
        batch_size: prompts at a time.
    """
    device = next(model.parameters()).device
    by_length = defaultdict(list)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    answers: list[Answer | None] = [None] * len(prompts)
    tokenizer = model.tokenizer
    drawn = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    settings = (
        drawn if decoding.temperature else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    )
    with bar(len(prompts), "generate", "answer") as progress:
        for _, group in sorted(by_length.items()):
            for start in range(0, len(group), batch_size):
                some = group[start : start + batch_size]
                ids = torch.tensor([prompts[i] for i in some], device=device)
                if decoding.temperature:
                    torch.manual_seed(decoding.seed * 1_000_003 + some[0])
                out = model.transformer.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=decoding.max_new_tokens,
                    pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, **settings,
                )  # fmt: skip
                for i, row in zip(some, out.tolist(), strict=True):
                    answers[i] = _answer(row[ids.shape[1] :], tokenizer)
                progress.update(len(some))
    return answers


def _answer(row: list[int], tokenizer) -> Answer:
    end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
    return Answer(tokenizer.decode(row[:end], skip_special_tokens=True).strip(), end, end < len(row))
