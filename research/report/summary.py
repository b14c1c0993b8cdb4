"""What a report says for programs: report.json without its study."""

from collections.abc import Sequence
from pathlib import Path

from research.report import tables, training_words
from research.report.systems import Systems, code_of, read_systems, settings
from research.report.tables import Line
from research.report.training import Training
from research.types import Json


def summary(runs: Systems | None, lines: Sequence[Line], trainings: Sequence[Training]) -> dict[str, Json]:
    """Collect the page's numbers for programs, as report.json has them."""
    folders = {folder.name: folder for folder in runs.folders} if runs else {}
    rows = [
        {
            "label": line.row.label,
            "run": line.row.run,
            "stage": line.row.stage,
            "also": line.row.also,
            "metrics": line.row.means,
            "interval": [line.low, line.high],
            _comparison_key(line): line.against._asdict() | {"p_holm": line.p_holm} if line.against else None,
            "ms_per_query": line.row.facts.get("ms_per_query"),
            "settings": settings(line.row.facts),
            "code": code_of(folders[line.row.run], line.row.stage),
        }
        for line in lines
    ]
    data = {key: runs.data[key] for key in ("source", "split", "data", "queries", "documents")} if runs else {}
    return {
        "verb": "report",
        **data,
        "metric": runs.metric if runs else None,
        **({"baseline": runs.baseline} if runs and runs.baseline else {}),
        "rows": rows,
        "trainings": [training_words.summary(training) for training in trainings],
    }


def _comparison_key(line: Line) -> str:
    """Return what a row's test is against, as report.json names it."""
    return "against_baseline" if line.baseline else "against_row_above"


def rows_of(paths: list[Path]) -> dict[str, Json]:
    """Collect what report.json would hold of these retrievals.

    Raises:
        UserError: they cannot be read or compared.
    """
    runs = read_systems(paths)
    return summary(runs, tables.measure(runs), [])
