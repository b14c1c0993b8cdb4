"""`research report --wandb`: the report as a W&B Report, written down (--dry-run) or published.

W&B's clients come with the extra `report` and take seconds to start: they are imported when a W&B Report is asked for.
"""

import os
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.report.figures.theme import Figure
from research.report.target import REPORT, files_of
from research.report.wandb.content import Content, Place, provenance
from research.runs.files import write_json
from research.runs.provenance import provenance as provenance_of_command
from research.runs.tracking import has_key
from research.types import Json

DRY = "wandb_report.json"

Drawn = list[tuple[Figure, str]]
"""Figures with their SVG."""


class Publication(NamedTuple):
    """A W&B Report to make.

    Attributes:
        entity: "" for the default one.
        project: of that entity.
        dry_run: only write the specification.
        command: that made the report, as the user typed it.
    """

    entity: str
    project: str
    dry_run: bool
    command: list[str]


def send(publication: Publication | None, out: Path, content: Content, drawn: Drawn) -> tuple[dict[str, str], UserError | None]:
    """Write the specification, and publish the report if that is asked for; the local report is complete by now.

    Args:
        publication: None removes an earlier report's specification.
        out: folder of the local report.
        content: of both.
        drawn: figures with their SVG.

    Returns:
        where it is, by name, and the error that stopped its publication.
    """
    if publication is None:
        (out / DRY).unlink(missing_ok=True)  # it would be of other runs
        return {}, None
    from research.report.wandb.report import build, serialised

    place = Place(publication.entity, publication.project)
    try:
        write_json(out / DRY, serialised(build(content, place)))
        if publication.dry_run:
            return {"wandb": str(out / DRY)}, None
        command = provenance_of_command(publication.command)
        facts = {name: command[name] for name in ("command", "git_commit", "git_dirty")} | provenance(content.folders)
        return _publish(place, out, content, drawn, facts), None
    except UserError as error:
        return {}, error


def _publish(place: Place, out: Path, content: Content, drawn: Drawn, facts: dict[str, Json]) -> dict[str, str]:
    from research.report.wandb.publish import log_files, publish

    note, mode = f"The local report in {out} is whole", os.environ.get("WANDB_MODE", "online")
    os.environ.setdefault("WANDB_SILENT", "true")  # read when wandb is first used; we write the messages
    if mode == "offline":
        try:
            log_files(out, content, place, _files(out), drawn, facts)
        except Exception as error:  # wandb raises its own and OS errors
            raise UserError(
                f"nothing was kept for W&B ({type(error).__name__}: {error}); expected room and rights in "
                f"{out / 'wandb'}. Leave --wandb out, or mend it. {note}."
            ) from error
        raise UserError(
            f"WANDB_MODE=offline: the report's files wait in {out / 'wandb'} for `wandb sync`, and the W&B Report "
            f"was not published; expected online for it. Run it again with WANDB_MODE=online. {note}."
        )
    if mode != "online":
        raise UserError(
            f"nothing was published: WANDB_MODE={mode}; expected online. Run it again with WANDB_MODE=online. {note}."
        )
    if not has_key():  # W&B's client would ask for one and wait
        raise UserError(
            "nothing was published: no W&B key was found; expected one in WANDB_API_KEY or left by `wandb login`. "
            f"Log in, or write the report's specification by --wandb --dry-run. {note}."
        )
    published = publish(out, content, place, _files(out), drawn, facts)
    return {"wandb": published.url, "artifact": published.artifact}


def _files(out: Path) -> list[Path]:
    """List the files that the local report lists; others in its folder are not ours."""
    names = [*files_of(out / REPORT), REPORT, DRY]
    return [path for name in dict.fromkeys(names) if (path := out / name).is_file()]
