"""Whether higher or lower is better, for every metric; all code that compares values of runs reads these tables."""

from collections.abc import Mapping

from research.metrics import generation, retrieval
from research.metrics.language import PREFERENCES, TOKENS
from research.types import Direction

SPLITS = ("train", "val", "test")
DIRECTIONS: dict[str, Direction | None] = {
    **retrieval.DIRECTIONS,
    **TOKENS,
    **generation.DIRECTIONS,
    **PREFERENCES,
    "router_loss": "lower",
}
"""Every metric that this code computes, without its split and its cut."""


def direction(metric: str, directions: Mapping[str, Direction | None] = DIRECTIONS) -> Direction | None:
    """Return which side of a metric is declared as better; None if neither is, or if the metric is unknown.

    Args:
        metric: with its split and its cut or without: val/ndcg@10, ndcg@10, ndcg.
        directions: name → better side; of a run or a trainer that has metrics of its own.
    """
    split, slash, name = metric.partition("/")
    name = name if slash and split in SPLITS else metric
    for known in (metric, name, name.partition("@")[0]):
        if known in directions:
            return directions[known]
    return None
