"""Generate and measure a language model's answers to a fixed sample of validation prompts during training."""

from typing import NamedTuple

import lightning as L
import numpy as np

from research.errors import UserError
from research.metrics import generation
from research.models.generate import Decoding, generate
from research.prompts import prompt_ids
from research.training.ranks import all_gather_rows
from research.types import Json

METRICS = tuple(generation.METRICS)  # exact_match, token_f1, rouge_l


class Answered(NamedTuple):
    """Answers to the sample.

    Attributes:
        per_example: {metric: {example: value}}.
        answers: example → {"prompt", "reference", "answer"}.
    """

    per_example: dict[str, dict[str, float]]
    answers: dict[str, dict[str, Json]]


def answer_sample(
    module: L.LightningModule, questions: list[tuple[str, str | list[dict], str]], max_new_tokens: int
) -> Answered:
    """Generate greedy answers, with the same decoding for every method; the prompts are divided among the ranks.

    Args:
        module: with a CausalLM as `model`.
        questions: (example, prompt, reference).
        max_new_tokens: the longest answer.

    Raises:
        UserError: no prompt leaves room for an answer.
    """
    model = module.model
    room = model.positions - model.virtual_tokens - max_new_tokens
    tokens = [prompt_ids(model.tokenizer, prompt, "the model") for _, prompt, _ in questions]
    fitting = [i for i, ids in enumerate(tokens) if 0 < len(ids) <= room]
    if not fitting:
        raise UserError(
            f"none of the {len(questions)} prompts of the validation sample leaves room for "
            f"max_new_tokens={max_new_tokens} in {model.positions} positions; expected one or more. Lower "
            "model.max_new_tokens, or leave rouge_l, token_f1 and exact_match out of model.metrics."
        )
    questions = [questions[i] for i in fitting]
    mine = list(range(module.trainer.global_rank, len(fitting), module.trainer.world_size))
    answers = generate(model, [tokens[fitting[i]] for i in mine], Decoding(max_new_tokens))
    texts = np.array([answer.text for answer in answers], dtype=object)
    texts = all_gather_rows(module, texts, len(fitting))
    names = [example for example, _, _ in questions]
    per_example = generation.evaluate(
        dict(zip(names, texts, strict=True)), {example: [reference] for example, _, reference in questions}
    )
    return Answered(
        per_example,
        {
            example: {"prompt": prompt, "reference": reference, "answer": text}
            for (example, prompt, reference), text in zip(questions, texts, strict=True)
        },
    )
