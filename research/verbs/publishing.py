"""`research report --wandb`: the report as a W&B Report, written down (--dry-run) or published."""

import argparse
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from research.errors import UserError

DRY = "wandb_report.json"


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
        help=f"with --wandb: only write that report's specification, {DRY}; no network, no key",
    )


def check(args: argparse.Namespace) -> Any:
    """Where the W&B Report goes, a wandb_report.Place; None where none is asked for. Before anything is read or written.

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
    from research.report.wandb_report import Place

    if found:
        return Place(*found.groups())
    return Place(os.environ.get("WANDB_ENTITY", ""), os.environ.get("WANDB_PROJECT", "tandem"))


def send(args: argparse.Namespace, place: Any, out: Path, content: Any, drawn: list) -> tuple[dict, UserError | None]:
    """Write the specification, and publish it if that is asked for; the local report is on the disk by now.

    Args:
        args: of the verb.
        place: as check gave it; None removes an earlier report's specification.
        out: folder of the local report.
        content: a wandb_report.Content.
        drawn: figures with their SVG.

    Returns:
        what the verb says of it, and what kept it from being published.
    """
    if place is None:
        (out / DRY).unlink(missing_ok=True)  # it would be of other runs
        return {}, None
    from research.report.wandb_report import build, provenance, serialised
    from research.runs.files import write_json
    from research.runs.provenance import provenance as of_this

    try:
        write_json(out / DRY, serialised(build(content, place)))
        if args.dry_run:
            return {"wandb": str(out / DRY)}, None
        mine = of_this(args.command)
        facts = {name: mine[name] for name in ("command", "git_commit", "git_dirty")} | provenance(content.folders)
        return _publish(place, out, content, drawn, facts), None
    except UserError as error:
        return {}, error


def _publish(place: Any, out: Path, content: Any, drawn: list, facts: dict) -> dict[str, str]:
    from research.report.wandb_publish import log_files, publish
    from research.runs.tracking import has_key

    kept, mode = f"The local report in {out} is whole", os.environ.get("WANDB_MODE", "online")
    os.environ.setdefault("WANDB_SILENT", "true")  # read when wandb is first used; the words are ours
    if mode == "offline":
        try:
            log_files(out, content, place, _files(out, content), drawn, facts)
        except Exception as error:  # wandb raises its own and OS errors
            raise UserError(
                f"nothing was kept for W&B ({type(error).__name__}: {error}); expected room and rights in "
                f"{out / 'wandb'}. Leave --wandb out, or mend it. {kept}."
            ) from error
        raise UserError(
            f"WANDB_MODE=offline: the report's files wait in {out / 'wandb'} for `wandb sync`, and the W&B Report "
            f"was not published; expected online for it. Run it again with WANDB_MODE=online. {kept}."
        )
    if mode != "online":
        raise UserError(
            f"nothing was published: WANDB_MODE={mode}; expected online. Run it again with WANDB_MODE=online. {kept}."
        )
    if not has_key():  # W&B's client would ask for one and wait
        raise UserError(
            "nothing was published: no W&B key was found; expected one in WANDB_API_KEY or left by `wandb login`. "
            f"Log in, or write the report's specification by --wandb --dry-run. {kept}."
        )
    published = publish(out, content, place, _files(out, content), drawn, facts)
    return {"wandb": published.url, "artifact": published.artifact}


def _files(out: Path, content: Any) -> list[Path]:
    """The local report's files, and no other that may lie there."""
    from research.report.sheets import slug

    names = ["index.html", "report.md", "report.json", DRY]
    if content.study is not None:
        names += ["runs.csv", "runs.parquet"]
        names += [f"tables/{slug(sheet.name)}.{ending}" for sheet, _ in content.sheets for ending in ("tex", "csv", "md")]
        names += [f"figures/{slug(name)}.{ending}" for name, _, _ in content.figures for ending in ("svg", "pdf", "vl.json")]
    return [path for name in names if (path := out / name).is_file()]
