"""Texts → embeddings: length-sorted batches under a token budget.

Batches are planned from the texts alone, so that a resumed run computes what a straight one would, bit for bit.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from research.errors import UserError
from research.models.cut import CutCount
from research.models.dual_encoder import Encoder
from research.progress import bar

WINDOW = 2**15  # texts tokenised and sorted together: bounds memory, and padding is already < 1% at this size
TOKEN_BUDGET = {"cpu": 4096, "cuda": 65536, "mps": 16384}  # tokens of one batch, padding included


class Batch(NamedTuple):
    """Embeddings of some of the texts."""

    number: int  # in the order of the plan
    positions: np.ndarray  # (B,) in the sequence of texts
    embeddings: np.ndarray  # (B, D) float32


def plan_batches(lengths: Sequence[int], token_budget: int) -> list[np.ndarray]:
    """Group positions by length, longest first, so that rows × longest ≤ token_budget (one row at least).

    Longest first: a batch that does not fit the memory fails at once, and the progress bar never slows down at the end.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(lengths[order[start]], 1))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def encode_texts(
    encoder: Encoder, texts: Sequence[str], role: str, token_budget: int | None = None, cut: CutCount | None = None
) -> np.ndarray:
    """Compute embeddings in memory, in the order of `texts`: for queries and small corpora; `cut` counts those it cuts.

    Returns:
        (N, D) float32.
    """
    out = np.empty((len(texts), encoder.dim), dtype=np.float32)
    with bar(len(texts), f"encode {role}", "text") as progress:
        for batch in encode_batches(encoder, texts, role, token_budget, cut=cut):
            out[batch.positions] = batch.embeddings
            progress.update(len(batch.positions))
    return out


def encode_batches(
    encoder: Encoder,
    texts: Sequence[str],
    role: str,
    token_budget: int | None = None,
    skip: Callable[[int], bool] = lambda number: False,
    cut: CutCount | None = None,
) -> Iterator[Batch]:
    """Yield every batch of the plan but those whose number `skip` turns down; `cut` counts the texts that are cut.

    The next window is tokenised in a thread while the model works on this one; tokenizers release the interpreter lock.

    Raises:
        UserError: an embedding is not finite.
    """
    budget = token_budget or default_budget(encoder)
    prompt_tokens = encoder.prompt_tokens(role)
    longest = encoder.settings.max_length(role)
    if longest is not None and prompt_tokens >= longest - 1:
        raise UserError(
            f"the {role} prompt takes {prompt_tokens} of {longest} tokens and is left out of the pooling, so "
            "nothing is left to pool; expected a shorter prompt. Pass a larger --max-length."
        )
    starts = range(0, len(texts), WINDOW)
    number = 0
    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(encoder.tokenize, list(texts[start : start + WINDOW]), role) for start in starts[:1]]
        for start in starts:
            ids = ahead.pop().result()
            if start + WINDOW < len(texts):
                upcoming = list(texts[start + WINDOW : start + 2 * WINDOW])
                ahead.append(pool.submit(encoder.tokenize, upcoming, role))
            for positions in plan_batches([encoder.padded_length(len(row)) for row in ids], budget):
                if not skip(number):
                    embeddings = encode_batch(encoder, [ids[i] for i in positions], prompt_tokens)
                    _check_finite(embeddings, positions + start, role)
                    yield Batch(number, positions + start, embeddings)
                number += 1
            if cut is not None:
                cut.add(ids)


@torch.inference_mode()
def encode_batch(encoder: Encoder, ids: list, prompt_tokens: int = 0) -> np.ndarray:
    """Compute (B, D) float32 embeddings of tokenised texts.

    A text without a token (a blank one, where the tokenizer adds none) gets zeros: it is as far from every query, and nothing
    finds it.
    """
    if any(len(row) == 0 for row in ids):
        full = [i for i, row in enumerate(ids) if len(row)]
        embeddings = np.zeros((len(ids), encoder.dim), dtype=np.float32)
        if full:
            embeddings[full] = encode_batch(encoder, [ids[i] for i in full], prompt_tokens)
        return embeddings
    device = next(encoder.parameters()).device
    batch = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in encoder.features(ids).items()}
    return encoder(**batch, prompt_tokens=prompt_tokens).cpu().numpy()


def say_cut(cut: CutCount, encoder: Encoder, role: str, model: str, of: str = "", option: str = "--{}-max-length") -> None:
    """Report the texts that the encoder cut, if there are any.

    Args:
        cut: their count.
        encoder: that cut them.
        role: "query" or "doc".
        model: its name.
        of: whose texts they are, a word in brackets.
        option: sets the length, with {} for the role.
    """
    kind = ("queries" if role == "query" else "documents") + of
    cut.say(kind, model, encoder.settings.max_length(role), option.format(role), encoder.longest(role))


def default_budget(encoder: Encoder) -> int:
    """Say how many tokens a batch has on the encoder's device."""
    return TOKEN_BUDGET[next(encoder.parameters()).device.type]


def _check_finite(embeddings: np.ndarray, positions: np.ndarray, role: str) -> None:
    wrong = ~np.isfinite(embeddings).all(1)
    if wrong.any():
        raise UserError(
            f"the {role} embedding of text {positions[wrong][0] + 1} holds nan or inf; expected finite numbers. "
            "The weights are damaged, or overflow in bf16: copy or download the model again, or pass "
            "--precision fp32."
        )
