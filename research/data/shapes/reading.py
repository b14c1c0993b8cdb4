"""A source of training rows → one Triplets a query, whatever shape its rows have."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from research.data.rows import BadRows
from research.data.shapes import triples
from research.data.shapes.columns import Columns, check_columns, named
from research.data.shapes.embedding_training import unfolded
from research.data.shapes.graded import LABEL
from research.data.shapes.table import Shape, expected, header_names, shape_of
from research.data.shapes.texts import BadRow
from research.data.splits import whole_or_slice
from research.data.tables import read_table
from research.errors import UserError, suggest
from research.progress import say
from research.types import Corpus, Document, Triplets

Rows = Iterable[tuple[str, dict]]
ID_TRIPLES = Shape("triples of ids", frozenset(triples.ROLES), triples.read_ids, by_ids=True)
TEXT_TRIPLES = Shape("triples", frozenset(triples.ROLES), triples.read)


def read_training(
    source: str,
    split: str | None,
    bad: BadRows,
    columns: Columns | None = None,
    positive_from: float | None = None,
    corpus_file: str | None = None,
    queries_file: str | None = None,
) -> list[Triplets]:
    """Training queries of files or of a hub set.

    Args:
        source: as `tables.read_table` takes it.
        split: of a hub set or a folder with splits; of a file a slice.
        bad: what to do with malformed rows.
        columns: role → column(s), where the shape is not known by names.
        positive_from: see `graded.read`.
        corpus_file, queries_file: of the documents and queries that rows name by id.

    Raises:
        UserError: a source that cannot be read, rows in no shape, ids without texts, or an option that nothing used.
    """
    check_columns(columns)
    path = Path(source)
    if columns is None and triples.is_triples(path, header_names()):
        rows = triples.read_triples(path, bad)
        first = next(rows, None)
        triples.refuse_header(first)
        say(f"{source}: read as MS MARCO's {' and '.join(first[1] if first else ())}, tab-separated and without a header")
        shape = ID_TRIPLES if first is not None and triples.are_ids(first[1]) else TEXT_TRIPLES
        chosen = whole_or_slice([first, *rows] if first else [], split, source)
        triplets, shape = read_rows(chosen, source, bad, shape=shape)
    else:
        seen: dict[str, None] = {}
        rows = _noted(read_table(source, split, bad, arrays=True), seen)
        triplets, shape = read_rows(rows, source, bad, columns, positive_from)
        _check_seen(columns, seen, source)
    if positive_from is not None and shape is not None and not shape.by_label:
        raise UserError(
            f"data.positive_from={positive_from:g}, but no label of the rows of {source} is read ({shape.name}: "
            f"{', '.join(sorted(shape.reads))}); expected it for rows with a label or score alone. Leave it out, "
            "or name the column of the label: --data.columns '{query: QUESTION, positive: TEXT, label: "
            "SCORE}'."
        )
    if shape is not None and shape.by_ids:
        return _with_texts(triplets, source, corpus_file, queries_file, bad)
    for name, value in (("corpus_file", corpus_file), ("queries_file", queries_file)):
        if value is not None:
            raise UserError(
                f"data.{name}={value}, but the rows of {source} hold their texts; expected it for rows of ids "
                "only. Leave it out."
            )
    return triplets


def _noted(rows: Rows, seen: dict[str, None]) -> Iterator[tuple[str, Any]]:
    """The rows; their columns are in `seen` afterwards."""
    for where, row in rows:
        seen |= dict.fromkeys(row if isinstance(row, dict) else ())
        yield where, row


def _check_seen(columns: Columns | None, seen: dict[str, None], source: str) -> None:
    """
    Raises:
        UserError: a column that is named and that no row has: a misspelt negative would be none.
    """
    for name in named(columns or {}) if seen else ():
        if name not in seen:
            others = [one for one in seen if one not in named(columns or {})]
            raise UserError(
                f"data.columns: no row of {source} has the column {name!r}; {suggest(name, others or seen)}. "
                "Correct it, or leave it out."
            )


def read_rows(
    rows: Rows,
    source: str,
    bad: BadRows,
    columns: Columns | None = None,
    positive_from: float | None = None,
    shape: Shape | None = None,
) -> tuple[list[Triplets], Shape | None]:
    """One Triplets a query, in the order of their first rows, and the shape, which is that of the first row.

    Raises:
        UserError: (unless skipped) a malformed row.
    """
    by_query: dict[str, Triplets] = {}
    unread: Counter[str] = Counter()
    scored = 0
    fixed = shape
    for where, row in rows:
        try:
            for part in unfolded(row):
                here = fixed or shape_of(part, columns, positive_from)
                if here is None or (shape is not None and here.name != shape.name):
                    label = next((f"label: {name}" for name in LABEL if name in part), "negative: OTHER")
                    raise BadRow(
                        "unknown shape",
                        expected(part, shape),
                        "Mend the row, or name the columns of all: "
                        f"--data.columns '{{query: QUESTION, positive: ANSWER, {label}}}'",
                    )
                shape = here
                triplets = shape.read(part)
                _put(by_query, triplets, shape, where, bad)
                unread.update(part.keys() - shape.reads)
                scored += len(triplets.scores or ()) if not shape.own_ids else 0
        except BadRow as error:
            bad.report(where, *error.args)
    if unread:
        say(f"{source}: columns that are not read: " + ", ".join(f"{name} ({count:,} rows)" for name, count in unread.items()))
    if scored:
        say(
            f"{source}: {scored:,} passages have a score of another model, which is kept and not trained on: no loss here has "
            "a teacher"
        )
    return _usable(by_query, source), shape


def _put(by_query: dict[str, Triplets], triplets: Triplets, shape: Shape, where: str, bad: BadRows) -> None:
    """Add a row to those of its query.

    Raises:
        BadRow: a query id is there twice.
    """
    before = by_query.get(triplets.query_id)
    if before is None:
        by_query[triplets.query_id] = triplets
    elif before == triplets:
        bad.keep(where, "repeats of a row", f"query {triplets.query_id!r} repeats an earlier row, and is taken once")
    elif shape.own_ids or before.query != triplets.query:
        raise BadRow(
            "duplicate query id", f"query id {triplets.query_id!r} was used before", "Put all passages of a query in one row"
        )
    else:
        by_query[triplets.query_id] = triplets._replace(
            positives=before.positives | triplets.positives,
            negatives=before.negatives | triplets.negatives,
            scores=(triplets.scores or {}) | (before.scores or {}) or None,
        )


def _usable(by_query: dict[str, Triplets], source: str) -> list[Triplets]:
    """Queries that have a positive; what one row has as a positive of the query is no negative by another."""
    without = [query for query in by_query.values() if not query.positives]
    if without:
        say(
            f"{source}: {len(without):,} of {len(by_query):,} queries have no positive, {without[0].query[:60]!r} for example; "
            "they are left out"
        )
    usable, both = [], 0
    for query in by_query.values():
        if query.positives:
            negatives = {doc: text for doc, text in query.negatives.items() if doc not in query.positives}
            both += len(query.negatives) - len(negatives)
            usable.append(query._replace(negatives=negatives))
    if both:
        say(f"{source}: {both:,} negatives are positives of the same query in other rows; they are positives")
    return usable


# ---- rows of ids ----------------------------------------------------------------------------------------------------


def _with_texts(rows: list[Triplets], source: str, corpus: str | None, queries: str | None, bad: BadRows) -> list[Triplets]:
    """The rows with the texts that their ids stand for."""
    if corpus is None:
        raise UserError(
            f"the rows of {source} name documents by id; expected the file of their texts. Pass --data.corpus_file "
            "collection.tsv, or corpus.jsonl."
        )
    wanted = {doc for row in rows for docs in (row.positives, row.negatives) for doc in docs}
    documents = _documents(corpus, wanted, bad)
    unnamed = {row.query_id for row in rows if not row.query}
    if rows and queries is not None and not unnamed:
        raise UserError(
            f"data.queries_file={queries}, but the rows of {source} hold the texts of their queries; expected it "
            "for ids of queries only. Leave it out."
        )
    if unnamed and queries is None:
        raise UserError(
            f"the rows of {source} name queries by id; expected the file of their texts. Pass --data.queries_file "
            "queries.tsv, or queries.jsonl."
        )
    texts = {row: doc.content for row, doc in _documents(queries, unnamed, bad).items()} if queries and unnamed else {}
    return [
        row._replace(
            query=row.query or texts[row.query_id],
            positives={doc: documents[doc] for doc in row.positives},
            negatives={doc: documents[doc] for doc in row.negatives},
        )
        for row in rows
    ]


def _documents(source: str, wanted: set[str], bad: BadRows) -> Corpus:
    """The texts of the ids wanted: `id TAB text` lines, or rows with docid, _id, id or query_id and a text."""
    documents: Corpus = {}
    for where, doc_id, document in _entries(source, bad):
        if doc_id in wanted and documents.setdefault(doc_id, document) != document:
            raise UserError(f"{where}: id {doc_id!r} was used before, with another text; expected one text an id. Remove one.")
    for doc_id in wanted:
        if doc_id not in documents or not documents[doc_id].content.strip():
            raise UserError(
                f"{source} has no text for the id {doc_id!r}, which the rows name; expected one for each. Add it, "
                "or name the file that the rows were made from."
            )
    return documents


def _entries(source: str, bad: BadRows) -> Iterator[tuple[str, str, Document]]:
    path = Path(source)
    if triples.is_triples(path, ["text", "id", "docid", "_id", "query_id", "contents"]):
        for where, row in triples.read_triples(path, bad):
            texts = [*row.values()][1:]
            yield where, row["query"], Document(texts[0] if len(texts) > 1 else "", texts[-1])
        return
    for where, row in read_table(source, None, bad):
        doc_id = next((row[name] for name in ("docid", "_id", "id", "query_id", "qid", "pid") if name in row), None)
        text = next(
            (row[name] for name in ("text", "document_text", "contents", "query_text", "query", "passage") if name in row), None
        )
        title = row.get("title") or ""
        if isinstance(doc_id, int) and not isinstance(doc_id, bool):
            doc_id = str(doc_id)
        if not (isinstance(doc_id, str) and isinstance(text, str) and isinstance(title, str)):
            bad.report(
                where,
                "no document",
                f"the row has the columns {', '.join(row)}",
                "Expected an id (docid, _id or id) and a text; mend the row",
            )
        else:
            yield where, doc_id, Document(title, text)
