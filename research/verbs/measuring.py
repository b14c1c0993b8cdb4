"""`sweep plan --measure`: what a sweep costs, from a few real steps of its points."""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.runs.plan import PlannedPoint, with_id
from research.sweeps.plan import shown

FREE = ("seed_everything", "lr", "weight_decay", "warmup", "decay", "lora_alpha", "beta", "temperature", "label_smoothing")
"""Last parts of option names that change what is computed and not how long it takes: one point stands for all of them."""


def measure(
    points: list[PlannedPoint], steps: int, start: float, trials: int | None = None
) -> tuple[list[PlannedPoint], dict[str, Any]]:
    """The points with `seconds`, and what they come to.

    Args:
        points: of a plan, trainings of ours.
        steps: to time of each kind of point.
        start: seconds that a new process needs before its first point.
        trials: of a sweep whose points are samples of what it will run; None: they are all.

    Raises:
        UserError: a point is no training of ours, or its first steps end in an error.
    """
    from research.verbs.points import is_fit, watched

    if foreign := [one for one in points if not is_fit(one)]:
        raise UserError(
            f"--measure: {foreign[0].argv[0]} is no `research fit`; expected a command whose steps can be timed. "
            "Leave --measure out."
        )
    kinds: dict[str, list[PlannedPoint]] = {}
    for one in points:
        kinds.setdefault(_kind(one), []).append(one)
    found: dict[str, dict[str, Any]] = {}
    for kind in watched(kinds):
        found[kind] = _timed(kinds[kind][0], steps)
    timed = [one._replace(facts=one.facts | found[_kind(one)]) for one in points]
    share = 1 if trials is None else trials / len(timed)
    hours = share * sum((one.facts["seconds"] + start) * one.facts["devices"] for one in timed) / 3600
    kept = share * sum(one.facts["seconds"] * one.facts["devices"] for one in timed) / 3600
    return timed, {
        "hours": hours,
        "hours_in_kept_workers": kept,
        "start_seconds": start,
        "measured": len(kinds),
        "steps": steps,
        "trials": trials or len(timed),
    }


def _timed(one: PlannedPoint, steps: int) -> dict[str, Any]:
    from research import cli
    from research.sweeps.command import ours
    from research.training.measuring import Measuring
    from research.training.run import fit

    clock = Measuring(steps)
    said = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="tandem-measure-") as folder:
        out = str(Path(folder) / "run")
        args: argparse.Namespace = cli._parse([*ours(with_id(one.argv, one.point)), "--out", out, "--wandb", "disabled"])
        args.command = ["research", *ours(one.argv)]
        started = time.perf_counter()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = fit(args, lambda out: [clock])
        except UserError as error:
            raise UserError(f"{shown(one.values)}: {error}") from None
        seconds = time.perf_counter() - started
    if code:
        last = [line for line in said.getvalue().splitlines() if line.strip()][-1:]
        raise UserError(
            f"--measure: {one.values} ends with {code} in its first steps ({' '.join(last)[:300]}); expected a "
            "point that can be trained. Correct it."
        )
    return {"seconds": round(clock.whole(seconds), 2), "devices": clock.devices}


def _kind(one: PlannedPoint) -> str:
    """Points of one kind take as long."""
    return json.dumps(_priced(one.values), sort_keys=True)


def _priced(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {name: _priced(value) for name, value in values.items() if name.rpartition(".")[2] not in FREE}
