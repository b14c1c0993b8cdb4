"""Quality against what it costs, as Vega-Lite: parameters, seconds of training, milliseconds a query; with the Pareto front."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from research.metrics.seeds import summarise
from research.report.labels import Box, Label, place
from research.report.plot_parts import (
    MOST_LINES,
    Figure,
    Spec,
    arrowed,
    brief,
    method,
    side,
    statistics,
    told_apart,
    whole,
    widest,
)
from research.report.scales import Scale
from research.report.study import Study
from research.report.tables import Line, title

WIDTH, HEIGHT, FONT, LINE = 460, 280, 10, 14  # px
EDGE = 24  # px between the outermost points and the frame
MOST, MOST_NAMED = 200, 32  # points; and where all are named
LOG_FROM = 4  # an axis whose values span so many times the least is logarithmic


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
    """The metric against trainable parameters, with the front of those that none with fewer parameters beats."""
    points = [
        (size, size, size, group)
        for group in study.groups
        if group.values and (size := group.numbers.get("trained_parameters"))
    ]
    caption = (
        f"Mean over seeds, ± one standard deviation; the {side(study)} is better. Named and joined: no setting with as "
        "many parameters or fewer is better."
    )
    return _of_study(study, points, "parameters", "trainable parameters", "trained parameters", caption, "~s", True)


def against_seconds(study: Study) -> Figure | None:
    """The metric against the seconds that a training took, both with bars over seeds."""
    points = []
    for group in study.groups:
        seconds = [run.facts["seconds"] for run in group.counted if run.facts.get("seconds")]
        if group.values and seconds:
            mean = summarise(seconds)
            sd = 0.0 if math.isnan(mean.sd) else mean.sd
            points.append((mean.mean, mean.mean - sd, mean.mean + sd, group))
    caption = (
        f"Means over seeds, ± one standard deviation both ways; the {side(study)} is better, left is faster, as "
        "measured on the machine of each run. Named and joined: no setting as fast or faster is better."
    )
    return _of_study(study, points, "seconds", "seconds of training", "seconds of training", caption, "~r", False)


def against_latency(lines: list[Line], metric: str) -> Figure | None:
    """A page's first metric against milliseconds a query; every system named.

    Args:
        lines: rows of a report of retrievals; those without a time are left out.
        metric: of the lines' means, with its 95% interval as a bar.
    """
    timed = [(line.row.facts["ms_per_query"], line) for line in lines if (line.row.facts.get("ms_per_query") or 0) > 0]
    if len(timed) < 2 or len(timed) > MOST_NAMED:
        return None
    points = [Point(ms, ms, ms, line.mean, line.low, line.high, line.row.label, line.row.label) for ms, line in timed]
    spec = scatter(points, "milliseconds a query", f"↑ {title(metric)}", True, "~r", is_log=True, names_all=True)
    caption = (
        "Up is better, left is faster. Bars are 95% intervals of the mean over queries. Joined: no system as fast or "
        "faster is better."
    )
    return Figure("latency", f"{title(metric)} against milliseconds a query", caption, spec)


def _of_study(
    study: Study, found: list, name: str, what: str, axis: str, caption: str, form: str, is_log: bool
) -> Figure | None:
    if len({x for x, *_ in found}) < 2 or len(found) > MOST:
        return None
    rows = [(x, low, high, statistics(group), group) for x, low, high, group in found]
    few = len({method(group) for *_, group in rows}) <= MOST_LINES
    points = [
        Point(x, low, high, row["mean"], row["low"], row["high"], group.label, method(group) if few else "all settings")
        for x, low, high, row, group in rows
    ]
    least = min(low for _, low, *_ in found)
    log = is_log or max(x for x, *_ in found) >= LOG_FROM * least > 0
    spec = scatter(points, axis, arrowed(study), study.higher, form, log)
    return Figure(name, f"{study.metric} against {what}", caption, spec)


def front(points: Sequence[Point], higher: bool) -> list[Point]:
    """Points that none of equal or less cost beats, by cost."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, -one.y if higher else one.y)):
        if not found or (point.y > found[-1].y if higher else point.y < found[-1].y):
            found.append(point)
    return found


def scatter(
    points: Sequence[Point], x_title: str, y_title: str, higher: bool, form: str, is_log: bool, names_all: bool = False
) -> Spec:
    """Points with bars, their front as steps, and names that cover nothing; numbers and a key where they find no place.

    Args:
        points: two or more.
        x_title, y_title: of the axes.
        higher: whether more y is better.
        form: of the numbers on x, as d3 writes it.
        is_log: whether x is logarithmic.
        names_all: whether every point is named, or the front alone.
    """
    best = front(points, higher)
    named = [point for point in points if names_all or point in best]
    texts = brief(point.label for point in named)
    x, y, labels = _arrange(points, named, [texts[point.label] for point in named], best, is_log)
    key = labels is None
    if key:
        x, y, labels = _arrange(points, named, [str(i + 1) for i in range(len(named))], best, is_log, reach=10)
    kinds = brief(point.kind for point in points)
    rows = [
        {
            "x": one.x,
            "x_low": one.x_low,
            "x_high": one.x_high,
            "mean": one.y,
            "low": one.low,
            "high": one.high,
            "label": one.label,
            "kind": kinds[one.kind],
            "front": one in best,
        }
        for one in points
    ]

    def back(scale: Scale, px: float, log: bool = False) -> float:
        value = scale.low + (px - scale.start) / (scale.end - scale.start) * (scale.high - scale.low)
        return 10**value if log else value

    written, leaders = [], []
    for i, (point, label) in enumerate(zip(named, labels or [], strict=False)):
        left = label.box.left >= x(_scaled(point.x, is_log))
        at = label.box.left if left else label.box.right
        text = str(i + 1) if key else texts[point.label]
        written.append(
            {
                "x": back(x, at, is_log),
                "y": back(y, (label.box.top + label.box.bottom) / 2),
                "text": text,
                "side": "left" if left else "right",
            }
        )
        if label.leader:
            x0, y0, x1, y1 = label.leader
            leaders.append({"x": back(x, x0, is_log), "y": back(y, y0), "x2": back(x, x1, is_log), "y2": back(y, y1)})
    ends = [10**end if is_log else end for end in (x.low, x.high)]
    x_channel = {
        "field": "x",
        "type": "quantitative",
        "title": x_title + (", log scale" if is_log else ""),
        "scale": {"domain": ends, "nice": False, **({"type": "log"} if is_log else {"zero": False})},
        "axis": {"format": form, "grid": False, "tickCount": 5},
    }
    y_channel = {
        "field": "mean",
        "type": "quantitative",
        "title": y_title,
        "scale": {"domain": [y.low, y.high], "nice": False, "zero": False},
    }
    bars = [
        {"mark": {"type": "rule"}, "encoding": {"x": x_channel, "y": {**y_channel, "field": "low"}, "y2": {"field": "high"}}}
    ]
    if any(one.x_low < one.x_high for one in points):
        bars.append(
            {
                "mark": {"type": "rule"},
                "encoding": {"x": {**x_channel, "field": "x_low"}, "x2": {"field": "x_high"}, "y": y_channel},
            }
        )
    colour, shape = told_apart("kind", rows)
    if names_all:
        colour, shape = ({name: {**channel, "legend": None} for name, channel in one.items()} for one in (colour, shape))
    ink = {"color": {"value": "black"}}
    layers = [
        {
            "mark": {"type": "line", "strokeDash": [4, 3], "interpolate": "step-after"},
            "transform": [{"filter": "datum.front"}],
            "encoding": {"x": x_channel, "y": y_channel, "color": {"value": "#999"}},
        },  # the front is no method's
        *({**bar, "encoding": {**bar["encoding"], **colour}} for bar in bars),
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {"x": x_channel, "y": y_channel, **colour, **shape},
        },
        {
            "data": {"values": leaders},
            "mark": {"type": "rule", "strokeWidth": 0.8},
            "encoding": {
                "x": {**x_channel, "field": "x"},
                "x2": {"field": "x2"},
                "y": {**y_channel, "field": "y"},
                "y2": {"field": "y2"},
                "color": {"value": "#777"},
            },
        },
        *(
            {
                "data": {"values": [one for one in written if one["side"] == align]},
                "mark": {"type": "text", "align": align, "baseline": "middle", "fontSize": FONT},
                "encoding": {"x": x_channel, "y": {**y_channel, "field": "y"}, "text": {"field": "text"}, **ink},
            }
            for align in ("left", "right")
            if any(one["side"] == align for one in written)
        ),
    ]
    layers = [layer for layer in layers if layer.get("data", {}).get("values") != []]
    if key:
        # where not even numbers find a place, the key has the coordinates
        more = [""] * len(named) if labels else [f": {point.x:.4g}, {point.y:.4g}" for point in named]
        layers.append(_key([texts[point.label] + one for point, one in zip(named, more, strict=True)]))
    return whole({"data": {"values": rows}, "layer": layers, "width": WIDTH, "height": HEIGHT})


def _key(texts: list[str]) -> Spec:
    """Numbers with their names: below the plot, for the legend stands at its right."""
    rows = [{"text": f"{i + 1}  {text}", "y": HEIGHT + 56 + LINE * i} for i, text in enumerate(texts)]
    return {
        "data": {"values": rows},
        "mark": {"type": "text", "align": "left", "baseline": "middle", "fontSize": FONT},
        "encoding": {
            "x": {"value": 0},
            "y": {"field": "y", "type": "quantitative", "scale": None, "axis": None},
            "text": {"field": "text"},
            "color": {"value": "black"},
        },
    }


def _arrange(
    points: Sequence[Point], named: Sequence[Point], texts: list[str], best: Sequence[Point], is_log: bool, reach: float = 4
) -> tuple[Scale, Scale, list[Label] | None]:
    """Scales and label places: with the least room at the right at which most names stand beside their points."""
    y = _scale([one.low for one in points], [one.high for one in points], HEIGHT, 0, EDGE, EDGE)
    rooms = sorted({EDGE, *(widest([text], FONT) + EDGE + 6 for text in texts)})
    found: list[tuple[int, int, Scale, list[Label]]] = []
    for i, room in enumerate(room for room in rooms if room <= 0.45 * WIDTH):
        x = _scale(
            [_scaled(one.x_low, is_log) for one in points],
            [_scaled(one.x_high, is_log) for one in points],
            0,
            WIDTH,
            EDGE,
            room,
        )
        spots = [(x(_scaled(one.x, is_log)), y(one.y)) for one in named]
        labels = place(
            spots,
            [(widest([text], FONT), FONT * 1.3) for text in texts],
            _taken(points, best, x, y, is_log),
            Box(0, 0, WIDTH, HEIGHT),
            gap=9,
            reach=reach,
        )
        if labels is not None:
            found.append((sum(label.leader is not None for label in labels), i, x, labels))
    if not found:
        x = _scale(
            [_scaled(one.x_low, is_log) for one in points],
            [_scaled(one.x_high, is_log) for one in points],
            0,
            WIDTH,
            EDGE,
            EDGE,
        )
        return x, y, None
    _, _, x, labels = min(found, key=lambda one: one[:2])
    return x, y, labels


def _taken(points: Sequence[Point], best: Sequence[Point], x: Scale, y: Scale, is_log: bool) -> list[Box]:
    """What names may not cover: markers, bars both ways, and the front's steps."""
    taken = []
    for one in points:
        px, py = x(_scaled(one.x, is_log)), y(one.y)
        taken += [
            Box(px - 6, py - 6, px + 6, py + 6),
            Box(px - 2, y(one.high), px + 2, y(one.low)),
            Box(x(_scaled(one.x_low, is_log)), py - 2, x(_scaled(one.x_high, is_log)), py + 2),
        ]
    corners = [(x(_scaled(one.x, is_log)), y(one.y)) for one in best]
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        taken += [Box(x0, y0 - 1, x1, y0 + 1), Box(x1 - 1, min(y0, y1), x1 + 1, max(y0, y1))]
    return taken


def _scale(lows: list[float], highs: list[float], start: float, end: float, before: float, after: float) -> Scale:
    """Linear, with so many px free before the least and after the largest value."""
    low, high = min(lows), max(highs)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    unit = (high - low) / (abs(end - start) - before - after)
    return Scale(low - before * unit, high + after * unit, start, end)


def _scaled(value: float, is_log: bool) -> float:
    return math.log10(value) if is_log else value
