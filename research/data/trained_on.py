"""Finds rows that are both measured and trained on: their metrics reward memorising, also in the choice of the best model."""

from research.data.chat_tokens import extract_prompt
from research.data.tables import is_table, splits_of
from research.progress import say
from research.runs.hashes import hash_json
from research.types import Examples


def count_trained(trained: Examples, collections: dict[str, Examples]) -> dict[str, int]:
    """Count the rows of each collection that are also trained on, and report them if there are any."""
    known = {_content_hash(row) for row in trained.rows} if collections else set()
    shared = {f"{name}_trained": sum(_content_hash(row) in known for row in data.rows) for name, data in collections.items()}
    for name, data in collections.items():
        if count := shared[f"{name}_trained"]:
            split = f" split {data.split!r}" if data.split and _has(data.source, data.split) else ""
            say(
                f"warning: {count:,} of the {len(data.rows):,} rows of {data.source}{split} ({name}) are trained on too; its "
                "numbers are too high"
            )
    return {name: count for name, count in shared.items() if count}


def _has(source: str, split: str) -> bool:
    return "[" in split or not is_table(source) or bool(splits_of(source))


def _content_hash(row: dict) -> str:
    """Hash a row's content: equal for a pair with swapped sides, and for a prompt in a column or as a common beginning."""
    if "chosen" not in row:
        return hash_json(row)
    row = extract_prompt(row)
    return hash_json([row["prompt"], sorted(hash_json(row[side]) for side in ("chosen", "rejected"))])
