"""Queries in folds, so that a retriever can rank documents for queries that it was not trained on (cross-fitting)."""

import hashlib
import re

from research.errors import UserError
from research.types import Qrels


def fold_of(relevant: dict[str, int], folds: int) -> int:
    """The fold of a query: by its smallest relevant doc id, so that all queries of a document lie in one fold.

    Args:
        relevant: the query's judgements; one is > 0.
        folds: 2 or more.

    Returns:
        0 to folds − 1, the same on every machine.
    """
    first = min(doc for doc, grade in relevant.items() if grade > 0)
    digest = hashlib.sha1(first.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") % folds


def parse_fold(text: str) -> tuple[int, int]:
    """`0/2` → (0, 2).

    Raises:
        UserError: not of that form, or a fold that is not there.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]) or int(match[2]) < 2:
        raise UserError(f"fold {text!r}; expected FOLD/FOLDS with FOLDS 2 or more, counted from 0: 0/2 or 1/2, say. "
                        "Correct it.")  # fmt: skip
    return int(match[1]), int(match[2])


def in_fold(qrels: Qrels, fold: int, folds: int) -> Qrels:
    """The judgements of one fold's queries; queries without a relevant document are in none."""
    return {
        query: docs
        for query, docs in qrels.items()
        if any(grade > 0 for grade in docs.values()) and fold_of(docs, folds) == fold
    }
