"""Which side of a metric is the better one: the tables of all metrics, read by whoever compares values of a run."""

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
    """The better side of a metric as it is declared; None: no side is better, or the metric is not known.

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
