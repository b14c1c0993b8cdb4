"""Retrieval metrics, per query, equal to trec_eval's.

Ranking: by score rounded to float32, descending; ties by document id, descending (trec_eval's rule, not the order of
insertion). Relevant: judged > 0. Gain of nDCG: linear, discount log2(i + 1), ideal over all judged documents of the
query. An unjudged document counts as not relevant. A query that the run does not have counts 0. A query without any
relevant document has no defined value: it is left out, and `unscorable` lists it so that a caller can report it. trec_eval's
own means are over other queries (see `evaluate`): `missing` and `unscorable` say where they differ.

Source: trec_eval 9.0.8 (m_ndcg_cut.c, m_map_cut.c, m_recip_rank.c, m_recall.c, m_P.c).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from research.errors import UserError, nearest
from research.types import Direction, Qrels, Ranking

MEANS = ("scorable", "trec_eval", "trec_eval-c")
DEFAULT_METRICS = ("ndcg@10", "mrr@10", "map@100", "recall@10", "recall@100", "precision@10")


def rank_documents(scores: dict[str, float]) -> list[str]:
    """Sort document ids in trec_eval's order."""
    rounded = np.fromiter(scores.values(), dtype=np.float64, count=len(scores)).astype(np.float32).tolist()
    return [doc for _, doc in sorted(zip(rounded, scores, strict=True), reverse=True)]


def ndcg(gains: Sequence[int], judged: Sequence[int], k: int) -> float:
    """Compute nDCG: the DCG of the first k documents, over that of the best order of all judged documents.

    DCG = Σ_{i≤k} g_i / log2(i + 1)

    Args:
        gains: judged relevance of the ranked documents, best rank first; 0 for unjudged.
        judged: judged relevance of every judged document of the query.
        k: the cut.

    Source: Järvelin & Kekäläinen 2002.
    """
    ideal = _dcg(sorted(judged, reverse=True)[:k])
    return _dcg(gains[:k]) / ideal


def mrr(gains: Sequence[int], judged: Sequence[int], k: int) -> float:
    """Compute 1 / rank of the first relevant document, 0 if none is in the first k."""
    return next((1 / i for i, gain in enumerate(gains[:k], 1) if gain > 0), 0.0)


def average_precision(gains: Sequence[int], judged: Sequence[int], k: int) -> float:
    """Compute the precision at each relevant rank ≤ k, summed, over the number of all relevant documents."""
    relevant, total = 0, 0.0
    for i, gain in enumerate(gains[:k], 1):
        if gain > 0:
            relevant += 1
            total += relevant / i
    return total / _relevant(judged)


def recall(gains: Sequence[int], judged: Sequence[int], k: int) -> float:
    """Compute the share of all relevant documents that are in the first k."""
    return _relevant(gains[:k]) / _relevant(judged)


def precision(gains: Sequence[int], judged: Sequence[int], k: int) -> float:
    """Compute the share of relevant documents in the first k (of k also when fewer were retrieved)."""
    return _relevant(gains[:k]) / k


METRICS: dict[str, tuple[Callable[[Sequence[int], Sequence[int], int], float], Direction]] = {
    "ndcg": (ndcg, "higher"),
    "mrr": (mrr, "higher"),
    "map": (average_precision, "higher"),
    "recall": (recall, "higher"),
    "precision": (precision, "higher"),
}
"""Name → function, and which side of its value is the better one."""
DIRECTIONS = {name: better for name, (_, better) in METRICS.items()}


def parse_metric(name: str) -> tuple[Callable[[Sequence[int], Sequence[int], int], float], int]:
    """Parse a metric's name: `ndcg@10` → (ndcg, 10).

    Raises:
        UserError: unknown name, or a cut that is not a positive whole number.
    """
    kind, _, cut = name.partition("@")
    if kind not in METRICS or not cut.isdecimal() or int(cut) < 1:
        near = nearest(kind, METRICS)
        raise UserError(
            f"metric {name!r} is not known; expected NAME@K with NAME one of {', '.join(METRICS)} and K ≥ 1, "
            f"for example ndcg@10.{f' Did you mean {near}@{cut or 10}?' if near else ''}"
        )
    return METRICS[kind][0], int(cut)


def evaluate(
    qrels: Qrels, run: Ranking, metrics: Sequence[str] = DEFAULT_METRICS, over: str = "scorable"
) -> dict[str, dict[str, float]]:
    """Compute the per-query values of each metric: {metric: {query id: value}}.

    Neither argument is changed. Queries of the run that have no judgements are ignored, as trec_eval does.

    Args:
        qrels: {query id: {document id: grade}}.
        run: {query id: {document id: score}}.
        metrics: names with a cut, such as ndcg@10.
        over: which queries have a value, and so a part in the mean:
            "scorable": those with a relevant document; one that the run does not have counts 0.
            "trec_eval": those that the run has, as trec_eval and pytrec_eval do; one without a relevant document counts 0.
            "trec_eval-c": every judged one, as `trec_eval -c` does; 0 in both cases.

    Raises:
        UserError: an unknown metric.
    """
    assert over in MEANS
    parsed = {name: parse_metric(name) for name in metrics}
    values: dict[str, dict[str, float]] = {name: {} for name in metrics}
    for query, judgements in qrels.items():
        judged = list(judgements.values())
        relevant = _relevant(judged)
        if (over == "scorable" and not relevant) or (over == "trec_eval" and not run.get(query)):
            continue
        gains = [judgements.get(doc, 0) for doc in rank_documents(run.get(query, {}))]
        for name, (function, k) in parsed.items():
            values[name][query] = function(gains, judged, k) if relevant else 0.0
    return values


def missing(qrels: Qrels, run: Ranking) -> list[str]:
    """List the queries with a relevant document that are missing from the run: they count 0, except in trec_eval's own mean."""
    return [query for query, docs in qrels.items() if _relevant(list(docs.values())) and not run.get(query)]


def unscorable(qrels: Qrels) -> list[str]:
    """List the queries without a relevant document: no metric is defined on them."""
    return [query for query, judgements in qrels.items() if not _relevant(list(judgements.values()))]


def mean(values: dict[str, float]) -> float:
    """Compute the mean over queries; fsum, so that the order of queries does not matter."""
    return math.fsum(values.values()) / len(values)


def _dcg(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(i + 1) for i, gain in enumerate(gains, 1) if gain > 0)


def _relevant(gains: Sequence[int]) -> int:
    return sum(gain > 0 for gain in gains)
