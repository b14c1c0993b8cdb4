"""A report as a W&B Report: the page's words and tables, and panels over the runs that they are made from.

It is built without a network; see publish.py for what sends it. Ids that the client would draw at random are made
from their places, so that the same runs give the same bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr

from research.report.markdown import escape
from research.report.wandb import panels
from research.report.wandb.content import MOST_TITLE, Content, Place, media_key, provenance, report_run
from research.types import Json

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import BlockTypes

FOLDED = ("runs",)  # sheets that are long: under a heading that opens
FIRST = ("claims",)


def build(content: Content, place: Place, online: bool = False) -> wr.Report:
    """Build the report with W&B's client.

    Args:
        content: what is in it.
        place: where it goes.
        online: whether the run sets name their project: the client then asks W&B for the project's number.
    """

    def run_set(name: str, ids: Iterable[str], groupby: Iterable[str] = ()) -> wr.Runset:
        where = {"entity": place.entity, "project": place.project} if online else {}
        # ascending by name, not by time: a run that is uploaded again keeps its place
        return wr.Runset(
            name=name,
            filters=expr.And(expr.Metric("ID").isin(sorted({*ids}))),
            order=[wr.OrderBy("Name", True)],
            groupby=[f"config.{key}" for key in groupby],
            **where,
        )

    blocks: list[BlockTypes] = [wr.TableOfContents(), wr.P(content.finding)]
    if content.notes:
        blocks += [wr.H2("Before the numbers"), wr.UnorderedList(list(content.notes))]
    sheets = sorted(content.sheets, key=lambda item: (item[0].name not in FIRST, item[0].name in FOLDED))
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


def serialised(report: wr.Report) -> dict[str, Json]:
    """Return what the client sends, with the specification as an object: `spec` is what upsertView gets as text."""
    model = report._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {
        "displayName": model.display_name,
        "description": model.description,
        "entityName": model.project.entity_name,
        "projectName": model.project.name,
        "spec": spec,
    }


# ---- parts ----------------------------------------------------------------------------------------------------------


def _provenance_table(folders: list[Path]) -> str:
    facts = provenance(folders)
    rows = [("runs", str(facts["runs"])), ("W&B ids", ", ".join(facts["run_ids"]) or "none")]
    names = {"git_commits": "git commit", "data": "data", "models": "base model, sha256", "packages": "packages"}
    rows += [(title, value) for name, title in names.items() for value in facts[name]]
    return "\n".join(["| what | value |", "| :-- | :-- |", *(f"| {name} | {escape(value)} |" for name, value in rows)])


def _markdown(text: str) -> str:
    """Escape dollar signs: W&B's Markdown takes $…$ for a formula."""
    return text.replace("$", r"\$")


def _number(report: wr.Report) -> None:
    """Give panels and run sets ids by their places."""
    grids = [block for block in report.blocks if hasattr(block, "runsets")]
    for i, grid in enumerate(grids):
        for kind, parts in (("set", grid.runsets), ("panel", grid.panels)):
            for j, part in enumerate(parts):
                part._id = hashlib.sha256(f"{i} {kind} {j}".encode()).hexdigest()[:12]
