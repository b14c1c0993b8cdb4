"""What to mine: queries with their known documents, and the users' options; checked before a model is loaded."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from research.data.equality import Known
from research.data.positives import in_folds, positives_of, with_positives
from research.errors import UserError
from research.retrieval.candidates import parse_ranks
from research.retrieval.named import (
    BOUNDS,
    RetrievalOptions,
    check_bm25,
    check_choices,
    check_encoder,
    check_range,
    check_reranking,
    check_retrievers,
    named_options,
)
from research.retrieval.options import Options
from research.retrieval.used import check_default_index, check_used
from research.types import Collection

TOP_K = 100  # documents retrieved, `retrieve`'s default: fused positions are then those of its ranking


class Rules(NamedTuple):
    """Which candidates become negatives.

    Attributes:
        first, last: positions of the ranking, from 1.
        negatives: at most so many a query; None takes all.
        margin, relative_margin: see candidates.keep_below.
    """

    first: int
    last: int
    negatives: int | None
    margin: float | None
    relative_margin: float | None

    @property
    def margins(self) -> bool:
        """Return whether a margin is set, so that scores decide."""
        return self.margin is not None or self.relative_margin is not None


class Mining(NamedTuple):
    """One run of mining.

    Attributes:
        data: the queries to mine, each with a relevant document.
        folds: one part of `data` a retriever; None where all retrievers, fused, rank all queries.
        positives: of each query.
        known: what is relevant to each query.
        rules: which candidates become negatives.
        retrievers: "bm25" or models, in order.
        reranker: a cross-encoder whose logits replace the retriever's scores; None leaves it out.
        options: how to retrieve, and how long a pair the reranker reads.
        cache: of embeddings, indexes, rankings and logits.
        out: the file of triplets; None where none is written.
        splits: of the source, whose judgements are known.
        warnings: of retrievers that know the queries, for the facts.
        command: as the user typed it.
    """

    data: Collection
    folds: list[Collection] | None
    positives: dict[str, list[str]]
    known: dict[str, Known]
    rules: Rules
    retrievers: list[str]
    reranker: str | None
    options: Options
    cache: Path
    out: Path | None = None
    splits: Sequence[str] = ()
    warnings: Sequence[str] = ()
    command: Sequence[str] = ()


def mining_of(
    data: Collection, known: dict[str, Known], given: Mapping[str, object], cache: Path, folds: bool = False
) -> Mining:
    """Fill in what to mine.

    Args:
        data: the queries; those that nothing with a text is relevant to are left out, counted.
        known: what is relevant to each query.
        given: options by the users' names, checked by `check_mining`.
        cache: of embeddings, indexes, rankings and logits.
        folds: retriever i of N mines fold i.

    Raises:
        UserError: no query has a relevant document, or a fold has no query.
    """
    check_default_index(given, len(data.corpus))
    data = with_positives(data)
    first, last = parse_ranks(given["ranks"])
    retrievers = given["retriever"]
    has_query_ids = any(query in data.corpus for query in data.queries)  # one place more, for the document that is left out
    fused = len(retrievers) > 1 and not folds  # drops it before fusing: after it, it has moved the others' scores
    return Mining(
        data=data,
        folds=in_folds(data, len(retrievers)) if folds else None,
        positives=positives_of(data),
        known={query: known[query] for query in data.queries},
        rules=Rules(first, last, *(given.get(name) for name in ("negatives", "margin", "relative_margin"))),
        retrievers=retrievers,
        reranker=given.get("reranker"),
        options=Options(
            top_k=max(TOP_K, last + (has_query_ids and not fused)),
            drop_self=has_query_ids and fused,
            reranker_max_length=given.get("reranker_max_length"),
            **named_options(**{name: given[name] for name in RetrievalOptions.__annotations__ if name in given}),
        ),
        cache=cache,
    )


def check_mining(given: Mapping[str, object]) -> tuple[int, int]:
    """Refuse options of mining that are wrong whatever the data are; return the first and last of --ranks.

    Args:
        given: retriever, ranks, negatives, margin, relative_margin, folds, reranker, reranker_max_length, and the options of
            retrieval, by name.

    Raises:
        UserError: as said.
    """
    first, last = parse_ranks(given["ranks"])
    check_range(given, BOUNDS)
    check_encoder(given)
    check_bm25(given)
    check_choices(given)
    check_retrievers(given["retriever"])
    check_used(given, given["retriever"], given.get("reranker"))
    positions, needed = last - first + 1, max(TOP_K, last)
    if given.get("negatives") is not None and not 1 <= given.get("negatives") <= positions:
        raise UserError(
            f"--negatives {given.get('negatives')}; expected 1 to {positions}, the positions of --ranks {given['ranks']}. "
            "Leave it out to keep all, or widen --ranks."
        )
    if given.get("index") == "hnsw" and (ef := given.get("ef") or Options.ef) < needed:
        raise UserError(
            f"--ef {ef} is less than the {needed} documents that are retrieved; expected as many or more. Pass --ef {needed}."
        )
    check_reranking(given, ("reranker_max_length",))
    if given.get("folds") and len(given["retriever"]) < 2:
        raise UserError(
            "--folds with 1 retriever; expected 2 or more, each trained without its fold. Name one a fold, in "
            "their order, or leave --folds out."
        )
    _check_margins(given)
    return first, last


def _check_margins(given: Mapping[str, object]) -> None:
    if given.get("margin") is not None and not math.isfinite(given.get("margin")):
        raise UserError(
            f"--margin {given.get('margin')}; expected a finite number, in units of the score. Pass --margin 0.05, say."
        )
    if given.get("relative_margin") is not None and not 0 <= given.get("relative_margin") <= 1:
        raise UserError(
            f"--relative-margin {given.get('relative_margin')}; expected 0 to 1, a share of the positive's score. Pass "
            "--relative-margin 0.95, say."
        )
    if given.get("relative_margin") is not None and given.get("reranker") is not None:
        raise UserError(
            f"--relative-margin {given.get('relative_margin')} with --reranker; expected --margin, since logits have no "
            "zero to take a share of. Pass --margin 1, say, or leave --reranker out."
        )
    margins = [
        f"--{name.replace('_', '-')} {value}"
        for name in ("margin", "relative_margin")
        if (value := given.get(name)) is not None
    ]
    if margins and given.get("reranker") is None and not given.get("folds") and len(given["retriever"]) > 1:
        raise UserError(
            f"{margins[0]} with {len(given['retriever'])} retrievers; expected one, since a fused ranking has reciprocal "
            "ranks and no scores to take a margin of. Name one --retriever, or pass --reranker MODEL, whose "
            "logits it is then taken of."
        )
