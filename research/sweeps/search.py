"""Bayes without a server: Optuna's TPE proposes the next point from what became of the points before it.

A sweep that is searched has a plan that grows: a proposed point is appended to plan.jsonl, and from there on it is a point as
any other, with the same ledger. The plan and the ledger are all that a proposal depends on (Optuna's study is built anew from
them each time), so that there is no second journal that could disagree with them after a crash, one worker's search is a
function of its seed, and an interrupted one goes on as if it had not been. Proposals are made one at a time, under a lock: no
more than run_cap points are ever begun, however many workers there are.
"""

import os
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.progress import say
from research.runs.files import atomic_write
from research.runs.hashes import hash_json
from research.runs.ledger import Ledger, Standing, should_run
from research.runs.locks import locked
from research.runs.plan import FILE, PlannedPoint, points_so_far, write_points
from research.sweeps.configs import typed
from research.sweeps.distributions import Parameter
from research.sweeps.folder import known_ids
from research.sweeps.parameters import assembled
from research.sweeps.plan import Describe, plan_point
from research.sweeps.spec import Sweep
from research.types import Json

KEY, LOCK = "search.key", "search.lock"
STARTUP = 10  # points that are drawn at random before the first is proposed, as Optuna's default
TRIES = 100  # draws for one point that is new and can be run

Draw = dict[str, float | int]
"""Parameter → its quantile, or the number of its value in the list."""


class Tried(NamedTuple):
    """A point as the proposal sees it.

    Attributes:
        draw: what its values were made from.
        state: of the ledger.
        value: of the sweep's metric; None where there is none yet.
    """

    draw: Draw
    state: str
    value: float | None


def refuse_other_search(folder: Path, sweep: Sweep, seed: int) -> None:
    """Refuse a search other than the folder's, or one without an end.

    Raises:
        UserError: it cannot be searched here, or the folder holds another search.
    """
    if sweep.run_cap is None:
        raise UserError(f"{sweep.path}: bayes without run_cap has no end; expected a number of trials. Add run_cap: 24.")
    path = folder / KEY
    if path.exists() and path.read_text(encoding="utf-8") != _key(typed(sweep, folder), seed):
        raise UserError(
            f"{folder} holds another search than {sweep.path} with --seed {seed}: its points were proposed for "
            "other parameters; expected the same, to go on. Give the sweep another name, or move that "
            "folder."
        )


def open_search(folder: Path, sweep: Sweep, seed: int) -> None:
    """Begin a search in this folder, or continue it.

    Raises:
        UserError: as refuse_other_search.
    """
    refuse_other_search(folder, sweep, seed)
    with atomic_write(folder / KEY) as stream:
        stream.write(_key(typed(sweep, folder), seed))


def _key(sweep: Sweep, seed: int) -> str:
    names = ("method", "metric", "parameters", "command", "program", "early_terminate")
    return hash_json([{name: sweep.facts.get(name) for name in names}, seed])


def grow(folder: Path, sweep: Sweep, seed: int, describe: Describe) -> PlannedPoint | None:
    """Propose one more point and write it into the plan; None where run_cap is reached, or nothing new is left.

    Args:
        folder: of the sweep.
        sweep: method bayes, with a run_cap.
        seed: of the search.
        describe: as in plan.
    """
    with locked(folder / LOCK):
        points = points_so_far(folder)
        if len(points) >= sweep.run_cap:
            return None
        standings = Ledger(folder).standings([planned.point for planned in points])
        tried = [_tried(planned, standings[planned.point]) for planned in points]
        known = {planned.point for planned in points}
        for attempt in range(TRIES):
            # the first try is the proposal; after one that is not new, or that the guard refuses, points are drawn at random
            draw = propose(sweep, seed, tried) if attempt == 0 else random_draw(sweep, f"{seed} {len(points)} {attempt}")
            values = values_of(sweep, draw)
            try:
                planned = plan_point(sweep, values, describe)
            except UserError as error:
                say(f"not tried: {values} ({error})")
                continue
            planned = planned._replace(facts=planned.facts | {"draw": draw})
            if known.isdisjoint(known_ids(planned.point, planned.facts)):
                write_points(folder / FILE, [*points, planned])
                return planned
        say(f"nothing new was found in {TRIES} draws: the search ends after {len(points)} of {sweep.run_cap} points")
        return None


def points_to_run(folder: Path, sweep: Sweep, seed: int, describe: Describe, once: bool = False) -> Iterator[PlannedPoint]:
    """Yield points of a search that are to be run, proposed as they are needed.

    Args:
        folder: of the sweep.
        sweep: method bayes.
        seed: of the search.
        describe: as in plan.
        once: no more than one.
    """
    ledger, yielded = Ledger(folder), set()
    while True:
        points = points_so_far(folder)
        standings = ledger.standings([planned.point for planned in points])
        left = [planned for planned in points if should_run(standings[planned.point]) and planned.point not in yielded]
        planned = left[0] if left else grow(folder, sweep, seed, describe)
        if planned is None:
            return
        yielded.add(planned.point)
        yield planned
        if once and ledger.standings([planned.point])[planned.point].last.get("pid") == os.getpid():
            return


def propose(sweep: Sweep, seed: int, tried: list[Tried]) -> Draw:
    """Propose TPE's next point (Bergstra et al. 2011), over the quantiles of each parameter.

    Args:
        sweep: parameters, goal and run_cap.
        seed: of the search; with as many points before, the same proposal.
        tried: the points before, those that are running too.
    """
    # here: a second, for searches alone
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {
        parameter.name: CategoricalDistribution(tuple(range(len(parameter.values))))
        if _is_listed(parameter)
        else FloatDistribution(0.0, 1.0)
        for parameter in sweep.parameters
    }
    startup = max(1, min(STARTUP, (sweep.run_cap or STARTUP) // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # multivariate is called experimental
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=startup, multivariate=True, seed=random.Random(f"{seed} {len(tried)}").getrandbits(31)
        )
    study = optuna.create_study(direction=sweep.goal, sampler=sampler)
    for trial in tried:
        facts: dict[str, object] = {"params": trial.draw, "distributions": spaces}
        if trial.state == "done" and trial.value is not None:
            study.add_trial(create_trial(value=trial.value, **facts))
        elif trial.state == "pruned" and trial.value is not None:  # ranked below those that were not
            study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: trial.value}, **facts))
        elif trial.state in ("failed", "diverged", "done", "pruned"):
            study.add_trial(create_trial(state=TrialState.FAIL, **facts))
        else:  # running, or to be run again: the next proposals keep away from it
            study.add_trial(create_trial(state=TrialState.RUNNING, **facts))
    return dict(study.ask(spaces).params)


def random_draw(sweep: Sweep, name: str) -> Draw:
    """Draw a point at random."""
    generator = random.Random(f"search {sweep.name} {name}")
    return {
        parameter.name: generator.randrange(len(parameter.values)) if _is_listed(parameter) else generator.random()
        for parameter in sweep.parameters
    }


def values_of(sweep: Sweep, draw: Draw) -> dict[str, Json]:
    """Map each parameter to its value."""
    values = [_value_of(parameter, draw[parameter.name]) for parameter in sweep.parameters]
    return assembled(sweep.parameters, values)


def _tried(planned: PlannedPoint, standing: Standing) -> Tried:
    return Tried(planned.facts["draw"], standing.state, standing.last.get("value"))


def _value_of(parameter: Parameter, drawn: float) -> Json:
    return parameter.values[int(drawn)] if _is_listed(parameter) else parameter.quantile(drawn)


def _is_listed(parameter: Parameter) -> bool:
    """Return whether the values are categories without an order; with probabilities, a quantile stands for the value."""
    return parameter.distribution in ("categorical", "constant")
