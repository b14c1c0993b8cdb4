"""What the page's explorer lists: trainings of a study, and systems of a comparison, in one shape."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from research.report.page.examples import SNIPPET
from research.report.systems import Row, Systems
from research.runs.curves import Curve, curves_of
from research.runs.folder import RunFolder
from research.runs.record import FINISHED, RunRecord

Lines = Callable[[Path], list[dict[str, Any]]]


class Shown(NamedTuple):
    """What was asked, and what is right.

    Attributes:
        text: query or prompt.
        reference: expected answer, or titles of the relevant documents.
    """

    text: str
    reference: str


class Entry(NamedTuple):
    """One line of the explorer.

    Attributes:
        name: unlike every other's.
        kind: training | system.
        state, error, seed: of a training; "" and None of a system.
        options: what it was made with, by dotted name.
        metrics: {"val/loss": …} of a training, {"ndcg@10": …} of a system.
        facts: parameters, seconds, milliseconds a query.
        examples: {metric: {query or example id: value}}; of a training the id is `val/3` or `test/3`, since both splits
            count their examples from 0.
        asked: {id: what was asked}, of the examples whose texts were kept.
        answers: {id: what it answered, or ranked first}.
        curves: {metric: (step, value)}, a step once.
        provenance: as its folder recorded it.
    """

    name: str
    kind: str
    state: str
    error: str
    seed: int | None
    options: dict[str, Any]
    metrics: dict[str, float]
    facts: dict[str, float]
    examples: dict[str, dict[str, float]]
    asked: dict[str, Shown]
    answers: dict[str, str]
    curves: dict[str, Curve]
    provenance: dict[str, Any]


def of_run(run: RunRecord, lines: Lines, answered: bool, metric: str = "") -> Entry:
    """A training.

    Args:
        run: as runs.table has it.
        lines: a run folder → lines of its curves, `{"step": 3, "train/loss": 2.1, …}`.
        answered: whether its answers are read.
        metric: of which a run that W&B keeps has a curve; each one more would be asked for.
    """
    if run.history is not None:
        curve = run.history(metric) if metric else []
        curves = {metric: curve} if curve else {}
    else:
        curves = curves_of(lines(run.path))
    examples = {
        name: {f"{name.partition('/')[0]}/{example}": value for example, value in values.items()}
        for name, values in run.examples.items()
        if values
    }
    asked, answers = _answers(RunFolder(run.path)) if answered and run.state in FINISHED else ({}, {})
    return Entry(
        run.name,
        "training",
        run.state,
        run.error,
        run.seed,
        run.options,
        run.metrics,
        run.facts,
        examples,
        asked,
        answers,
        curves,
        run.provenance,
    )


def _answers(folder: RunFolder) -> tuple[dict[str, Shown], dict[str, str]]:
    """Generated answers of a run's validation, and of its test where there was one."""
    asked, answers = {}, {}
    for split, result in (("val", folder.metrics), ("test", folder.test)):
        for example, one in (result.get("answers") or {}).items():
            asked[f"{split}/{example}"] = Shown(_text(one.get("prompt")), str(one.get("reference") or ""))
            answers[f"{split}/{example}"] = str(one.get("answer") or "")
    return asked, answers


def _text(prompt: Any) -> str:
    """A prompt as it is read: turns of a conversation below each other."""
    if not isinstance(prompt, list):
        return str(prompt or "")
    if len(prompt) == 1:
        return str(prompt[0].get("content", ""))
    return "\n\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in prompt)


def of_row(row: Row, runs: Systems) -> Entry:
    """A system: a stage of a retrieval."""
    folder = next(folder for folder in runs.folders if folder.name == row.run)
    kept = folder.examples or {"queries": {}, "docs": {}, "relevant": {}}
    asked, answers = {}, {}
    for query, found in row.top.items():
        relevant = kept["relevant"].get(query, [])
        titles = [_document(doc, kept["docs"]) for doc in relevant[:3]]
        asked[query] = Shown(kept["queries"].get(query, ""), "\n".join(titles))
        first = next(iter(found), None)
        verdict = "✓ relevant" if first in relevant else "✗ not relevant"
        answers[query] = f"{verdict}: {_document(first, kept['docs'])}" if first is not None else "found no document"
    options = {name: value for name, value in row.facts.items() if not _measured(name)}
    facts = {name: value for name, value in row.facts.items() if _measured(name) and isinstance(value, int | float)}
    return Entry(
        f"{row.run}/{row.stage}",
        "system",
        "",
        "",
        None,
        {"system": row.label, **options},
        row.means,
        facts,
        row.per_query,
        asked,
        answers,
        {},
        folder.provenance,
    )


def _measured(name: str) -> bool:
    return name.endswith(("seconds", "ms_per_query", "per_second"))


def _document(doc: str, docs: dict[str, dict[str, str]]) -> str:
    """A document in a line or two."""
    known = docs.get(doc, {"title": "", "text": ""})
    text = known["text"][: SNIPPET // 2]
    return " – ".join(part for part in (known["title"], text) if part) or doc
