"""Lines of sentence-transformers' embedding-training-data: ["anchor", "positive", "negative" …], and {"set": [text, …]}."""

from collections.abc import Iterator

from research.data.rows import short
from research.data.shapes import llama_index
from research.data.shapes.texts import BadRow, many_texts
from research.types import Json

PAIR, SET = ["a bee", "bees make honey", "flour is ground"], {"set": ["a bee", "bees", "an insect that makes honey"]}
"""Examples."""


def unfolded(row: Json) -> Iterator[dict]:
    """Yield the rows of columns that a row stands for.

    An array is one row; a set one for each text, with all others as its positives; LlamaIndex's object one for each query; any
    other row is its own.

    Raises:
        BadRow: an array or set that is not of two texts or more.
    """
    if isinstance(row, list):
        if len(row) < 2 or not all(isinstance(text, str) for text in row):
            raise BadRow(
                "wrong type",
                f"{short(repr(row))} is a JSON array, expected a query, a positive and any negatives, all of them texts",
                "Mend the row",
            )
        yield {"anchor": row[0], "positive": row[1], "negative": row[2:]}
    elif row.keys() == {"set"}:
        texts = list(dict.fromkeys(many_texts(row, "set")))
        if len(texts) < 2:
            raise BadRow(
                "incomplete row",
                f"set is {short(repr(row['set']))}, expected two texts or more that mean the same",
                "Remove the row",
            )
        for text in texts:
            yield {"anchor": text, "positive": [other for other in texts if other != text], "negative": []}
    elif row.keys() >= llama_index.NEEDS:
        yield from llama_index.rows_of(row)
    else:
        yield {name: value for name, value in row.items() if value is not None}
