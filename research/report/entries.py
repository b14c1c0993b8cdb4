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
        run: a training; of a system its stage in the same shape, without a state and a seed. Its examples are known by
            `val/3` or `test/3` where it is a training, since both splits count from 0.
        asked: {id: what was asked}, of the examples whose texts were kept.
        answers: {id: what it answered, or ranked first}.
        curves: {metric: (step, value)}, a step once.
    """

    run: RunRecord
    asked: dict[str, Shown]
    answers: dict[str, str]
    curves: dict[str, Curve]

    @property
    def kind(self) -> str:
        """training | system."""
        return "training" if self.run.state else "system"


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
    return Entry(run._replace(examples=examples), asked, answers, curves)


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
    record = RunRecord(
        name=f"{row.run}/{row.stage}",
        path=folder.path,
        state="",
        error="",
        sweep="",
        point="",
        seed=None,
        options={"system": row.label, **options},
        metrics=row.means,
        facts=facts,
        examples=row.per_query,
        made_of=("", "", ""),
        provenance=folder.provenance,
    )
    return Entry(record, asked, answers, {})


def _measured(name: str) -> bool:
    return name.endswith(("seconds", "ms_per_query", "per_second"))


def _document(doc: str, docs: dict[str, dict[str, str]]) -> str:
    """A document in a line or two."""
    known = docs.get(doc, {"title": "", "text": ""})
    text = known["text"][: SNIPPET // 2]
    return " – ".join(part for part in (known["title"], text) if part) or doc
