"""Per-example values and answers of runs, as many as a page can carry."""

import hashlib
import json
from collections.abc import Sequence

from research.report.entries import Entry
from research.types import Json

VALUES = 1_400_000  # bytes of a page for values
TEXTS = 1_000_000  # bytes of a page for texts
LONGEST = 1_200  # characters of a text
DIGITS = 4  # significant


def outputs(entries: Sequence[Entry], metric: str | None) -> dict[str, Json]:
    """Collect what the explorer compares example by example.

    All examples of the first metric of each split where they fit; else those that come first by a hash of their id, so that no
    result decides. Other metrics have the same examples, as many metrics as fit. Texts of the examples on which the runs
    differ most and of others in turn.

    Args:
        entries: of the explorer.
        metric: that stands first.

    Returns:
        {"ids": …, "of": how many there are, "metrics": {metric: for each entry a value for each id, or null},
        "asked": {position of an id: [text, reference]}, "answers": for each entry {position: text's number}, "texts": …,
        "left": metrics that did not fit}; {} where no run has examples.
    """
    names = list(dict.fromkeys(name for entry in entries for name in entry.run.examples))
    names.sort(key=lambda name: name != metric)  # stable: the others as the runs have them
    if not names:
        return {}
    every = list(dict.fromkeys(example for entry in entries for values in entry.run.examples.values() for example in values))
    first: dict[str, str] = {}  # split → its metric that stands first
    for name in names:
        first.setdefault(name.rpartition("/")[0], name)
    known = {example for name in first.values() for entry in entries for example in entry.run.examples.get(name, ())}
    ids = [example for example in every if example in known]
    cost = sum(_size(_values(entries, name, ids)) for name in first.values())
    if cost > VALUES:
        keep = set(sorted(ids, key=_hash)[: max(1, len(ids) * VALUES // cost)])
        ids = [example for example in ids if example in keep]
    by_metric, left, spent = {}, [], 0
    for name in names:
        values = _values(entries, name, ids)
        spent += _size(values)
        if spent > VALUES and by_metric:
            left.append(name)
            spent -= _size(values)
        else:
            by_metric[name] = values
    texts = _texts(entries, ids, [line for name in first.values() for line in by_metric.get(name, ())])
    return {"ids": ids, "of": len(known), "metrics": by_metric, "left": left, **texts}


def _values(entries: Sequence[Entry], name: str, ids: list[str]) -> list[list[float | None] | None]:
    return [
        [_round(entry.run.examples[name].get(example)) for example in ids] if entry.run.examples.get(name) else None
        for entry in entries
    ]


def _texts(entries: Sequence[Entry], ids: list[str], values: list[list[float | None] | None]) -> dict[str, Json]:
    """Collect questions and answers, each text once."""
    asked: dict[int, list[str]] = {}
    answers: list[dict[int, int]] = [{} for _ in entries]
    texts: dict[str, int] = {}
    spent = 0
    for i in _in_turn(ids, values):
        shown = next((entry.asked[ids[i]] for entry in entries if ids[i] in entry.asked), None)
        if shown is None:
            continue
        answered = [(k, _cut(entry.answers[ids[i]])) for k, entry in enumerate(entries) if ids[i] in entry.answers]
        new = dict.fromkeys(text for _, text in answered if text not in texts)
        question = [_cut(shown.text), _cut(shown.reference)]
        spent += _size(question) + sum(map(_size, new)) + 10 * len(answered)
        if spent > TEXTS:
            break
        asked[i] = question
        for text in new:
            texts[text] = len(texts)
        for k, text in answered:
            answers[k][i] = texts[text]
    return {"asked": asked, "answers": answers, "texts": list(texts)}


def _in_turn(ids: list[str], values: list[list[float | None] | None]) -> list[int]:
    """List positions: that on which the runs differ most, the first by hash, the second most, …"""
    columns = [[line[i] for line in values if line is not None and line[i] is not None] for i in range(len(ids))]
    spread = [max(column) - min(column) if column else 0.0 for column in columns]
    differing = sorted(range(len(ids)), key=lambda i: (-spread[i], _hash(ids[i])))
    hashed = sorted(range(len(ids)), key=lambda i: _hash(ids[i]))
    return list(dict.fromkeys(i for pair in zip(differing, hashed, strict=True) for i in pair))


def _round(value: float | None) -> float | None:
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _hash(example: str) -> str:
    return hashlib.sha256(example.encode("utf-8", "replace")).hexdigest()


def _size(value: Json) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
