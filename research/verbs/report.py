"""Run folders of `research retrieve` and `fit`, and sweeps → one self-contained HTML page, and tables for a paper.

  research report runs/first runs/hnsw runs/dual_encoder --out report
  research report runs/sweeps/lora_r_alpha --out report      # groups over seeds: tables/*.tex, *.csv, *.md, runs.parquet
  research report wandb --out report                         # W&B's offline logs, of any program
  research report wandb:ME/PROJECT/SWEEP --out report        # W&B's server: a project, or a sweep or group of it
  research report runs/sweeps/lora_r_alpha --out report --wandb ME/PROJECT    # and publish it as a W&B Report
  research report --diff report_of_may report                # what changed, and whether a conclusion did

Retrievals must hold the same data and split; trainings get a section of their own. The page needs no network: open
report/index.html in a browser.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from research.errors import UserError
from research.runs.layout import leftover
from research.verbs import publishing
from research.verbs.studying import Found, kept_of, study_of

if TYPE_CHECKING:
    from research.report.page.explorer import Explorer
    from research.report.runs import Runs
    from research.report.spec import Spec

MARKER = "report.json"  # a folder that holds this file is a report: the verb may write into it again
EVERY_RUN = "runs"
ANSWERED = 60  # trainings of which a page holds what they answered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folders, in the order of the rows; W&B's logs; wandb:ENTITY/PROJECT[/SWEEP_OR_GROUP]",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="new or empty, or an earlier report")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="what changed between two: RUN RUN are an earlier and a later report, sweep or run; exit code 1 if a claim that "
        "held is broken, or a value of an identical run is another",
    )
    parser.add_argument(
        "--spec",
        type=Path,
        metavar="YAML",
        help="what to compare: metric, goal, baseline, factors, metrics (columns of the main table), pair_by_seed, title",
    )
    parser.add_argument("--metric", help="of a study: val/loss, test/ndcg@10 (what the trainings were monitored by)")
    parser.add_argument("--baseline", metavar="LABEL", help="of a study: the setting that others are compared with (the first)")
    parser.add_argument(
        "--claims",
        type=Path,
        metavar="YAML",
        help="claims to check, as `claims: [r=16 beats r=4 on val/loss, r=8 is equivalent to r=16 within .01]`; "
        "exit code 1 if one is broken",
    )
    publishing.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout instead of the page's path")


def run(args: argparse.Namespace) -> int:
    if args.diff:
        from research.verbs import differing

        return differing.run(args)
    if args.out is None:
        raise UserError("the following arguments are required: --out. See `research report --help`.")
    _require_jinja()
    place = publishing.check(args)
    from research.progress import say
    from research.report import explain, markdown, tables, training_words
    from research.report import wandb as wandb_report
    from research.report.export import as_markdown, write_sheets, write_tidy
    from research.report.figures import of_latency
    from research.report.figures.render import MISSING, can_draw, svg, write_figures
    from research.report.notes import notes
    from research.report.origin import origin
    from research.report.page import html
    from research.report.runs import collect
    from research.report.sheets import distinct
    from research.report.spec import read_spec
    from research.report.training import read_training
    from research.report.wandb import Content
    from research.runs.files import atomic_write, replace_files, write_json
    from research.runs.folder import RunFolder
    from research.runs.printable import printable
    from research.runs.table import is_sweep, name_folders, points_of
    from research.runs.wandb.records import is_wandb

    spec = read_spec(args.spec)
    spec = spec._replace(**{name: value for name in ("metric", "baseline") if (value := getattr(args, name)) is not None})
    sweeps = [path for path in args.runs if is_sweep(path)]
    fits = [path for path in args.runs if path not in sweeps and RunFolder(path).is_training]
    wandb = [path for path in args.runs if is_wandb(path)]
    tested = [path for path in args.runs if path not in [*fits, *sweeps, *wandb]]
    found = study_of([path for path in args.runs if path not in tested], spec, bool(sweeps or wandb), args.claims)
    if found is None:  # a sweep that nothing was measured in
        points = [path / planned.point for path in sweeps for planned in points_of(path)]
        fits += [path for path in points if path not in fits and RunFolder(path).is_training]
    names = name_folders([*fits, *tested]) if fits or tested else {}
    if place is not None and found and (foreign := [run.name for run in found.runs if run.history is not None]):
        raise UserError(
            f"--wandb makes a W&B Report of run folders, and {len(foreign)} of {len(found.runs)} runs are read "
            f"from W&B ({', '.join(foreign[:3])}); expected folders. Name them, or leave --wandb out."
        )
    shown = found.trainings if found else [(path, names[path]) for path in fits]
    trainings = [read_training(path, name) for path, name in shown]
    runs = collect(tested, names) if tested else None
    out = _open(args.out)
    lines = tables.measure(runs) if runs else []
    grids = (
        [tables.systems_table(lines, runs.metric), tables.metrics_table(runs.rows), tables.cost_table(runs.rows)]
        if runs
        else []
    )
    sheets, warnings = (found.sheets, found.warnings) if found else ([], [])
    drawn = [(figure, svg(figure)) for figure in found.figures] if found else []
    latency = [(figure, svg(figure)) for figure in of_latency(lines, runs.metric)] if runs else []
    drawings = [*drawn, *latency[:1]]  # the second is the page's, for a phone
    if runs and not found and not can_draw():
        say(f"warning: {MISSING}")
    finding = explain.finding(lines, runs.metric) if runs else found.finding if found else explain.untested(trainings)
    title = printable(spec.title or (html.heading(runs) if runs or not found else found.title))
    made_from = origin(found.runs) if found else []
    said = [*warnings, *notes(runs.folders if runs else [], trainings)]
    said += ["; ".join(f"{label}: {value}" for label, value in made_from)] if made_from else []
    text = markdown.document(
        title,
        finding,
        said,
        lines,
        [table for table in grids if table],
        training_words.table(trainings) if trainings else "",
        [(sheet.title, as_markdown(sheet)) for sheet in sheets],
    )
    explorer = _explorer(found, fits, names, runs)
    on_page = [sheet for sheet in sheets if sheet.name != EVERY_RUN or explorer is None]  # the explorer has them
    page = html.page(runs, lines, trainings, on_page, warnings, title, finding, drawn, explorer, made_from, latency)

    summary = _summary(runs, lines, trainings) | (found.summary if found else _kept(fits, spec))
    with replace_files(out, MARKER, files_of(out / MARKER)) as new:
        if found:
            write_tidy(new, found.runs)
        write_sheets(new, distinct([*sheets, *(tables.sheets(lines, runs.metric) if runs else [])]), title)
        write_figures(new, drawings)
        for name, content in (("report.md", text), ("index.html", page)):
            with atomic_write(new / name) as stream:
                stream.write(content)
        files = sorted(str(path.relative_to(new)) for path in new.rglob("*") if path.is_file())
        write_json(new / MARKER, summary | {"files": files})
    content = Content(
        title,
        finding,
        said,
        [(table.title, markdown.render(table, lines)) for table in grids if table],
        [(sheet, as_markdown(sheet)) for sheet in sheets],
        [(one.name, one.title, one.caption) for one, _ in drawings],
        found.study if found else None,
        [*(run.path for run in found.runs), *tested] if found else [*fits, *tested],
        list(dict.fromkeys([*(f"val/{one.monitor}" for one in trainings), "train/loss"])),
    )
    sent, refused = wandb_report.send(place, out, content, drawings, args.command, args.dry_run)
    path = out / "index.html"
    counts = {"rows": len(lines), "trainings": len(trainings)} | (found.counts if found else {}) | sent
    for one in found.summary["study"]["claims"] if found and not args.json else ():
        print(f"{one['state']}: {one['claim']} ({one['words']})")
    print(json.dumps({"out": str(out), "page": str(path), **counts}) if args.json else path)
    for where in sent.values() if not args.json else ():
        print(where)
    if refused is not None:  # the local report is written, and said
        raise refused
    return found.exit_code if found else 0


def _explorer(found: Found | None, fits: list[Path], names: dict[Path, str], runs: "Runs | None") -> "Explorer | None":
    """All trainings and systems of the report, where there are two or more."""
    from research.report.entries import of_row, of_run
    from research.report.goals import is_lower
    from research.report.page.explorer import explorer
    from research.report.provenance import facts
    from research.runs.curves import read_lines
    from research.runs.folder import RunFolder
    from research.runs.record import read_record

    trained = found.runs if found else [read_record(RunFolder(path, names[path])) for path in fits]
    answered = len(trained) <= ANSWERED
    entries = [of_run(run, read_lines, answered, found.study.metric if found else "") for run in trained]
    entries += [of_row(row, runs) for row in runs.rows] if runs else []
    if len(entries) < 2:
        return None
    if found:
        study, figures = found.study, found.figures
        metric, higher, names = study.metric, study.higher, study.factors
    else:
        metric = runs.metric if runs else next((name for one in trained for name in one.metrics), None)
        higher, names, figures = not is_lower(metric or ""), (), ()
    return explorer(entries, metric, higher, names, [facts(one.provenance) for one in entries], figures)


def _require_jinja() -> None:
    import importlib.util

    if importlib.util.find_spec("jinja2") is None:
        raise UserError(
            "research report needs jinja2, which is not installed. Install it with pip install "
            "'tandem-research[report]', or in this repository pip install '.[report]'."
        )


def _open(out: Path) -> Path:
    """Create `out`, or accept an empty folder or an earlier report.

    Raises:
        UserError: a file, or a folder that holds something else.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder. Name another.")
    if out.is_dir() and not all(map(leftover, out.iterdir())) and not _is_report(out / MARKER):
        raise UserError(
            f"--out {out} holds files but no {MARKER} of a report; nothing was touched. Name a new or "
            "empty folder, or an earlier report."
        )
    return out


def _is_report(marker: Path) -> bool:
    try:
        return json.loads(marker.read_text(encoding="utf-8"))["verb"] == "report"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _kept(fits: list[Path], spec: "Spec") -> dict:
    """For a later --diff, of trainings that are no study; nothing where they cannot be compared at all."""
    try:
        return {"study": kept_of(fits, spec)} if fits else {}
    except UserError:  # unfinished, of different metrics, or one seed twice: the page shows each for itself
        return {}


def files_of(marker: Path) -> list[str]:
    """What an earlier command wrote beside its marker: a table that the new one has not must not stay beside it."""
    try:
        return [str(name) for name in json.loads(marker.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def rows_of(paths: list[Path]) -> dict:
    """What report.json would hold of these retrievals.

    Raises:
        UserError: they cannot be read or compared.
    """
    from research.report import tables
    from research.report.runs import collect

    runs = collect(paths)
    return _summary(runs, tables.measure(runs), [])


def _summary(runs, lines, trainings) -> dict:
    """The page's numbers for programs."""
    from research.report.runs import code_of, settings
    from research.report.training_words import summary

    folders = {folder.name: folder for folder in runs.folders} if runs else {}
    rows = [
        {
            "label": line.row.label,
            "run": line.row.run,
            "stage": line.row.stage,
            "also": line.row.also,
            "metrics": line.row.means,
            "interval": [line.low, line.high],
            "against_row_above": line.against._asdict() | {"p_holm": line.p_holm} if line.against else None,
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
        "rows": rows,
        "trainings": [summary(training) for training in trainings],
    }
