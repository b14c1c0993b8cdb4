"""Retrieval's run folders → systems, a row a stage. Numbers of different data never meet on one page: they are refused."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError, suggest_file
from research.runs.folder import RunFolder
from research.runs.layout import PROVENANCE
from research.runs.table import name_folders
from research.types import Json

MEASURED = ("seconds", "ms_per_query", "per_second")
"""Endings of facts that differ each time; the others decide what a stage is."""


class Row(NamedTuple):
    """One system: a stage of a run.

    Attributes:
        run, stage: where it comes from.
        label: its name, unlike every other row's.
        facts: what the stage recorded: model, hash, index, timings.
        means: {metric: mean over queries}.
        per_query: {metric: {query id: value}}.
        top: {query id: the documents ranked first}, for the queries whose texts the run saved.
        also: other `run/stage` that hold the same stage with the same values.
        leaks: whether a model of it was trained on some of the queries.
    """

    run: str
    stage: str
    label: str
    facts: dict[str, Json]
    means: dict[str, float]
    per_query: dict[str, dict[str, float]]
    top: dict[str, list[str]]
    also: tuple[str, ...] = ()
    leaks: bool = False


class Systems(NamedTuple):
    """The systems of a page.

    Attributes:
        folders, rows: in the order of the page.
        metric: the one whose differences are tested.
        baseline: label of the row that all others are tested against; None: each against the row above.
    """

    folders: list[RunFolder]
    rows: list[Row]
    metric: str
    baseline: str | None = None

    def labels_of(self, wanted: str) -> list[str]:
        """Find the rows that a name fits: the label, with its brackets and run or without, run/stage, run, stage or model."""
        levels = [
            {row.label: (row.label, f"{row.run}/{row.stage}", row.run) for row in self.rows},
            {row.label: (_plain(row.label),) for row in self.rows},
            {row.label: (_plain(row.label).partition(" · ")[0], row.stage, row.facts.get("model")) for row in self.rows},
        ]
        for level in levels:
            for same in (lambda name: name == wanted, lambda name: str(name).lower() == wanted.lower()):
                if fitting := [label for label, names in level.items() if any(map(same, names))]:
                    return fitting
        return []

    @property
    def data(self) -> dict[str, Json]:
        """Return source, split, queries, documents: equal in every folder but for the spelling of the source."""
        return self.folders[0].metrics


def read_systems(paths: list[Path], names: dict[Path, str] | None = None) -> Systems:
    """Read run folders of `retrieve` (or `evaluate --out`) that hold the same data and split.

    Args:
        paths: run folders, in the order of the rows wanted.
        names: as `name_folders` gave them to these and others.

    Raises:
        UserError: a folder that is missing, given twice, no run folder, half-written or damaged; different data.
    """
    names = names or name_folders(paths)
    folders = [_read(path, names[path]) for path in paths]
    _refuse_mixed(folders)
    rows = _distinct_labels(_merge([row for folder in folders for row in _rows(folder)]))
    metric = next((name for name in rows[0].means if all(name in row.means for row in rows)), None)
    if metric is None:
        known = "; ".join(f"{row.label}: {', '.join(row.means)}" for row in rows)
        raise UserError(
            f"the runs have no metric in common ({known}); expected one of each or more. Run `research "
            "retrieve` again with the same --metrics."
        )
    if any(row.per_query[metric].keys() != rows[0].per_query[metric].keys() for row in rows):
        raise UserError(
            f"the runs say they hold the same data, yet their {metric} covers different queries: a "
            "metrics.json was changed. Make the runs again."
        )
    return Systems(folders, rows, metric)


def _plain(label: str) -> str:
    """Leave out what stands in brackets: all-MiniLM-L6-v2 (exact) → all-MiniLM-L6-v2."""
    return re.sub(r" \([^()]*\)", "", label)


# ---- reading --------------------------------------------------------------------------------------------------------


def _read(path: Path, name: str) -> RunFolder:
    folder = RunFolder(path, name)
    if not path.is_dir():
        what, near = ("is a file", "") if path.exists() else ("does not exist", suggest_file(path))
        raise UserError(f"run folder {path} {what}; expected a folder that `research retrieve --out` wrote, or `fit`.{near}")
    if not folder.is_begun:
        raise UserError(
            f"{path} is not a run folder (no {PROVENANCE}); expected one that `research retrieve --out` wrote, or `fit`."
        )
    folder.check_stages()
    return folder


def _refuse_mixed(folders: list[RunFolder]) -> None:
    by_data: dict[tuple[str, str], list[str]] = {}
    for folder in folders:
        by_data.setdefault((folder.metrics["data"], folder.metrics["split"]), []).append(folder.name)
    if len(by_data) > 1:
        source = {folder.name: folder.metrics["source"] for folder in folders}
        lines = (
            f"{', '.join(names)}: {source[names[0]]} split {split} (data {data[:12]})"
            for (data, split), names in by_data.items()
        )
        raise UserError(
            "the runs hold different data, whose numbers cannot be compared: "
            + "; ".join(lines)
            + ". Make one report for each."
        )


# ---- rows -----------------------------------------------------------------------------------------------------------


def _rows(folder: RunFolder) -> list[Row]:
    tops, chosen = folder.examples.get("top", {}), folder.metrics.get("mix")
    chosen_on = {"mix_split": chosen["split"]} if isinstance(chosen, dict) and "split" in chosen else {}
    leaking = _leaking(folder.metrics)
    return [
        Row(
            folder.name,
            name,
            stage["facts"].get("label", name),
            stage["facts"] | (chosen_on if "mix" in stage["facts"] else {}),
            stage["metrics"],
            stage["per_query"],
            tops.get(name, {}),
            leaks=name in leaking,
        )
        for name, stage in folder.metrics["stages"].items()
    ]


def _leaking(metrics: dict[str, Json]) -> set[str]:
    """Find the stages of a model that was trained on the queries; those that join stages leak with any of them."""
    stages: set[str] = set()
    for name, stage in metrics["stages"].items():
        own = any(warning.startswith(f"{stage['facts'].get('model')} ") for warning in metrics.get("warnings") or ())
        if own or (name in ("fused", "reranked") and stages):
            stages.add(name)
    return stages


def _merge(rows: list[Row]) -> list[Row]:
    """Keep a stage that several runs hold with the same settings and values once, at its first place."""
    distinct: list[Row] = []
    for row in rows:
        twin = next((i for i, other in enumerate(distinct) if other.run != row.run and _same_stage(other, row)), None)
        if twin is None:
            distinct.append(row)
        else:
            distinct[twin] = distinct[twin]._replace(also=(*distinct[twin].also, f"{row.run}/{row.stage}"))
    return distinct


def settings(facts: dict[str, Json]) -> dict[str, Json]:
    """Return the facts that decide what a stage is; the others were measured, and differ each time."""
    return {key: value for key, value in facts.items() if not key.endswith(MEASURED)}


def code_of(folder: RunFolder, stage: str) -> str | None:
    """Return the commit that made a stage, even if a later command wrote the folder; None if it is unknown or was changed."""
    stages = folder.provenance.get("stages")
    origin = (stages.get(stage) if isinstance(stages, dict) else None) or folder.provenance
    return origin.get("git_commit") if origin.get("git_dirty") is False else None


def _same_stage(a: Row, b: Row) -> bool:
    """Return whether two rows are one stage: the same settings, label and values."""
    return settings(a.facts) == settings(b.facts) and a.label == b.label and a.per_query == b.per_query


def _distinct_labels(rows: list[Row]) -> list[Row]:
    """Add the run's name to a label that two rows share, and the stage's where that is not enough."""
    for suffix in ("run", "stage"):
        counts = Counter(row.label for row in rows)
        rows = [row._replace(label=f"{row.label} · {getattr(row, suffix)}") if counts[row.label] > 1 else row for row in rows]
    return rows
