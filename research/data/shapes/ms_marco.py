"""MS MARCO's rows as the hub has them: {"query", "passages": {"passage_text": [text], "is_selected": [0 or 1], "url"}}."""

from research.data.rows import short
from research.data.shapes.texts import BadRow, by_text, many_texts, numbers, one_text
from research.types import Triplets

READS = {"query", "passages"}
EXAMPLE = {"query": "a bee", "passages": {"passage_text": ["bees make honey", "flour is ground"], "is_selected": [1, 0]}}


def is_one(row: dict) -> bool:
    """Return whether a row has this shape."""
    return "query" in row and isinstance(row.get("passages"), dict)


def read(row: dict) -> Triplets:
    """Read one row: selected passages are positives, the others negatives; a text of both kinds is a positive.

    Raises:
        BadRow: not of this shape.
    """
    texts = many_texts(row["passages"], "passage_text")
    selected = numbers(row["passages"], "is_selected", len(texts))
    if len(selected) != len(texts) or not texts:
        raise BadRow(
            "wrong type",
            f"passages is {short(repr(row['passages']))}, expected passage_text and is_selected, a number each",
            "Mend the row",
        )
    positives = [text for text, number in zip(texts, selected, strict=True) if number > 0]
    return by_text(one_text(row, "query"), positives, [text for text in texts if text not in positives])
