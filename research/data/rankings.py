"""Rankings as files: TREC's six columns, tevatron's, MS MARCO's and ColBERT's, and BEIR's JSON."""

import itertools
import json
import math
from collections.abc import Iterator, Set
from pathlib import Path

from research.data.rows import BadRows, is_finite, read_lines, short
from research.errors import UserError, suggest
from research.progress import say
from research.runs.files import atomic_write
from research.types import Corpus, Qrels, Ranking


def read_run(path: str | Path, bad: BadRows | None = None) -> Ranking:
    """Read a ranking: TREC's six columns `query Q0 doc rank score tag`, separated by blanks or tabs, or one JSON object
    {query: {doc: score}}, as BEIR and ranx write it; gzip too. The rank is not used: scores decide.

    Args:
        path: of the file.
        bad: what to do with malformed lines; None refuses the first.

    Returns:
        {query id: {document id: score}}, in the order of the file.

    Raises:
        UserError: missing file, a line without six fields, a score that is not a finite number, a document twice.

    Example:
        >>> from research import read_run
        >>> read_run("bm25.trec")
        {'q0': {'d0': 2.5, 'd3': 1.0}}
    """
    bad = bad or BadRows(option=None)
    run: Ranking = {}
    for where, line, (query_id, doc_id, score) in _ranked(Path(path)):
        if not math.isfinite(score):
            bad.report(
                where,
                "malformed run line",
                f"{short(line)} is not a run line",
                "Expected six columns (query Q0 doc rank score tag) with a finite score; mend the line",
            )
            continue
        docs = run.setdefault(query_id, {})
        if doc_id in docs:
            bad.report(
                where, "duplicate document", f"document {doc_id!r} is ranked twice for query {query_id!r}", "Keep one line"
            )
        else:
            docs[doc_id] = score
    return run


def check_run(path: Path, run: Ranking, qrels: Qrels, corpus: Corpus, unjudged: Set[str] = frozenset()) -> int:
    """Refuse a run of another collection or split, whose numbers would be near 0 with no sign of the cause.

    Args:
        path: of the run, for the message.
        run: as read.
        qrels: judgements of the split.
        corpus: every document.
        unjudged: ids of the collection's queries that this split does not judge; such queries are ignored, as trec_eval
            does.

    Returns:
        How many queries of the run are ignored.

    Raises:
        UserError: a query or document that the collection does not have, no judged query, or no line.
    """
    if not run:
        raise UserError(f"{path} holds no line; expected a TREC run. Make the run again, or leave it out.")
    judged = {doc for docs in qrels.values() for doc in docs}  # with skipping, documents too that the corpus lacks
    strange = [query for query in run if query not in qrels and (query not in unjudged or not run.keys() & qrels.keys())]
    if strange:
        raise UserError(
            f"{path}: query id {strange[0]!r} is not among the {len(qrels)} judged queries of this split; "
            f"{suggest(strange[0], qrels)}. Evaluate a run on the data and split it was made from (--data, "
            "--split)."
        )
    for query_id, docs in run.items():
        for doc_id in docs:
            if doc_id not in corpus and doc_id not in judged:
                raise UserError(
                    f"{path}: document id {doc_id!r} (query {query_id!r}) is not in this corpus of "
                    f"{len(corpus)} documents. Evaluate a run on the data it was made from."
                )
    return len(run.keys() - qrels.keys())


def write_run(path: Path, run: Ranking, tag: str) -> None:
    """Write a TREC run in rank order, atomically. Nine digits keep every float32 score as it is."""
    with atomic_write(path) as stream:
        for query_id, docs in run.items():
            for position, (doc_id, score) in enumerate(docs.items(), 1):
                stream.write(f"{query_id} Q0 {doc_id} {position} {score:.9g} {tag}\n")


def _ranked(path: Path) -> Iterator[tuple[str, str, tuple[str, str, float]]]:
    """Yield (where, the line, (query id, doc id, score)) of each line; the score is NaN if it is no number."""
    lines = read_lines(path)
    where, first = next(lines, (str(path), ""))
    if first.lstrip().startswith("{"):
        yield from _json_run(path, "\n".join([first, *(line for _, line in lines)]))
        return
    lines = itertools.chain([(where, first)] if first else [], lines)
    if len(first.split()) == 3:
        yield from _three_columns(path, list(lines))
        return
    count = 4 if len(first.split()) == 4 else 6  # ColBERT's query, document, rank and score
    for where, line in lines:
        fields = line.split()
        if len(fields) == 6 == count:
            yield where, line, (fields[0], fields[2], _score(fields[4]))
        elif len(fields) == 4 == count and fields[2].isdecimal():
            yield where, line, (fields[0], fields[1], _score(fields[3]))
        else:
            yield where, line, ("", "", math.nan)


def _three_columns(path: Path, lines: list[tuple[str, str]]) -> Iterator[tuple[str, str, tuple[str, str, float]]]:
    """Read tevatron's `query doc score`, or MS MARCO's `query doc rank`: whole numbers that count up from 0 or 1 are ranks.

    Raises:
        UserError: whole numbers that may be either, or are neither.
    """
    rows = [(where, line, line.split()) for where, line in lines]
    by_query: dict[str, list[str]] = {}
    for _, _, fields in rows:
        by_query.setdefault(fields[0], []).append(fields[2] if len(fields) == 3 else "")
    whole = all(number.isdecimal() for numbers in by_query.values() for number in numbers)
    counted = [[*map(int, numbers)] for numbers in by_query.values()] if whole else []
    ranks = whole and all(row == [*range(row[0], row[0] + len(row))] and row[0] < 2 for row in counted)
    if ranks:
        say(f"{path}: read as MS MARCO's three columns, query, document and rank")
    elif whole and not all(row == sorted(row, reverse=True) for row in counted):
        raise UserError(
            f"{path} has three columns, whose last is neither ranks that count up from 1 nor scores that fall; "
            "expected TREC's six columns (query Q0 doc rank score tag). Write them."
        )
    elif whole and all({*row} == {*range(1, len(row) + 1)} for row in counted):
        raise UserError(
            f"{path} has three columns, whose last falls to 1 for each query: scores, or ranks with the best last; "
            "expected TREC's six columns (query Q0 doc rank score tag). Write them."
        )
    for where, line, fields in rows:
        if len(fields) == 3:
            yield where, line, (fields[0], fields[1], (-1 if ranks else 1) * _score(fields[2]))
        else:
            yield where, line, ("", "", math.nan)


def _json_run(path: Path, text: str) -> Iterator[tuple[str, str, tuple[str, str, float]]]:
    try:  # pairs, since a dict would hide an id that is there twice
        queries = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} begins as JSON and is none ({error}); expected one object {{query: {{doc: score}}}}, or "
            "TREC's six columns. Make the run again."
        ) from None
    for query_id, docs in queries:
        where = f"{path} query {query_id!r}"
        if not isinstance(docs, list) or not all(isinstance(pair, tuple) for pair in docs):
            yield where, repr(docs), (query_id, "", math.nan)
            continue
        for doc_id, score in docs:
            number = float(score) if is_finite(score) else math.nan
            yield where, f"{query_id} {doc_id} {score}", (query_id, doc_id, number)


def _score(text: str) -> float:
    """Read a score; NaN if it is no number. 1_000 is no number here: only Python reads it as 1000."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan
