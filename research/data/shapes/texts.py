"""Shared by the readers of shapes: the error of a row, texts of a column, and ids for texts that have none."""

import hashlib
import re
from collections.abc import Iterable

from research.data.rows import broken, is_finite, short
from research.types import Document, Json, Triplets


class BadRow(Exception):
    """Raised for a row that breaks its shape: (reason, detail, cure), as `BadRows.report` takes them."""


def text_id(text: str) -> str:
    """Make the id of a text that has none: equal texts have equal ids, on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def one_text(row: dict, column: str) -> str:
    """Return the text of a column, which must not be blank.

    Raises:
        BadRow: absent, no text, or blank.
    """
    value = row.get(column)
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{column} is {short(repr(value))}, expected a text", "Mend the row")
    if not value.strip():
        raise BadRow("no text", f"{column} is blank, expected a text", "Remove the row")
    return checked(value, column)


def many_texts(row: dict, column: str) -> list[str]:
    """Return the texts of a column: a list, or one text; empty if the column is absent.

    Raises:
        BadRow: something else, or a blank one.
    """
    value = row.get(column)
    value = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadRow("wrong type", f"{column} is {short(repr(value))}, expected a text or a list of texts", "Mend the row")
    for text in value:
        if not text.strip():
            raise BadRow("no text", f"{column} holds a blank text, expected none or one with words", "Remove it")
    return [checked(text, column) for text in value]


def listed(row: dict, column: str) -> list[str]:
    """Read a column of texts as `many_texts` does, but refuse a list that was written as text.

    Raises:
        BadRow: as said, and as `many_texts`.
    """
    value = row.get(column)
    if isinstance(value, str) and re.fullmatch(r"\s*\[(\s*|\s*(['\"]).*\2\s*)\]\s*", value, re.DOTALL):
        raise BadRow(
            "list as text",
            f"{column} is {short(repr(value))}, a list that was written as text; expected a list",
            "Write the rows as .jsonl or .parquet, which hold lists",
        )
    return many_texts(row, column)


def checked(text: str, column: str) -> str:
    """Return the text, or refuse it if UTF-8 cannot hold it."""
    if broken(text):
        raise BadRow(
            "broken text", f"{column} has half a surrogate pair (\\ud800 to \\udfff), expected Unicode text", "Mend the row"
        )
    return text


def numbers(row: dict, column: str, count: int) -> list[float]:
    """Return `count` finite numbers; [] if the column is absent.

    Raises:
        BadRow: something else.
    """
    value = row.get(column)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) != count or not all(map(is_finite, value)):
        raise BadRow(
            "wrong type", f"{column} is {short(repr(value))}, expected {count} finite numbers, one a text", "Mend the row"
        )
    return [float(number) for number in value]


def by_text(
    query: str,
    positives: Iterable[str],
    negatives: Iterable[str],
    scores: dict[str, float] | None = None,
    query_id: str | None = None,
) -> Triplets:
    """Make a row from texts without ids.

    Args:
        query: its text.
        positives, negatives: texts of documents.
        scores: text → the teacher's score.
        query_id: None takes the hash of the query's text.

    Raises:
        BadRow: no positive, or a text that is positive and negative.
    """
    triplets = Triplets(
        query_id or text_id(query),
        query,
        *({text_id(text): Document("", text) for text in texts} for texts in (positives, negatives)),
        {text_id(text): score for text, score in (scores or {}).items()} or None,
    )
    return not_both(triplets)


def not_both(triplets: Triplets) -> Triplets:
    """Return the row, or refuse it if it has no passage, or one that is both positive and negative.

    Raises:
        BadRow: else.
    """
    if not triplets.positives and not triplets.negatives:
        raise BadRow("incomplete row", f"query {short(triplets.query)} has no positive, expected one or more", "Remove the row")
    if both := triplets.positives.keys() & triplets.negatives.keys():
        text = triplets.positives[min(both)].content
        raise BadRow("contradiction", f"{short(text)} is both positive and negative", "Remove it from one of the lists")
    return triplets


def shown_row(value: Json) -> str:
    """Format an example or a row for messages."""
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
