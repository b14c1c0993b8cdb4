"""Figures of a report as Vega-Lite, written by Altair: one specification serves the paper (SVG, PDF) and the page.

A file is a family of figures. Altair and vl-convert come with the extra `report`; without them there are no figures, so this
file is the one place that imports the families, when something is drawn.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from research.report.figures.names import brief
from research.report.figures.render import can_draw
from research.report.figures.theme import Figure
from research.report.sheets import distinct

if TYPE_CHECKING:
    from research.report.importance import Importance
    from research.report.study import Study
    from research.report.tables import Line
    from research.report.training import Training
    from research.runs.record import RunRecord

Curves = Callable[["RunRecord"], Sequence[tuple[int, float]]]
"""A run → (step, value) of one of its metrics."""
TRAIN = "train/loss"
LONGEST_FILE = 120  # characters of a run's name in that of a file


def of_study(
    study: "Study", curves: Curves, shares: "Importance | None" = None, losses: Curves = lambda run: ()
) -> list[Figure]:
    """Draw all figures that the study has the axes for; none where they cannot be drawn here.

    Args:
        study: groups.
        curves: a run → (step, value) of the study's metric.
        shares: what its factors explain, of `importance`.
        losses: a run → (step, value) of its training loss, drawn where it was validated less than three times.
    """
    if not can_draw():
        return []
    from research.report.figures.comparison import against_factor, heatmap
    from research.report.figures.cost import against_parameters, against_seconds
    from research.report.figures.curves import learning_curves
    from research.report.figures.importance import importance_bars
    from research.report.figures.parallel import parallel

    figures = [
        heatmap(study),
        *(against_factor(study, name) for name in study.factors),
        parallel(study),
        importance_bars(shares, study.metric_name) if shares else None,
        against_parameters(study),
        against_seconds(study),
        learning_curves(study, curves) or learning_curves(study, losses, TRAIN),
    ]
    return [figure for figure in figures if figure is not None]


def of_latency(lines: Sequence["Line"], metric: str) -> list[Figure]:
    """Draw quality against milliseconds a query, for paper and phone; none of fewer than two systems with a time."""
    if not can_draw():
        return []
    from research.report.figures.cost import against_latency

    figures = [against_latency(lines, metric), against_latency(lines, metric, narrow=True)]
    return [figure for figure in figures if figure is not None]


def training_curves(trainings: Sequence["Training"]) -> list[list[Figure]]:
    """Draw the loss of each training, and the metric that chose its model; none where nothing can be drawn here."""
    if not can_draw():
        return [[] for _ in trainings]
    from research.report.figures.curves import loss_figure, value_figure

    names = brief([training.run.name for training in trainings], LONGEST_FILE)
    figures = []
    for training in trainings:
        name = f"training-{names[training.run.name]}"
        loss = [loss_figure(training, f"{name}-loss")] if training.loss else []
        value = [value_figure(training, f"{name}-value")] if training.values or training.best else []
        figures.append([*loss, *value])
    named = iter(distinct([figure for of_training in figures for figure in of_training]))
    return [list(itertools.islice(named, len(of_training))) for of_training in figures]
