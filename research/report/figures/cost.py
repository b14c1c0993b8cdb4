"""Quality against what it costs, with the Pareto front: parameters, seconds of training, milliseconds a query."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import altair as alt

from research.metrics.seeds import summarise
from research.report.figures.names import brief
from research.report.figures.parts import MOST_LINES, arrowed, colour_and_shape, data, domain, figure, method, side, statistics
from research.report.figures.theme import COLOURS, SOFT, Figure
from research.report.study import Group, Study
from research.report.tables import Line, title

WIDTH, HEIGHT, FONT, LINE = 460, 280, 11, 15  # px
NARROW = 270  # px of a plot on a phone
EDGE = 24  # px between the outermost points and the frame
MOST, MOST_SYSTEMS = 200, 64  # points; so many systems have a colour and a shape that no other has
LOG_FROM = 4  # an axis whose values span so many times the least is logarithmic


Cost = tuple[float, float, float, Group]
"""What the runs of a group cost: mean, lower and upper end of its bar."""


class Point(NamedTuple):
    """A system or setting: cost and quality with their bars, its name, and what its colour and shape say."""

    x: float
    x_low: float
    x_high: float
    y: float
    low: float
    high: float
    label: str
    kind: str


def against_parameters(study: Study) -> Figure | None:
    """Draw the metric against trainable parameters, with the front of those that none with fewer parameters beats."""
    costs = [
        (size, size, size, group)
        for group in study.groups
        if group.values and (size := group.numbers.get("trained_parameters"))
    ]
    caption = (
        f"Mean over seeds, ± one standard deviation; the {side(study)} is better. Joined, and named where there is room: "
        "no setting with as many parameters or fewer is better."
    )
    return _of_study(study, costs, "parameters", "trainable parameters", "trained parameters", caption, "~s", True)


def against_seconds(study: Study) -> Figure | None:
    """Draw the metric against the seconds that a training took, both with bars over seeds."""
    costs = []
    for group in study.groups:
        seconds = [run.facts["seconds"] for run in group.counted if run.facts.get("seconds")]
        if group.values and seconds:
            mean = summarise(seconds)
            sd = 0.0 if math.isnan(mean.sd) else mean.sd
            costs.append((mean.mean, mean.mean - sd, mean.mean + sd, group))
    caption = (
        f"Means over seeds, ± one standard deviation both ways; the {side(study)} is better, left is faster, as "
        "measured on the machine of each run. Joined, and named where there is room: no setting as fast or faster is better."
    )
    return _of_study(study, costs, "seconds", "seconds of training", "seconds of training", caption, "~r", False)


def against_latency(lines: Sequence[Line], metric: str, narrow: bool = False) -> Figure | None:
    """Draw a page's first metric against milliseconds a query, with a colour and a shape for every system.

    Args:
        lines: rows of a report of retrievals; those without a time are left out.
        metric: of the lines' means, with its 95% interval as a bar.
        narrow: for a phone: the names below the plot instead of beside it.
    """
    timed = [(line.row.facts["ms_per_query"], i, line) for i, line in enumerate(lines) if is_timed(line)]
    if not 2 <= len(timed) <= MOST_SYSTEMS:
        return None
    points = [Point(ms, ms, ms, line.mean, line.low, line.high, line.row.label, line.row.label) for ms, _, line in timed]
    place = {"orient": "bottom", "columns": 1, "labelLimit": NARROW} if narrow else {}
    width = NARROW if narrow else WIDTH
    texts = brief(point.label for point in points)
    looks = {texts[line.row.label]: i for _, i, line in timed}  # by the rows of the tables, whose signs these are
    signs = colour_and_shape("kind", looks, None, looks.values(), **place)
    chart = scatter(points, signs, "milliseconds a query", f"↑ {title(metric)}", True, "~r", True, width, named=False)
    caption = (
        "Up is better, left is faster. Bars are 95% intervals of the mean over queries. Joined: no system as fast or "
        "faster is better."
    )
    return figure("latency-column" if narrow else "latency", f"{title(metric)} against milliseconds a query", caption, chart)


def is_timed(line: Line) -> bool:
    """Return whether the system has a time above 0, as a logarithmic axis needs it."""
    return (line.row.facts.get("ms_per_query") or 0) > 0


def _of_study(
    study: Study, costs: list[Cost], name: str, what: str, axis: str, caption: str, form: str, is_log: bool
) -> Figure | None:
    if len({x for x, *_ in costs}) < 2 or len(costs) > MOST:
        return None
    few = len({method(group) for *_, group in costs}) <= MOST_LINES
    points = []
    for x, low, high, group in costs:
        mean = statistics(group)
        kind = method(group) if few else "all settings"
        points.append(Point(x, low, high, mean["mean"], mean["low"], mean["high"], group.label, kind))
    least = min(low for _, low, *_ in costs)
    is_log = is_log or max(x for x, *_ in costs) >= LOG_FROM * least > 0
    kinds, methods = brief(point.kind for point in points), list(dict.fromkeys(map(method, study.groups)))
    looks = [methods.index(kind) for kind in kinds] if few else None  # the method's in every figure, whatever is left out here
    signs = colour_and_shape("kind", kinds.values(), "method", looks, orient="bottom", columns=2)
    chart = scatter(points, signs, axis, arrowed(study), study.higher, form, is_log)
    return figure(name, f"{study.metric_name} against {what}", caption, chart)


def front(points: Sequence[Point], higher: bool) -> list[Point]:
    """List the points that none of equal or less cost beats, by cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y if higher else point.y)):
        if not best or (point.y > best[-1].y if higher else point.y < best[-1].y):
            best.append(point)
    return best


def scatter(
    points: Sequence[Point],
    signs: tuple[alt.Color, alt.Shape],
    x_title: str,
    y_title: str,
    higher: bool,
    form: str,
    is_log: bool,
    width: int = WIDTH,
    named: bool = True,
) -> alt.LayerChart:
    """Draw points with bars, and their front as steps.

    Args:
        points: two or more.
        signs: colour and shape by the points' kind.
        x_title, y_title: of the axes.
        higher: whether more y is better.
        form: of the numbers on x, as d3 writes it.
        is_log: whether x is logarithmic.
        width: of the plot, in px.
        named: whether the front's names stand in the margin.
    """
    best, kinds = front(points, higher), brief(point.kind for point in points)
    rows = [
        {
            "x": point.x,
            "x_low": point.x_low,
            "x_high": point.x_high,
            "mean": point.y,
            "low": point.low,
            "high": point.high,
            "label": point.label,
            "kind": kinds[point.kind],
            "front": point in best,
        }
        for point in points
    ]
    height = max(HEIGHT, LINE * len(best) * named)
    across = domain((point.x_low for point in points), (point.x_high for point in points), width, EDGE, is_log)
    up = domain((point.low for point in points), (point.high for point in points), height, EDGE)

    def x(field: str = "x") -> alt.X:
        scale = alt.Scale(domain=across, nice=False, **({"type": "log"} if is_log else {"zero": False}))
        axis = alt.Axis(format=form, grid=False, tickCount=5)
        return alt.X(f"{field}:Q", title=x_title + (", log scale" if is_log else ""), scale=scale, axis=axis)

    def y(field: str = "mean") -> alt.Y:
        return alt.Y(f"{field}:Q", title=y_title, scale=alt.Scale(domain=up, nice=False, zero=False))

    (colour, shape), chart = signs, alt.Chart()
    steps = chart.transform_filter("datum.front").mark_line(strokeDash=[4, 3], interpolate="step-after")
    layers = [steps.encode(x=x(), y=y(), color=alt.value(COLOURS[7]))]  # the front is no method's
    layers.append(chart.mark_rule().encode(x=x(), y=y("low"), y2="high", color=colour))
    if any(point.x_low < point.x_high for point in points):
        layers.append(chart.mark_rule().encode(x=x("x_low"), x2="x_high", y=y(), color=colour))
    if named:
        texts = brief(point.label for point in best)
        best = sorted(best, key=lambda point: -point.y)
        places = spaced([(up[1] - point.y) / (up[1] - up[0]) * height for point in best], LINE, height)
        beside = [
            {"x": point.x, "mean": point.y, "at": up[1] - place / height * (up[1] - up[0]), "text": texts[point.label]}
            for point, place in zip(best, places, strict=True)
        ]
        name = alt.Chart(data(beside))
        leader = name.mark_rule(strokeWidth=0.6, color=SOFT)
        layers.append(leader.encode(x=x(), x2=alt.value(width + 6), y=y(), y2="at"))
        text = name.mark_text(align="left", baseline="middle", fontSize=FONT)
        layers.append(text.encode(x=alt.value(width + 10), y=y("at"), text="text:N"))
    layers.append(chart.mark_point(filled=True, size=80, opacity=1).encode(x=x(), y=y(), color=colour, shape=shape))
    return alt.layer(*layers, data=data(rows)).properties(width=width, height=height)


def spaced(places: Sequence[float], apart: float, end: float) -> list[float]:
    """Push ascending places down, then up again from the end, so that neighbours are `apart`."""
    down: list[float] = []
    for place in places:
        down.append(max(place, down[-1] + apart) if down else place)
    up: list[float] = []
    for place in reversed(down):
        up.append(min(place, up[-1] - apart if up else end))
    return up[::-1]
