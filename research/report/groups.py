"""Runs that differ by their seed alone → groups, whose values over seeds are compared."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from research.errors import UserError
from research.report.goals import convention, declaration
from research.report.study import SEED, Run, as_key
from research.report.study import factors as all_factors

KINDS = {
    "LoraConfig": "LoRA",
    "PromptTuningConfig": "prompt tuning",
    "PrefixTuningConfig": "prefix tuning",
    "PromptEncoderConfig": "P-tuning",
}
"""PEFT's classes as papers call the methods."""
ENOUGH = 3  # seeds
LARGEST = 1e150  # value of a metric; the square of a larger one is no number
ROUNDING = 1e-4  # within which two states of the code, whose numbers are the same, may differ
ASIDE = 5  # options that are named beside the factors


class Group(NamedTuple):
    """Runs of one setting.

    Attributes:
        label: unlike every other group's.
        factors: option → value, of the options that differ between groups.
        runs: all of them, finished or not, in the order of the table.
        values: seed → value of the metric, of the runs that are done.
        numbers: run facts that all its runs share or that are averaged (trained_parameters, seconds).
        counted: the runs whose values these are, one a seed: of copies the first.
    """

    label: str
    factors: dict[str, Any]
    runs: list[Run]
    values: dict[int, float]
    numbers: dict[str, float]
    counted: Sequence[Run] = ()

    @property
    def missing(self) -> list[Run]:
        """Runs that have no value in the group."""
        return [run for run in self.runs if run.state != "done" or run.seed not in self.values]


class Study(NamedTuple):
    """Groups and what is to be said of them.

    Attributes:
        metric: such as val/loss.
        higher: whether more of it is better.
        groups: in the order of their first runs.
        factors: options that tell them apart, in the order of the configuration.
        warnings: what a reader must know before the numbers.
        aside: what the settings differ in besides their factors, in words; "" where in nothing.
        guessed: nobody has said which side of the metric is better, and its name does not tell.
    """

    metric: str
    higher: bool
    groups: list[Group]
    factors: list[str]
    warnings: list[str]
    aside: str = ""
    guessed: bool = False


def study(runs: Sequence[Run], metric: str, factors: Sequence[str], higher: bool | None = None, every: bool = False) -> Study:
    """Group the runs by everything but the seed.

    Args:
        runs: as study.collect gives them.
        metric: that groups are compared by.
        factors: options that differ.
        higher: whether more of the metric is better; None decides by its name.
        every: whether each factor is a column, also one that follows from others.

    Raises:
        UserError: no finished run has the metric, or two runs of one setting and seed have different values.
    """
    if bare := unmeasured(runs):
        raise UserError(bare)
    done = [run for run in runs if run.state == "done"]
    if not any(math.isfinite(run.metrics.get(metric, math.nan)) for run in done):
        known = sorted({name for run in done for name in run.metrics})
        raise UserError(
            f"no finished run has {metric}; expected one of {', '.join(known) or 'nothing: no run is finished'}. "
            "Name another by --metric, or run `research test` on the runs."
        )
    buckets: dict[str, list[Run]] = {}
    for run in runs:
        buckets.setdefault(as_key([run.options.get(name) for name in factors]), []).append(run)
    warnings: list[str] = []
    split: list[list[Run]] = []
    for bucket in buckets.values():
        split += _same_origin(bucket, warnings)
    telling = _telling([part[0] for part in split], factors)
    # draws of a random sweep tell each other by accident: what was swept for itself is shown
    swept = {name for run in runs for name in run.swept}
    telling = [name for name in factors if every or name in telling or name in swept]
    labels = _labels(split, telling, factors)
    groups = [_group(label, part, metric, factors, warnings) for label, part in zip(labels, split, strict=True)]
    warnings += _doubts(groups, metric)
    aside = _aside([run for group in groups for run in group.counted[:1]], telling)
    if aside:
        warnings.append(aside)
    recorded = next((run.directions for run in runs if run.directions and metric in run.metrics), None)
    declared = declaration(metric, recorded)
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
    return Study(metric, side != "lower" if higher is None else higher, groups, telling, warnings, aside, guessed)


def unmeasured(runs: Sequence[Run]) -> str:
    """What is said of trainings that are finished and were never measured; "" where one was, or none is finished."""
    done = [run.name for run in runs if run.state == "done"]
    if not done or any(run.metrics for run in runs):
        return ""
    return (
        f"{len(done)} finished runs have no metrics, since they had no validation data ({some(done)}); expected one to "
        "compare by. Run `research test -c RUN/config.yaml --data.test FILE` on each, and name its --metric."
    )


def _aside(firsts: list[Run], telling: Sequence[str]) -> str:
    """Options that differ between settings and are in no column, such as a rate that each method has of its own.

    Args:
        firsts: a run of each group.
        telling: the columns.
    """
    # what a method's name says already, and alpha beside r and alpha / r
    said = (
        "train_layers",
        "train_pattern",
        *(("lora_alpha",) if any(name.endswith("lora_alpha/r") for name in telling) else ()),
    )
    names = [
        name
        for name in all_factors(firsts)
        if name not in telling
        and not name.endswith(said)
        and not any(name.startswith(f"{one}.") for one in telling if one.endswith("adapter"))
    ]
    short = short_names([*telling, *names])
    parts = []
    for name in names[:ASIDE]:
        values = list(dict.fromkeys(shown(run.options.get(name)) for run in firsts))
        parts.append(f"{short[name]} ({', '.join(values[:4])}{', …' if len(values) > 4 else ''})")
    more = f" and {len(names) - ASIDE} more options" if len(names) > ASIDE else ""
    return f"the settings differ in {', '.join(parts)}{more} too: a difference may come from that" if names else ""


def _same_origin(bucket: list[Run], warnings: list[str]) -> list[list[Run]]:
    """Runs of other data, code or base model are groups of their own: they are never averaged."""
    parts: dict[tuple, list[Run]] = {}
    unknown = []  # points that were never begun
    for run in bucket:
        parts.setdefault(run.origin, []).append(run) if any(run.made_of) else unknown.append(run)
    found = list(parts.values()) or [[]]
    if len(found) > 1:
        what = [name for i, name in enumerate(("data", "code", "base model")) if len({one[i] for one in parts}) > 1]
        warnings.append(
            f"runs of one setting have other {' and '.join(what)} ({'; '.join(_names(part) for part in found)}): "
            "they are shown as groups of their own, and not averaged"
        )
    found[0] += unknown
    return found


def _group(label: str, runs: list[Run], metric: str, factors: Sequence[str], warnings: list[str]) -> Group:
    values: dict[int, float] = {}
    owner: dict[int, Run] = {}
    for run in runs:
        if run.state != "done" or metric not in run.metrics:
            continue
        if not abs(run.metrics[metric]) < LARGEST:  # diverged, or NaN: no mean and no spread can hold it
            continue
        if run.seed in owner:
            first = owner[run.seed]
            if not _same(run, first, metric):
                if run.how == first.how:
                    raise UserError(
                        f"{first.name} and {run.name} are of one setting and seed ({label}, seed {run.seed}) "
                        f"and have different {metric} ({values[run.seed]:g}, {run.metrics[metric]:g})"
                        f"{_difference(first, run)}"
                    )
                ways = [
                    f"{name} {_typed(first, name)} and {_typed(run, name)}"
                    for name in sorted({*first.how, *run.how})
                    if first.how.get(name) != run.how.get(name)
                ]
                warnings.append(
                    f"{first.name} and {run.name} are one training, computed in two ways ({', '.join(ways)}): "
                    f"{metric} is {first.metrics[metric]:g} and {run.metrics[metric]:g}, and the first is counted"
                )
                continue
            warnings.append(f"{run.name} is a copy of {owner[run.seed].name} (same setting, seed and {metric}): counted once")
            continue
        values[run.seed], owner[run.seed] = run.metrics[metric], run
    names = dict.fromkeys(name for run in owner.values() for name in run.facts)
    numbers = {}
    for name in names:
        found = [run.facts[name] for run in owner.values() if name in run.facts]
        numbers[name] = sum(found) / len(found)
    return Group(label, {name: runs[0].options.get(name) for name in factors}, runs, values, numbers, tuple(owner.values()))


def _typed(run: Run, name: str) -> str:
    return shown(run.how[name][0] if name in run.how else run.options.get(name))


def _same(a: Run, b: Run, metric: str) -> bool:
    """Whether two runs have one value: to the last bit, or within rounding where two states of the code computed it."""
    x, y = a.metrics[metric], b.metrics[metric]
    return x == y or (a.made_of[1] != b.made_of[1] and math.isclose(x, y, rel_tol=ROUNDING, abs_tol=ROUNDING))


def _difference(a: Run, b: Run) -> str:
    """The rest of a sentence about two runs that should be of one setting: expectation and cure."""
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


def _doubts(groups: list[Group], metric: str) -> list[str]:
    """What makes the numbers weaker than they look."""
    found = []
    few = [group for group in groups if 0 < len(group.values) < ENOUGH]
    if few:
        found.append(
            f"{len(few)} of {len(groups)} groups have fewer than {ENOUGH} seeds ({some([g.label for g in few])}): "
            "their spread says little"
        )
    if empty := [group for group in groups if not group.values]:
        found.append(f"{len(empty)} of {len(groups)} groups have no value of {metric} ({some([g.label for g in empty])})")
    for state in dict.fromkeys(run.state for group in groups for run in group.missing if run.state != "done"):
        rows = [run for group in groups for run in group.missing if run.state == state]
        why = {run.error for run in rows if run.error}
        are = "runs are" if len(rows) > 1 else "run is"
        found.append(
            f"{len(rows)} {are} {state} and in no mean: {some([run.name for run in rows])}"
            + (f" ({some(sorted(why))})" if why else "")
        )
    if bare := [run for group in groups for run in group.runs if run.state == "done" and metric not in run.metrics]:
        found.append(f"{len(bare)} finished runs have no {metric}: {some([run.name for run in bare])}")
    if lost := [run for group in groups for run in group.missing if run.state == "done" and run not in bare]:
        found.append(
            f"{len(lost)} finished runs have a {metric} that is not finite and are in no mean: "
            f"{some([run.name for run in lost])}"
        )
    return found


def marginal(groups: Sequence[Group]) -> dict[int, float]:
    """Seed → mean of these groups' values; of the seeds that all of them have."""
    seeds = [seed for seed in groups[0].values if all(seed in group.values for group in groups)]
    return {seed: sum(group.values[seed] for group in groups) / len(groups) for seed in seeds}


# ---- labels ---------------------------------------------------------------------------------------------------------


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The shortest end of each dotted name that no other one has: model.adapter.r → r."""
    parts = {name: name.split(".") for name in names}
    out = {}
    for name, words in parts.items():
        for length in range(1, len(words) + 1):
            end = words[-length:]
            if sum(other[-length:] == end for other in parts.values()) == 1:
                break
        out[name] = ".".join(end)
    return out


def shown(value: Any) -> str:
    """A factor's value as a table has it."""
    if isinstance(value, str):
        return KINDS.get(value, value)
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_kind(value: Any) -> bool:
    return isinstance(value, str) and value in KINDS


def _telling(firsts: list[Run], factors: Sequence[str]) -> list[str]:
    """Few options that tell all settings apart: classes first, then whatever splits most."""
    chosen: list[str] = []
    settings = [{name: as_key(run.options.get(name)) for name in factors} for run in firsts]

    def parts(names: list[str]) -> int:
        return len({tuple(one[name] for name in names) for one in settings})

    wanted = parts(list(factors))
    classes = [name for name in factors if any(_is_kind(run.options.get(name)) for run in firsts)]
    chosen += [name for name in classes if parts([*chosen, name]) > max(1, parts(chosen))]
    while parts(chosen) < wanted:
        rest = [name for name in factors if name not in chosen]
        chosen.append(max(rest, key=lambda name: (parts([*chosen, name]), -factors.index(name))))
    return [name for name in factors if name in chosen]


def _labels(split: list[list[Run]], telling: list[str], factors: Sequence[str]) -> list[str]:
    short = short_names(factors)
    labels = []
    for runs in split:
        words = []
        for name in telling:
            value = runs[0].options.get(name)
            if value is None:
                continue
            words.append(shown(value) if name.endswith("adapter") else f"{short[name]}={shown(value)}")
        absent = [f"no {short[name]}" for name in telling if runs[0].options.get(name) is None]
        labels.append(" ".join(words) or ", ".join(absent[:1]) or "all runs")
    for i, label in enumerate(labels):
        if labels.count(label) > 1:  # other data or code
            code = split[i][0].made_of[1][:6] or "not begun"
            labels[i] = f"{label} · {code}" if f"{label} · {code}" not in labels else f"{label} · {split[i][0].name}"
    return labels


def _names(runs: list[Run]) -> str:
    return some([run.name for run in runs])


def some(names: list[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
