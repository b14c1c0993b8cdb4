"""What a sweep costs, from a few real steps of its points (`sweep plan --measure`)."""

import json
import statistics

from research.errors import UserError
from research.progress import say
from research.runs.plan import PlannedPoint, with_id
from research.sweeps.command import ours
from research.sweeps.folder import as_text
from research.sweeps.plan import is_fit, watched
from research.sweeps.trainer import Program
from research.types import Json

FREE = ("seed_everything", "lr", "weight_decay", "warmup", "decay", "lora_alpha", "beta", "temperature", "label_smoothing")
"""Last parts of option names that change what is computed and not how long it takes: one point stands for all of them."""


def measured(
    points: list[PlannedPoint], steps: int, start: float, program: Program, trials: int | None = None, kinds: int | None = None
) -> tuple[list[PlannedPoint], dict[str, Json]]:
    """Measure the `seconds` and `devices` of the points; return the points with them, and what they come to.

    Args:
        points: of a plan, trainings of ours.
        steps: to time of each kind of point.
        start: seconds that a new process needs before its first point.
        program: times the steps.
        trials: of a sweep whose points are samples of what it will run; None: they are all.
        kinds: how many kinds of points are timed; the others count as the mean of those. None: all.

    Raises:
        UserError: a point is no training of ours, or its first steps end in an error.
    """
    if foreign := [planned for planned in points if not is_fit(planned)]:
        raise UserError(
            f"--measure: {foreign[0].argv[0]} is no `research fit`; expected a command whose steps can be timed. "
            "Leave --measure out."
        )
    samples: dict[str, PlannedPoint] = {}
    for planned in points:
        samples.setdefault(_kind(planned), planned)
    costs: dict[str, dict[str, Json]] = {}
    for kind in watched(list(samples)[:kinds]):
        sample = samples[kind]
        try:
            costs[kind] = program.time_steps(ours(with_id(sample.argv, sample.point)), steps)
        except UserError as error:
            raise UserError(f"{as_text(sample.values)}: {error}") from None
    other = {
        "seconds": statistics.mean(cost["seconds"] for cost in costs.values()),
        "devices": costs[next(iter(costs))]["devices"],
    }
    timed = [planned._replace(facts=planned.facts | costs.get(_kind(planned), other)) for planned in points]
    share = 1 if trials is None else trials / len(timed)
    hours = share * sum((planned.facts["seconds"] + start) * planned.facts["devices"] for planned in timed) / 3600
    hours_in_workers = share * sum(planned.facts["seconds"] * planned.facts["devices"] for planned in timed) / 3600
    return timed, {
        "hours": hours,
        "hours_in_kept_workers": hours_in_workers,
        "start_seconds": start,
        "measured": len(costs),
        "device": costs[next(iter(costs))]["device"],
        "steps": steps,
        "trials": trials or len(timed),
    }


def say_measuring(points: list[PlannedPoint], steps: int, kinds: int | None) -> None:
    """Print what is about to be timed: it is the longest part of a plan."""
    count = len({_kind(planned) for planned in points})
    timed = min(count, kinds or count)
    fewer = "; --kinds 1 times one of them, and counts the others as long" if timed > 1 else ""
    say(f"timing {steps} steps of {timed} of {count} kinds of points, each a training of its own that is thrown away{fewer}")


def _kind(planned: PlannedPoint) -> str:
    """Return a key that is equal for points that take equally long."""
    return json.dumps(_without_free(planned.values), sort_keys=True)


def _without_free(values: Json) -> Json:
    if not isinstance(values, dict):
        return values
    return {name: _without_free(value) for name, value in values.items() if name.rpartition(".")[2] not in FREE}
