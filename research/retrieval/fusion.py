"""Fuses several rankings into one."""

from collections.abc import Sequence

import numpy as np

from research.types import Ranking


def reciprocal_rank_fusion(runs: Sequence[Ranking], top_k: int, k: int = 60) -> Ranking:
    """Fuse rankings: score(d) = Σ_runs 1 / (k + position of d), positions from 1; a run that lacks d adds nothing.

    Args:
        runs: two or more, each {query: {doc: score}} in rank order, best first.
        top_k: documents kept a query; ties at the cut go to the larger document id.
        k: > 0; damps the weight of the first positions.

    Source: Cormack, Clarke & Büttcher 2009, with their k = 60.
    """
    fused: Ranking = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        scores: dict[str, float] = {}
        for run in runs:
            for position, doc in enumerate(run.get(query, {}), 1):
                scores[doc] = scores.get(doc, 0.0) + 1 / (k + position)
        # float32, as the run file holds them and trec_eval compares them: what ties there must tie here
        best = sorted(((float(np.float32(score)), doc) for doc, score in scores.items()), reverse=True)[:top_k]
        fused[query] = {doc: score for score, doc in best}
    return fused
