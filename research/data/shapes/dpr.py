"""DPR's rows: {"question", "positive_ctxs": [{"title", "text"}], "negative_ctxs", "hard_negative_ctxs"}."""

from research.data.rows import short
from research.data.shapes.texts import BadRow, checked, not_both, one_text, text_id
from research.types import Document, Triplets

NEEDS = ("question", "positive_ctxs")
LISTS = ("positive_ctxs", "hard_negative_ctxs", "negative_ctxs")
READS = {"question", *LISTS}


def read(row: dict) -> Triplets:
    """Read one row; hard negatives come before the others.

    Raises:
        BadRow: not of this shape.
    """
    passages = {column: _passages(row, column) for column in LISTS}
    if not passages["positive_ctxs"]:
        raise BadRow("incomplete row", "positive_ctxs is empty, expected one passage or more", "Remove the row")
    query = one_text(row, "question")
    negatives = passages["hard_negative_ctxs"] | passages["negative_ctxs"]
    return not_both(Triplets(text_id(query), query, passages["positive_ctxs"], negatives))


def _passages(row: dict, column: str) -> dict[str, Document]:
    value = row.get(column) or []
    if not isinstance(value, list) or not all(isinstance(passage, dict) for passage in value):
        raise BadRow("wrong type", f"{column} is {short(repr(value))}, expected a list of objects", "Mend the row")
    passages = {}
    for passage in value:
        title = passage.get("title") or ""
        if not isinstance(title, str):
            raise BadRow("wrong type", f"a title of {column} is {short(repr(title))}, expected a text", "Mend the row")
        document = Document(checked(title, column), one_text(passage, "text"))
        passages[text_id(f"{title}\n{document.text}" if title else document.text)] = document
    return passages
