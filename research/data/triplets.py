"""tevatron's training JSONL, which `research mine` writes: one query with positive and negative passages on each line."""

import json
from collections.abc import Iterable
from pathlib import Path

from research.data.rows import BadRows, identifier, is_finite, short, string
from research.runs.files import atomic_write
from research.types import Document, Triplets


def read_triplet(row: dict, where: str, bad: BadRows) -> Triplets | None:
    """Read one row of tevatron's training JSONL; None if it is skipped."""
    scores: dict[str, float] = {}
    positions: dict[str, int] = {}
    query_id = identifier(row, ("query_id",), where, bad)
    query = string(row, "query", where, bad)
    positives = _passages(row, "positive_passages", where, bad, scores, {})
    negatives = _passages(row, "negative_passages", where, bad, scores, positions)
    if query_id is None or query is None or positives is None or negatives is None:
        return None
    if not query.strip() or not positives:
        bad.report(
            where,
            "incomplete triplet",
            f"query {query_id!r} lacks a text or a positive passage",
            "Expected a query text and one or more positive_passages; mend or remove the row",
        )
    elif both := positives.keys() & negatives.keys():
        bad.report(
            where, "contradiction", f"passage {min(both)!r} is both positive and negative", "Remove it from one of the lists"
        )
    else:
        return Triplets(query_id, query, positives, negatives, scores or None, positions or None)
    return None


def _passages(
    row: dict, key: str, where: str, bad: BadRows, scores: dict[str, float], positions: dict[str, int]
) -> dict[str, Document] | None:
    """Read the passages of one list by id; put their scores and ranks into `scores` and `positions`."""
    passages = row.get(key, [])
    if not isinstance(passages, list) or not all(isinstance(p, dict) for p in passages):
        bad.report(where, "wrong type", f"{key} is {short(repr(passages))}, expected a list of objects", "Mend the row")
        return None
    docs: dict[str, Document] = {}
    for passage in passages:
        doc_id = identifier(passage, ("docid",), where, bad)
        title = string(passage, "title", where, bad)
        text = string(passage, "text", where, bad)
        if doc_id is None or title is None or text is None:
            return None
        if not title.strip() and not text.strip():
            bad.report(where, "empty passage", f"passage {doc_id!r} of {key} has neither title nor text", "Remove it")
            return None
        if doc_id in docs:
            bad.report(where, "duplicate passage", f"passage {doc_id!r} is in {key} twice", "Keep one")
            return None
        score, position = passage.get("score"), passage.get("rank")
        if score is not None and not is_finite(score):
            bad.report(
                where,
                "wrong type",
                f"score of passage {doc_id!r} is {short(repr(score))}, expected a finite number",
                "Mend the row",
            )
            return None
        if position is not None and (type(position) is not int or position < 1):
            bad.report(
                where,
                "wrong type",
                f"rank of passage {doc_id!r} is {short(repr(position))}, expected a whole number from 1 up",
                "Mend the row",
            )
            return None
        if score is not None:
            scores[doc_id] = float(score)
        if position is not None:
            positions[doc_id] = position
        docs[doc_id] = Document(title, text)
    return docs


def write_triplets(path: Path, triplets: Iterable[Triplets]) -> None:
    """Write tevatron's training JSONL, atomically. Nine digits keep every float32 score as it is."""

    def passages(docs: dict[str, Document], row: Triplets) -> list[dict]:
        written = []
        for doc_id, doc in docs.items():
            passage: dict = {"docid": doc_id, "title": doc.title, "text": doc.text}
            if row.positions and doc_id in row.positions:
                passage["rank"] = row.positions[doc_id]
            if row.scores and doc_id in row.scores:
                passage["score"] = float(f"{row.scores[doc_id]:.9g}")
            written.append(passage)
        return written

    with atomic_write(path) as stream:
        for row in triplets:
            stream.write(
                json.dumps(
                    {
                        "query_id": row.query_id,
                        "query": row.query,
                        "positive_passages": passages(row.positives, row),
                        "negative_passages": passages(row.negatives, row),
                    },
                    ensure_ascii=False,
                )
                + "\n"
            )
