"""Runs that differ by their seed alone → groups, whose values over seeds are compared.

Groups hold records, not rows of the frame: an option may be a list, which pandas cannot group by; a run is kept apart by what
it was made of; and what follows asks the runs of a group for their paths, states, errors and curves, which are no cells.
"""

import math
from collections.abc import Mapping, Sequence

from research.errors import UserError
from research.report.doubts import aside, doubts, unmeasured
from research.report.factors import distinguishing, named, setting_labels, short_names, shown, some
from research.report.goals import convention, declaration, recorded
from research.report.study import Group, Study
from research.runs.options import SEED, as_key
from research.runs.record import RunRecord

LARGEST = 1e150  # value of a metric; the square of a larger one is no number
ROUNDING = 1e-4  # within which two states of the code, whose numbers are the same, may differ


def make_study(
    runs: Sequence[RunRecord],
    metric: str,
    factors: Sequence[str],
    higher: bool | None = None,
    every: bool = False,
    labels: Mapping[str, str] | None = None,
) -> Study:
    """Group the runs by everything but the seed.

    Args:
        runs: as runs.table.read_runs gives them.
        metric: that groups are compared by.
        factors: options that differ.
        higher: whether more of the metric is better; None decides by its name.
        every: whether each factor is a column, also one that follows from others.
        labels: option or metric → what tables and figures call it.

    Raises:
        UserError: no finished run has the metric, or two runs of one setting and seed have different values.
    """
    if reason := unmeasured(runs):
        raise UserError(reason)
    done = [run for run in runs if run.state == "done"]
    if not any(math.isfinite(run.metrics.get(metric, math.nan)) for run in done):
        known = sorted({name for run in done for name in run.metrics})
        raise UserError(
            f"no finished run has {metric}; expected one of {', '.join(known) or 'nothing: no run is finished'}. "
            "Name another by --metric, or run `research test` on the runs."
        )
    buckets: dict[str, list[RunRecord]] = {}
    for run in runs:
        buckets.setdefault(as_key([run.options.get(name) for name in factors]), []).append(run)
    warnings: list[str] = []
    split: list[list[RunRecord]] = []
    for bucket in buckets.values():
        split += _same_origin(bucket, warnings)
    shortest = distinguishing([part[0] for part in split], factors)
    # draws of a random sweep tell each other by accident: what was swept for itself is shown
    swept = {name for run in runs for name in run.swept}
    columns = [name for name in factors if every or name in shortest or name in swept]
    labels = dict(labels or {})
    keys = setting_labels(split, columns, short_names(factors))
    names = setting_labels(split, columns, named(factors, labels)) if labels else keys
    parts = zip(names, split, keys, strict=True)
    groups = [_group(label, part, metric, factors, warnings)._replace(key=key) for label, part, key in parts]
    beside = aside([run for group in groups for run in group.counted[:1]], columns, labels)
    warnings += [*doubts(groups, metric), *([beside] if beside else [])]
    declared = declaration(metric, recorded(runs))
    side = declared or convention(metric)
    if higher is None and declared is None and side is not None:
        warnings.append(
            f"{'less' if side == 'lower' else 'more'} of {metric} is taken for better, by its name: its runs do not say it; "
            f"if that is wrong, say `goal: {'maximize' if side == 'lower' else 'minimize'}` in --spec"
        )
    if guessed := higher is None and side is None:
        warnings.append(
            f"whether more of {metric} is better is a guess, since its name does not tell: say `goal: minimize` or "
            "`goal: maximize` in --spec"
        )
    return Study(metric, side != "lower" if higher is None else higher, groups, columns, warnings, beside, guessed, labels)


def _same_origin(bucket: list[RunRecord], warnings: list[str]) -> list[list[RunRecord]]:
    """Split a setting's runs by data, code and base model: runs of different ones are never averaged."""
    parts: dict[tuple, list[RunRecord]] = {}
    unknown = []  # points that were never begun
    for run in bucket:
        parts.setdefault(run.origin, []).append(run) if any(run.made_of) else unknown.append(run)
    groups = list(parts.values()) or [[]]
    if len(groups) > 1:
        differing = [name for i, name in enumerate(("data", "code", "base model")) if len({origin[i] for origin in parts}) > 1]
        parts_named = [some([run.name for run in part]) for part in groups]
        warnings.append(
            f"runs of one setting have other {' and '.join(differing)} ({'; '.join(parts_named)}): "
            "they are shown as groups of their own, and not averaged"
        )
    groups[0] += unknown
    return groups


def _group(label: str, runs: list[RunRecord], metric: str, factors: Sequence[str], warnings: list[str]) -> Group:
    """Make a group of runs of one setting: a value for each seed, of copies the first run's."""
    values: dict[int, float] = {}
    counted: dict[int, RunRecord] = {}
    for run in runs:
        if run.state != "done" or metric not in run.metrics:
            continue
        if not abs(run.metrics[metric]) < LARGEST:  # diverged, or NaN: no mean and no spread can hold it
            continue
        if run.seed in counted:
            first = counted[run.seed]
            if not _equal_metric(run, first, metric):
                if run.how == first.how:
                    raise UserError(
                        f"{first.name} and {run.name} are of one setting and seed ({label}, seed {run.seed}) "
                        f"and have different {metric} ({values[run.seed]:g}, {run.metrics[metric]:g})"
                        f"{_expectation(first, run)}"
                    )
                ways = [
                    f"{name} {_setting_of(first, name)} and {_setting_of(run, name)}"
                    for name in sorted({*first.how, *run.how})
                    if first.how.get(name) != run.how.get(name)
                ]
                warnings.append(
                    f"{first.name} and {run.name} are one training, computed in two ways ({', '.join(ways)}): "
                    f"{metric} is {first.metrics[metric]:g} and {run.metrics[metric]:g}, and the first is counted"
                )
                continue
            warnings.append(f"{run.name} is a copy of {counted[run.seed].name} (same setting, seed and {metric}): counted once")
            continue
        values[run.seed], counted[run.seed] = run.metrics[metric], run
    names = dict.fromkeys(name for run in counted.values() for name in run.facts)
    numbers = {}
    for name in names:
        recorded_values = [run.facts[name] for run in counted.values() if name in run.facts]
        numbers[name] = sum(recorded_values) / len(recorded_values)
    return Group(label, {name: runs[0].options.get(name) for name in factors}, runs, values, numbers, tuple(counted.values()))


def _setting_of(run: RunRecord, name: str) -> str:
    """Return the value of an option that says how a run was computed, as a table has it."""
    return shown(run.how[name][0] if name in run.how else run.options.get(name))


def _equal_metric(a: RunRecord, b: RunRecord, metric: str) -> bool:
    """Return whether two runs have one value: to the last bit, or within rounding where two states of the code computed it."""
    x, y = a.metrics[metric], b.metrics[metric]
    return x == y or (a.made_of[1] != b.made_of[1] and math.isclose(x, y, rel_tol=ROUNDING, abs_tol=ROUNDING))


def _expectation(a: RunRecord, b: RunRecord) -> str:
    """Write the end of a message about two runs of one setting and seed: expectation and cure."""
    options = [
        name for name in dict.fromkeys([*a.options, *b.options]) if name != SEED and a.options.get(name) != b.options.get(name)
    ]
    if a.seed is None and a.history is not None:
        cure = "If an option holds the seed, name it as `seed: OPTION` in --spec; else leave one out"
        return f"; expected one run a seed. {cure}."
    if not options:
        return "; expected one run a seed. Leave one out."
    values = f"{options[0]} ({shown(a.options.get(options[0]))}, {shown(b.options.get(options[0]))})"
    more = f" and {len(options) - 1} more options" if len(options) > 1 else ""
    return f"; they differ in {values}{more}; expected one run a seed. Name it among the factors, or leave one out."
