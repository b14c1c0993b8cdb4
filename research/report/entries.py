"""What the page's explorer lists: trainings of a study, and systems of a comparison, in one shape."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from research.report.page.examples import SNIPPET
from research.report.systems import Row, Systems
from research.runs.curves import Curve, curves_of
from research.runs.folder import RunFolder
from research.runs.record import FINISHED, RunRecord
from research.types import Json

Lines = Callable[[Path], list[dict[str, Json]]]


class Shown(NamedTuple):
    """The text of an example, and its reference.

    Attributes:
        text: query or prompt.
        reference: expected answer, or titles of the relevant documents.
    """

    text: str
    reference: str


class Entry(NamedTuple):
    """One line of the explorer: a training, or a system.

    Attributes:
        run: a training; of a system its stage in the same shape, without a state and a seed. Its examples are known by
            `val/3` or `test/3` where it is a training, since both splits count from 0.
        asked: {id: query or prompt, with its reference}, of the examples whose texts the run saved.
        answers: {id: the answer, or the document ranked first}.
        curves: {metric: (step, value)}, a step once.
    """

    run: RunRecord
    asked: dict[str, Shown]
    answers: dict[str, str]
    curves: dict[str, Curve]

    @property
    def kind(self) -> str:
        """Return training | system."""
        return "training" if self.run.state else "system"


def of_run(run: RunRecord, lines: Lines, answered: bool, metric: str = "") -> Entry:
    """Make the entry of a training.

    Args:
        run: as runs.table has it.
        lines: a run folder → lines of its curves, `{"step": 3, "train/loss": 2.1, …}`.
        answered: whether its answers are read.
        metric: the one whose curve is read of a W&B run; W&B would be asked for each further curve.
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
    """Read generated answers of a run's validation, and of its test where there was one."""
    asked, answers = {}, {}
    for split, result in (("val", folder.metrics), ("test", folder.test)):
        for example, answer in (result.get("answers") or {}).items():
            asked[f"{split}/{example}"] = Shown(_text(answer.get("prompt")), str(answer.get("reference") or ""))
            answers[f"{split}/{example}"] = str(answer.get("answer") or "")
    return asked, answers


def _text(prompt: Json) -> str:
    """Return a prompt as it is read: turns of a conversation below each other."""
    if not isinstance(prompt, list):
        return str(prompt or "")
    if len(prompt) == 1:
        return str(prompt[0].get("content", ""))
    return "\n\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in prompt)


def of_row(row: Row, runs: Systems) -> Entry:
    """Make the entry of a system, a stage of a retrieval."""
    folder = next(folder for folder in runs.folders if folder.name == row.run)
    examples = folder.examples or {"queries": {}, "docs": {}, "relevant": {}}
    asked, answers = {}, {}
    for query, ranked in row.top.items():
        relevant = examples["relevant"].get(query, [])
        titles = [_document(doc, examples["docs"]) for doc in relevant[:3]]
        asked[query] = Shown(examples["queries"].get(query, ""), "\n".join(titles))
        first = next(iter(ranked), None)
        verdict = "✓ relevant" if first in relevant else "✗ not relevant"
        answers[query] = f"{verdict}: {_document(first, examples['docs'])}" if first is not None else "found no document"
    options = {name: value for name, value in row.facts.items() if not _is_measured(name)}
    facts = {name: value for name, value in row.facts.items() if _is_measured(name) and isinstance(value, int | float)}
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


def _is_measured(name: str) -> bool:
    return name.endswith(("seconds", "ms_per_query", "per_second"))


def _document(doc: str, docs: dict[str, dict[str, str]]) -> str:
    """Show a document in a line or two."""
    document = docs.get(doc, {"title": "", "text": ""})
    text = document["text"][: SNIPPET // 2]
    return " – ".join(part for part in (document["title"], text) if part) or doc
