"""A cross-encoder re-orders the top of a ranking. It adds no document and drops none: what retrieval missed stays missed."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from research.errors import UserError
from research.models.cross_encoder import Reranker, load_cross_encoder
from research.models.cut import CutCount
from research.models.inference import best_device, for_inference
from research.models.sources import hash_with_base, resolve
from research.progress import bar, say
from research.retrieval.encode import TOKEN_BUDGET, plan_batches
from research.retrieval.named import check_choices, check_encoder
from research.types import Corpus, Queries, Ranking

WINDOW = 2**14  # pairs tokenised and sorted by length together


class Scorer:
    """A cross-encoder by name, loaded: one that cannot be read is refused before anything is computed.

    `cut` is how many of the pairs scored last were longer than what it reads.

    Args:
        name: run folder, model folder, hub id or pkg:PACKAGE/PATH.
        precision: "fp32" | "bf16".
        max_length: tokens of a pair; None takes the model's own.
        token_budget: tokens of one batch; None takes the device's default.
    """

    def __init__(self, name: str, precision: str, max_length: int | None, token_budget: int | None):
        folder = resolve(name, "reranker")
        self.name, self.precision, self.token_budget = name, precision, token_budget
        self.model_hash = hash_with_base(folder)
        self.model = load_cross_encoder(folder, precision, max_length)
        self.device = best_device()
        for_inference(self.model, self.device)
        self.cut, self.told = 0, False

    @property
    def identity(self) -> list:
        """Return what a logit depends on, besides the two texts."""
        return [self.model_hash, self.model.max_length, self.precision, *([self.model.identity] if self.model.identity else [])]

    def score(self, queries: Sequence[str], docs: Sequence[str]) -> np.ndarray:
        """Score pairs; see `score_pairs`. The first time that some are cut it says how many."""
        cut = CutCount()
        scores = score_pairs(self.model, queries, docs, self.token_budget, cut)
        self.cut = cut.cut
        if cut.cut and not self.told:
            self.told = True
            say_cut_pairs(cut, self.model, self.name)
        return scores


def load_reranker(
    model: str, precision: str = "fp32", max_length: int | None = None, token_budget: int | None = None
) -> Scorer:
    """Load a cross-encoder, on the GPU where there is one.

    Args:
        model: run folder, model folder (Hugging Face's or sentence-transformers'), hub id or pkg:PACKAGE/PATH.
        precision: "fp32" (for reported numbers) or "bf16".
        max_length: tokens of a query-document pair; None takes the model's own.
        token_budget: tokens of one batch, padding included; None takes the device's default.

    Returns:
        The reranker, which `rerank` and `search` take; `.score(queries, docs)` gives (N,) float32 logits of N pairs.

    Raises:
        UserError: a model that cannot be read, or too long a max_length.

    Example:
        >>> from research import load_reranker
        >>> reranker = load_reranker("my-reranker")
        >>> reranker.score(["who makes honey?"] * 2, ["bees make honey", "flour is ground"]).shape
        (2,)
    """
    check_choices({"precision": precision})
    check_encoder({"max_length": max_length, "token_budget": token_budget})
    return Scorer(model, precision, max_length, token_budget)


def score_pairs(
    model: Reranker, queries: Sequence[str], docs: Sequence[str], token_budget: int | None = None, cut: CutCount | None = None
) -> np.ndarray:
    """Compute the logits of query-document pairs, in length-sorted batches under a token budget.

    Args:
        model: on its device, in eval mode.
        queries: (N,) texts.
        docs: (N,) texts, one a query.
        token_budget: tokens of one batch, padding included; None takes the device's default.
        cut: counts the pairs that are cut.

    Returns:
        (N,) float32.

    Raises:
        UserError: a score is not finite.
    """
    device = next(model.parameters()).device
    budget = token_budget or TOKEN_BUDGET[device.type]
    scores = np.empty(len(queries), dtype=np.float32)
    with bar(len(queries), "rerank", "pair") as progress, torch.inference_mode():
        for start in range(0, len(queries), WINDOW):
            pairs = model.tokenize(list(queries[start : start + WINDOW]), list(docs[start : start + WINDOW]))
            for positions in plan_batches([model.padded_length(len(row)) for row in pairs["input_ids"]], budget):
                batch = model.collate(pairs, positions.tolist())
                batch = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
                scores[start + positions] = _logits(model, batch)
                progress.update(len(positions))
            if cut is not None:
                cut.add(pairs["input_ids"])
    if not np.isfinite(scores).all():
        raise UserError(
            "the reranker gave nan or inf; expected finite scores. Its weights are damaged, or overflow in "
            "bf16: copy or download the model again, or pass --precision fp32."
        )
    return scores


def say_cut_pairs(cut: CutCount, model: Reranker, name: str, of: str = "", option: str = "--reranker-max-length") -> None:
    """Report the pairs that the reranker cut, if there are any.

    Args:
        cut: their count.
        model: that cut them.
        name: of the model.
        of: whose pairs they are, a word in brackets.
        option: sets the length.
    """
    cut.say(f"pairs of query and document{of}", name, model.max_length, option, model.positions)


def _logits(model: Reranker, batch: dict) -> np.ndarray:
    """Compute (B,) logits of a batch.

    A model whose texts must have equally many end tokens (BART, T5) reads each pair by itself where a document spells one.
    """
    try:
        return model(**batch).cpu().numpy()
    except ValueError as error:
        if "same number of <eos> tokens" not in str(error) or len(batch["input_ids"]) < 2:
            raise
    rows = range(len(batch["input_ids"]))
    return np.concatenate([_logits(model, {name: x[i : i + 1] for name, x in batch.items()}) for i in rows])


def rerank_top(queries: Queries, corpus: Corpus, run: Ranking, scorer: Scorer, depth: int, mix: float = 0.0) -> Ranking:
    """Read the first `depth` documents of each query by a cross-encoder, and re-order them; see `reorder`.

    Args:
        queries, corpus: texts.
        run: the ranking to re-order, best first.
        scorer: the cross-encoder.
        depth: documents a query that it reads, ≥ 1.
        mix: λ, the share of the retriever's score, 0 to 1.
    """
    pairs = top_pairs(run, depth)
    if mix == 1:  # whatever the cross-encoder gives has no share
        say("λ = 1: the ranking before stays, and no pair is read by the reranker")
        logits = np.zeros(len(pairs), dtype=np.float32)
    else:
        logits = scorer.score([queries[query] for query, _ in pairs], [corpus[doc].content for _, doc in pairs])
    scores: dict[str, dict[str, float]] = {}
    for (query, doc), logit in zip(pairs, logits.tolist(), strict=True):
        scores.setdefault(query, {})[doc] = logit
    return reorder(run, scores, mix)


def reorder(run: Ranking, scores: dict[str, dict[str, float]], mix: float = 0.0) -> Ranking:
    """Re-order the scored top of each query; the tail below keeps its order.

    final = λ · retriever + (1 − λ) · reranker, each scaled to [0, 1] over the query's scored documents; λ = 0 takes the
    reranker's logits as they are.

    Args:
        run: the ranking to re-order, best first.
        scores: {query: {doc: reranker's score}} for the first documents of each query.
        mix: λ, 0 to 1.

    Returns:
        The same documents a query. Documents of the tail get scores below the lowest of the top, so that the file ranks
        as it reads. Ties in the top go to the larger document id, as trec_eval ranks them.
    """
    return {query: _reorder(docs, scores.get(query, {}), mix) for query, docs in run.items()}


def choose_mix(
    run: Ranking, scores: dict[str, dict[str, float]], quality: Callable[[Ranking], float], grid: Sequence[float]
) -> tuple[float, list[float]]:
    """Find the λ of `grid` with the highest quality (of equals the smallest), and the quality of each.

    Args:
        run, scores: of a split that is not the one to be reported.
        quality: of a ranking, higher is better.
        grid: values of λ to try.
    """
    values = [quality(reorder(run, scores, mix)) for mix in grid]
    return grid[int(np.argmax(values))], values


def top_pairs(run: Ranking, depth: int) -> list[tuple[str, str]]:
    """List (query id, doc id) of the first `depth` documents of each query."""
    return [(query, doc) for query, docs in run.items() for doc in list(docs)[:depth]]


def _reorder(docs: dict[str, float], scores: dict[str, float], mix: float) -> dict[str, float]:
    top = list(docs)[: len(scores)]
    assert set(top) == set(scores), "the scored documents must be the first of the ranking"
    if not top:
        return dict(docs)
    final = np.array([scores[doc] for doc in top], dtype=np.float32)
    if mix:
        retrieved = np.array([docs[doc] for doc in top], dtype=np.float32)
        final = mix * _unit_interval(retrieved) + (1 - mix) * _unit_interval(final)
    ranked = sorted(zip(final.tolist(), top, strict=True), reverse=True)
    lowest = ranked[-1][0]
    tail = {doc: lowest - position for position, doc in enumerate(list(docs)[len(top) :], 1)}
    return {doc: score for score, doc in ranked} | tail


def _unit_interval(values: np.ndarray) -> np.ndarray:
    width = values.max() - values.min()
    return (values - values.min()) / width if width else np.zeros_like(values)
