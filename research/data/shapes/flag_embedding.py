"""FlagEmbedding's rows: {"query", "pos": [text], "neg": [text], "pos_scores", "neg_scores"}."""

from research.data.rows import short
from research.data.shapes.texts import BadRow, by_text, listed, numbers, one_text
from research.types import Triplets

NEEDS = ("query", "pos")
READS = {"query", "pos", "neg", "pos_scores", "neg_scores", "prompt"}


def read(row: dict) -> Triplets:
    """Read one row, with the teacher's scores where it has them.

    Raises:
        BadRow: not of this shape, or a prompt of its own.
    """
    if row.get("prompt"):
        raise BadRow(
            "prompt of a row",
            f"prompt is {short(str(row['prompt']))}, expected none: a prompt belongs to the model, "
            "and stands before every query",
            "Remove it from the rows, and set model.query_prompt",
        )
    positives, negatives = listed(row, "pos"), listed(row, "neg")
    scores: dict[str, float] = {}
    for texts, column in ((positives, "pos_scores"), (negatives, "neg_scores")):
        scores |= dict(zip(texts, numbers(row, column, len(texts)), strict=False))
    if not positives:
        raise BadRow("incomplete row", "pos is empty, expected one text or more", "Remove the row")
    return by_text(one_text(row, "query"), positives, negatives, scores)
