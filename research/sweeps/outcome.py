"""What a sweep's metric decides: what became of a point, when a training ends early, and when the target is reached."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from research.progress import say
from research.runs.curves import history
from research.runs.folder import RunFolder
from research.runs.ledger import Ledger
from research.runs.plan import PlannedPoint, points_so_far, read_plan
from research.runs.state import is_finished
from research.sweeps.hyperband import judge
from research.sweeps.plan import is_fit
from research.sweeps.spec import Sweep

RULE = "TANDEM_PRUNE"
"""Variable that tells a point's training how the sweep ends it early."""


def variables_of(folder: Path, sweep: Sweep, plan: Path | None = None) -> dict[str, str]:
    """Return the variables that tell a point of its sweep, whose plan is the folder's or a copy of it."""
    variables = {"TANDEM_SWEEP": sweep.name}
    if sweep.early_terminate is not None:
        rule = {"folder": str(Path(folder).resolve()), "metric": sweep.metric, "goal": sweep.goal}
        if plan is not None:
            rule["plan"] = str(plan.resolve())
        variables[RULE] = json.dumps(rule | {"rule": sweep.early_terminate})
    return variables


def early_termination(out: Path) -> tuple[str, Callable[[list[float]], str | None]] | None:
    """Return how this process's sweep ends a training early; None where it does not.

    Args:
        out: the training's run folder.

    Returns:
        The metric; and a function from its values so far to why the training is to be stopped, or None.
    """
    if RULE not in os.environ:
        return None
    facts = json.loads(os.environ[RULE])

    def reason_to_stop(values: list[float]) -> str | None:
        # of this plan alone: the folder may hold points of an earlier one, measured on other data
        folder, plan = Path(facts["folder"]), facts.get("plan")
        points = points_so_far(folder) if plan is None else read_plan(folder, Path(plan))
        names = [planned.point for planned in points if planned.point != Path(out).name]
        others = [[value for _, value in history(folder / name, facts["metric"])] for name in names]
        judgement = judge(values, others, facts["rule"], facts["goal"])
        return str(judgement) if judgement is not None and judgement.stop else None

    return facts["metric"], reason_to_stop


def outcome_of(folder: Path, sweep: Sweep) -> Callable[[PlannedPoint], dict[str, object]]:
    """Return what gives a point's event the best value of the sweep's metric, and whether it was pruned, if it ended well."""

    def outcome(planned: PlannedPoint) -> dict[str, object]:
        if not is_fit(planned):
            return {}
        run = folder / planned.point
        if not is_finished(run):
            return {"state": "failed", "code": 1, "error": f"it ended with 0, and {run} holds no finished training"}
        if sweep.metric is None:
            return {}
        # the first value is the untrained model's
        values = [value for step, value in history(run, sweep.metric) if step and math.isfinite(value)]
        if not values:
            return {"state": "failed", "code": 2, "error": f"{run} has no value of {sweep.metric}"} if sweep.is_searched else {}
        pruned = RunFolder(run).result.get("pruned")
        value = (max if sweep.goal == "maximize" else min)(values)
        return {"value": value} | ({"state": "pruned", "pruned": pruned} if pruned else {})

    return outcome


def is_target_reached(folder: Path, sweep: Sweep, points: Iterable[PlannedPoint]) -> bool:
    """Return whether a point has reached the metric's target, after which W&B begins no more of them."""
    if sweep.target is None:
        return False
    standings = Ledger(folder).standings([planned.point for planned in points]).values()
    values = [standing.last.get("value") for standing in standings if standing.state in ("done", "pruned")]
    sign = -1 if sweep.goal == "maximize" else 1
    return any(sign * value <= sign * sweep.target for value in values if isinstance(value, int | float))


def until_target(
    folder: Path, sweep: Sweep, points: Callable[[], list[PlannedPoint]], to_run: Iterable[PlannedPoint]
) -> Iterator[PlannedPoint]:
    """Yield the points that are to be run, until one has reached the metric's target.

    Args:
        folder: of the sweep.
        sweep: with a target or without.
        points: all of them; of a search, those so far.
        to_run: those that are to be run.
    """
    waiting = iter(to_run)
    while not is_target_reached(folder, sweep, points()) and (planned := next(waiting, None)) is not None:
        yield planned


def sweep_exit_code(folder: Path, sweep: Sweep, points: list[PlannedPoint], code: int, counts: dict[str, int]) -> int:
    """Return the exit code of a sweep: 0 too where its target leaves points out."""
    if not {*counts} <= {"done", "pruned", "missing"} or not is_target_reached(folder, sweep, points):
        return code
    left = counts.get("missing", 0)
    say(
        f"metric.target={sweep.target:g} is reached"
        + (f": {left} {'point is' if left == 1 else 'points are'} not begun" if left else "")
    )
    return 0
