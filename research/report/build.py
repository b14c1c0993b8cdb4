"""What `research report` does: run folders → tables, figures and texts → the files of a report, and a W&B Report."""

import itertools
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.progress import say
from research.report import explain, markdown, tables, training_words
from research.report.entries import of_row, of_run
from research.report.export import as_markdown, write_sheets, write_tidy
from research.report.figures import of_latency, training_curves
from research.report.figures.fit import COLUMN, PAGE, fitted
from research.report.figures.render import MISSING, can_draw, svg, write_figures
from research.report.figures.theme import Figure
from research.report.goals import is_lower, recorded
from research.report.notes import notes
from research.report.origin import origin
from research.report.page import html
from research.report.page.explorer import Explorer, explorer
from research.report.provenance import facts
from research.report.sheets import Sheet, distinct
from research.report.shown import Shown, read_shown
from research.report.spec import Spec
from research.report.subject import record_of
from research.report.summary import summary
from research.report.target import REPORT, files_of, open_target
from research.report.wandb import Content, Drawn, Publication, send
from research.runs.curves import read_lines
from research.runs.files import atomic_write, replace_files, write_json
from research.runs.printable import printable
from research.types import Json

EVERY_RUN, PLAIN = "runs", "plain"
ANSWERED = 60  # trainings at most, for a page to hold their answers


class Parts(NamedTuple):
    """What page, Markdown and W&B Report have in common.

    Attributes:
        title, finding: of the page.
        remarks: what must be known before the numbers.
        made_from: (label, value) of data, code and base model.
        lines, tables: of the retrievals.
        sheets: every pair of systems, and a study's tables.
        drawn: a study's figures with their SVG.
        columns: the same as narrow as a column of a paper, where they can be.
        latency: the figure of the retrievals for paper and phone, with its SVG.
        curves: of each training that is shown by itself.
        latex: booktabs | plain.
    """

    title: str
    finding: str
    remarks: list[str]
    made_from: list[tuple[str, str]]
    lines: list[tables.Line]
    tables: list[tables.Table]
    sheets: list[Sheet]
    drawn: Drawn
    columns: list[tuple[Figure, str] | None]
    latency: Drawn
    curves: list[Drawn]
    latex: str

    @property
    def figures(self) -> Drawn:
        """List each figure once, in the width of a page."""
        return [*self.drawn, *self.latency[:1], *itertools.chain(*self.curves)]


class Built(NamedTuple):
    """A report that was written.

    Attributes:
        page: the HTML file to open.
        counts: for programs.
        claims: as report.json has them.
        sent: facts about the W&B Report, by name.
        refused: why it was not published; the local report is complete.
        exit_code: 1 where a claim is broken.
    """

    page: Path
    counts: dict[str, Json]
    claims: list[dict[str, str]]
    sent: dict[str, str]
    refused: UserError | None
    exit_code: int


def build(paths: list[Path], spec: Spec, claims: Path | None, out: Path, publication: Publication | None) -> Built:
    """Make a report.

    Args:
        paths: run folders, sweeps, W&B's logs and places, in the order of the rows.
        spec: what to compare.
        claims: a file of claims to check.
        out: new or empty, or an earlier report.
        publication: the W&B Report to make of it; None makes none.

    Raises:
        UserError: runs that cannot be read or compared, or a folder that is not ours.
    """
    shown = read_shown(paths, spec, claims)
    study = shown.study
    if publication is not None and study and (foreign := [run.name for run in study.runs if run.history is not None]):
        raise UserError(
            f"--wandb makes a W&B Report of run folders, and {len(foreign)} of {len(study.runs)} runs are read "
            f"from W&B ({', '.join(foreign[:3])}); expected folders. Name them, or leave --wandb out."
        )
    open_target(out, REPORT, "report", "a report", "empty folder, or an earlier report")
    parts = _parts(shown, spec)
    _write(out, shown, parts, summary(shown.systems, parts.lines, shown.trainings) | _record(shown, spec))
    sent, refused = send(publication, out, _content(shown, parts), parts.figures)
    counts = {"rows": len(parts.lines), "trainings": len(shown.trainings)} | (study.counts if study else {})
    claim_records = study.summary["study"]["claims"] if study else []
    return Built(out / "index.html", counts, claim_records, sent, refused, study.exit_code if study else 0)


def _parts(shown: Shown, spec: Spec) -> Parts:
    """Compute the numbers, figures and texts that page, Markdown and W&B Report share."""
    study, systems = shown.study, shown.systems
    lines = tables.measure(systems) if systems else []
    pairs = tables.compare_pairs(lines, systems.metric) if systems else {}
    pairs_sheet = tables.pairs_sheet(lines, systems.metric, pairs) if systems else None
    system_tables = []
    if systems:
        first, metrics = tables.systems_table(lines, systems.metric), tables.metrics_table(systems.rows)
        system_tables = [table for table in (first, metrics, tables.cost_table(systems.rows)) if table is not None]
    if systems and not study and not can_draw():
        say(f"warning: {MISSING}")
    training_finding = study.finding if study else explain.untested(shown.trainings)
    made_from = origin(study.runs) if study else []
    remarks = [*(study.warnings if study else []), *notes(systems.folders if systems else [], shown.trainings)]
    return Parts(
        title=printable(spec.title or (html.heading(systems) if systems or not study else study.title)),
        finding=explain.finding(lines, systems.metric, pairs) if systems else training_finding,
        remarks=[*remarks, *(["; ".join(f"{label}: {value}" for label, value in made_from)] if made_from else [])],
        made_from=made_from,
        lines=lines,
        tables=system_tables,
        sheets=[*([pairs_sheet] if pairs_sheet else []), *(study.sheets if study else [])],
        drawn=[fitted(figure, PAGE) or (figure, svg(figure)) for figure in study.figures] if study else [],
        columns=[fitted(figure, COLUMN, f"{figure.name}-column") for figure in study.figures] if study else [],
        latency=[(figure, svg(figure)) for figure in of_latency(lines, systems.metric)] if systems else [],
        curves=[[(figure, svg(figure)) for figure in figures] for figures in training_curves(shown.trainings)],
        latex=spec.latex,
    )


def _write(out: Path, shown: Shown, parts: Parts, record: dict[str, Json]) -> None:
    """Write the files of a report, in place of an earlier one's."""
    study, systems = shown.study, shown.systems
    training_table = training_words.table(shown.trainings) if shown.trainings else ""
    sheet_texts = [(sheet.title, as_markdown(sheet)) for sheet in parts.sheets]
    text = markdown.document(parts.title, parts.finding, parts.remarks, parts.lines, parts.tables, training_table, sheet_texts)
    explorer_data = _explorer(shown)
    page = html.page(
        systems,
        parts.lines,
        parts.title,
        parts.finding,
        shown.trainings,
        [sheet for sheet in parts.sheets if sheet.name != EVERY_RUN or explorer_data is None],  # the explorer has them
        study.warnings if study else [],
        [(*wide, narrow[1] if narrow else "") for wide, narrow in zip(parts.drawn, parts.columns, strict=True)],
        explorer_data,
        parts.made_from,
        parts.latency,
        parts.curves,
    )
    with replace_files(out, REPORT, files_of(out / REPORT)) as new:
        if study:
            write_tidy(new, study.runs)
        system_sheets = tables.sheets(parts.lines, systems.metric) if systems else []
        write_sheets(new, distinct([*parts.sheets, *system_sheets]), parts.title, parts.latex == PLAIN)
        write_figures(new, [*parts.figures, *filter(None, parts.columns), *parts.latency[1:]])
        for name, content in (("report.md", text), ("index.html", page)):
            with atomic_write(new / name) as stream:
                stream.write(content)
        files = sorted(str(path.relative_to(new)) for path in new.rglob("*") if path.is_file())
        write_json(new / REPORT, record | {"files": files})


def _content(shown: Shown, parts: Parts) -> Content:
    """Return the content of the W&B Report."""
    study = shown.study
    training_sections = [("Training", training_words.table(shown.trainings))] if shown.trainings else []
    return Content(
        parts.title,
        parts.finding,
        parts.remarks,
        [*((table.title, markdown.render(table, parts.lines)) for table in parts.tables), *training_sections],
        [(sheet, as_markdown(sheet)) for sheet in parts.sheets],
        [(figure.name, figure.title, figure.caption) for figure, _ in parts.figures],
        study.study if study else None,
        [*(run.path for run in (study.runs if study else shown.fits)), *shown.tested],
        list(dict.fromkeys([*(f"val/{training.monitor}" for training in shown.trainings), "train/loss"])),
    )


def _explorer(shown: Shown) -> Explorer | None:
    """Make the explorer of all trainings and systems of the report; None of fewer than two."""
    study, systems = shown.study, shown.systems
    runs = study.runs if study else shown.fits
    answered = len(runs) <= ANSWERED
    entries = [of_run(run, read_lines, answered, study.study.metric if study else "") for run in runs]
    entries += [of_row(row, systems) for row in systems.rows] if systems else []
    if len(entries) < 2:
        return None
    if study:
        metric, higher, factors, figures = study.study.metric, study.study.higher, study.study.factors, study.figures
    else:
        metric = systems.metric if systems else next((name for run in runs for name in run.metrics), None)
        higher, factors, figures = not is_lower(metric or "", recorded(runs)), (), ()
    labels = study.study.labels if study else {}
    return explorer(entries, metric, higher, factors, [facts(entry.run.provenance) for entry in entries], figures, labels)


def _record(shown: Shown, spec: Spec) -> dict[str, Json]:
    """Record the study, or the trainings that form none, for a later --diff; {} where they cannot be compared."""
    if shown.study:
        return shown.study.summary
    try:
        return {"study": record_of([run.path for run in shown.fits], spec)} if shown.fits else {}
    except UserError:  # unfinished, of different metrics, or one seed twice: the page shows each for itself
        return {}
