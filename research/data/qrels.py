"""Judgements as BEIR and TREC write them: query, document, grade."""

import csv
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from research.data.rows import BadRows, integer, read_lines, short
from research.errors import UserError
from research.types import Corpus, Qrels, Queries

HEADER = (
    re.compile(r"query|qid|q_id|topic|query[-_ ]?id|topic[-_ ]?id"),
    re.compile(r"0|q0|iter(ation)?"),
    re.compile(r"(corpus|doc(ument)?|passage)[-_ ]?id|docno|doc|pid|did"),
    re.compile(r"score|grade|rel(evance)?|label|judge?ment|relevancy"),
)
"""What a header calls TREC's columns."""


def read_qrels(path: Path, bad: BadRows) -> Qrels:
    """Read BEIR's three tab-separated columns, with or without header, or TREC's `query 0 doc grade`.

    Raises:
        UserError: the first line is none of these, or (unless skipped) a row is malformed or judged twice.
    """
    lines = read_lines(path)
    where, first = next(lines, (str(path), ""))
    rows = (
        lines
        if (header := _is_header(_columns(first)) or _is_header(first.split()))
        else itertools.chain([(where, first)], lines)
    )
    for split in (_columns, str.split):
        fields = split(first)
        if len(fields) == 3 and (header or integer(fields[2]) is not None):
            return collect_qrels(((where, split(line)) for where, line in rows), bad)
        if len(fields) == 4 and (header or integer(fields[3]) is not None):
            parts = ((where, line.split()) for where, line in rows)
            return collect_qrels(((where, [f[0], *f[2:]] if len(f) == 4 else f) for where, f in parts), bad)
    raise UserError(
        f"{where}: the first line is {short(first)}; expected BEIR's header (query-id, corpus-id, score, "
        "tab-separated), its three columns or TREC's four (query 0 doc grade), each with a whole-number grade. "
        "Add the header line."
    )


def collect_qrels(rows: Iterable[tuple[str, list]], bad: BadRows) -> Qrels:
    """Collect checked judgements from (where, [query id, doc id, whole-number grade]) pairs."""
    qrels: Qrels = {}
    for where, fields in rows:
        grade = integer(fields[2]) if len(fields) == 3 else None
        if grade is None or "" in (str(fields[0]), str(fields[1])):
            bad.report(
                where,
                "malformed judgement",
                f"{short(' '.join(map(str, fields)))} is not a judgement",
                "Expected query id, document id and a whole-number grade; mend the line",
            )
            continue
        docs = qrels.setdefault(str(fields[0]), {})
        doc_id = str(fields[1])
        if docs.get(doc_id, grade) != grade:
            bad.report(
                where,
                "judged twice",
                f"document {doc_id!r} is judged twice for query {fields[0]!r}, {docs[doc_id]} and {grade}",
                "Keep one judgement",
            )
        elif doc_id in docs:
            bad.keep(
                where,
                "repeats of a judgement",
                f"document {doc_id!r} is judged twice for query {fields[0]!r}, with one grade, and is taken once",
            )
        else:
            docs[doc_id] = grade
    return qrels


def check_qrels(where: str, qrels: Qrels, corpus: Corpus, queries: Queries, bad: BadRows) -> Qrels:
    """Return `qrels` if every id is known; with skipping, without the queries that have no text.

    A judged document that the corpus lacks stays judged: it cannot be found, and leaving it out of the ideal ranking would
    raise every number above trec_eval's.
    """
    known: Qrels = {}
    for query_id, docs in qrels.items():
        if query_id not in queries:
            bad.report(
                where,
                "unknown query id",
                f"query id {query_id!r} is not among the {len(queries)} queries",
                "Add the query or remove its judgements",
            )
            continue
        for doc_id in docs:
            if doc_id in corpus:
                continue
            absent = f"document id {doc_id!r} (judged for query {query_id!r}) is not in the corpus of {len(corpus)} documents"
            if not bad.skip:
                raise UserError(
                    f"{where}: {absent}. Add the document or remove the judgement"
                    f"{bad.offer('keep it, as one that no ranking can find')}."
                )
            bad.keep(where, "judgements of documents that the corpus lacks", f"{absent}; it stays judged, and is never found")
        known[query_id] = docs
    return known


def _is_header(fields: list[str]) -> bool:
    """Return whether the fields are a header: names in use for BEIR's three columns, or TREC's four, in that order."""
    names = [*HEADER[:1], *HEADER[2:]] if len(fields) == 3 else HEADER
    return len(fields) == len(names) and all(
        name.fullmatch(field.strip().lower()) for name, field in zip(names, fields, strict=True)
    )


def _columns(line: str) -> list[str]:
    """Split a line at its tabs, and remove the quotes that CSV writers put around some fields."""
    if '"' not in line:
        return line.split("\t")
    try:
        return next(csv.reader([line], delimiter="\t", strict=True))
    except (csv.Error, StopIteration):  # a quote that is part of an id
        return line.split("\t")
