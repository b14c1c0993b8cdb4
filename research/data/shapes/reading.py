"""Reads a source of training rows into one Triplets for each query, whatever the shape of its rows."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from research.data.rows import BadRows
from research.data.shapes import triples
from research.data.shapes.columns import Columns, check_columns, named
from research.data.shapes.embedding_training import unfolded
from research.data.shapes.graded import LABEL
from research.data.shapes.ids import with_texts
from research.data.shapes.table import Shape, expected, header_names, shape_of
from research.data.shapes.texts import BadRow
from research.data.splits import whole_or_slice
from research.data.tables import read_table
from research.errors import UserError, suggest
from research.progress import say
from research.types import Json, Triplets

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
    """Read training queries from files or a hub set.

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
        return with_texts(triplets, source, corpus_file, queries_file, bad)
    for name, value in (("corpus_file", corpus_file), ("queries_file", queries_file)):
        if value is not None:
            raise UserError(
                f"data.{name}={value}, but the rows of {source} hold their texts; expected it for rows of ids "
                "only. Leave it out."
            )
    return triplets


def _noted(rows: Rows, seen: dict[str, None]) -> Iterator[tuple[str, Json]]:
    """Yield the rows, and add their columns to `seen`."""
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
            others = [column for column in seen if column not in named(columns or {})]
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
    """Read rows into one Triplets for each query, in the order of their first rows; return also the first row's shape.

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
    """Add a row to the other rows of its query.

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
    """Return queries that have a positive; a positive in one row is removed from the negatives of the query's other rows."""
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
