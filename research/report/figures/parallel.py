"""Parallel coordinates: an axis a factor, the metric's last, a line a setting."""

import math
from collections.abc import Callable
from typing import NamedTuple

import altair as alt

from research.report.factors import shown
from research.report.figures.names import brief, widest
from research.report.figures.parts import Row, arrowed, data, figure, is_number, round_values, side, statistics
from research.report.figures.theme import INK, PAPER, SOFT, Figure
from research.report.sheets import number
from research.report.study import Group, Study
from research.types import Json

HEIGHT, FONT, APART = 260, 11, 16  # px; APART between two tick labels
NARROW, WIDE = 110, 230  # px between two axes
MOST_AXES = 9  # factors
MOST_LINES = 200  # settings
SINGLE = 12  # settings up to which every run has a thin line as well
LOG_FROM = 4  # an axis whose values span so many times the least is logarithmic
NAME = 26  # characters of a value beside its axis
NONE_BELOW = 0.14  # of the height: where numbers begin, above what has no such option
EXTENT = [0.2, 0.88]  # of viridis: its yellow would vanish on white paper, its purple on the page at night


class Axis(NamedTuple):
    """One axis.

    Attributes:
        title: above it.
        place: a value → 0 (bottom) to 1 (top).
        ticks: (place, text), far enough apart to be read.
    """

    title: str
    place: Callable[[Json], float]
    ticks: list[tuple[float, str]]


def parallel(study: Study) -> Figure | None:
    """Draw a line for each setting over its factors to its mean, coloured by it; the best thick with an edge of ink.

    Returns:
        The figure; None where fewer than two factors vary, or two settings have a value.
    """
    groups = [group for group in study.groups if group.values]
    varied = [name for name in study.factors if len({shown(group.factors[name]) for group in groups}) > 1]
    if len(varied) < 2:
        return None
    names, factors = study.names, varied[:MOST_AXES]
    # the best is drawn last, above the others
    groups.sort(key=lambda group: statistics(group)["mean"], reverse=not study.higher)
    drawn, means = groups[-MOST_LINES:], [statistics(group)["mean"] for group in groups[-MOST_LINES:]]
    single = len(drawn) <= SINGLE and any(len(group.values) > 1 for group in drawn)
    values = [value for group in drawn for value in group.values.values()] if single else means
    if min(values) == max(values):
        return None
    axes = [_factor_axis(names[name], [group.factors[name] for group in drawn]) for name in factors]
    axes.append(_metric_axis(arrowed(study), values))
    lines, runs = [], []
    for i, (group, mean) in enumerate(zip(drawn, means, strict=True)):
        lines += _line(axes, factors, group, mean, {"line": i, "mean": mean, "best": i == len(drawn) - 1, "label": group.label})
        for seed, value in group.values.items() if single else ():
            runs += _line(axes, factors, group, value, {"line": f"{i}-{seed}", "mean": mean})
    caption = (
        f"Lines are settings, from the values of their factors to their mean over seeds; the {side(study)} is better. "
        f"The best, {drawn[-1].label}, is thick with an edge."
    )
    caption += " Thin lines are single runs." if single else ""
    caption += f" The first {MOST_AXES} of {len(varied)} factors." if len(varied) > MOST_AXES else ""
    caption += f" The best {MOST_LINES} of {len(groups)} settings." if len(groups) > MOST_LINES else ""
    chart, title = _chart(axes, lines, runs, study.higher), f"{study.metric_name} over {len(factors)} factors"
    return figure("parallel", title, caption, chart)._replace(is_rigid=True)


def _line(axes: list[Axis], factors: list[str], group: Group, metric: float, more: Row) -> list[Row]:
    values = [*(group.factors[name] for name in factors), metric]
    return [{"axis": i, "at": axis.place(value), **more} for i, (axis, value) in enumerate(zip(axes, values, strict=True))]


def _chart(axes: list[Axis], lines: list[Row], runs: list[Row], higher: bool) -> alt.LayerChart:
    last = len(axes) - 1
    titles = brief([axis.title for axis in axes], 34)
    texts = [text for axis in axes[:last] for _, text in axis.ticks]
    step = min(WIDE, max(NARROW, widest(texts, FONT) + 30, widest(titles.values(), 12) + 14))
    x = alt.X("axis:Q", axis=None, scale=alt.Scale(domain=[0, last], nice=False, zero=False))
    y = alt.Y("at:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False, zero=False))
    scheme = alt.SchemeParams(name="viridis", extent=EXTENT)
    colour = alt.Color("mean:Q", legend=None, scale=alt.Scale(scheme=scheme, reverse=not higher))

    def path(chart: alt.Chart) -> alt.Chart:
        return chart.encode(x=x, y=y, detail="line:N", order="axis:Q")

    heads = alt.Chart(data([{"axis": i, "text": titles[axis.title]} for i, axis in enumerate(axes)]))
    ticks = alt.Chart(data([{"axis": i, "at": at, "text": text} for i, axis in enumerate(axes) for at, text in axis.ticks]))
    layers = [heads.mark_rule(color=SOFT).encode(x=x)]
    if runs:
        layers.append(path(alt.Chart(data(runs)).mark_line(strokeWidth=0.8, opacity=0.5)).encode(color=colour))
    rest, best = (alt.Chart().transform_filter(which) for which in ("!datum.best", "datum.best"))
    layers += [
        path(rest.mark_line(strokeWidth=1.8, opacity=0.9)).encode(color=colour),
        path(best.mark_line(strokeWidth=6, color=INK)),
        path(best.mark_line(strokeWidth=3.4)).encode(color=colour),
        ticks.mark_point(shape="stroke", size=50, color=SOFT, opacity=1).encode(x=x, y=y),
    ]
    # values at the left of a factor's axis and the right of the metric's, with an edge of paper before the lines
    for align, dx, where in (("right", -8, f"datum.axis < {last}"), ("left", 8, f"datum.axis == {last}")):
        for ink in ({"stroke": PAPER, "strokeWidth": 3.5, "strokeJoin": "round"}, {"color": INK}):
            text = ticks.transform_filter(where).mark_text(align=align, dx=dx, fontSize=FONT, baseline="middle", **ink)
            layers.append(text.encode(x=x, y=y, text="text:N"))
    layers.append(heads.mark_text(fontSize=12, baseline="bottom", y=-14).encode(x=x, text="text:N"))
    return alt.layer(*layers, data=data(lines)).properties(width=round(step * last), height=HEIGHT)


# ---- axes -----------------------------------------------------------------------------------------------------------


def _factor_axis(name: str, values: list[Json]) -> Axis:
    """Place numbers along a scale, by their logarithm where they span LOG_FROM times the least; others one below the other."""
    known = [value for value in values if value is not None]
    if all(map(is_number, known)) and len({*known}) > 1:
        return _number_axis(name, known, None in values)
    texts = brief(sorted({shown(value) for value in values}), NAME)
    places = {text: 1 - i / max(1, len(texts) - 1) for i, text in enumerate(texts)}  # all lines drawn may have one value
    ticks = [(place, texts[text]) for text, place in places.items()]
    return Axis(name, lambda value: places[shown(value)], _apart(ticks))


def _number_axis(name: str, known: list[float], absent: bool) -> Axis:
    low, high = min(known), max(known)
    is_log = low > 0 and high / low >= LOG_FROM
    scale = math.log2 if is_log else float
    bottom = NONE_BELOW if absent else 0.0

    def place(value: float | None) -> float:
        return 0.0 if value is None else bottom + (1 - bottom) * (scale(value) - scale(low)) / (scale(high) - scale(low))

    levels = sorted({*known})
    if len(levels) > 8:  # drawn from a range: round numbers, not the draws
        levels = _round_log(low, high) if is_log else round_values(low, high, (high - low) / 5)
    ticks = [(place(level), f"{level:g}") for level in levels]
    return Axis(name, place, _apart([*([(0.0, brief([f"no {name}"], NAME)[f"no {name}"])] if absent else []), *ticks]))


def _round_log(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [value for k in exponents for m in (1, 2, 5) if low <= (value := m * 10.0**k) <= high] or [low, high]


def _metric_axis(name: str, values: list[float]) -> Axis:
    low, high = min(values), max(values)
    levels = round_values(low, high, (high - low) / 6)
    digits = max(0, -math.floor(math.log10((high - low) / 6)))
    return Axis(
        name,
        lambda value: (value - low) / (high - low),
        _apart([((v - low) / (high - low), number(v, digits)) for v in levels]),
    )


def _apart(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Choose ticks whose texts do not touch the text below; the top one is always among them."""
    readable: list[tuple[float, str]] = []
    ticks = sorted(ticks)
    for tick in ticks:
        if not readable or (tick[0] - readable[-1][0]) * HEIGHT >= APART:
            readable.append(tick)
    if readable[-1] != ticks[-1]:
        readable[-1] = ticks[-1]
    return readable
