"""Chooses λ, the weight of the retriever's score beside the reranker's, on another split than the reported one."""

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from research.progress import say
from research.retrieval.pipeline import Pipeline
from research.retrieval.rerank import choose_mix
from research.runs.files import write_json
from research.types import Collection, Ranking

GRID = [round(0.05 * i, 2) for i in range(21)]


class Mix(TypedDict):
    """The λ that was chosen, as metrics.json holds it.

    Attributes:
        mix: λ.
        split, metric: what it was chosen by.
        tried: {λ: value of the metric}.
    """

    mix: float
    split: str
    metric: str
    tried: dict[str, float]


def choose(data: Collection, pipeline: Pipeline, folder: Path, metric: str, value: Callable[[Ranking], float]) -> Mix:
    """Choose the λ of 0, .05, …, 1 that is best on `data`.

    Args:
        data: another split of the source to be reported on.
        pipeline: over it, with a reranker and λ = 0.
        folder: of the stages on this split; those already there are kept.
        metric: name@k.
        value: its mean of a ranking, which is maximised; the smallest of equal λ.
    """
    say(f"choosing the mix on split {data.split}: {len(data.queries):,} queries")
    folder.mkdir(parents=True, exist_ok=True)
    before, reranked = [stage.run for stage in pipeline.run(folder)][-2:]
    # with λ = 0 the reranked run holds the reranker's own scores
    scores = {
        query: {doc: reranked[query][doc] for doc in list(docs)[: pipeline.options.depth]} for query, docs in before.items()
    }
    mix, values = choose_mix(before, scores, value, GRID)
    tried = {str(tried): round(number, 6) for tried, number in zip(GRID, values, strict=True)}
    chosen = Mix(mix=mix, split=data.split, metric=metric, tried=tried)
    write_json(folder / "mix.json", chosen)
    alone = f"reranker alone {values[0]:.4f}, retriever alone {values[-1]:.4f}"
    say(
        f"mix {mix}: {metric} {max(values):.4f} on {data.split} ({alone})"
        + ("; the reranker is ignored: no share of its score helps there" if mix == 1 else "")
    )
    return chosen
