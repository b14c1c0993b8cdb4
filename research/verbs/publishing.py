"""`research report --wandb`: the report as a W&B Report, written down (--dry-run) or published."""

import argparse
import importlib.util
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from research.errors import UserError

if TYPE_CHECKING:
    from research.report.wandb import Place


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


def check(args: argparse.Namespace) -> "Place | None":
    """Where the W&B Report goes, None where none is asked for. Before anything is read or written.

    Raises:
        UserError: options that do not fit, or a package that is missing.
    """
    if args.wandb is None:
        if args.dry_run:
            raise UserError("--dry-run without --wandb; expected both: it is about the W&B Report. Add --wandb.")
        return None
    found = re.fullmatch(r"([\w.-]+)/([\w.-]+)", args.wandb)
    if args.wandb and (Path(args.wandb).exists() or not found):
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
    from research.report.wandb import Place

    if found:
        return Place(*found.groups())
    return Place(os.environ.get("WANDB_ENTITY", ""), os.environ.get("WANDB_PROJECT", "tandem"))
