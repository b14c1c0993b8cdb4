"""Run folders of `research retrieve` and `fit`, and sweeps → one self-contained HTML page, and tables for a paper.

  research report runs/first runs/hnsw runs/dual_encoder --out report
  research report runs/sweeps/lora_r_alpha --out report      # groups over seeds: tables/*.tex, *.csv, *.md, runs.parquet

Retrievals must hold the same data and split; trainings get a section of their own. The page needs no network: open
report/index.html in a browser.
"""

import argparse
import json
from pathlib import Path

from research.verbs.studying import study_of

MARKER = "report.json"  # a folder that holds this file is a report: the verb may write into it again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, in the order of the rows")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new or empty, or an earlier report")
    parser.add_argument(
        "--spec",
        type=Path,
        metavar="YAML",
        help="what to compare: metric, goal, baseline, factors, pair_by_seed, title",
    )
    parser.add_argument("--metric", help="of a study: val/loss, test/ndcg@10 (what the trainings were monitored by)")
    parser.add_argument(
        "--baseline", metavar="LABEL", help="of a study: the setting that others are compared with (the first)"
    )
    parser.add_argument(
        "--claims",
        type=Path,
        metavar="YAML",
        help="claims to check, as `claims: [r=16 beats r=4 on val/loss, r=8 is equivalent to r=16 within .01]`; "
        "exit code 1 if one is broken",
    )
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout instead of the page's path")


def run(args: argparse.Namespace) -> int:
    _require_jinja()
    from research.progress import say
    from research.report import explain, html, markdown, tables, training_words
    from research.report.export import as_markdown, write_sheets, write_tidy
    from research.report.notes import notes
    from research.report.plots_cost import against_latency
    from research.report.render import MISSING, can_draw, svg, write_figures
    from research.report.runs import collect, name_folders
    from research.report.spec import read_spec
    from research.report.study import is_sweep
    from research.report.training import is_training, read_training
    from research.runfolder import atomic_write, write_json

    spec = read_spec(args.spec)
    spec = spec._replace(
        **{name: value for name in ("metric", "baseline") if (value := getattr(args, name)) is not None}
    )
    sweeps = [path for path in args.runs if is_sweep(path)]
    fits = [path for path in args.runs if path not in sweeps and is_training(path)]
    tested = [path for path in args.runs if path not in fits and path not in sweeps]
    names = name_folders([*fits, *tested]) if fits or tested else {}
    found = study_of([path for path in args.runs if path not in tested], spec, bool(sweeps), args.claims)
    shown = found.trainings if found else [(path, names[path]) for path in fits]
    trainings = [read_training(path, name) for path, name in shown]
    runs = collect(tested, names) if tested else None
    out = _open(args.out)
    lines = tables.measure(runs) if runs else []
    grids = [tables.systems_table(lines, runs.metric), tables.metrics_table(runs.rows),
             tables.cost_table(runs.rows)] if runs else []  # fmt: skip
    sheets, warnings = (found.sheets, found.warnings) if found else ([], [])
    drawn = [(figure, svg(figure)) for figure in found.figures] if found else []
    # the page draws it by hand, for two widths; a paper needs a file
    latency = against_latency(lines, runs.metric) if runs else None
    timed = [(latency, svg(latency))] if latency and can_draw() else []
    if runs and not found and not can_draw():
        say(f"warning: {MISSING}")
    finding = explain.finding(lines, runs.metric) if runs else found.finding if found else explain.untested(trainings)
    title = spec.title or (html.heading(runs) if runs or not found else found.title)
    text = markdown.document(title, finding, [*warnings, *notes(runs.folders if runs else [], trainings)], lines,
                             [table for table in grids if table], training_words.table(trainings) if trainings else "",
                             [(sheet.title, as_markdown(sheet)) for sheet in sheets])  # fmt: skip
    page = html.page(runs, lines, trainings, sheets, warnings, title, finding, drawn)

    summary = _summary(runs, lines, trainings) | (found.summary if found else {})
    write_json(out / MARKER, summary)  # first: an interrupted report can be written again
    if found:
        write_tidy(out, found.runs)
        write_sheets(out, sheets)
    write_figures(out, drawn + timed)
    for name, content in (("report.md", text), ("index.html", page)):
        with atomic_write(out / name) as stream:
            stream.write(content)
    path = out / "index.html"
    counts = {"rows": len(lines), "trainings": len(trainings)} | (found.counts if found else {})
    for one in found.summary["study"]["claims"] if found and not args.json else ():
        print(f"{one['state']}: {one['claim']} ({one['words']})")
    print(json.dumps({"out": str(out), "page": str(path), **counts}) if args.json else path)
    return found.exit_code if found else 0


def _require_jinja() -> None:
    import importlib.util

    from research.errors import UserError

    if importlib.util.find_spec("jinja2") is None:
        raise UserError("research report needs jinja2, which is not installed. Install it with pip install "
                        "'tandem-research[report]', or in this repository pip install '.[report]'.")  # fmt: skip


def _open(out: Path) -> Path:
    """Create `out`, or accept an empty folder or an earlier report.

    Raises:
        UserError: a file, or a folder that holds something else.
    """
    from research.errors import UserError

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder. Name another.")
    if out.is_dir() and any(out.iterdir()) and not _is_report(out / MARKER):
        raise UserError(f"--out {out} holds files but no {MARKER} of a report; nothing was touched. Name a new or "
                        "empty folder, or an earlier report.")  # fmt: skip
    return out


def _is_report(marker: Path) -> bool:
    try:
        return json.loads(marker.read_text(encoding="utf-8"))["verb"] == "report"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _summary(runs, lines, trainings) -> dict:
    """The page's numbers for programs."""
    from research.report.training_words import summary

    rows = [
        {"label": line.row.label, "run": line.row.run, "stage": line.row.stage, "also": line.row.also,
         "metrics": line.row.means, "interval": [line.low, line.high],
         "against_row_above": line.against._asdict() | {"p_holm": line.p_holm} if line.against else None,
         "ms_per_query": line.row.facts.get("ms_per_query")}
        for line in lines
    ]  # fmt: skip
    data = {key: runs.data[key] for key in ("source", "split", "data", "queries", "documents")} if runs else {}
    return {"verb": "report", **data, "metric": runs.metric if runs else None, "rows": rows,
            "trainings": [summary(training) for training in trainings]}  # fmt: skip
