"""What a study is about, as its spec and its runs say: metric, factors, baseline, title."""

from collections.abc import Mapping
from pathlib import Path

from research.errors import UserError, suggest
from research.report.doubts import unmeasured
from research.report.factors import factors, short_names, some, with_scale
from research.report.groups import make_study
from research.report.spec import Spec
from research.report.study import Study
from research.report.study_record import study_record
from research.runs.folder import sweep_owner
from research.runs.record import RunRecord
from research.runs.table import read_runs
from research.runs.wandb.records import is_wandb
from research.types import Json


def grouped(runs: list[RunRecord], paths: list[Path], spec: Spec) -> tuple[list[RunRecord], list[str], Study]:
    """Choose factors and metric, and group the runs by them.

    Returns:
        the runs, with alpha / r where it is a factor; the options that differ; and the study of the spec's metric, or of the
        one that the runs were monitored by.

    Raises:
        UserError: a metric or factor that is not there.
    """
    runs, names = with_scale(runs, factors(runs))
    names = _chosen(spec.factors, runs, names)
    if spec.metric is None:
        _refuse_mixed(runs)
    metric = spec.metric or _monitored(runs, paths)
    goal = spec.goal or next((run.goal for run in runs if run.goal and run.monitor == metric), None)  # of W&B's sweeps
    higher = None if goal is None else goal == "maximize"
    labels = _labels(spec.labels, runs, names)
    return runs, names, make_study(runs, metric, names, higher, every=spec.factors is not None, labels=labels)


def _refuse_mixed(runs: list[RunRecord]) -> None:
    """Refuse trainings that were judged by different metrics: they have no order, unless the user names one."""
    by: dict[str, list[str]] = {}
    for run in runs:
        if run.metrics and run.monitor:
            by.setdefault(run.monitor, []).append(run.name)
    if len(by) > 1:
        parts = ", ".join(f"{len(names)} by {metric} ({some(names)})" for metric, names in by.items())
        raise UserError(
            f"the runs were monitored by different metrics: {parts}; expected one metric for all. Name it by "
            "--metric, or leave some runs out."
        )


def record_of(paths: list[Path], spec: Spec) -> dict[str, Json]:
    """Record trainings for report.json, also those that are no study (see study_record.py).

    Raises:
        UserError: they cannot be read, or none is finished.
    """
    return study_record(grouped(read_runs(paths, spec.seed), paths, spec)[2])


def label_of(wanted: str, labels: list[str]) -> str:
    """Find a setting by its label, whose parts may stand in any order.

    Raises:
        UserError: no setting, or several, have this label.
    """
    if wanted in labels:
        return wanted
    matches = [label for label in labels if sorted(label.lower().split()) == sorted(wanted.lower().split())]
    if len(matches) != 1:
        raise UserError(f"baseline {wanted!r} is no setting with a value; {suggest(wanted, labels)}. Name one of them.")
    return matches[0]


def is_ablation(runs: list[RunRecord], names: list[str]) -> bool:
    """Test whether plain run folders are an ablation: some setting has two seeds or more, and each seed is there once."""
    settings = [(str([run.options.get(name) for name in names]), run.seed) for run in runs]
    known = [setting for setting, seed in settings if seed is not None]
    judged = {run.monitor for run in runs if run.metrics}
    return len(known) == len(runs) == len({*settings}) and len({*known}) < len(runs) and len(judged) < 2


def _chosen(wanted: tuple[str, ...] | None, runs: list[RunRecord], names: list[str]) -> list[str]:
    """Return the factors that the spec asks for, by whole or short name."""
    if wanted is None:
        return names
    known = list(dict.fromkeys([*names, *(name for run in runs for name in run.options)]))
    chosen: list[str] = []
    for name in wanted:
        matches = [option for option in known if option == name or option.endswith(f".{name}")]
        if len(matches) != 1:
            what = "is an option of no run" if not matches else f"is {len(matches)} options ({', '.join(matches[:3])})"
            raise UserError(f"factor {name!r} {what}; {suggest(name, known)}. Correct the spec.")
        chosen += matches
    return chosen


def _labels(labels: Mapping[str, str], runs: list[RunRecord], names: list[str]) -> dict[str, str]:
    """Map each option or metric, by its whole name, to the spec's words for it.

    Raises:
        UserError: a name of no option and no metric, or of several; one word for two things.
    """
    known = list(dict.fromkeys([*names, *(name for run in runs for name in [*run.options, *run.metrics]), "train/loss"]))
    by_name: dict[str, str] = {}
    for name, word in labels.items():
        matches = [full for full in known if full == name] or [full for full in known if full.endswith(f".{name}")]
        if len(matches) != 1:
            problem = (
                "is an option or metric of no run" if not matches else f"is {len(matches)} options ({', '.join(matches[:3])})"
            )
            telling = [*short_names(names).values(), *dict.fromkeys(name for run in runs for name in run.metrics)]
            raise UserError(f"labels: {name!r} {problem}; {suggest(name, telling)}. Correct the spec.")
        if word in by_name.values():
            raise UserError(f"labels: {word!r} is there for two; expected a word for each. Correct the spec.")
        by_name[matches[0]] = word
    return by_name


def _monitored(runs: list[RunRecord], paths: list[Path]) -> str:
    """Return the metric that the runs' best models were chosen by; of a sweep that never got so far, none."""
    finished = [run for run in runs if run.metrics]
    for run in finished:
        if run.monitor:
            return run.monitor
    if finished:  # W&B's, of a program that does not say it
        common = [name for name in finished[0].metrics if all(name in run.metrics for run in finished)]
        if len(common) == 1:
            return common[0]
        known = ", ".join(sorted(common)[:20]) or "none that all of them have"
        raise UserError(
            f"the runs have several metrics and do not say which one they are about; expected one of {known}. Name "
            "it by --metric."
        )
    if reason := unmeasured(runs):
        raise UserError(reason)
    states = some([f"{run.name} {run.state}" for run in runs])
    raise UserError(
        f"none of {len(runs)} runs in {', '.join(map(str, paths[:3]))} is finished ({states}); expected one or "
        "more. Run the sweep, or wait for it."
    )


def title_of(paths: list[Path], runs: list[RunRecord]) -> str:
    """Name a study by its sweep, its folders or W&B's groups."""
    if len(paths) == 1 and (name := sweep_owner(paths[0]).get("name")):
        return str(name)
    # a folder of W&B's is called wandb, or by a time: its runs' sweep or group says more
    groups = dict.fromkeys(run.sweep for run in runs if run.history is not None and run.sweep)
    names = [*(path.resolve().name for path in paths if not is_wandb(path)), *groups]
    names = names or [path.resolve().name for path in paths]
    return some(names)
