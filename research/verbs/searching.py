"""What a sweep's metric decides: the points that a search proposes, and the trainings that end early."""

import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from research.progress import say
from research.verbs.describing import describe
from research.verbs.points import is_done, is_fit

RULE = "TANDEM_PRUNE"
"""Variable that tells a point's training how the sweep ends it early."""


def describe_for(sweep: Any) -> Callable[[list[str]], dict[str, Any]]:
    """describe, for a sweep with a metric: where it decides something its commands must measure it, and so must ours.

    What a foreign command logs is its own affair, as long as nothing here depends on it.
    """
    decides = sweep.is_searched or sweep.early_terminate is not None or sweep.target is not None
    if decides:
        return functools.partial(describe, metric=sweep.metric, goal=(sweep.facts.get("metric") or {}).get("goal"))
    return functools.partial(describe, shown=sweep.metric) if str(sweep.metric).startswith("val/") else describe


def variables_of(folder: Path, sweep: Any, plan: Path | None = None) -> dict[str, str]:
    """What the environment tells a point of its sweep, whose plan is the folder's or a copy of it."""
    variables = {"TANDEM_SWEEP": sweep.name}
    if sweep.early_terminate is not None:
        rule = {"folder": str(Path(folder).resolve()), "metric": sweep.metric, "goal": sweep.goal}
        if plan is not None:
            rule["plan"] = str(plan.resolve())
        variables[RULE] = json.dumps(rule | {"rule": sweep.early_terminate})
    return variables


def outcome_of(folder: Path, sweep: Any) -> Callable[[Any], dict[str, Any]]:
    """What a point that ended well adds to its event: the best value of the sweep's metric, and whether it was pruned."""

    def outcome(one: Any) -> dict[str, Any]:
        if not is_fit(one):
            return {}
        run = folder / one.point
        if not is_done(run):
            return {"state": "failed", "code": 1, "error": f"it ended with 0, and {run} holds no finished training"}
        if sweep.metric is None:
            return {}
        values = [value for value in history(run, sweep.metric, trained=True) if math.isfinite(value)]
        if not values:
            if not sweep.is_searched:
                return {}
            return {"state": "failed", "code": 2, "error": f"{run} has no value of {sweep.metric}"}
        pruned = json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("pruned")
        value = (max if sweep.goal == "maximize" else min)(values)
        return {"value": value} | ({"state": "pruned", "pruned": pruned} if pruned else {})

    return outcome


def is_reached(folder: Path, sweep: Any, points: Iterable[Any]) -> bool:
    """Whether a point has reached the metric's target, after which W&B begins no more of them."""
    from research.runs.ledger import Ledger

    if sweep.target is None:
        return False
    standings = Ledger(folder).standings([one.point for one in points]).values()
    values = [one.last.get("value") for one in standings if one.state in ("done", "pruned")]
    sign = -1 if sweep.goal == "maximize" else 1
    return any(sign * value <= sign * sweep.target for value in values if isinstance(value, int | float))


def until_target(folder: Path, sweep: Any, points: Callable[[], list], due: Iterable[Any]) -> Iterator[Any]:
    """The points that are to be run, until one has reached the metric's target.

    Args:
        folder: of the sweep.
        sweep: with a target or without.
        points: all of them; of a search, those so far.
        due: to be run.
    """
    due = iter(due)
    while not is_reached(folder, sweep, points()) and (one := next(due, None)) is not None:
        yield one


def ended(folder: Path, sweep: Any, points: list, code: int, counts: dict[str, int]) -> int:
    """The exit code of a sweep: 0 too where its target leaves points out."""
    if not {*counts} <= {"done", "pruned", "missing"} or not is_reached(folder, sweep, points):
        return code
    left = counts.get("missing", 0)
    say(f"metric.target={sweep.target:g} is reached" + (f": {left} points are not begun" if left else ""))
    return 0


def due(folder: Path, sweep: Any, seed: int, once: bool = False) -> Iterator[Any]:
    """Points of a search that are to be run, proposed as they are needed.

    Args:
        folder: of the sweep.
        sweep: method bayes.
        seed: of the search.
        once: no more than one.
    """
    from research.runs.ledger import Ledger
    from research.runs.plan import points_so_far
    from research.sweeps.search import grow
    from research.sweeps.worker import is_due

    ledger, given = Ledger(folder), set()
    while True:
        points = points_so_far(folder)
        standings = ledger.standings([one.point for one in points])
        left = [one for one in points if is_due(standings[one.point]) and one.point not in given]
        one = left[0] if left else grow(folder, sweep, seed, describe_for(sweep))
        if one is None:
            return
        given.add(one.point)
        yield one
        if once and ledger.standings([one.point])[one.point].last.get("pid") == os.getpid():
            return


def pruning(out: Path) -> list:
    """The callback of a training that its sweep may end early; none elsewhere."""
    if RULE not in os.environ:
        return []
    from research.runs.plan import points_so_far, read_plan
    from research.sweeps.hyperband import judged
    from research.training.pruning import Pruning

    facts = json.loads(os.environ[RULE])

    def stopped(own: list[float]) -> str | None:
        # of this plan alone: the folder may hold points of an earlier one, measured on other data
        folder, kept = Path(facts["folder"]), facts.get("plan")
        points = points_so_far(folder) if kept is None else read_plan(folder, Path(kept))
        names = [one.point for one in points if one.point != Path(out).name]
        others = [history(folder / name, facts["metric"]) for name in names]
        found = judged(own, others, facts["rule"], facts["goal"])
        return str(found) if found is not None and found.stop else None

    return [Pruning(out, facts["metric"], stopped)]


def history(run: Path, metric: str, trained: bool = False) -> list[float]:
    """A run's values of a metric, in order, as its curves have them; the first is the untrained model's, unless `trained`."""
    return [value for step, value in history_by_step(run, metric) if step or not trained]


def history_by_step(run: Path, metric: str) -> list[tuple[int, float]]:
    """(optimizer step, value) of a metric, as a run's curves have them."""
    from research.runs import curves

    return curves.history(run, metric)
