"""The field's file formats: BEIR folders, TREC qrels and runs, tevatron's triplet JSONL.

Readers are strict: a row that is not what the format promises is refused with file, line, value and cure. With
`BadRows(skip=True)` such rows are skipped instead, counted by reason, and the count goes into the run's notes.
"""

import csv
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from research.data.rows import BadRows, identifier, integer, read_jsonl, read_lines, short, string
from research.errors import UserError, suggest
from research.progress import say
from research.runs.files import atomic_write
from research.types import Corpus, Document, Qrels, Queries, Run, Triplets

BEIR_QRELS_HEADER = ["query-id", "corpus-id", "score"]
QUERY_IDS, DOC_IDS = ("_id", "id", "query_id", "qid"), ("_id", "id", "docid", "doc_id")
HEADER = (
    re.compile(r"query|qid|q_id|topic|query[-_ ]?id|topic[-_ ]?id"),
    re.compile(r"0|q0|iter(ation)?"),
    re.compile(r"(corpus|doc(ument)?|passage)[-_ ]?id|docno|doc|pid|did"),
    re.compile(r"score|grade|rel(evance)?|label|judge?ment|relevancy"),
)
"""What a header calls TREC's columns."""


# ---- JSON lines -----------------------------------------------------------------------------------------------------


def read_corpus(path: Path, bad: BadRows) -> Corpus:
    """corpus.jsonl of a BEIR folder: {"_id", "title" (may be absent or empty), "text"}."""
    return collect_corpus(read_jsonl(path, bad), bad)


def collect_corpus(rows: Iterable[tuple[str, dict]], bad: BadRows) -> Corpus:
    """Checked documents from (where, row) pairs: unique ids, string fields, a title or a text."""
    corpus: Corpus = {}
    for where, row in rows:
        doc_id = identifier(row, DOC_IDS, where, bad)
        title = string(row, "title", where, bad)
        text = string(row, "text" if "text" in row else "contents", where, bad)  # Anserini's name
        if doc_id is None or title is None or text is None:
            continue
        if (
            not {"title", "text", "contents"} & row.keys()
        ):  # else a corpus of other names would be read as one of blank documents
            bad.report(
                where,
                "empty document",
                f"document {doc_id!r} has neither title nor text, but {', '.join(row)}",
                "Expected one of them; rename the columns",
            )
            continue
        document = Document(title, text)
        if corpus.get(doc_id, document) != document:
            bad.report(
                where,
                "duplicate document id",
                f"document id {doc_id!r} was used before, with another text",
                "Ids must be unique; rename or remove one",
            )
        elif doc_id in corpus:
            bad.keep(where, "repeats of a document", f"document {doc_id!r} repeats an earlier row, and is taken once")
        else:
            corpus[doc_id] = document
            if not document.content.strip():
                bad.keep(
                    where,
                    "blank documents",
                    f"document {doc_id!r} has a blank title and a blank text; it stays in the "
                    "corpus, as the field's numbers have it",
                )
    return corpus


def read_queries(path: Path, bad: BadRows) -> Queries:
    """queries.jsonl of a BEIR folder: {"_id", "text"}."""
    return collect_queries(read_jsonl(path, bad), bad)


def collect_queries(rows: Iterable[tuple[str, dict]], bad: BadRows) -> Queries:
    """Checked queries from (where, row) pairs: unique ids, a text that is not empty."""
    queries: Queries = {}
    for where, row in rows:
        query_id = identifier(row, QUERY_IDS, where, bad)
        text = string(row, "text" if "text" in row else "query", where, bad)
        if query_id is None or text is None:
            continue
        if not text.strip():
            bad.report(where, "empty query", f"query {query_id!r} has no text", "Remove the row")
        elif queries.get(query_id, text) != text:
            bad.report(
                where,
                "duplicate query id",
                f"query id {query_id!r} was used before, with another text",
                "Ids must be unique; rename or remove one",
            )
        elif query_id in queries:
            bad.keep(where, "repeats of a query", f"query {query_id!r} repeats an earlier row, and is taken once")
        else:
            queries[query_id] = text
    return queries


def read_triplet(row: dict, where: str, bad: BadRows) -> Triplets | None:
    """One row of tevatron's training JSONL; None where it is skipped."""
    scores: dict[str, float] = {}
    positions: dict[str, int] = {}
    query_id = identifier(row, ("query_id",), where, bad)
    query = string(row, "query", where, bad)
    positives = _passages(row, "positive_passages", where, bad, scores, {})
    negatives = _passages(row, "negative_passages", where, bad, scores, positions)
    if query_id is None or query is None or positives is None or negatives is None:
        return None
    if not query.strip() or not positives:
        bad.report(
            where,
            "incomplete triplet",
            f"query {query_id!r} lacks a text or a positive passage",
            "Expected a query text and one or more positive_passages; mend or remove the row",
        )
    elif both := positives.keys() & negatives.keys():
        bad.report(
            where, "contradiction", f"passage {min(both)!r} is both positive and negative", "Remove it from one of the lists"
        )
    else:
        return Triplets(query_id, query, positives, negatives, scores or None, positions or None)
    return None


def write_triplets(path: Path, triplets: Iterable[Triplets]) -> None:
    """Write tevatron's training JSONL, atomically. Nine digits keep every float32 score as it is."""

    def passages(docs: dict[str, Document], row: Triplets) -> list[dict]:
        written = []
        for doc_id, doc in docs.items():
            passage: dict = {"docid": doc_id, "title": doc.title, "text": doc.text}
            if row.positions and doc_id in row.positions:
                passage["rank"] = row.positions[doc_id]
            if row.scores and doc_id in row.scores:
                passage["score"] = float(f"{row.scores[doc_id]:.9g}")
            written.append(passage)
        return written

    with atomic_write(path) as stream:
        for row in triplets:
            stream.write(
                json.dumps(
                    {
                        "query_id": row.query_id,
                        "query": row.query,
                        "positive_passages": passages(row.positives, row),
                        "negative_passages": passages(row.negatives, row),
                    },
                    ensure_ascii=False,
                )
                + "\n"
            )


def write_beir(folder: Path, corpus: Corpus, queries: Queries, qrels: dict[str, Qrels]) -> None:
    """Write a BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv."""
    folder = Path(folder)
    with atomic_write(folder / "corpus.jsonl") as stream:
        for doc_id, doc in corpus.items():
            row = {"_id": doc_id, "title": doc.title, "text": doc.text}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic_write(folder / "queries.jsonl") as stream:
        for query_id, text in queries.items():
            stream.write(json.dumps({"_id": query_id, "text": text}, ensure_ascii=False) + "\n")
    for split, judgements in qrels.items():
        with atomic_write(folder / "qrels" / f"{split}.tsv") as stream:
            stream.write("\t".join(BEIR_QRELS_HEADER) + "\n")
            for query_id, docs in judgements.items():
                stream.writelines(f"{query_id}\t{doc_id}\t{grade}\n" for doc_id, grade in docs.items())


# ---- qrels and runs -------------------------------------------------------------------------------------------------


def read_qrels(path: Path, bad: BadRows) -> Qrels:
    """BEIR's three tab-separated columns, with their header or without, or TREC's `query 0 doc grade`.

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


def _is_header(fields: list[str]) -> bool:
    """Whether the fields name BEIR's three columns, or TREC's four, as people call them, in that order."""
    names = [*HEADER[:1], *HEADER[2:]] if len(fields) == 3 else HEADER
    return len(fields) == len(names) and all(
        name.fullmatch(field.strip().lower()) for name, field in zip(names, fields, strict=True)
    )


def collect_qrels(rows: Iterable[tuple[str, list]], bad: BadRows) -> Qrels:
    """Checked judgements from (where, [query id, doc id, whole-number grade]) pairs."""
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
    """`qrels` when every id is known; with skipping, without the queries that have no text.

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


# ---- runs -----------------------------------------------------------------------------------------------------------


def read_run(path: Path, bad: BadRows | None = None) -> Run:
    """A run: TREC's six columns `query Q0 doc rank score tag`, separated by blanks or tabs (the rank is not used, since scores
    decide), or one JSON object {query: {doc: score}}, as BEIR and ranx write it; gzip too.

    Raises:
        UserError: missing file, a line without six fields, a score that is not a finite number, a document twice.
    """
    bad = bad or BadRows(option=None)
    run: Run = {}
    for where, line, (query_id, doc_id, score) in _ranked(path):
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


def _ranked(path: Path) -> Iterator[tuple[str, str, tuple[str, str, float]]]:
    """(where, what stands there, (query id, doc id, score)) of each line; a score of NaN where it is none."""
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
    """tevatron's `query doc score`, or MS MARCO's `query doc rank`: whole numbers that count up from 0 or 1 are ranks.

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
    """NaN where it is no number; Python alone reads 1_000 as 1000."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def check_run(path: Path, run: Run, qrels: Qrels, corpus: Corpus, unjudged: Set[str] = frozenset()) -> int:
    """Refuse a run of another collection or split, whose numbers would be near 0 without a word.

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


def write_run(path: Path, run: Run, tag: str) -> None:
    """Write a TREC run in rank order, atomically. Nine digits keep every float32 score as it is."""
    with atomic_write(path) as stream:
        for query_id, docs in run.items():
            for position, (doc_id, score) in enumerate(docs.items(), 1):
                stream.write(f"{query_id} Q0 {doc_id} {position} {score:.9g} {tag}\n")


def _passages(
    row: dict, key: str, where: str, bad: BadRows, scores: dict[str, float], positions: dict[str, int]
) -> dict[str, Document] | None:
    """The passages of one list by id; their scores and ranks go into `scores` and `positions`."""
    passages = row.get(key, [])
    if not isinstance(passages, list) or not all(isinstance(p, dict) for p in passages):
        bad.report(where, "wrong type", f"{key} is {short(repr(passages))}, expected a list of objects", "Mend the row")
        return None
    docs: dict[str, Document] = {}
    for passage in passages:
        doc_id = identifier(passage, ("docid",), where, bad)
        title = string(passage, "title", where, bad)
        text = string(passage, "text", where, bad)
        if doc_id is None or title is None or text is None:
            return None
        if not title.strip() and not text.strip():
            bad.report(where, "empty passage", f"passage {doc_id!r} of {key} has neither title nor text", "Remove it")
            return None
        if doc_id in docs:
            bad.report(where, "duplicate passage", f"passage {doc_id!r} is in {key} twice", "Keep one")
            return None
        score, position = passage.get("score"), passage.get("rank")
        if score is not None and not is_finite(score):
            bad.report(
                where,
                "wrong type",
                f"score of passage {doc_id!r} is {short(repr(score))}, expected a finite number",
                "Mend the row",
            )
            return None
        if position is not None and (type(position) is not int or position < 1):
            bad.report(
                where,
                "wrong type",
                f"rank of passage {doc_id!r} is {short(repr(position))}, expected a whole number from 1 up",
                "Mend the row",
            )
            return None
        if score is not None:
            scores[doc_id] = float(score)
        if position is not None:
            positions[doc_id] = position
        docs[doc_id] = Document(title, text)
    return docs


def is_finite(value: object) -> bool:
    """Whether it is a number, and neither NaN nor beyond what a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _columns(line: str) -> list[str]:
    """The fields of a line that tabs separate, without the quotes that csv writers put around some."""
    if '"' not in line:
        return line.split("\t")
    try:
        return next(csv.reader([line], delimiter="\t", strict=True))
    except (csv.Error, StopIteration):  # a quote that is part of an id
        return line.split("\t")
