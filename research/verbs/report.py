"""Run folders of `research retrieve` and `fit` → one self-contained HTML page, and its tables as Markdown.

  research report runs/first runs/hnsw runs/dual_encoder --out report

Retrievals must hold the same data and split; trainings get a section of their own. The page needs no network: open
report/index.html in a browser.
"""

import argparse
import json
from pathlib import Path

MARKER = "report.json"  # a folder that holds this file is a report: the verb may write into it again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, in the order of the rows")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new or empty, or an earlier report")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout instead of the page's path")


def run(args: argparse.Namespace) -> int:
    _require_jinja()
    from research.report import explain, html, markdown, tables, training_words
    from research.report.notes import notes
    from research.report.runs import collect, name_folders
    from research.report.training import is_training, read_training
    from research.runfolder import atomic_write, write_json

    names = name_folders(args.runs)
    fits = [path for path in args.runs if is_training(path)]
    tested = [path for path in args.runs if path not in fits]
    trainings = [read_training(path, names[path]) for path in fits]
    runs = collect(tested, names) if tested else None
    out = _open(args.out)
    lines = tables.measure(runs) if runs else []
    shown = [tables.systems_table(lines, runs.metric), tables.metrics_table(runs.rows),
             tables.cost_table(runs.rows)] if runs else []  # fmt: skip
    finding = explain.finding(lines, runs.metric) if runs else explain.untested(trainings)
    text = markdown.document(html.heading(runs), finding, notes(runs.folders if runs else [], trainings), lines,
                             [table for table in shown if table], training_words.table(trainings))  # fmt: skip
    page = html.page(runs, lines, trainings)

    write_json(out / MARKER, _summary(runs, lines, trainings))  # first: an interrupted report can be written again
    for name, content in (("report.md", text), ("index.html", page)):
        with atomic_write(out / name) as stream:
            stream.write(content)
    path = out / "index.html"
    counts = {"rows": len(lines), "trainings": len(trainings)}
    print(json.dumps({"out": str(out), "page": str(path), **counts}) if args.json else path)
    return 0


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
         "against_row_above": line.against._asdict() if line.against else None,
         "ms_per_query": line.row.facts.get("ms_per_query")}
        for line in lines
    ]  # fmt: skip
    data = {key: runs.data[key] for key in ("source", "split", "data", "queries", "documents")} if runs else {}
    return {"verb": "report", **data, "metric": runs.metric if runs else None, "rows": rows,
            "trainings": [summary(training) for training in trainings]}  # fmt: skip
