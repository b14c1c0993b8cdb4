"""What a W&B Report is made from, and the names that it has in W&B: known without W&B's client."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from research.report.sheets import Sheet, slug
from research.report.study import Study
from research.report.wandb import keys
from research.runs.folder import RunFolder
from research.runs.hashes import hash_json
from research.types import Json

MOST_TITLE = 128  # characters that W&B takes


class Place(NamedTuple):
    """Where a report goes; the entity is "" as long as nobody has asked W&B for the default one."""

    entity: str
    project: str


class Content(NamedTuple):
    """What a report is made from, as the page is.

    Attributes:
        title, finding: of the page.
        notes: what must be known before the numbers.
        tables: (title, Markdown) of what is no study's.
        sheets: a study's tables.
        figures: (name, title, caption) of a study's figures.
        study: groups of trainings; None where nothing is compared over seeds.
        folders: of all runs, in the order of the report.
        metrics: logged by the trainings; of a report without a study.
    """

    title: str
    finding: str
    notes: list[str]
    tables: list[tuple[str, str]]
    sheets: list[tuple[Sheet, str]]
    figures: list[tuple[str, str, str]]
    study: Study | None
    folders: list[Path]
    metrics: list[str]


def run_ids(folders: Iterable[Path]) -> dict[str, Path]:
    """Map W&B's id to the folder, of the runs that have one."""
    return {id: folder for folder in folders if (id := keys.run_id(folder))}


def report_run(content: Content) -> str:
    """Return the id of the W&B run that carries tables and figures; the same report gets the same id."""
    identity = [
        content.title,
        content.finding,
        content.notes,
        content.tables,
        [text for _, text in content.sheets],
        sorted(run_ids(content.folders)),
    ]
    return f"report-{hash_json(identity)[:12]}"


def artifact_name(content: Content) -> str:
    """Return the name of the report's artifact, whose versions follow each other as the study grows."""
    return f"report-{slug(content.title)}"[:MOST_TITLE]


def media_key(name: str) -> str:
    """Return the key under which a figure is logged."""
    return f"figures/{slug(name)}"


def provenance(folders: Iterable[Path]) -> dict[str, Json]:
    """Collect what the runs were made from, each value once: commits (+ where code had local changes), data, models, ids."""
    folders = list(folders)
    records = [run.provenance for run in map(RunFolder, folders) if run.is_begun]

    def values(of: Callable[[dict], str | None]) -> list[str]:
        return list(dict.fromkeys(value for record in records if (value := of(record))))

    def data(record: dict) -> str:
        hashes = record.get("data")
        return json.dumps(hashes, sort_keys=True) if isinstance(hashes, dict) else str(hashes or "")

    return {
        "runs": len(folders),
        "run_ids": sorted(run_ids(folders)),
        "git_commits": values(
            lambda record: record.get("git_commit") and record["git_commit"] + "+" * bool(record.get("git_dirty"))
        ),
        "data": values(data),
        "models": values(lambda record: record.get("model_hash") or ", ".join(map(str, (record.get("models") or {}).values()))),
        "packages": values(lambda record: ", ".join(f"{name} {v}" for name, v in (record.get("packages") or {}).items() if v)),
    }
