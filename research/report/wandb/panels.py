"""Panels of a W&B Report: settings over their seeds, and runs one by one, under the names that they have in W&B."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import wandb_workspaces.reports.v2 as wr

from research.report.factors import named
from research.report.study import Study
from research.report.wandb import keys
from research.runs.record import RunRecord

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import BlockTypes, PanelTypes

WIDE, HALF, HIGH = 24, 12, 8  # W&B's grid has 24 columns
LIMIT = 100  # runs or settings of a panel that W&B takes; without a limit it draws 10
LOG = 30  # from this ratio of the largest to the smallest value on, an axis is logarithmic


class Axis(NamedTuple):
    """A factor: W&B's path of it, its short name, and whether its axis is logarithmic."""

    path: str
    name: str
    log: bool


class Numbers(NamedTuple):
    """What there is to draw.

    Attributes:
        name: the metric that the panels show; "" where there is none.
        over_steps: metrics that were logged over the steps.
        summary: its name in W&B's summary of a run; None where it is not there.
        of_kept_model: whether its value there is the kept model's; W&B by itself keeps the last.
        parameters: whether the summary has the trained parameters.
    """

    name: str
    over_steps: list[str]
    summary: str | None
    of_kept_model: bool
    parameters: bool


def blocks(
    study: Study | None, folders: list[Path], metrics: list[str], run_set: Callable[..., wr.Runset]
) -> list["BlockTypes"]:
    """Make headings and panel grids of a report.

    Args:
        study: groups; None where nothing is compared over seeds.
        folders: of all runs.
        metrics: that the trainings may have logged, of a report without a study.
        run_set: (name, ids, W&B's paths to group by) → a run set.
    """
    ids = [id for folder in folders if (id := keys.run_id(folder))]
    if not ids:
        return []
    if study is None:
        logged = [name for name in metrics if any(keys.logged(folder, [name]) for folder in folders)]
        panels = over_runs(Numbers("", logged, None, False, False), [], len(ids))
        return [wr.H2("Runs"), wr.PanelGrid(runsets=[run_set("all runs", ids)], panels=panels)]
    groups = [[run for run in group.counted if keys.run_id(run.path)] for group in study.groups]
    runs = [run for group in groups for run in group]
    configs = {run.path: keys.config_of(run) for run in runs}
    by = keys.factor_keys(list(configs.values()), study.factors)
    numbers = numbers_of(study.metric, runs, configs)
    content: list[BlockTypes] = []
    if runs:
        names = ["settings", *(f"settings again, of other data or code ({i})" for i in range(1, len(groups)))]
        sets = [
            run_set(name, [keys.run_id(run.path) for run in layer], by)
            for name, layer in zip(names, layers(groups, configs, by), strict=False)
        ]
        content += [
            wr.H2("Settings, over their seeds"),
            wr.P(
                "Runs are grouped by what the study compares. Lines and bars are means over seeds, bands their standard "
                "deviation. Only runs that the tables count are here." + _substitute(study.metric, numbers.name)
            ),
            wr.PanelGrid(runsets=sets, panels=over_settings(numbers, sum(map(bool, groups)))),
        ]
    panels = over_runs(numbers, _axes(by, configs.values(), study.labels), len(ids))
    content.append(wr.H2("Runs, one by one"))
    if not numbers.parameters:
        content.append(
            wr.P(
                "Not every run has told W&B how many parameters it trains, so nothing is drawn against them here; "
                "the tables have them."
            )
        )
    return [*content, wr.PanelGrid(runsets=[run_set("all runs", ids)], panels=panels)]


def over_settings(numbers: Numbers, settings: int) -> list["PanelTypes"]:
    """Make lines over steps and bars, of run sets that are grouped by the factors."""
    limit = min(LIMIT, max(10, settings))
    panels: list[PanelTypes] = [
        wr.LinePlot(
            title=f"{name} over steps",
            x="Step",
            y=[name],
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_runs_to_show=limit,
            smoothing_type="none",
        )
        for name in numbers.over_steps
    ]
    if numbers.summary:
        panels.append(
            wr.BarPlot(
                title=_title(numbers),
                metrics=[numbers.summary],
                groupby_aggfunc="mean",
                groupby_rangefunc="stddev",
                max_runs_to_show=LIMIT,
                max_bars_to_show=limit,
            )
        )
    return _placed(panels)


def over_runs(numbers: Numbers, factors: list[Axis], runs: int) -> list["PanelTypes"]:
    """Make panels of run sets without groups: factors → metric, importance, metric against parameters, and what differs.

    Args:
        numbers: names of the metric.
        factors: that settings differ by; [] where nothing is compared.
        runs: how many there are.
    """
    panels: list[PanelTypes] = []
    value, title = wr.SummaryMetric(numbers.summary or ""), _title(numbers)
    if numbers.summary and factors:
        axes = [
            wr.ParallelCoordinatesPlotColumn(wr.Config(axis.path), display_name=axis.name, log=axis.log or None)
            for axis in factors
        ]
        axes.append(wr.ParallelCoordinatesPlotColumn(value, display_name=numbers.name))
        panels += [
            wr.ParallelCoordinatesPlot(columns=axes, title=f"{title}, by the factors"),
            wr.ParameterImportancePlot(with_respect_to=numbers.summary),
        ]
    if numbers.summary and numbers.parameters:
        panels.append(
            wr.ScatterPlot(
                title=f"{title}, against trained parameters", x=wr.SummaryMetric("trained_parameters"), y=value, log_x=True
            )
        )
    if not factors:  # settings are not compared: the curves are here
        panels += [
            wr.LinePlot(title=f"{name} over steps", x="Step", y=[name], max_runs_to_show=min(LIMIT, max(10, runs)))
            for name in numbers.over_steps
        ]
    return _placed([*panels, wr.RunComparer(diff_only=True)])


def numbers_of(metric: str, runs: list[RunRecord], configs: dict[Path, dict]) -> Numbers:
    """Find the names that W&B has for a study's metric, or else for the one that the runs chose their models by.

    Args:
        metric: of the study; W&B has no `test/…`, which `research test` measures in the run folder.
        runs: that the tables count.
        configs: of each run's path.
    """
    monitored = [config.get("monitor") for config in configs.values()]
    candidates = [name for name in (metric, *monitored) if name]
    name = next((name for name in candidates if any(keys.logged(run.path, [name]) for run in runs)), "")
    over_steps = [key for key in dict.fromkeys((name, "train/loss")) if any(keys.logged(run.path, [key]) for run in runs)]
    summary = set.intersection(*(keys.summarised(run.path) for run in runs)) if runs else set()
    return Numbers(name, over_steps, name or None, name in summary, "trained_parameters" in summary)


def layers(groups: list[list[RunRecord]], configs: dict[Path, dict], by: Iterable[str]) -> list[list[RunRecord]]:
    """Split runs into run sets in which W&B's grouping is the study's.

    W&B would join groups that have the same options but differ in data or code, and average their values: the second of
    them goes into a run set of its own.
    """
    by, levels, run_sets = list(by), {}, []
    for group in filter(None, groups):
        signature = keys.signature(configs[group[0].path], by)
        level = levels[signature] = levels.get(signature, -1) + 1
        if level == len(run_sets):
            run_sets.append([])
        run_sets[level] += group
    return run_sets


def _axes(by: dict[str, str], configs: Iterable[dict], labels: dict[str, str]) -> list[Axis]:
    configs, names = list(configs), named(list(by.values()), labels)
    axes = []
    for path, option in by.items():
        values = [value for config in configs if (value := keys.value_at(config, path)) is not None]
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in values)
        axes.append(Axis(path, names[option], numeric and max(values) >= LOG * min(values)))
    return axes


def _title(numbers: Numbers) -> str:
    """Title a panel over single values: of the kept model if the training sent it; W&B by itself keeps the last."""
    return f"{numbers.name} of the {'kept model' if numbers.of_kept_model else 'last validation'}"


def _substitute(metric: str, shown: str) -> str:
    """Write a sentence on the metric that stands in for a study's, which W&B does not have; "" if W&B has it."""
    if shown == metric:
        return ""
    return f" {metric} is in the run folders and not in W&B; " + (
        f"the panels show {shown}, by which the models were chosen." if shown else "no panel shows it."
    )


def _placed(panels: list["PanelTypes"]) -> list["PanelTypes"]:
    """Place two panels in a row; a panel with many columns gets a row of its own."""
    x = y = 0
    for panel in panels:
        wide = isinstance(panel, wr.ParallelCoordinatesPlot | wr.RunComparer)
        if wide and x:
            x, y = 0, y + HIGH
        panel.layout = wr.Layout(x=x, y=y, w=WIDE if wide else HALF, h=HIGH)
        x, y = (HALF, y) if not wide and x == 0 else (0, y + HIGH)
    return panels
