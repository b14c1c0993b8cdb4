"""Hard negatives from a ranking: documents that a retriever ranks high and that are not known to be relevant.

Plain functions over rankings and judgements; models and files are those of mine.py. A candidate is left out when it is

- `own_id`: the document whose id is the query's (left out of the ranking before positions are counted),
- `relevant`: judged relevant to the query, in any split of the source,
- `relevant_to_equal_query`: judged relevant, in any split, to another query of the same text,
- `text_of_query`: a document whose text is the query's,
- `text_of_relevant`: another document whose text is that of one of those,
- `blank`: a document without title and text, which no row of training may hold,
- `margin`: scored too close to the query's best positive, or above it.
"""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from research.data import equality
from research.data.equality import Known, texts_of
from research.errors import UserError
from research.progress import say
from research.types import Corpus, Qrels, Queries, Ranking, Triplets

REASONS = {
    "own_id": "have the query's own id",
    "relevant": "are judged relevant to the query in some split",
    "relevant_to_equal_query": "are judged relevant to another query of the same text",
    "text_of_query": "have the text of the query",
    "text_of_relevant": "have the text of a relevant document",
    "blank": "are blank",
    "margin": "score too close to the best positive, or above it",
}
LATER = {"text_of_query", "blank"}  # reasons that came later: told where they occur, so that other facts stay as they were


class Candidate(NamedTuple):
    """A document that may become a negative.

    Attributes:
        doc: its id.
        position: in the query's ranking without the query's own document, from 1.
        score: the retriever's, or the cross-encoder's logit once `rescored`.
    """

    doc: str
    position: int
    score: float


CandidateLists = dict[str, list[Candidate]]
"""query id → candidates in the order of their positions."""


def parse_ranks(text: str) -> tuple[int, int]:
    """Read positions of a ranking: `1-30` → (1, 30).

    Raises:
        UserError: not of that form, or empty.
    """
    match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(
            f"--ranks {text!r}; expected FIRST-LAST, positions of the ranking counted from 1: 1-30 or 11-50, say. Correct it."
        )
    return int(match[1]), int(match[2])


def known_relevant(
    chosen: Iterable[str], queries: Queries, splits: Iterable[Qrels], corpus: Corpus | None = None
) -> dict[str, Known]:
    """Collect the known relevant documents of each chosen query.

    They are judged so (grade > 0) in any split, for it or for a query of equal text, or have its text.

    Args:
        chosen: query ids.
        queries: all queries of the source.
        splits: the judgements of every split.
        corpus: documents, among which those of a query's text are looked for.
    """
    chosen = list(chosen)
    judged: dict[str, set[str]] = {query: set() for query in chosen}
    for qrels in splits:
        for query, docs in qrels.items():
            judged.setdefault(query, set()).update(doc for doc, grade in docs.items() if grade > 0)
    known = equality.known_relevant(judged, queries, corpus or {})
    return {query: known[query] for query in chosen}


def find_candidates(
    run: Ranking, known: dict[str, Known], corpus: Corpus, first: int, last: int
) -> tuple[CandidateLists, Counter[str]]:
    """Take the documents at positions first to last that are not known to be relevant.

    Args:
        run: rankings, best first; a query may lack one.
        known: of every query to mine, in the order of the result.
        corpus: every document.
        first, last: positions, from 1, both included.

    Returns:
        candidates, and how many documents were left out for which reason.
    """
    counts: Counter[str] = Counter()
    candidates: CandidateLists = {}
    forms: dict[str, frozenset[str]] = {}  # documents recur from query to query: each is normalised once

    def texts(doc: str) -> frozenset[str]:
        if doc not in forms:
            forms[doc] = texts_of(corpus[doc])
        return forms[doc]

    for query, (judged, shared, same) in known.items():
        ranked = list(run.get(query, {}).items())
        if query in dict(ranked[:last]):
            counts["own_id"] += 1
        others = [pair for pair in ranked if pair[0] != query][first - 1 : last]
        relevant_texts = frozenset[str]().union(*(texts(doc) for doc in judged | shared if doc in corpus))
        candidates[query] = []
        for position, (doc, score) in enumerate(others, first):
            if doc in judged:
                counts["relevant"] += 1
            elif doc in shared:
                counts["relevant_to_equal_query"] += 1
            elif doc in same:
                counts["text_of_query"] += 1
            elif texts(doc) & relevant_texts:
                counts["text_of_relevant"] += 1
            elif not texts(doc):
                counts["blank"] += 1
            else:
                candidates[query].append(Candidate(doc, position, score))
    return candidates, counts


def rescored(candidates: CandidateLists, scores: Ranking) -> CandidateLists:
    """Give the same candidates other scores; the order stays the retriever's.

    Args:
        candidates: candidates.
        scores: {query: {doc: score}} of each of them.
    """
    return {query: [c._replace(score=scores[query][c.doc]) for c in row] for query, row in candidates.items()}


def keep_below(
    candidates: CandidateLists, best: dict[str, float], margin: float | None, relative_margin: float | None
) -> tuple[CandidateLists, int]:
    """Keep the candidates that score clearly less than the query's best positive: those close to it may be relevant themselves.

    Kept is n with s(n) ≤ s(p) − margin and s(n) ≤ relative_margin · s(p).

    Args:
        candidates: candidates.
        best: {query: s(p)}, the highest score of the query's positives, by the same scorer.
        margin: any finite number; None leaves the condition out.
        relative_margin: 0 to 1, the share of s(p); None leaves it out. Where s(p) ≤ 0 a share means nothing, and no
            candidate is kept.

    Returns:
        what is kept, and how many were not.

    Source: TopK-MarginPos and TopK-PercPos of NV-Retriever, de Souza P. Moreira et al. 2024, §3.
    """

    def fits(score: float, positive: float) -> bool:
        if margin is not None and score > positive - margin:
            return False
        return relative_margin is None or (positive > 0 and score <= relative_margin * positive)

    below = {query: [c for c in row if fits(c.score, best[query])] for query, row in candidates.items()}
    return below, sum(map(len, candidates.values())) - sum(map(len, below.values()))


def keep_first(candidates: CandidateLists, most: int | None) -> CandidateLists:
    """Keep at most that many candidates for each query, those ranked highest; None keeps all."""
    return {query: row[:most] for query, row in candidates.items()}


def shortfall(candidates: CandidateLists, wanted: int) -> dict:
    """Count how many of the requested negatives the queries got.

    Args:
        candidates: negatives.
        wanted: a query, ≥ 1.

    Returns:
        counts of queries, negatives, of queries with all, with fewer and with none of those wanted; mean, median and
        least of the negatives a query; and {negatives: queries}.
    """
    sizes = [len(row) for row in candidates.values()]
    return {
        "queries": len(sizes),
        "negatives": sum(sizes),
        "wanted_a_query": wanted,
        "queries_with_all": sum(size >= wanted for size in sizes),
        "queries_with_fewer": sum(0 < size < wanted for size in sizes),
        "queries_with_none": sizes.count(0),
        "mean": round(statistics.fmean(sizes), 4),
        "median": statistics.median(sizes),
        "least": min(sizes),
        "queries_by_negatives": {str(size): count for size, count in sorted(Counter(sizes).items())},
    }


def to_triplets(
    candidates: CandidateLists, queries: Queries, positives: dict[str, Sequence[str]], corpus: Corpus, positive_scores: Ranking
) -> Iterator[Triplets]:
    """Yield the rows of the file, query after query, with the scores that are known.

    Args:
        candidates: negatives.
        queries: texts.
        positives: of each query.
        corpus: every document.
        positive_scores: {query: {doc: score}} by what scored the negatives; empty where unknown.
    """
    for query, row in candidates.items():
        scores = {doc: score for doc, score in positive_scores.get(query, {}).items() if doc in positives[query]}
        yield Triplets(
            query,
            queries[query],
            {doc: corpus[doc] for doc in positives[query]},
            {c.doc: corpus[c.doc] for c in row},
            scores | {c.doc: c.score for c in row} or None,
            {c.doc: c.position for c in row} or None,
        )


def say_left_out(excluded: Counter[str], counts: dict, asked: int | None) -> None:
    """Report how many documents were left out and why, and how many queries got too few.

    Args:
        excluded: documents by reason.
        counts: as `shortfall` gives them.
        asked: negatives a query; None for all.
    """
    for reason, why in REASONS.items():
        if excluded[reason]:
            say(f"left out: {excluded[reason]:,} documents that {why}")
    if asked and (fewer := counts["queries_with_fewer"]):
        say(f"{fewer:,} of {counts['queries']:,} queries have fewer negatives than the {asked} asked for")
    if counts["queries_with_none"]:
        say(
            f"warning: {counts['queries_with_none']:,} of {counts['queries']:,} queries have no negative left; their lists "
            "are empty"
        )
