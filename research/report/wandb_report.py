"""A report as a W&B Report: the page's words and tables, and panels over the very runs that they are made from.

It is built without a network; see wandb_publish.py for what sends it. Ids that the client would draw at random are made
from their places, so that the same runs give the same bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from research.report import wandb_keys as keys
from research.report import wandb_panels as panels
from research.report.markdown import escape
from research.report.sheets import Sheet, slug
from research.report.study import Study
from research.runs.hashes import hash_json
from research.runs.layout import MARKER
from research.runs.reading import read_json

MOST_TITLE = 128  # characters that W&B takes
FOLDED = ("runs",)  # sheets that are long: under a heading that opens
FIRST = ("claims",)


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


def build(content: Content, place: Place, online: bool = False) -> Any:
    """The report, a wandb_workspaces.reports.v2.Report.

    Args:
        content: what is in it.
        place: where it goes.
        online: whether the run sets name their project: the client then asks W&B for the project's number.
    """
    import wandb_workspaces.reports.v2 as wr

    def run_set(name: str, ids: Iterable[str], groupby: Iterable[str] = ()) -> wr.Runset:
        from wandb_workspaces import expr

        where = {"entity": place.entity, "project": place.project} if online else {}
        # ascending by name, not by time: a run that is uploaded again keeps its place
        return wr.Runset(
            name=name,
            filters=expr.And(expr.Metric("ID").isin(sorted({*ids}))),
            order=[wr.OrderBy("Name", True)],
            groupby=[f"config.{key}" for key in groupby],
            **where,
        )

    blocks: list = [wr.TableOfContents(), wr.P(content.finding)]
    if content.notes:
        blocks += [wr.H2("Before the numbers"), wr.UnorderedList(list(content.notes))]
    sheets = sorted(content.sheets, key=lambda one: (one[0].name not in FIRST, one[0].name in FOLDED))
    for sheet, text in sheets:
        block = wr.MarkdownBlock(_markdown(text))
        if sheet.name in FOLDED:
            blocks.append(wr.H2(sheet.title, collapsed_blocks=[block]))
        else:
            blocks += [wr.H2(sheet.title), block]
    for title, text in content.tables:
        blocks += [wr.H2(title), wr.MarkdownBlock(_markdown(text))]
    if content.figures:
        shown = [
            wr.MediaBrowser(
                title=title,
                media_keys=[media_key(name)],
                num_columns=1,
                layout=wr.Layout(x=12 * (i % 2), y=10 * (i // 2), w=12, h=10),
            )
            for i, (name, title, _) in enumerate(content.figures)
        ]
        blocks += [
            wr.H2("Figures"),
            wr.PanelGrid(runsets=[run_set("this report", [report_run(content)])], panels=shown),
            wr.UnorderedList([f"{title}. {caption}" for _, title, caption in content.figures]),
        ]
    blocks += panels.blocks(content.study, content.folders, content.metrics, run_set)
    blocks += [wr.H2("Provenance"), wr.MarkdownBlock(_markdown(_provenance_table(content.folders)))]
    title = content.title if len(content.title) <= MOST_TITLE else content.title[: MOST_TITLE - 1] + "…"
    report = wr.Report(
        project=place.project, entity=place.entity, title=title, description=content.finding, blocks=blocks, width="fixed"
    )
    _number(report)
    return report


def serialised(report: Any) -> dict[str, Any]:
    """What the client sends, with the specification as an object: `spec` is what upsertView gets as text."""
    model = report._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {
        "displayName": model.display_name,
        "description": model.description,
        "entityName": model.project.entity_name,
        "projectName": model.project.name,
        "spec": spec,
    }


def run_ids(folders: Iterable[Path]) -> dict[str, Path]:
    """W&B's id → folder, of the runs that have one."""
    return {id: folder for folder in folders if (id := keys.run_id(folder))}


def report_run(content: Content) -> str:
    """The id of the W&B run that carries tables and figures: the same report's is the same run again."""
    made = [
        content.title,
        content.finding,
        content.notes,
        content.tables,
        [text for _, text in content.sheets],
        sorted(run_ids(content.folders)),
    ]
    return f"report-{hash_json(made)[:12]}"


def artifact_name(content: Content) -> str:
    """Of the report's artifact, whose versions follow each other as the study grows."""
    return f"report-{slug(content.title)}"[:MOST_TITLE]


def media_key(name: str) -> str:
    """Under which a figure is logged."""
    return f"figures/{slug(name)}"


def provenance(folders: Iterable[Path]) -> dict[str, Any]:
    """What the runs were made from, each value once: commits (+ where the code had uncommitted changes), data, models, ids."""
    folders = list(folders)
    made = [read_json(folder / MARKER) for folder in folders if (folder / MARKER).is_file()]
    made = [one for one in made if isinstance(one, dict)]

    def values(of: Any) -> list[str]:
        return list(dict.fromkeys(value for one in made if (value := of(one))))

    def data(one: dict) -> str:
        held = one.get("data")
        return json.dumps(held, sort_keys=True) if isinstance(held, dict) else str(held or "")

    return {
        "runs": len(folders),
        "run_ids": sorted(run_ids(folders)),
        "git_commits": values(lambda one: one.get("git_commit") and one["git_commit"] + "+" * bool(one.get("git_dirty"))),
        "data": values(data),
        "models": values(lambda one: one.get("model_hash") or ", ".join(map(str, (one.get("models") or {}).values()))),
        "packages": values(lambda one: ", ".join(f"{name} {v}" for name, v in (one.get("packages") or {}).items() if v)),
    }


# ---- parts ----------------------------------------------------------------------------------------------------------


def _provenance_table(folders: list[Path]) -> str:
    found = provenance(folders)
    rows = [("runs", str(found["runs"])), ("W&B ids", ", ".join(found["run_ids"]) or "none")]
    names = {"git_commits": "git commit", "data": "data", "models": "base model, sha256", "packages": "packages"}
    rows += [(title, value) for name, title in names.items() for value in found[name]]
    return "\n".join(["| what | value |", "| :-- | :-- |", *(f"| {name} | {escape(value)} |" for name, value in rows)])


def _markdown(text: str) -> str:
    """W&B's Markdown takes $…$ for a formula."""
    return text.replace("$", r"\$")


def _number(report: Any) -> None:
    """Give panels and run sets ids by their places."""
    grids = [block for block in report.blocks if hasattr(block, "runsets")]
    for i, grid in enumerate(grids):
        for kind, parts in (("set", grid.runsets), ("panel", grid.panels)):
            for j, part in enumerate(parts):
                part._id = hashlib.sha256(f"{i} {kind} {j}".encode()).hexdigest()[:12]
