"""Shows what a language model makes of token ids: pieces of text, shapes of tensors, probabilities."""

from typing import NamedTuple

import torch

from research.models.causal_lm import CausalLM

NEXT = 5  # most likely next tokens that are shown


class Visible(NamedTuple):
    """One text as the model sees it.

    Attributes:
        text: the ids as text again.
        ids, tokens: T of them, and the pieces of text that they stand for.
        special: ids among them that are no text.
        virtual_tokens: of a prompt adapter, which come before them.
        shapes: of the tensors on the way.
        next: the most likely next tokens, with their probabilities.
        probabilities: (T − 1,) of each token but the first, given those before it.
    """

    text: str
    ids: list[int]
    tokens: list[str]
    special: list[int]
    virtual_tokens: int
    shapes: dict[str, list[int]]
    next: list[tuple[str, float]]
    probabilities: list[float]


@torch.inference_mode()
def make_visible(model: CausalLM, ids: list[int]) -> Visible:
    """Run the model over one row of ids, and report its intermediate results.

    Args:
        model: in eval mode.
        ids: one or more.
    """
    tokenizer, row = model.tokenizer, torch.tensor([ids], device=next(model.parameters()).device)  # (1, T)
    shapes = {
        "input_ids": row,
        "embeddings": model.base.get_input_embeddings()(row),
        "hidden states": model.hidden(row, torch.ones_like(row)),
        "logits": model.transformer(input_ids=row, attention_mask=torch.ones_like(row)).logits[:, -len(ids) :],
    }
    probable = shapes["logits"][0].float().softmax(-1)  # (T, V)
    return Visible(
        text=tokenizer.decode(ids),
        ids=ids,
        tokens=tokenizer.convert_ids_to_tokens(ids),
        special=sorted({*ids} & {*tokenizer.all_special_ids}),
        virtual_tokens=model.virtual_tokens,
        shapes={name: list(tensor.shape) for name, tensor in shapes.items()},
        next=[
            (tokenizer.decode([i]), round(p, 4)) for p, i in zip(*(x.tolist() for x in probable[-1].topk(NEXT)), strict=True)
        ],
        probabilities=probable[torch.arange(len(ids) - 1), row[0, 1:]].tolist(),
    )
