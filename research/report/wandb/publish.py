"""Send a W&B Report, and the local report's files as an artifact of a W&B run of its own.

The local report is written before any of this, and none of it can lose it. The network is asked in this order: login,
the study's runs, the report, then the files; messages name what was published and what was not.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import wandb

from research.errors import UserError
from research.progress import say
from research.report.figures.render import png
from research.report.figures.theme import Figure
from research.report.wandb import keys
from research.report.wandb.content import Content, Place, artifact_name, media_key, report_run, run_ids
from research.report.wandb.report import build
from research.runs.files import write_json
from research.runs.reading import read_json
from research.runs.wandb_service import leave_in_time
from research.types import Json

FILE = "wandb_published.json"  # of the report folder: which W&B Report a later one replaces
TIMEOUT = 20  # seconds of a question to the server
UPLOAD = 600  # seconds of the files


class Published(NamedTuple):
    """Where to look: the report's address, and the artifact as ENTITY/PROJECT/NAME:VERSION."""

    url: str
    artifact: str


def publish(
    out: Path, content: Content, place: Place, files: list[Path], drawn: list[tuple[Figure, str]], facts: dict[str, Json]
) -> Published:
    """Upload the report to W&B: its artifact, its figures and the page.

    Args:
        out: folder of the local report.
        content: as the page has it.
        place: project, and the entity or "" for the user's default one.
        files: of the artifact, in `out`.
        drawn: figures with their SVG, logged as media that the report's panels show.
        facts: the artifact's metadata.

    Raises:
        UserError: no login, no network, runs that are not there, or a failure half-way; the local report stays.
    """
    note = f"The local report in {out} is whole"
    api = connect(note)
    try:
        place = place._replace(entity=place.entity or api.settings["entity"] or api.default_entity or "")
    except Exception as error:
        raise UserError(
            f"W&B does not say who is logged in ({_why(error)}); expected a default entity. Name one by --wandb "
            f"ENTITY/PROJECT. {note}."
        ) from error
    if not place.entity:
        raise UserError(f"this W&B account has no default entity; expected one. Name one by --wandb ENTITY/PROJECT. {note}.")
    url = _save(out, content, place, note, api)
    try:
        artifact = log_files(out, content, place, files, drawn, facts)
    except Exception as error:
        raise _without_files(url, error, note) from error
    return Published(url, artifact)


def _save(out: Path, content: Content, place: Place, note: str, api: wandb.Api) -> str:
    """Save the report, keep its id in the report folder, and give its address."""
    report, earlier = None, _earlier(out, place)
    target = {"entity": place.entity, "project": place.project}
    try:
        check_runs(api, content, place, note)
        report = build(content, place, online=True)
        report.id = earlier
        report.save()
        url = report.url  # asks the server once more, as save does for its last message
    except UserError:
        raise
    except Exception as error:
        if report is not None and report.id != earlier:
            write_json(out / FILE, target | {"report": report.id})
            raise _without_files(f"({report.id})", error, note) from error
        raise UserError(
            f"nothing was published: W&B refused the report ({_why(error)}). {note}; run the same command again, "
            f"or delete {out / FILE} if that report was deleted in W&B."
        ) from error
    write_json(out / FILE, target | {"report": report.id, "url": url})
    return url


def _without_files(report: str, error: Exception, note: str) -> UserError:
    return UserError(
        f"published: the report {report}. Not published: its artifact and the figures that its panels show "
        f"({_why(error)}). {note}; run the same command again, which replaces that report."
    )


def connect(note: str) -> wandb.Api:
    """Return a wandb.Api that the server has answered.

    Raises:
        UserError: the server cannot be reached, or does not take the key.
    """
    try:
        return wandb.Api(timeout=TIMEOUT)
    except Exception as error:  # wandb raises its own, its service's and OS errors
        raise UserError(
            f"nothing was published: W&B's server does not take the login or cannot be reached ({_why(error)}); "
            "expected a network and a key. Check both (`wandb login --verify`), or write the report's "
            f"specification by --wandb --dry-run. {note}."
        ) from error
    finally:
        leave_in_time()


def check_runs(api: wandb.Api, content: Content, place: Place, note: str) -> None:
    """Check that the project has the runs that the panels show; warn if some are missing.

    Raises:
        UserError: all are missing.
    """
    ids = run_ids(content.folders)
    if not ids:
        say("warning: no run of this report was in W&B, so the W&B Report has no panels over runs")
        return
    where = f"{place.entity}/{place.project}"
    try:
        runs = api.runs(where, filters={"name": {"$in": sorted(ids)}}, per_page=500)
        present = {run.id for run in runs}
    except ValueError:  # no such project
        present = set()
    missing = {id: folder for id, folder in ids.items() if id not in present}
    if not missing:
        return
    logs = [log for folder in missing.values() for log in keys.offline_logs(folder)]
    cure = (
        f"upload them by `wandb sync -e {place.entity} -p {place.project} {' '.join(_globs(logs))}`"
        if logs
        else "name the project that they are in by --wandb ENTITY/PROJECT"
    )
    count = f"{len(missing)} of {len(ids)} runs are not in {where} ({', '.join(list(missing)[:3])}"
    count += f" and {len(missing) - 3} more)" if len(missing) > 3 else ")"
    if len(missing) == len(ids):
        raise UserError(
            f"nothing was published: {count}; expected the runs there, or the panels would be empty. First {cure}. {note}."
        )
    say(f"warning: {count}, so the panels lack them; {cure}")


def log_files(
    out: Path, content: Content, place: Place, files: list[Path], drawn: list[tuple[Figure, str]], facts: dict[str, Json]
) -> str:
    """Log the files as an artifact of type report, and the figures as images, in a W&B run of the report's own.

    Offline (WANDB_MODE=offline) it is a log in out/wandb that `wandb sync` uploads.

    Returns:
        the artifact's name with entity, project and version; offline the name alone.
    """
    settings = wandb.Settings(
        console="off", init_timeout=60, x_disable_stats=True, finish_timeout=UPLOAD, finish_timeout_raises=True
    )
    run = wandb.init(
        entity=place.entity or None,
        project=place.project,
        id=report_run(content),
        resume="allow",
        name=content.title[:128],
        job_type="report",
        dir=out.resolve(),
        config=facts,
        settings=settings,
        mode="offline" if os.environ.get("WANDB_MODE") == "offline" else "online",
    )
    try:
        name = _log(run, out, content, files, drawn, facts)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()
    return name


def _log(
    run: wandb.Run, out: Path, content: Content, files: list[Path], drawn: list[tuple[Figure, str]], facts: dict[str, Json]
) -> str:
    artifact = wandb.Artifact(artifact_name(content), type="report", description=content.finding, metadata=facts)
    for file in files:
        artifact.add_file(str(file), name=file.relative_to(out).as_posix())
    with tempfile.TemporaryDirectory() as scratch:
        images = {}
        for i, (figure, svg) in enumerate(drawn):
            path = Path(scratch, f"{i}.png")
            path.write_bytes(png(svg))
            images[media_key(figure.name)] = wandb.Image(str(path), caption=figure.title)
        if images:
            run.log(images, step=0)
    logged = run.log_artifact(artifact)
    return artifact.name if run.offline else logged.wait(UPLOAD).qualified_name


def _earlier(out: Path, place: Place) -> str:
    """Return the id of the W&B Report that this folder was published as in `place`; "" if there is none."""
    if not (out / FILE).is_file():
        return ""
    record = read_json(out / FILE)
    same = isinstance(record, dict) and (record.get("entity"), record.get("project")) == tuple(place)
    return str(record.get("report") or "") if same else ""


def _globs(logs: Iterable[Path]) -> list[str]:
    """List patterns that match all logs: a sweep's points share one."""
    return list(dict.fromkeys(f"{log.parents[2]}/*/wandb/offline-run-*" for log in logs))


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
