"""Queries in folds, so that a retriever can rank documents for queries that it was not trained on (cross-fitting)."""

import hashlib
import re
from collections.abc import Iterable, Mapping

from research.data.equality import normalise
from research.errors import UserError
from research.progress import say


def assign_folds(positives: Mapping[str, Iterable[str]], texts: Mapping[str, str], folds: int) -> dict[str, int]:
    """Assign a fold to every query, so that all queries of one document, and all with one text, are in the same fold.

    Queries that share a document or their text, also by way of others, are one group. A group's fold follows from the smallest
    of its doc ids, and so for a query whose documents nobody shares from its own.

    Args:
        positives: query id → its relevant documents, one or more.
        texts: of the queries.
        folds: 2 or more.

    Returns:
        query id → 0 to folds − 1, the same on every machine.
    """
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = node = parents[parents[node]]
        return node

    smallest: dict[tuple[str, str], str] = {}
    for query, docs in positives.items():
        for node in [("doc", doc) for doc in docs] + [("text", normalise(texts[query]))]:
            parents[root(node)] = root(("query", query))
    for query, docs in positives.items():
        group = root(("query", query))
        smallest[group] = min([*docs, *([smallest[group]] if group in smallest else [])])
    assigned = {query: fold_of({smallest[root(("query", query))]: 1}, folds) for query in positives}
    sizes = [0] * folds
    for fold in assigned.values():
        sizes[fold] += 1
    if max(sizes) > 2 * len(assigned) / folds:
        say(
            f"warning: the folds have {', '.join(f'{size:,}' for size in sizes)} queries: those that share a relevant document "
            "or their text stay together"
        )
    return assigned


def fold_of(relevant: dict[str, int], folds: int) -> int:
    """Return the fold of a group of queries, from its smallest relevant doc id.

    Args:
        relevant: judgements; one is > 0.
        folds: 2 or more.

    Returns:
        0 to folds − 1, the same on every machine.
    """
    first = min(doc for doc, grade in relevant.items() if grade > 0)
    digest = hashlib.sha1(first.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") % folds


def parse_fold(text: str) -> tuple[int, int]:
    """Parse a fold: `0/2` → (0, 2).

    Raises:
        UserError: not of that form, or a fold that is not there.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]) or int(match[2]) < 2:
        raise UserError(
            f"fold {text!r}; expected FOLD/FOLDS with FOLDS 2 or more, counted from 0: 0/2 or 1/2, say. Correct it."
        )
    return int(match[1]), int(match[2])
