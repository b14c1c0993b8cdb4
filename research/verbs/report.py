"""Run folders of `research retrieve` and `fit`, and sweeps → one self-contained HTML page, and tables for a paper.

  research report runs/first runs/hnsw runs/dual_encoder --out report
  research report runs --baseline BM25 --out report          # every run in runs/, each system against BM25
  research report runs/sweeps/lora_r_alpha --out report      # groups over seeds: tables/*.tex, *.csv, *.md, runs.parquet
  research report wandb --out report                         # W&B's offline logs, of any program
  research report wandb:ME/PROJECT/SWEEP --out report        # W&B's server: a project, or a sweep or group of it
  research report runs/sweeps/lora_r_alpha --out report --wandb ME/PROJECT    # and publish it as a W&B Report
  research report --diff report_of_may report                # what changed, and whether a conclusion did

Retrievals must hold the same data and split; trainings get a section of their own. The page needs no network: open
report/index.html in a browser.
"""

import argparse
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from research.errors import UserError

if TYPE_CHECKING:  # it imports pandas
    from research.report.diff_build import Difference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folders, in the order of the rows; a folder that holds some; W&B's logs; "
        "wandb:ENTITY/PROJECT[/SWEEP_OR_GROUP]",
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
        help="what to compare: metric, goal, baseline, factors, metrics (columns of the main table), labels (words for options "
        "and metrics), pair_by_seed, title, latex",
    )
    parser.add_argument("--metric", help="of a study: val/loss, test/ndcg@10 (what the trainings were monitored by)")
    parser.add_argument(
        "--baseline",
        metavar="LABEL",
        help="setting or system that the others are compared with (the first; of systems the row above)",
    )
    parser.add_argument(
        "--latex",
        choices=("booktabs", "plain"),
        help="tables/*.tex with booktabs and graphicx, in a float that fits the line (booktabs); or a bare tabular (plain)",
    )
    parser.add_argument(
        "--claims",
        type=Path,
        metavar="YAML",
        help="claims to check, as `claims: [r=16 beats r=4 on val/loss, r=8 is equivalent to r=16 within .01]`; "
        "exit code 1 if one is broken",
    )
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="",
        metavar="ENTITY/PROJECT",
        help="publish it as a W&B Report too (your default entity; WANDB_PROJECT, else tandem)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="with --wandb: only write that report's specification, wandb_report.json; no network, no key",
    )
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout instead of the page's path")


def run(args: argparse.Namespace) -> int:
    """Make a report, or compare two; the exit code, 1 if a claim is broken."""
    place = _check_diff(args) if args.diff else _check_report(args)

    # pandas, scipy and the writer of figures take a second to import: only once the command is known to be right
    from research.report.diff_build import compare
    from research.report.spec import read_spec

    spec = read_spec(args.spec)
    if args.diff:
        return _print_difference(
            args, compare(args.runs, spec._replace(metric=args.metric or spec.metric), args.claims, args.out)
        )

    from research.report.build import build  # jinja2, without which two reports can be compared
    from research.report.wandb import Publication

    given = {name: value for name in ("metric", "baseline", "latex") if (value := getattr(args, name)) is not None}
    publication = Publication(*place, args.dry_run, args.command) if place is not None else None
    report = build(args.runs, spec._replace(**given), args.claims, args.out, publication)
    if args.json:
        print(json.dumps({"out": str(args.out), "page": str(report.page), **report.counts, **report.sent}))
    else:
        for claim in report.claims:
            print(f"{claim['state']}: {claim['claim']} ({claim['words']})")
        for line in (report.page, *report.sent.values()):
            print(line)
    if report.refused is not None:  # the local report is written, and its place printed
        raise report.refused
    return report.exit_code


def _check_diff(args: argparse.Namespace) -> None:
    if len(args.runs) != 2:
        raise UserError(
            f"--diff has {len(args.runs)} folder{'s' * (len(args.runs) != 1)}; expected two, the earlier and the "
            "later report (or sweep, or run). Name two."
        )
    if args.baseline is not None:
        raise UserError(
            f"--baseline {args.baseline} is of one report; expected none with --diff, which compares each setting "
            "with itself. Leave it out."
        )
    if args.wandb is not None or args.dry_run:
        raise UserError(
            "--wandb and --dry-run are of one report; expected neither with --diff, which publishes nothing. Leave them out."
        )


def _print_difference(args: argparse.Namespace, difference: "Difference") -> int:
    """The exit code: 1 if a claim that held is broken, or a value of an identical run is another."""
    if args.json:
        print(json.dumps({**difference.summary, "out": str(args.out) if args.out else None}))
    else:
        print(difference.text.rstrip("\n"))
    return 0 if difference.same else 1


def _check_report(args: argparse.Namespace) -> tuple[str, str] | None:
    """Entity and project of the W&B Report; None where none is asked for."""
    if args.out is None:
        raise UserError("the following arguments are required: --out. See `research report --help`.")
    _require_jinja()
    return _place(args)


def _place(args: argparse.Namespace) -> tuple[str, str] | None:
    """Entity and project of the W&B Report; None where none is asked for. Refused before anything is read or written.

    Raises:
        UserError: options that do not fit, or a package that is missing.
    """
    if args.wandb is None:
        if args.dry_run:
            raise UserError("--dry-run without --wandb; expected both: it is about the W&B Report. Add --wandb.")
        return None
    match = re.fullmatch(r"([\w.-]+)/([\w.-]+)", args.wandb)
    if args.wandb and (Path(args.wandb).exists() or not match):
        what = "is a path" if Path(args.wandb).exists() else "is no project"
        raise UserError(
            f"--wandb {args.wandb!r} {what}; expected ENTITY/PROJECT, or nothing after it. Write --wandb behind the runs."
        )
    for module, package in (("wandb", "wandb"), ("wandb_workspaces", "wandb-workspaces"), ("PIL", "pillow")):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"--wandb needs {package}, which is not installed. Install it with pip install "
                "'tandem-research[report]', or in this repository pip install '.[report]'."
            )
    if match:
        return match[1], match[2]
    return os.environ.get("WANDB_ENTITY", ""), os.environ.get("WANDB_PROJECT", "tandem")


def _require_jinja() -> None:
    if importlib.util.find_spec("jinja2") is None:
        raise UserError(
            "research report needs jinja2, which is not installed. Install it with pip install "
            "'tandem-research[report]', or in this repository pip install '.[report]'."
        )
