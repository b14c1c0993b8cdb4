"""Pairs with a label or score: {"sentence1", "sentence2", "score"}, {"query", "document", "label"}, lists of both."""

import contextlib

from research.data.rows import is_finite, short
from research.data.shapes.columns import Columns, columns_of, named, refuse_missing
from research.data.shapes.texts import BadRow, by_text, many_texts, one_text
from research.errors import UserError
from research.types import Triplets

LABEL = (
    "score",
    "label",
    "labels",
    "scores",
    "similarity_score",
    "similarity",
    "relevance",
    "gold_label",
    "is_duplicate",
    "is_relevant",
    "relevance_score",
    "relevance_label",
)
TRUTHS = {"true": True, "false": False}
LISTS = ("docs", "documents", "passages", "texts", "responses")


def columns_of_graded(row: dict, positive_from: float | None) -> Columns | None:
    """Map roles to columns, by names that are in use; None where a query, a document or a label is not there.

    A score beside a column that is called positive counts only where `positive_from` asks for it.
    """
    label = next((name for name in LABEL if name in row), None)
    listed = next((name for name in LISTS if isinstance(row.get(name), list)), None)
    columns = columns_of(row if listed is None else row | {"positive": ""})
    if label is None or columns is None or "negative" in columns:
        return None
    if listed is None and columns["positive"] == "positive" and positive_from is None:
        return None
    return {"query": columns["query"], "positive": listed or columns["positive"], "label": label}


def read(row: dict, columns: Columns, positive_from: float | None) -> Triplets:
    """Read one row: documents whose label is high enough are positives, the others negatives.

    Args:
        row: the row.
        columns: role → column.
        positive_from: least label of a positive; None takes the labels 0 (or −1) and 1.

    Raises:
        BadRow: a named column is absent or holds something else.
        UserError: other labels, and no `positive_from`.
    """
    refuse_missing(row, named(columns))
    texts = many_texts(row, columns["positive"])
    value = row[columns["label"]]
    labels = [_number(label, columns["label"]) for label in (value if isinstance(value, list) else [value])]
    if len(labels) != len(texts):
        raise BadRow(
            "wrong type", f"{columns['label']} has {len(labels)} numbers, expected {len(texts)}, one a text", "Mend the row"
        )
    if positive_from is None and (other := [label for label in labels if label not in (0, 1, -1)]):
        unlabelled = f"{{query: {columns['query']}, positive: {columns['positive']}}}"
        raise UserError(
            f"{columns['label']} is {other[0]:g}, which is neither 0 nor 1; expected to be told from which "
            f"{columns['label']} on a pair is positive. Pass --data.positive_from 0.5, say, or, where every pair "
            f"is positive, --data.columns '{unlabelled}'."
        )
    least = 1 if positive_from is None else positive_from
    parts: tuple[list[str], list[str]] = [], []
    for text, label in zip(texts, labels, strict=True):
        parts[label < least].append(text)
    query_id = str(row[columns["query_id"]]) if "query_id" in columns else None
    return by_text(one_text(row, columns["query"]), *parts, query_id=query_id)


def _number(value: object, column: str) -> float:
    """Read a finite number, or true and false; text of one too, as CSV has it."""
    if isinstance(value, str) and value.lower() in TRUTHS:
        value = TRUTHS[value.lower()]
    if isinstance(value, str) and "_" not in value:
        with contextlib.suppress(ValueError):
            value = float(value)
    if not isinstance(value, bool) and not is_finite(value):
        raise BadRow(
            "wrong type",
            f"{column} is {short(repr(value))}, expected a finite number",
            "Write 1 where the second text is relevant to the first, else 0",
        )
    return float(value)
