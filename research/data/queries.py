"""Data of both retrieval trainers: training queries with their documents, and the collections to validate on.

Longer than most files: which documents are relevant to a query, and which queries are left out, is decided here alone.
"""

import abc
import math
import random
from pathlib import Path
from typing import NamedTuple

from research.data.base import BaseDataModule
from research.data.equality import Copies, known_relevant
from research.data.folds import assign_folds, fold_of, parse_fold
from research.data.hub import is_collection
from research.data.positives import positives_of
from research.data.row_source import add_documents, read_splits
from research.data.rows import SKIPPING_IN_TRAINING, BadRows, evenly_spaced
from research.data.shapes.columns import Columns
from research.data.shapes.reading import read_training
from research.data.sources import check_relevant, check_split, load
from research.data.tables import is_table
from research.errors import UserError
from research.progress import say
from research.runs.hashes import hash_file, hash_json, hash_strings
from research.types import Collection, Corpus, Document, Triplets


class TrainingQuery(NamedTuple):
    """A query with the ids of its relevant documents and of its negatives, best first.

    Attributes:
        known: every document known to be relevant, as `join_known` finds them; None before.
        by_text: whether the query's own positives and their exact copies would not have told all of them.
    """

    query_id: str
    text: str
    positives: list[str]
    negatives: list[str]
    known: frozenset[str] | None = None
    by_text: bool = False


class RowOptions(NamedTuple):
    """How training rows are read; of no use for a collection.

    Attributes:
        columns: role → column(s): query, positive, negative, label, query_id.
        positive_from: from which label or score on a pair is positive; None knows 0 and 1 alone.
        corpus_file, queries_file: texts of the ids that rows name.
    """

    columns: Columns | None = None
    positive_from: float | None = None
    corpus_file: str | None = None
    queries_file: str | None = None


def holds_rows(train: str) -> bool:
    """Return whether `train` is a table of training rows (files, a hub set) instead of a collection with judgements.

    Raises:
        UserError: a hub set that is not found.
    """
    if train.startswith("hf:"):
        return not is_collection(train.removeprefix("hf:"))
    return is_table(train) and not (Path(train) / "qrels").is_dir()


def load_training(
    train: str,
    split: str | None,
    without_fold: str | None,
    limit: int | None,
    skip_bad_rows: bool,
    options: RowOptions = RowOptions(),  # noqa: B008 (it cannot be changed)
) -> tuple[list[TrainingQuery], Corpus, str]:
    """Load training queries and the documents that they name.

    Args:
        train: a data source, or training rows: of `research mine`, or in a shape of docs/retrieval-data.md.
        split: of a source, of a hub set or of a folder with splits.
        without_fold: "0/2" leaves out the queries of fold 0 of 2.
        limit: keep this many queries, spread evenly; None keeps all.
        options: of rows.

    Returns:
        queries, documents by id, and the fingerprint of what was read.

    Raises:
        UserError: as the readers do; or no query is left.
    """
    misplaced = [name for name, value in options._asdict().items() if value is not None]
    if holds_rows(train):
        queries, corpus, fingerprint = _from_rows(train, split, skip_bad_rows, options)
    elif misplaced:
        cure = f"Write {train},query=COLUMN,positive=COLUMN" if train.startswith("rows:") else "Leave it out"
        raise UserError(
            f"data.{misplaced[0]} is for training rows alone, and {train} is a source with splits; expected it with a file or "
            f"a hub set of rows. {cure}."
        )
    elif train.startswith("rows:"):
        queries, corpus, fingerprint = _from_split(train, split, skip_bad_rows)
    else:
        data = check_relevant(load(train, split, skip_bad_rows, SKIPPING_IN_TRAINING))
        queries, corpus, fingerprint = _from_collection(data), data.corpus, data.fingerprint
    queries = join_known(queries, corpus)
    if without_fold is not None:
        fold, folds = parse_fold(without_fold)
        assigned = assign_folds(
            {query.query_id: query.positives for query in queries}, {query.query_id: query.text for query in queries}, folds
        )
        alone = {query.query_id: fold_of(dict.fromkeys(query.positives, 1), folds) for query in queries}
        if any((assigned[query] == fold) != (fold_alone == fold) for query, fold_alone in alone.items()):
            fingerprint = hash_json([fingerprint, "folds of queries that share documents"])  # other queries than once
        queries = [query for query in queries if assigned[query.query_id] != fold]
    if limit is not None and limit < len(queries):
        say(f"{train}: {limit:,} of {len(queries):,} queries are trained on (data.limit)")
        queries = evenly_spaced(queries, limit)
    if not queries:
        raise UserError(f"{train} leaves no training query; expected one or more. Name another split, or a smaller fold.")
    return queries, corpus, fingerprint


def join_known(queries: list[TrainingQuery], corpus: Corpus) -> list[TrainingQuery]:
    """Add all documents known to be relevant to each query, and remove them from its negatives.

    Known are a query's positives, those of queries of equal text, copies of such documents, and documents whose text is the
    query's: by the rule of `research mine`.
    """
    if all(query.known is not None for query in queries):
        return queries
    named = {doc: corpus[doc] for query in queries for doc in (*query.positives, *query.negatives)}
    relevant = known_relevant(
        {i: query.positives for i, query in enumerate(queries)}, {i: query.text for i, query in enumerate(queries)}, named
    )
    copies, joined = Copies(named), []
    for i, query in enumerate(queries):
        known = frozenset(copies.of(relevant[i].judged | relevant[i].shared) | relevant[i].same)
        contents = {corpus[doc].content for doc in query.positives}
        by_text = any(named[doc].content not in contents for doc in known)
        negatives = [doc for doc in query.negatives if doc not in known]
        joined.append(query._replace(known=known, by_text=by_text, negatives=negatives))
    return joined


def count_by_text(queries: list[TrainingQuery]) -> dict[str, int]:
    """Count queries with a relevant document known by text alone; {} if none, so that the facts of such data do not change."""
    count = sum(query.by_text for query in queries)
    return {"known_by_text": count} if count else {}


def load_validation(source: str, split: str, documents: int | None, skip_bad_rows: bool) -> Collection:
    """Load the collection to validate on; `documents` keeps the judged ones and a sample of the others, up to that number.

    The sample is the same for all seeds, so that their validations compare.

    Raises:
        UserError: as `load`; or fewer documents than are judged.
    """
    data = check_relevant(load(source, split, skip_bad_rows, SKIPPING_IN_TRAINING))
    if left_out := [query for query, docs in data.qrels.items() if max(docs.values()) <= 0]:
        say(
            f"{source} {split}: {len(left_out):,} of {len(data.qrels):,} queries have no relevant document and are left out of "
            "every mean"
        )
    if documents is None or documents >= len(data.corpus):
        return data
    judged = {doc for docs in data.qrels.values() for doc in docs if doc in data.corpus}
    if documents < len(judged):
        raise UserError(
            f"val_documents={documents} is less than the {len(judged)} documents that {source} split {split!r} "
            f"judges; expected {len(judged)} or more. Raise it, or leave it out to take all."
        )
    others = [doc for doc in data.corpus if doc not in judged]
    chosen = judged | set(random.Random("validation 0").sample(others, documents - len(judged)))
    say(
        f"validation on {documents:,} of {len(data.corpus):,} documents: the judged ones and a sample of the others. Its "
        "numbers are higher than on all of them, and compare only with each other"
    )
    return data._replace(corpus={doc: text for doc, text in data.corpus.items() if doc in chosen})


def _from_collection(data: Collection) -> list[TrainingQuery]:
    """Return queries with their relevant documents that the corpus has and that have a text."""
    positives = positives_of(data)
    queries = [TrainingQuery(query, data.queries[query], docs, []) for query, docs in positives.items()]
    relevant = sum(grade > 0 for query in data.queries for grade in data.qrels[query].values())
    if unusable := relevant - sum(map(len, positives.values())):
        say(
            f"{data.source} {data.split}: {unusable:,} relevant documents are blank or not in the corpus; nothing is trained "
            "on them"
        )
    return queries


def _from_rows(
    train: str, split: str | None, skip_bad_rows: bool, options: RowOptions
) -> tuple[list[TrainingQuery], Corpus, str]:
    """Read a file or hub set, all of whose rows are trained on."""
    if options.positive_from is not None and not math.isfinite(options.positive_from):
        raise UserError(f"data.positive_from={options.positive_from}; expected a finite number. Correct it.")
    bad = BadRows(skip_bad_rows, SKIPPING_IN_TRAINING)
    rows = read_training(train, split, bad, *options)
    queries, corpus = _with_documents(rows, train)
    bad.say_counts(train)
    path = Path(train)
    fingerprint = hash_file(path) if path.is_file() else hash_strings(map(repr, rows))
    if any(value is not None for value in options):
        fingerprint = hash_json([fingerprint, hash_strings(map(repr, rows))])
    return queries, corpus, fingerprint


def _from_split(train: str, split: str | None, skip_bad_rows: bool) -> tuple[list[TrainingQuery], Corpus, str]:
    """Read the rows of one split of `rows:…`, with the negatives that a Collection would not hold."""
    check_split(train, name := split or "train")
    bad = BadRows(skip_bad_rows, SKIPPING_IN_TRAINING)
    rows = read_splits(train, bad)[name]
    bad.say_counts(train)
    return *_with_documents(rows, train), hash_strings(map(repr, rows))


def _with_documents(rows: list[Triplets], source: str) -> tuple[list[TrainingQuery], Corpus]:
    corpus: dict[str, Document] = {}
    for row in rows:
        add_documents(corpus, row, source)
    return [TrainingQuery(row.query_id, row.query, list(row.positives), list(row.negatives)) for row in rows], corpus


class RetrievalData(BaseDataModule):
    """The common part of both retrieval DataModules.

    Attributes:
        queries: that are trained on.
        test_split: for `research test`.
    """

    queries: list[TrainingQuery]
    test_split: str | None

    @abc.abstractmethod
    def load(self, name: str, split: str) -> Collection:
        """Load the collection "val" or "test"."""

    def load_test(self) -> Collection:
        """Load the collection of test_split."""
        if self.test_split is None:
            raise UserError("test_split is null; expected a split to test on. Name one: --data.test_split test.")
        return self.load("test", self.test_split)

    def count_shared(self, collections: dict[str, Collection]) -> dict[str, int]:
        """Count the queries of each collection that are also trained on; report them, as its numbers are then too high."""
        trained = {query.text for query in self.queries}
        counts = {name: sum(text in trained for text in data.queries.values()) for name, data in collections.items()}
        for name, data in collections.items():
            if counts[name]:
                say(
                    f"warning: {counts[name]:,} of the {len(data.queries):,} queries of {data.source} split {data.split!r} "
                    f"({name}) are trained on too; its numbers are too high"
                )
        return {f"{name}_trained": count for name, count in counts.items() if count}
