"""Queries that can make a triplet: those with a relevant document that has a text, all of them or fold by fold."""

from research.data.folds import assign_folds
from research.errors import UserError
from research.progress import say
from research.types import Collection


def positives_of(data: Collection) -> dict[str, list[str]]:
    """Map each query to its relevant documents that the corpus has and that have a text; queries without one are left out.

    For mining and training alike: they must put a query in the same fold, which follows from its positives.
    """
    positives = {
        query: [
            doc
            for doc, grade in data.qrels[query].items()
            if grade > 0 and doc in data.corpus and data.corpus[doc].content.strip()
        ]
        for query in data.queries
    }
    return {query: docs for query, docs in positives.items() if docs}


def with_positives(data: Collection) -> Collection:
    """Leave out queries without a relevant document that has a text; their number is reported and noted.

    Raises:
        UserError: no query is left.
    """
    positives = positives_of(data)
    if not positives:
        raise UserError(
            f"{data.source} split {data.split!r} has no relevant document with a text for any of its "
            f"{len(data.qrels)} queries; expected one or more to mine for. Add their texts to the corpus, or name "
            "another split."
        )
    qrels = {
        query: {doc: grade for doc, grade in docs.items() if doc in data.corpus}
        for query, docs in data.qrels.items()
        if query in positives
    }
    if left_out := len(data.qrels) - len(qrels):
        say(f"{left_out} queries of the split have no relevant document in the corpus with a text; they are left out")
    queries = {query: text for query, text in data.queries.items() if query in qrels}
    say(f"{data.source} {data.split}: {len(queries):,} queries, {len(data.corpus):,} documents")
    notes = data.notes | {"queries_without_positive": left_out}
    if blank := sum(grade > 0 for docs in qrels.values() for grade in docs.values()) - sum(map(len, positives.values())):
        say(f"{blank:,} relevant documents are blank; they are no positives")
        notes["blank_positives"] = blank
    return data._replace(queries=queries, qrels=qrels, notes=notes)


def in_folds(data: Collection, count: int) -> list[Collection]:
    """Split the queries into `count` folds, as training leaves them out.

    Args:
        data: as `with_positives` gives it.
        count: 2 or more.

    Raises:
        UserError: a fold without a query.
    """
    parts = []
    assigned = assign_folds(positives_of(data), data.queries, count)
    for fold in range(count):
        qrels = {query: docs for query, docs in data.qrels.items() if assigned[query] == fold}
        if not qrels:
            raise UserError(
                f"fold {fold} of {count} has none of the {len(data.queries)} queries; expected one or more in "
                "each. Queries that share a relevant document or their text stay together: use fewer retrievers, "
                "or leave --folds out."
            )
        queries = {query: text for query, text in data.queries.items() if query in qrels}
        parts.append(data._replace(queries=queries, qrels=qrels))
    return parts
