"""Logs a training to W&B: one run, however often it is stopped, with results for W&B's tables."""

import os
import uuid
from pathlib import Path

from research.runs.files import write_json
from research.runs.folder import RunFolder
from research.runs.layout import WANDB
from research.runs.tracking import Tracker
from research.training.base import TrainingModule
from research.training.stop import Stopped


def tracker_of(choice: str, out: Path, resolved: dict, point: str) -> Tracker:
    """Begin or resume W&B's run of a training; its id lies in the folder, by which a resumed training finds it.

    Raises:
        UserError: the file with the id is damaged.
    """
    path = out / WANDB
    group = os.environ.get("TANDEM_SWEEP")  # of our own executors
    theirs = os.environ.get("WANDB_SWEEP_ID") or os.environ.get("TANDEM_TRIAL")  # of W&B's agent, or a trial it began
    if not path.exists():
        # W&B's agent has made a run already; a sweep's point is one run wherever it is started; else a new one
        agents = os.environ.get("WANDB_RUN_ID") if theirs else None
        write_json(path, {"id": agents or (point if group else uuid.uuid4().hex[:12])})
    resolved = resolved | {"sweep": {"name": group or theirs, "point": point}}
    return Tracker(choice, out, "fit", resolved, id=RunFolder(out).wandb.get("id"), group=group)


def summarise(tracker: Tracker, out: Path, metrics: dict, module: TrainingModule) -> None:
    """Give W&B's table and plots the results of a finished run, and wandb.json their names, for a W&B report.

    W&B's own summary holds the last validation; results are about the kept model, which may be an earlier one.
    """
    facts = (metrics.get("trained") or {}) | {name: metrics.get(name) for name in ("seconds", "steps", "temperature", "pruned")}
    size = facts.get("trained_parameters", sum(p.numel() for p in module.parameters() if p.requires_grad))
    values = {f"val/{name}": value for name, value in metrics["metrics"].items() if value is not None}
    values["trained_parameters"] = size  # by itself too: an axis of W&B's plots
    ours = {name: value for name, value in facts.items() if value is not None}
    # W&B keeps no order of its summary, knows no metric's better side, and notes the commit of where the user stands: a
    # report that is read from it has all three from here
    commit = RunFolder(out).provenance.get("git_commit")
    ours |= {"metrics": [*metrics["metrics"]], "directions": metrics.get("directions") or {}} | (
        {"commit": commit} if commit else {}
    )
    tracker.summary(values | {"tandem": ours})
    if tracker.run is not None:  # W&B has taken them
        write_json(out / WANDB, RunFolder(out).wandb | {"summary": sorted(values)})


def exit_code(error: BaseException | None) -> int:
    """Return the exit code that is reported to W&B at the end of a training."""
    return error.exit_code if isinstance(error, Stopped) else 0 if error is None else 1
