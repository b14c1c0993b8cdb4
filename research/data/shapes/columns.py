"""sentence-transformers' columns: a query, what is relevant to it, and negatives, known by names or by data.columns."""

import re

from research.data.shapes.texts import BadRow, by_text, many_texts, one_text
from research.errors import UserError, suggest
from research.types import Triplets

QUERY = ("anchor", "query", "question", "sentence1", "sentence_A", "text1", "query_text", "question1", "sent0", "text_a")
POSITIVE = (
    "positive",
    "positives",
    "answer",
    "response",
    "passage",
    "document",
    "sentence2",
    "sentence_B",
    "text2",
    "question2",
    "sent1",
    "text_b",
    "pos",
    "positive_passage",
    "positive_passages",
    "positive_document",
    "positive_documents",
    "positive_text",
    "positive_texts",
    "context",
)
NEGATIVE = re.compile(r"(hard_?)?neg(ative)?s?([-_]?(passage|document|doc|text)s?)?[-_]?\d*")
ROLES = ("query_id", "query", "positive", "negative", "label")
SEVERAL = ("positive", "negative")  # roles that several columns can have
Columns = dict[str, str | list[str]]


def columns_of(row: dict) -> Columns | None:
    """Map roles to columns by the usual names; None if there is no query or no positive."""
    query = next((name for name in QUERY if name in row), None)
    positive = next((name for name in POSITIVE if name in row and name != query), None)
    if query is None or positive is None:
        return None
    negatives = sorted((name for name in row if NEGATIVE.fullmatch(name)), key=_in_order)
    return {"query": query, "positive": positive, **({"negative": negatives} if negatives else {})}


def check_columns(columns: Columns | None) -> None:
    """Refuse a mapping that names no query or positive, an unknown role, or columns that nothing would read.

    Raises:
        UserError: as said.
    """
    if columns is None:
        return
    for role in columns:
        if role not in ROLES:
            raise UserError(f"data.columns names the role {role!r}, which is not known; {suggest(role, ROLES)}. Correct it.")
    if missing := [role for role in ("query", "positive") if role not in columns]:
        raise UserError(
            f"data.columns names no column for {missing[0]}; expected query and positive, and negative, "
            "label or query_id if any: --data.columns '{query: QUESTION, positive: ANSWER}'. Add it."
        )
    for role, names in columns.items():
        several = isinstance(names, list) and role in SEVERAL and "label" not in columns
        if not names or not all(isinstance(name, str) and name for name in (names if several else [names])):
            beside = " (a label belongs to one column)" if role == "positive" and "label" in columns else ""
            raise UserError(
                f"data.columns.{role} is {names!r}; expected the name of one column{beside}"
                f"{', or a list of them' if role in SEVERAL and not beside else ''}. Correct it."
            )
    if "label" in columns and "negative" in columns:
        raise UserError(
            f"data.columns names label ({columns['label']}) and negative ({columns['negative']}); expected one of "
            "them: with a label, the texts of low labels are the negatives. Leave one out."
        )


def named(columns: Columns) -> list[str]:
    """List every column that a mapping names."""
    return [name for names in columns.values() for name in ([names] if isinstance(names, str) else names)]


def refuse_missing(row: dict, names: list[str]) -> None:
    """Refuse a row that lacks one of these columns.

    Raises:
        BadRow: with the column that was meant, or those that are there.
    """
    for name in names:
        if name not in row:
            others = [column for column in row if column not in names]
            raise BadRow(
                "missing column",
                f"the row has no column {name!r}; {suggest(name, others or row)}",
                "Correct data.columns, or mend the row",
            )


def read(row: dict, columns: Columns) -> Triplets:
    """Read one row of a query, its positives and negatives.

    Raises:
        BadRow: a named column is absent, or holds no text.
    """
    refuse_missing(row, named({role: names for role, names in columns.items() if role != "negative"}))
    positives = [text for name in named({"positive": columns["positive"]}) for text in many_texts(row, name)]
    others = [
        name for name in named({"negative": columns.get("negative", [])}) if row.get(name) not in (None, "")
    ]  # CSV's none
    negatives = [text for name in others for text in many_texts(row, name)]
    if not positives:
        raise BadRow("incomplete row", f"{columns['positive']} is empty, expected a text", "Remove the row")
    query_id = str(row[columns["query_id"]]) if "query_id" in columns else None
    return by_text(one_text(row, columns["query"]), positives, negatives, query_id=query_id)


def _in_order(name: str) -> tuple[str, int]:
    """Sort columns by number: negative_2 before negative_10."""
    return re.sub(r"\d+$", "", name), int((re.search(r"\d+$", name) or ["-1"])[0])
