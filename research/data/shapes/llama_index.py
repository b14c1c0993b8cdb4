"""LlamaIndex's pairs, one object for all: {"queries": {id: text}, "corpus": {id: text}, "relevant_docs": {query id: [id]}}."""

from research.data.rows import short
from research.data.shapes.texts import BadRow

NEEDS = {"queries", "corpus", "relevant_docs"}
EXAMPLE = {"queries": {"q1": "a bee"}, "corpus": {"d1": "bees make honey"}, "relevant_docs": {"q1": ["d1"]}}


def rows_of(row: dict) -> list[dict]:
    """Make a row of columns for each query.

    Raises:
        BadRow: not of this shape, or an id without a text.
    """
    for name in sorted(NEEDS):
        if not isinstance(row[name], dict):
            raise BadRow("wrong type", f"{name} is {short(repr(row[name]))}, expected an object by ids", "Mend the file")
    rows = []
    for query, docs in row["relevant_docs"].items():
        docs = docs if isinstance(docs, list) else [docs]
        for name, key in (("queries", query), *(("corpus", doc) for doc in docs)):
            if not isinstance(key, str) or not isinstance(row[name].get(key), str):
                raise BadRow(
                    "no text",
                    f"{name} has no text for {key!r}, which relevant_docs names; expected one for each",
                    "Mend the file",
                )
        rows.append({"anchor": row["queries"][query], "positive": [row["corpus"][doc] for doc in docs], "negative": []})
    return rows
