"""Send a W&B Report, and the local report's files as an artifact of a W&B run of its own.

The local report is written before any of this, and none of it can lose it. The network is asked in this order: login,
the study's runs, the report, then the files; what was published and what was not is said by name.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

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

FILE = "wandb_published.json"  # of the report folder: which W&B Report a later one replaces
TIMEOUT = 20  # seconds of a question to the server
UPLOAD = 600  # seconds of the files


class Published(NamedTuple):
    """Where to look: the report's address, and the artifact as ENTITY/PROJECT/NAME:VERSION."""

    url: str
    artifact: str


def publish(
    out: Path, content: Content, place: Place, files: list[Path], drawn: list[tuple[Figure, str]], facts: dict[str, Any]
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
    kept = f"The local report in {out} is whole"
    api = connect(kept)
    try:
        place = place._replace(entity=place.entity or api.settings["entity"] or api.default_entity or "")
    except Exception as error:
        raise UserError(
            f"W&B does not say who is logged in ({_why(error)}); expected a default entity. Name one by --wandb "
            f"ENTITY/PROJECT. {kept}."
        ) from error
    if not place.entity:
        raise UserError(f"this W&B account has no default entity; expected one. Name one by --wandb ENTITY/PROJECT. {kept}.")
    url = _save(out, content, place, kept, api)
    try:
        artifact = log_files(out, content, place, files, drawn, facts)
    except Exception as error:
        raise _without_files(url, error, kept) from error
    return Published(url, artifact)


def _save(out: Path, content: Content, place: Place, kept: str, api: Any) -> str:
    """Save the report, keep its id in the report folder, and give its address."""
    report, earlier = None, _earlier(out, place)
    known = {"entity": place.entity, "project": place.project}
    try:
        check_runs(api, content, place, kept)
        report = build(content, place, online=True)
        report.id = earlier
        report.save()
        url = report.url  # asks the server once more, as save does for its own last words
    except UserError:
        raise
    except Exception as error:
        if report is not None and report.id != earlier:
            write_json(out / FILE, known | {"report": report.id})
            raise _without_files(f"({report.id})", error, kept) from error
        raise UserError(
            f"nothing was published: W&B refused the report ({_why(error)}). {kept}; run the same command again, "
            f"or delete {out / FILE} if that report was deleted in W&B."
        ) from error
    write_json(out / FILE, known | {"report": report.id, "url": url})
    return url


def _without_files(report: str, error: Exception, kept: str) -> UserError:
    return UserError(
        f"published: the report {report}. Not published: its artifact and the figures that its panels show "
        f"({_why(error)}). {kept}; run the same command again, which replaces that report."
    )


def connect(kept: str) -> Any:
    """A wandb.Api that has been answered.

    Raises:
        UserError: the server cannot be reached, or does not take the key.
    """
    try:
        return wandb.Api(timeout=TIMEOUT)
    except Exception as error:  # wandb raises its own, its service's and OS errors
        raise UserError(
            f"nothing was published: W&B's server does not take the login or cannot be reached ({_why(error)}); "
            "expected a network and a key. Check both (`wandb login --verify`), or write the report's "
            f"specification by --wandb --dry-run. {kept}."
        ) from error
    finally:
        leave_in_time()


def check_runs(api: Any, content: Content, place: Place, kept: str) -> None:
    """Whether the runs are where the panels will look for them: some missing is a warning.

    Raises:
        UserError: none is there.
    """
    ids = run_ids(content.folders)
    if not ids:
        say("warning: no run of this report was in W&B, so the W&B Report has no panels over runs")
        return
    where = f"{place.entity}/{place.project}"
    try:
        found = api.runs(where, filters={"name": {"$in": sorted(ids)}}, per_page=500)
        there = {run.id for run in found}
    except ValueError:  # no such project
        there = set()
    missing = {id: folder for id, folder in ids.items() if id not in there}
    if not missing:
        return
    logs = [log for folder in missing.values() for log in keys.offline_logs(folder)]
    cure = (
        f"upload them by `wandb sync -e {place.entity} -p {place.project} {' '.join(_globs(logs))}`"
        if logs
        else "name the project that they are in by --wandb ENTITY/PROJECT"
    )
    counted = f"{len(missing)} of {len(ids)} runs are not in {where} ({', '.join(list(missing)[:3])}"
    counted += f" and {len(missing) - 3} more)" if len(missing) > 3 else ")"
    if len(missing) == len(ids):
        raise UserError(
            f"nothing was published: {counted}; expected the runs there, or the panels would be empty. First {cure}. {kept}."
        )
    say(f"warning: {counted}, so the panels lack them; {cure}")


def log_files(
    out: Path, content: Content, place: Place, files: list[Path], drawn: list[tuple[Figure, str]], facts: dict[str, Any]
) -> str:
    """The files as an artifact of type report, and the figures as images, in a W&B run of the report's own.

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
    run: Any, out: Path, content: Content, files: list[Path], drawn: list[tuple[Figure, str]], facts: dict[str, Any]
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
    """The id of the W&B Report that this folder was published as, there; else ""."""
    if not (out / FILE).is_file():
        return ""
    known = read_json(out / FILE)
    same = isinstance(known, dict) and (known.get("entity"), known.get("project")) == tuple(place)
    return str(known.get("report") or "") if same else ""


def _globs(logs: Iterable[Path]) -> list[str]:
    """Few patterns for many logs: a sweep's points lie side by side."""
    return list(dict.fromkeys(f"{log.parents[2]}/*/wandb/offline-run-*" for log in logs))


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
