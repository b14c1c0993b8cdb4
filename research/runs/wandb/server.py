"""Runs that W&B's server holds, through its own client: wandb:ENTITY/PROJECT, or a sweep or group of it."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import wandb
from wandb.apis.public import Run
from wandb.errors import AuthenticationError, Error
from wandb.sdk.lib import wbauth
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from research.errors import UserError, suggest
from research.progress import say
from research.runs.wandb.log import STEPS, is_number
from research.runs.wandb.source import API, WandbRun
from research.runs.wandb_service import leave_in_time

Result = TypeVar("Result")
TRIES = 3  # each waits for an answer for WANDB_HTTP_TIMEOUT seconds (19)
WAIT = 2.0  # seconds between two
GAVE_UP = "giving up after"  # W&B's client, which has tried as often itself
OFFLINE = "name the folders of the runs instead (wandb/, or what `research fit` wrote), which need no network"
STATES = {
    "finished": "done",
    "failed": "failed",
    "crashed": "killed",
    "killed": "killed",
    "running": "running",
    "pending": "missing",
    "preempting": "preempted",
    "preempted": "preempted",
}
"""W&B's states as ours. A crashed run sent no heartbeat any more: its machine or process was ended."""


def read_api(source: str) -> list[WandbRun]:
    """Ask W&B's server for the runs of a project, or of a sweep or group of it.

    Args:
        source: wandb:ENTITY/PROJECT[/SWEEP_OR_GROUP].

    Raises:
        UserError: another form; no key; no answer; no such project, sweep or group; no runs.
    """
    entity, project, part = _parsed(source)
    api = _retried(source, lambda: _connect(source))
    filters = {"$or": [{"sweep": part}, {"group": part}]} if part else {}
    try:
        runs = _retried(source, lambda: list(api.runs(f"{entity}/{project}", filters, per_page=100, lazy=False)))
    except ValueError as error:  # W&B's client has no error of its own for it
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{source}: W&B has no project {entity}/{project}, or your key may not see it; expected "
            "wandb:ENTITY/PROJECT as the project's page has it. Check both names, or `wandb login` with another "
            "key."
        ) from None
    if not runs and part:
        others = _retried(source, lambda: list(api.runs(f"{entity}/{project}", per_page=100)))
        names = dict.fromkeys(name for run in others for name in (run.sweep_name, run._attrs.get("group")) if name)
        raise UserError(
            f"{source}: no run of {entity}/{project} is in a sweep or group {part!r}; {suggest(part, names)}. "
            "Correct it, or leave it out."
        )
    if not runs:
        raise UserError(f"{source}: the project has no runs; expected one or more. Check the name.")
    runs.sort(key=lambda run: (str(run._attrs.get("createdAt")), run.id))
    sweeps = {
        name: _retried(source, lambda name=name: api.sweep(f"{entity}/{project}/{name}").config)
        for name in dict.fromkeys(run.sweep_name for run in runs)
        if name
    }
    histories = Histories(source)
    return [_as_run(run, sweeps.get(run.sweep_name) or {}, histories) for run in runs]


def _connect(source: str) -> wandb.Api:
    """Return W&B's client.

    Raises:
        UserError: no key; W&B's client would ask for one where there is a terminal.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    # scans of a history have no timeout of their own: a server that went away would be waited for many minutes
    wandb.setup(wandb.Settings(x_graphql_retry_max=TRIES, x_graphql_retry_wait_max_seconds=WAIT))
    base = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    if wbauth.authenticate_session(host=base, source="research report", prompt=False, update_session=False) is None:
        raise UserError(
            f"{source} needs a key of W&B, and none is found for {base}; expected WANDB_API_KEY, or `wandb login`. "
            f"Give one, or {OFFLINE}."
        )
    try:
        return wandb.Api()
    finally:
        leave_in_time()


def _as_run(run: Run, sweep: dict[str, object], histories: "Histories") -> WandbRun:
    state, error = STATES.get(run.state, "half-written"), ""
    if state != "done":
        error = f"W&B has it as {run.state}"
    if run.state == "killed" and sweep.get("early_terminate"):
        # W&B shows a run that its rule has ended as killed, like one of a sweep that was cancelled
        state, error = "pruned", ""
    metric = sweep.get("metric") if isinstance(sweep.get("metric"), dict) else {}
    attributes = run._attrs
    return WandbRun(
        run.id,
        run.name or "",
        Path(API + "/".join(run.path)),
        run.sweep_name or attributes.get("group") or "",
        state,
        error,
        attributes.get("commit") or "",
        "",
        run.config,
        dict(run.summary_metrics),
        partial(histories.of, run),
        str(metric.get("name") or ""),
        metric.get("goal"),
        tuple(sweep.get("parameters") or ()),
    )


class Histories:
    """(step, value) of a metric of a run, asked for when a figure wants it.

    A server that does not answer any more costs the curves, and not the report.

    Args:
        source: as read_api has it.
    """

    def __init__(self, source: str):
        self.source, self.is_lost = source, False

    def of(self, run: Run, metric: str) -> list[tuple[int, float]]:
        """Ask for (step, value) of one metric of a run; [] where the server does not give it."""
        if self.is_lost:
            return []
        step = next((name for name in STEPS if name in run.summary_metrics), "_step")
        try:
            rows = _retried(self.source, lambda: list(run.scan_history([step, metric])))
        except UserError as error:
            self.is_lost = isinstance(error, Lost)
            say(f"warning: run {run.id}{' and those after it are' if self.is_lost else ' is'} without a curve: {error}")
            return []
        values = {int(row[step]): float(row[metric]) for row in rows if is_number(row.get(step)) and is_number(row.get(metric))}
        return sorted(values.items())


class Lost(UserError):
    """No answer, after all tries."""


def _parsed(source: str) -> tuple[str, str, str]:
    parts = source.removeprefix(API).strip("/").split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(
            f"{source}: {len(parts)} names; expected wandb:ENTITY/PROJECT, or wandb:ENTITY/PROJECT/SWEEP_OR_GROUP. "
            "The project's page shows them."
        )
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _retried(source: str, action: Callable[[], Result]) -> Result:
    """Return the action's result; a lost answer is asked for again.

    Raises:
        UserError: there is none.
    """
    for left in reversed(range(TRIES)):
        try:
            return action()
        except (Error, WandbApiFailedError) as error:
            message = " ".join(str(error).split())[:300]
            status = _status(error)
            # without a cause it is the key's form, which the client looks at itself
            if status in (401, 403) or (isinstance(error, AuthenticationError) and error.__cause__ is None):
                raise UserError(
                    f"{source}: W&B refuses the key ({message}); expected one that may read the project. `wandb "
                    f"login` with another, or {OFFLINE}."
                ) from None
            if status is not None:
                raise UserError(
                    f"{source}: W&B does not give it ({message}); expected a project, sweep or group that your key "
                    f"may see. Check the names, or {OFFLINE}."
                ) from None
            if not left or GAVE_UP in message:
                raise Lost(
                    f"{source}: W&B does not answer ({message}); expected its server within WANDB_HTTP_TIMEOUT seconds "
                    f"(19). Try again later, or {OFFLINE}."
                ) from None
            say(f"W&B: {message}; trying again ({left} left)")
            time.sleep(WAIT)
    raise AssertionError("unreachable")


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status of W&B's answer, 200 of one that says what is wrong; None where no answer came, or not its last.

    W&B's errors are wrapped in one another: the answer is in one of them.
    """
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None and GAVE_UP not in str(error):
            status = getattr(response, "http_status", 0) or 200
            return None if status in (408, 429) or status >= 500 else status
        error = getattr(error, "exc", None) or error.__cause__
    return None
