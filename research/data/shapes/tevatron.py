"""tevatron's three generations: passages in the row (which `research mine` writes), texts in the row, ids of a corpus."""

from research.data.rows import BadRows, short
from research.data.shapes.texts import BadRow, by_text, listed, one_text
from research.data.triplets import read_triplet
from research.types import Document, Triplets

NEEDS = ("query_id", "positive_passages")
READS = {"query_id", "query", "positive_passages", "negative_passages"}
TEXT_NEEDS = ("query", "positives")
TEXT_READS = {"query", "positives", "negatives"}
ID_NEEDS = ("query_id", "positive_document_ids")
ID_READS = {"query_id", "query_text", "query", "positive_document_ids", "negative_document_ids"}
LATER = Document("", "")  # the text of a document that is known by its id alone, until its corpus is read


def read(row: dict) -> Triplets:
    """Read one row of {"query_id", "query", "positive_passages": [{"docid", "title", "text"}], "negative_passages"}.

    Raises:
        BadRow: not of this shape.
    """
    return _strict(row)


def read_texts(row: dict) -> Triplets:
    """Read one row of {"query", "positives": [text], "negatives": [text]}, tevatron's first form.

    Raises:
        BadRow: not of this shape, or its texts are token ids.
    """
    for column in ("query", "positives", "negatives"):
        first = row.get(column)
        while isinstance(first, list) and first:
            first = first[0]
        if isinstance(first, int):
            raise BadRow(
                "token ids",
                f"{column} is {short(repr(row[column]))}: ids of some tokenizer, expected texts",
                "Decode them with the tokenizer that made them",
            )
    positives = listed(row, "positives")
    if not positives:
        raise BadRow("incomplete row", "positives is empty, expected one text or more", "Remove the row")
    return by_text(one_text(row, "query"), positives, listed(row, "negatives"))


def read_ids(row: dict) -> Triplets:
    """Read one row of {"query_id", "query_text", "positive_document_ids": [id], "negative_document_ids": [id]}.

    data.corpus_file has the documents, and data.queries_file the text of a query that the row has not.

    Raises:
        BadRow: not of this shape.
    """
    lists = []
    for column in ("positive_document_ids", "negative_document_ids"):
        ids = row.get(column) or []
        if not isinstance(ids, list) or not all(
            isinstance(doc_id, str | int) and not isinstance(doc_id, bool) for doc_id in ids
        ):
            raise BadRow("wrong type", f"{column} is {short(repr(ids))}, expected a list of ids", "Mend the row")
        lists.append({str(doc_id): LATER for doc_id in ids})
    if not lists[0]:
        raise BadRow("incomplete row", "positive_document_ids is empty, expected one id or more", "Remove the row")
    if both := lists[0].keys() & lists[1].keys():
        raise BadRow(
            "contradiction", f"document {min(both)!r} is both positive and negative", "Remove it from one of the lists"
        )
    column = next((name for name in ("query_text", "query") if name in row), None)
    return Triplets(str(row["query_id"]), one_text(row, column) if column else "", *lists)


def _strict(row: dict) -> Triplets:
    """Read a row by the reader of `research mine`'s own files, whose refusals become a BadRow."""

    class Raising(BadRows):
        def report(self, where: str, reason: str, detail: str, cure: str, of_columns: bool = False) -> None:
            raise BadRow(reason, detail, cure)

    triplets = read_triplet(row, "", Raising())
    assert triplets is not None
    return triplets
