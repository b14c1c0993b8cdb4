"""A report as a W&B Report: `send` writes its specification down, and publishes it.

W&B's clients come with the extra `report` and take seconds to start: they are imported when a W&B Report is asked for.
"""

import os
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.report.figures.theme import Figure
from research.report.sheets import slug
from research.report.wandb.content import Content, Place, provenance
from research.runs.files import write_json
from research.runs.provenance import provenance as provenance_of
from research.runs.tracking import has_key

DRY = "wandb_report.json"


def send(
    place: Place | None, out: Path, content: Content, drawn: list[tuple[Figure, str]], command: list[str], dry_run: bool
) -> tuple[dict[str, str], UserError | None]:
    """Write the specification, and publish it if that is asked for; the local report is on the disk by now.

    Args:
        place: where to; None removes an earlier report's specification.
        out: folder of the local report.
        content: as the page has it.
        drawn: figures with their SVG.
        command: that made this report.
        dry_run: whether the specification is all.

    Returns:
        what the verb says of it, and what kept it from being published.
    """
    if place is None:
        (out / DRY).unlink(missing_ok=True)  # it would be of other runs
        return {}, None
    from research.report.wandb import report

    try:
        write_json(out / DRY, report.serialised(report.build(content, place)))
        if dry_run:
            return {"wandb": str(out / DRY)}, None
        mine = provenance_of(command)
        facts = {name: mine[name] for name in ("command", "git_commit", "git_dirty")} | provenance(content.folders)
        return _publish(place, out, content, drawn, facts), None
    except UserError as error:
        return {}, error


def _publish(
    place: Place, out: Path, content: Content, drawn: list[tuple[Figure, str]], facts: dict[str, Any]
) -> dict[str, str]:
    from research.report.wandb.publish import log_files, publish

    os.environ.setdefault("WANDB_SILENT", "true")  # read when wandb is first used; the words are ours
    kept, mode = f"The local report in {out} is whole", os.environ.get("WANDB_MODE", "online")
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


def _files(out: Path, content: Content) -> list[Path]:
    """The local report's files, and no other that may lie there."""
    names = ["index.html", "report.md", "report.json", DRY]
    names += [f"figures/{slug(name)}.{ending}" for name, _, _ in content.figures for ending in ("svg", "pdf", "vl.json")]
    if content.study is not None:
        names += ["runs.csv", "runs.parquet"]
        names += [f"tables/{slug(sheet.name)}.{ending}" for sheet, _ in content.sheets for ending in ("tex", "csv", "md")]
    return [path for name in names if (path := out / name).is_file()]
