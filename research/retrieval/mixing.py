"""λ, the retriever's share beside the reranker's score, chosen on a split that is not the one reported."""

from collections.abc import Callable
from pathlib import Path

from research.progress import say
from research.retrieval.pipeline import Pipeline
from research.retrieval.rerank import choose_mix
from research.runs.files import write_json
from research.types import Collection, Run

GRID = [round(0.05 * i, 2) for i in range(21)]


def choose(
    data: Collection, build: Callable[[Collection], Pipeline], folder: Path, metric: str, quality: Callable[[Run], float]
) -> dict:
    """The λ of 0, .05, …, 1 that is best on `data`.

    Args:
        data: another split of the source to be reported on.
        build: collection → Pipeline with a reranker and λ = 0.
        folder: of the stages on this split; those already there are kept.
        metric: name@k, its mean is maximised; the smallest of equal λ.
        quality: the metric's mean of a ranking of `data`.

    Returns:
        {"mix": λ, "split", "metric", "tried": {λ: mean}}.
    """
    say(f"choosing the mix on split {data.split}: {len(data.queries):,} queries")
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = build(data)
    before, reranked = [stage.run for stage in pipeline.run(folder)][-2:]
    # with λ = 0 the reranked run holds the reranker's own scores
    scores = {
        query: {doc: reranked[query][doc] for doc in list(docs)[: pipeline.options.depth]} for query, docs in before.items()
    }
    mix, values = choose_mix(before, scores, quality, GRID)
    chosen = {
        "mix": mix,
        "split": data.split,
        "metric": metric,
        "tried": {str(tried): round(value, 6) for tried, value in zip(GRID, values, strict=True)},
    }
    write_json(folder / "mix.json", chosen)
    alone = f"reranker alone {values[0]:.4f}, retriever alone {values[-1]:.4f}"
    say(
        f"mix {mix}: {metric} {max(values):.4f} on {data.split} ({alone})"
        + ("; the reranker is ignored: no share of its score helps there" if mix == 1 else "")
    )
    return chosen
