"""Parts of figures: a chart's specification, axes of a metric, series told apart without colour."""

import math
from collections.abc import Iterable, Sequence

import altair as alt

from research.metrics.seeds import summarise
from research.report.factors import shown
from research.report.figures.theme import CONFIG, Figure, look
from research.report.study import Group, Study
from research.types import Json

Row = dict[str, Json]
MOST_LINES = 8  # more groups than colours would look alike


def data(rows: Sequence[Row]) -> alt.Data:
    """Turn rows into Vega-Lite's data, written into the specification."""
    return alt.Data(values=list(rows))


def figure(name: str, title: str, caption: str, chart: alt.LayerChart) -> Figure:
    """Make a figure of the chart, in the figures' look, its data where the marks are."""
    with alt.data_transformers.enable("default", consolidate_datasets=False):
        spec = chart.to_dict()
    return Figure(name, title, caption, spec | {"config": CONFIG})


def colour_and_shape(
    field: str, names: Iterable[str], title: str | None, looks: Iterable[int] | None = None, **legend: Json
) -> tuple[alt.Color, alt.Shape]:
    """Make colour for all marks, and shape for points: of one field, title and domain, so that they share a legend.

    Args:
        field: of the rows.
        names: its values.
        title: of the legend.
        looks: number of each name's colour and shape; None: in order.
        legend: options of Altair's Legend, such as `orient`.
    """
    names = list(dict.fromkeys(names))
    colours, shapes = zip(*map(look, range(len(names)) if looks is None else looks), strict=True)
    box = alt.Legend(symbolOpacity=1, **legend) if len(names) > 1 else None
    facts = {"shorthand": f"{field}:N", "title": title, "legend": box}
    return (
        alt.Color(**facts, scale=alt.Scale(domain=names, range=list(colours))),
        alt.Shape(**facts, scale=alt.Scale(domain=names, range=list(shapes))),
    )


def metric_axis(study: Study, field: str = "mean", title: str | None = None) -> alt.Y:
    """Make the y channel of the metric's mean."""
    return alt.Y(f"{field}:Q", title=title or arrowed(study), scale=alt.Scale(zero=False))


def arrowed(study: Study) -> str:
    """Return the metric with an arrow to its better side."""
    return f"{'↑' if study.higher else '↓'} {study.metric_name}"


def side(study: Study) -> str:
    """Return the word of the metric's better side."""
    return "higher" if study.higher else "lower"


def statistics(group: Group) -> dict[str, float]:
    """Return mean, sd (0 of one seed), mean ± sd and number of seeds of a group with values."""
    mean = summarise(list(group.values.values()))
    sd = 0.0 if math.isnan(mean.sd) else mean.sd
    return {"mean": mean.mean, "sd": sd, "low": mean.mean - sd, "high": mean.mean + sd, "seeds": mean.n}


def method(group: Group) -> str:
    """Name the method of a group: its adapter, where the study varies it."""
    return next((shown(value) for name, value in group.factors.items() if name.endswith("adapter")), "all settings")


def is_number(value: Json) -> bool:
    """Return whether a value is a finite number, which an axis can show: JSON has no infinity, and page scripts would stop."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def domain(lows: Iterable[float], highs: Iterable[float], px: float, edge: float, is_log: bool = False) -> list[float]:
    """Return an axis from the least to the largest value with `edge` px free at both ends; never below 0 if no value is."""
    low, high = min(lows), max(highs)
    if is_log:
        low, high = math.log10(low), math.log10(high)
    floor = 0.0 if low >= 0 and not is_log else -math.inf
    if high - low < 1e-9 * max(1.0, abs(high)):
        half = 0.25 if is_log else 0.01 * max(1.0, abs(high))
        low, high = low - half, high + half
    room = (high - low) * edge / (px - 2 * edge)
    ends = [max(low - room, floor), high + room]
    return [10**end for end in ends] if is_log else ends


def round_values(low: float, high: float, distance: float) -> list[float]:
    """List the multiples of 1, 2 or 5 times a power of ten that are at least `distance` apart."""
    power = 10.0 ** math.floor(math.log10(distance))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= distance)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]
