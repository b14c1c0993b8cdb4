"""Exact search: the nearest documents of each query, computed in blocks, ties settled as trec_eval ranks them."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from research.errors import UserError
from research.models.inference import best_device
from research.progress import bar
from research.types import Ranking

BLOCK = 2**16  # documents scored at once
QUERY_BLOCK = 1024  # × BLOCK float32 scores = 256 MiB
SCORE_ROUNDING = 1e-6  # by which float32 sums differ that were taken in another order: hnswlib's, or another tile's

Scores = TypeVar("Scores", np.ndarray, torch.Tensor)


def exact_search(
    queries: np.ndarray,
    docs: np.ndarray,
    top_k: int,
    cosine: bool = False,
    ids: Sequence[str] | None = None,
    device: torch.device | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the top_k documents of each query by float32 inner product (or cosine), computed block by block.

    Args:
        queries: (Q, D).
        docs: (N, D), may be memory-mapped; a block at a time is read.
        top_k: 1 to N.
        cosine: divide by the norms.
        ids: (N,) document ids. Of documents tied at the cut those with the larger ids are kept, as trec_eval ranks them;
            without ids, those further down.
        device: that computes; None takes `best_device`.

    Returns:
        scores (Q, top_k), descending, and positions (Q, top_k) in `docs`.

    Raises:
        UserError: the dimensions differ.
    """
    check_dims(queries, docs)
    assert 1 <= top_k <= len(docs)
    device = device or best_device()
    q = _unit(torch.from_numpy(queries), cosine).to(device)
    wanted = min(top_k + 1, len(docs))  # one more, to see whether the cut falls into a tie
    scores = torch.empty((len(q), 0), device=device)
    positions = torch.empty((len(q), 0), dtype=torch.long, device=device)
    # validation calls this inside Lightning's bf16 context, which would round the scores to bf16 and rank by their ties
    with bar(len(docs), "exact search", "doc") as progress, torch.autocast(device.type, enabled=False):
        for start, block in _blocks(docs, cosine, device):
            best = [_top(part @ block.T, wanted) for part in q.split(QUERY_BLOCK)]
            scores = torch.cat([scores, torch.cat([s for s, _ in best])], dim=1)  # (Q, ≤ 2 · wanted)
            positions = torch.cat([positions, torch.cat([p for _, p in best]) + start], dim=1)
            scores, order = _top(scores, wanted)
            positions = positions.gather(1, order)
            progress.update(len(block))
        if wanted > top_k:
            gap = scores[:, top_k - 1] - scores[:, top_k]
            for row in (gap <= _rounding(scores[:, top_k])).nonzero().flatten().tolist():
                settled = _settle_tie(q[row], docs, top_k, cosine, ids, exactly=not gap[row])
                if settled is not None:
                    scores[row, :top_k], positions[row, :top_k] = (part.to(device) for part in settled)
    top_scores, top_positions = scores[:, :top_k].cpu().numpy(), positions[:, :top_k].cpu().numpy()
    _level_copies(top_scores, top_positions, docs)
    return top_scores, top_positions


def pair_scores(queries: np.ndarray, docs: np.ndarray, cosine: bool = False) -> np.ndarray:
    """Score each query with the document of the same row, by inner product or cosine.

    Args:
        queries, docs: (N, D).
        cosine: divide by the norms.

    Returns:
        (N,) float32, as `exact_search` scores them up to rounding.
    """
    check_dims(queries, docs)
    q, d = (_unit(torch.from_numpy(np.array(vectors)), cosine) for vectors in (queries, docs))
    return (q * d).sum(dim=1).numpy()


def ann_recall(approximate: np.ndarray, exact: np.ndarray) -> float:
    """Measure the share of the approximate top k that is as good as the exact top k, over all queries.

    Scores are compared, not positions: of equal documents either is right.

    Args:
        approximate: (Q, K) scores of the approximate search.
        exact: (Q, K) scores of the exact search, descending.

    Source: ann-benchmarks' recall by threshold, Aumüller et al. 2020, §2.2.
    """
    threshold = exact[:, -1:] - SCORE_ROUNDING * np.maximum(1, np.abs(exact[:, -1:]))
    return float((approximate >= threshold).mean())


def to_run(query_ids: Sequence[str], doc_ids: Sequence[str], scores: np.ndarray, positions: np.ndarray) -> Ranking:
    """Turn (Q, K) arrays into {query id: {doc id: score}}, best first, ties by descending id as trec_eval ranks them."""
    run: Ranking = {}
    for query, row_positions, row_scores in zip(query_ids, positions.tolist(), scores.tolist(), strict=True):
        ranked = sorted(((s, doc_ids[p]) for s, p in zip(row_scores, row_positions, strict=True)), reverse=True)
        run[query] = {doc: score for score, doc in ranked}
    return run


def _blocks(docs: np.ndarray, cosine: bool, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    for start in range(0, len(docs), BLOCK):
        yield start, _unit(torch.from_numpy(np.array(docs[start : start + BLOCK])), cosine).to(device)


def _settle_tie(
    query: torch.Tensor, docs: np.ndarray, top_k: int, cosine: bool, ids: Sequence[str] | None, exactly: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return scores and positions of one query's top_k; of documents that tie at the cut, keep the larger ids.

    Args:
        exactly: the scores at the cut are equal; else they are so but for rounding, which counts where the documents are equal.

    Returns:
        None where nothing ties.
    """
    scores = torch.cat([(block @ query).cpu() for _, block in _blocks(docs, cosine, query.device)])  # (N,)
    floor = scores.topk(top_k).values[-1]
    near = ((scores - floor).abs() <= _rounding(floor)).nonzero().flatten()
    near = near[scores[near].argsort(descending=True, stable=True)]
    levelled, copies = _level(scores[near].numpy(), near.numpy(), docs)
    if not copies and not exactly:
        return None
    scores[near] = torch.from_numpy(levelled)
    candidates = (scores >= scores.topk(top_k).values[-1]).nonzero().flatten().tolist()
    best = sorted(candidates, key=lambda p: (scores[p].item(), ids[p] if ids is not None else p), reverse=True)[:top_k]
    chosen = torch.tensor(best)
    return scores[chosen], chosen


def _level_copies(scores: np.ndarray, positions: np.ndarray, docs: np.ndarray) -> None:
    """Give equal documents one score, in place.

    In a matrix product their columns can differ in the last digit, by where they lie and by which other queries are searched,
    and the order of a tie would depend on it.

    Args:
        scores, positions: (Q, K), scores descending.
        docs: (N, D).
    """
    close = scores[:, :-1] - scores[:, 1:] <= _rounding(scores[:, 1:])  # (Q, K − 1)
    for row in np.flatnonzero((close & (scores[:, :-1] != scores[:, 1:])).any(axis=1)):
        for start, end in _stretches(close[row]):
            scores[row, start:end], _ = _level(scores[row, start:end], positions[row, start:end], docs)
        order = np.argsort(-scores[row], kind="stable")
        scores[row], positions[row] = scores[row, order], positions[row, order]


def _level(scores: np.ndarray, positions: np.ndarray, docs: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the scores (K,), with equal documents at the first one's score, and whether there are equal documents."""
    first: dict[bytes, float] = {}
    rows = [np.ascontiguousarray(docs[position]).tobytes() for position in positions]
    levelled = [first.setdefault(row, score) for row, score in zip(rows, scores, strict=True)]
    return np.array(levelled, scores.dtype), len(first) < len(rows)


def _stretches(close: np.ndarray) -> Iterator[tuple[int, int]]:
    """List [start, end) of each maximal stretch of two or more places in which each is close to the next."""
    start = 0
    for at in range(1, len(close) + 2):
        if at == len(close) + 1 or not close[at - 1]:
            if at - start > 1:
                yield start, at
            start = at


def _rounding(scores: Scores) -> Scores:
    """Return the largest difference of scores that is only rounding."""
    return SCORE_ROUNDING * abs(scores).clip(1)


def _top(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    return scores.topk(min(k, scores.shape[1]), dim=1)


def _unit(vectors: torch.Tensor, cosine: bool) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=1) if cosine else vectors.float()


def check_dims(queries: np.ndarray, docs: np.ndarray) -> None:
    """Refuse vectors of unlike dimensions.

    Raises:
        UserError: those of two models, most likely.
    """
    if queries.shape[1] != docs.shape[1]:
        raise UserError(
            f"queries have dimension {queries.shape[1]}, the index {docs.shape[1]}; encode both with towers of one model."
        )
