"""What report.json keeps of a study, so that a report alone, without its runs, can be compared with a later one.

"study": {"metric", "higher", "factors", "telling", "options": of all runs alike, "made_of": [[data, code, base], …],
          "groups": [{"label", "factors", "options": of its own, "runs": [{"run", "id", "seed", "state", "error", "metrics",
          "made_of": place}]}],
          "claims": [{"claim", "state", "words"}], "directions": {metric: side}, of runs that say it,
          "baseline": label that the settings were tested against, where one was named, "paired": whether by seed, …}
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError
from research.report.goals import direction, is_lower, recorded
from research.report.study import Group, Study
from research.runs.options import SEED
from research.runs.record import RunRecord
from research.types import Direction, Json

MADE_OF = ("data", "code", "base")


class Setting(NamedTuple):
    """One group of a study: runs that differ by their seed.

    Attributes:
        label, factors: as in study.Group.
        options: that not all runs of the study share, of this group.
        runs: finished or not.
    """

    label: str
    factors: dict[str, Json]
    options: dict[str, Json]
    runs: list[RunRecord]

    def values(self, metric: str) -> dict[int | None, float]:
        """Map each seed to its value, of the runs that are done; of copies the first, as a study counts them."""
        by_seed: dict[int | None, float] = {}
        for run in self.runs:
            if run.state == "done" and math.isfinite(run.metrics.get(metric, math.nan)):
                by_seed.setdefault(run.seed, run.metrics[metric])
        return by_seed


class StudyRecord(NamedTuple):
    """A study as a report keeps it.

    Attributes:
        metric: that it was about.
        higher: whether more of it is better.
        factors: options that differ.
        telling: those of them that tell the settings apart, as study.Study has them.
        options: those that all runs share.
        settings: its groups.
        claims: text → (state, words).
        directions: metric → better side, as the runs recorded it.
        baseline: label that the settings were tested against; None: the first with a value.
        paired: whether these tests paired runs of one seed.
    """

    metric: str
    higher: bool
    factors: list[str]
    telling: list[str]
    options: dict[str, Json]
    settings: list[Setting]
    claims: dict[str, tuple[str, str]]
    directions: dict[str, Direction] = {}  # noqa: RUF012 (never changed)
    baseline: str | None = None
    paired: bool = False

    @property
    def runs(self) -> list[RunRecord]:
        """List all runs, finished or not."""
        return [run for setting in self.settings for run in setting.runs]

    @property
    def metrics(self) -> list[str]:
        """List the metrics of finished runs, the report's own first."""
        return list(dict.fromkeys([self.metric, *(name for run in self.runs for name in run.metrics)]))

    def higher_is_better(self, metric: str) -> bool:
        """Return whether more of a metric is better: as the report said of its own, else as its runs or its name say it."""
        return self.higher if metric == self.metric else not is_lower(metric, self.directions)

    def study(self, metric: str) -> Study:
        """Make the groups again, for what works on them: claims."""
        groups = [Group(setting.label, setting.factors, [], setting.values(metric), {}) for setting in self.settings]
        guessed = metric != self.metric and direction(metric, self.directions) is None
        return Study(metric, self.higher_is_better(metric), groups, self.telling, [], guessed=guessed)


def study_record(
    study: Study, claims: Sequence[dict[str, str]] = (), baseline: str | None = None, paired: bool = False
) -> dict[str, Json]:
    """Return the part of report.json that holds a study.

    Args:
        study: with its runs.
        claims: as {"claim", "state", "words"}.
        baseline, paired: see StudyRecord.
    """
    runs = [run for group in study.groups for run in group.runs]
    origins, alike = list(dict.fromkeys(run.made_of for run in runs)), shared(runs)
    groups = [
        {
            "label": group.label,
            "factors": group.factors,
            "options": _further_options(group, alike),
            "runs": [_run_entry(run, origins) for run in group.runs],
        }
        for group in study.groups
    ]
    return {
        "metric": study.metric,
        "higher": study.higher,
        "factors": list(groups[0]["factors"]),
        "telling": study.factors,
        "options": alike,
        "made_of": [list(origin) for origin in origins],
        "groups": groups,
        "claims": list(claims),
        **({"directions": sides} if (sides := recorded(runs)) else {}),
        **({"baseline": baseline} if baseline else {}),
        **({"paired": True} if paired else {}),
    }


def shared(runs: Sequence[RunRecord]) -> dict[str, Json]:
    """Return options that all runs have alike; points never begun have only those of their sweep, and are not asked."""
    runs = [run for run in runs if any(run.made_of)]
    if not runs:
        return {}
    first, *others = runs
    return {
        name: value
        for name, value in first.options.items()
        if name != SEED and all(name in run.options and run.options[name] == value for run in others)
    }


def _further_options(group: Group, alike: dict[str, Json]) -> dict[str, Json]:
    """Return the group's options that not all runs share; a point that was never begun knows only some of them."""
    first = next((run for run in group.runs if any(run.made_of)), group.runs[0])
    return {name: value for name, value in first.options.items() if name != SEED and name not in alike}


def _run_entry(run: RunRecord, origins: list[tuple[str, ...]]) -> dict[str, Json]:
    """Return one run as report.json keeps it; `made_of` is the place of its origin in the list of all."""
    return {
        "run": run.name,
        "id": run.id,
        "seed": run.seed,
        "state": run.state,
        "error": run.error,
        "metrics": {name: value if math.isfinite(value) else None for name, value in run.metrics.items()},
        "made_of": origins.index(run.made_of),
    }


def read_study_record(value: Any, where: str) -> StudyRecord:
    """Read the study that a report holds.

    Args:
        value: the record that `study_record` returned, read from JSON.
        where: the file, for messages.

    Raises:
        UserError: the value is not such a record.
    """
    try:
        settings = []
        for group in value["groups"]:
            runs = [
                RunRecord(
                    name=entry["run"],
                    path=Path(),
                    state=entry["state"],
                    error=entry["error"],
                    sweep="",
                    point=entry["id"],
                    seed=entry["seed"],
                    options={},
                    metrics=_numbers(entry["metrics"]),
                    facts={},
                    examples={},
                    made_of=tuple(value["made_of"][entry["made_of"]]),
                )
                for entry in group["runs"]
            ]
            settings.append(Setting(group["label"], dict(group["factors"]), dict(group["options"]), runs))
        claims = {claim["claim"]: (claim["state"], claim["words"]) for claim in value["claims"]}
        return StudyRecord(
            str(value["metric"]),
            bool(value["higher"]),
            list(value["factors"]),
            list(value["telling"]),
            dict(value["options"]),
            settings,
            claims,
            dict(value.get("directions") or {}),
            value.get("baseline"),
            bool(value.get("paired")),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{where} says nothing of its runs ({type(error).__name__}: {error}); expected a study's groups with "
            "their values, as `research report` writes them now. Make that report again, or name its run "
            "folders instead."
        ) from None


def _numbers(metrics: dict[str, Json]) -> dict[str, float]:
    """Read null as NaN: JSON has none, so that values that are not finite are null there."""
    for name, value in metrics.items():
        if not isinstance(value, int | float | None):
            raise ValueError(f"{name} is {json.dumps(value)[:40]}")
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def equal(a: float, b: float) -> bool:
    """Return whether two numbers are equal to the last bit; NaN equals NaN."""
    return a == b or (math.isnan(a) and math.isnan(b))
