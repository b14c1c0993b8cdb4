"""Numbers along training: a study's settings, and one training's loss and validations."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import altair as alt

from research.metrics.seeds import summarise
from research.report.figures.names import brief
from research.report.figures.parts import MOST_LINES, Row, colour_and_shape, data, domain, figure, metric_axis, round_values
from research.report.figures.theme import COLOURS, INK, PAPER, SOFT, Figure
from research.report.numbers import plain, share
from research.report.study import Group, Study
from research.report.training import Training
from research.report.training_words import metric, result
from research.runs.curves import Curve
from research.runs.record import RunRecord

Curves = Callable[[RunRecord], Sequence[tuple[int, float]]]
"""A run → (step, value) of one of its metrics."""
TRAIN = "train/loss"
STEPS = "optimizer steps"
MOST_GREY = 64  # settings that are drawn at all
SIZE = (290, 160)  # px of a plot of one training: two stand side by side, one fills a phone
EDGE = 18  # px of it above and below the values
MOST = 400  # points of a line: more than a figure has px
SIGNS = 30  # validations that each get a sign; more would hide the line


def learning_curves(study: Study, curves: Curves, name: str | None = None) -> Figure | None:
    """Draw a number along training: mean over seeds, and their range as a band; of the best groups where there are many.

    Args:
        study: groups.
        curves: a run → (step, value).
        name: of a loss that is drawn; None: the study's metric.
    """
    known = [g for g in study.groups if g.values]
    known.sort(key=lambda g: summarise(list(g.values.values())).mean, reverse=study.higher)
    best = {id(group) for group in known[:MOST_LINES]}
    chosen = [group for group in study.groups if id(group) in best]
    texts = brief(group.label for group in chosen)
    rows = [row | {"line": texts[group.label]} for group in chosen for row in _over_seeds(group, curves)]
    if len({row["x"] for row in rows}) < 3:
        return None
    name = study.labels.get(name, name) if name else None
    title = f"↓ {name}" if name else None
    lines = list(dict.fromkeys(row["line"] for row in rows))
    # a setting has its colour and shape by its place among all, whichever are the best and whichever have no curve
    places = {texts[group.label]: i for i, group in enumerate(study.groups) if group.label in texts}
    colour, shape = colour_and_shape("line", lines, "setting", _looks([places[line] for line in lines]))
    chart, mean = alt.Chart(), metric_axis(study, title=title)
    others = [row | {"line": group.label} for group in known[MOST_LINES:MOST_GREY] for row in _over_seeds(group, curves)]
    grey = alt.Chart(data(others)).mark_line(strokeWidth=1, opacity=0.3)
    layers = [
        *([grey.encode(y=mean, detail="line:N", color=alt.value(SOFT))] if others else []),
        chart.mark_area(opacity=0.18).encode(y=metric_axis(study, "low", title), y2="high"),
        chart.mark_line().encode(y=mean),
        chart.mark_point(filled=True, opacity=1).encode(y=mean, shape=shape),
    ]
    x = alt.X("x:Q", title=STEPS, axis=alt.Axis(grid=False, format="~s"))
    chart = alt.layer(*layers, data=data(rows)).encode(x=x, color=colour).properties(width=460, height=280)
    drawn = "the others" if len(known) <= MOST_GREY else f"the next {MOST_GREY - MOST_LINES}"
    more = f" The best {MOST_LINES} of {len(known)} settings, {drawn} in grey." if others else ""
    caption = f"Mean over seeds; the band is from the lowest to the highest.{more}"
    return figure("curves", f"{name or study.metric_name} along training", caption, chart)


def _looks(places: list[int]) -> list[int]:
    """Give each of up to MOST_LINES places a look of its own: that of its place, or the next one that is free."""
    looks: list[int] = []
    for place in places:
        looks.append(next(n % MOST_LINES for n in range(place, place + MOST_LINES) if n % MOST_LINES not in looks))
    return looks


def _over_seeds(group: Group, curves: Curves) -> list[Row]:
    """Compute mean and range over the group's seeds, at the steps that each of them has."""
    by_step: dict[int, list[float]] = {}
    for run in group.counted:
        for step, value in dict(curves(run)).items():  # of a repeated step the last value counts
            by_step.setdefault(step, []).append(value)
    return [
        {"x": step, "mean": sum(values) / len(values), "low": min(values), "high": max(values)}
        for step, values in sorted(by_step.items())
        if len(values) == len(group.counted) and all(map(math.isfinite, values))
    ]


# ---- one training ---------------------------------------------------------------------------------------------------


def loss_figure(training: Training, name: str) -> Figure:
    """Draw the training loss: every step thin, its running mean thick.

    Args:
        training: with a loss.
        name: of the figure.
    """
    curve, n = training.loss, width(training.loss)
    smooth = running_mean(curve, n)
    x, y = _axes(training, [value for _, value in curve])
    layers = [
        alt.Chart(_points(curve)).mark_line(strokeWidth=1, opacity=0.6, color=SOFT),
        alt.Chart(_points(smooth)).mark_line(strokeWidth=2, color=INK, point={"color": INK} if len(curve) == 1 else False),
    ]
    ends = [f"{plain(value)} at step {step:,}" for step, value in (smooth[0], smooth[-1])]
    caption = f"The mean of {n} steps goes from {ends[0]} to {ends[1]}."
    loss_name = training.labels.get(TRAIN, "training loss")
    chart = _sized(alt.layer(*layers).encode(x=x, y=y), loss_name)
    return figure(name, f"{loss_name[0].upper()}{loss_name[1:]} of {training.run.name} over steps", caption, chart)


def value_figure(training: Training, name: str) -> Figure:
    """Draw the monitored metric from the untrained model on: hollow the untrained, a diamond the best.

    Args:
        training: with validations.
        name: of the figure.
    """
    curve, best, untrained = training.values, training.best, training.untrained
    x, y = _axes(training, [value for _, value in [*curve, *([best] if best else [])]])
    line = alt.Chart(_points(curve)).mark_line(strokeWidth=2, color=INK).encode(x=x, y=y)
    layers = [line]
    if untrained is not None:
        level = alt.Chart(data([{"value": untrained}])).mark_rule(color=SOFT, strokeDash=[1, 4], strokeCap="round")
        layers.insert(0, level.encode(y=y))
    others = [(step, value) for step, value in curve if step and step != (best or [None])[0]]
    if 0 < len(others) < SIGNS:
        layers.append(alt.Chart(_points(others)).mark_point(filled=True, size=36, color=INK, opacity=1).encode(x=x, y=y))
    signs = []  # (what, step, value, shape, colour)
    if best:
        signs.append((f"best {share(best[1])}", *best, "diamond", COLOURS[2]))
    if untrained is not None:
        signs.append((f"untrained {share(untrained)}", 0, untrained, "circle", PAPER))
    if signs:
        names, _, _, shapes, colours = zip(*signs, strict=True)
        edges = [COLOURS[2] if fill == COLOURS[2] else INK for fill in colours]
        rows = [{"what": what, "step": step, "value": value} for what, step, value, *_ in signs]
        marks = alt.Chart(data(rows)).mark_point(size=110, strokeWidth=1.5, opacity=1)
        channels = [
            channel("what:N", title=None, legend=alt.Legend(orient="bottom"), scale=alt.Scale(domain=names, range=values))
            for channel, values in ((alt.Fill, colours), (alt.Stroke, edges), (alt.Shape, shapes))
        ]
        layers.append(marks.encode(x, y, *channels))
    arrow = "↓" if training.lower else "↑"
    short_name = next(iter(brief([metric(training)]).values()))
    chart = _sized(alt.layer(*layers), f"{arrow} {short_name}")
    return figure(name, f"{metric(training)} of {training.run.name} over steps", result(training), chart)


def _axes(training: Training, values: list[float]) -> tuple[alt.X, alt.Y]:
    last = max(training.steps, training.drawn, 1)
    axis = alt.Axis(grid=False, format=",d", values=round_values(0, last, max(last / 5, 1)))
    x = alt.X("step:Q", title=STEPS, scale=alt.Scale(domain=[0, last], nice=False, padding=8), axis=axis)
    ends = domain(values, values, SIZE[1], EDGE)
    scale = alt.Scale(domain=ends, nice=False, zero=False)
    return x, alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(tickCount=6))


def _sized(chart: alt.LayerChart, name: str) -> alt.LayerChart:
    return chart.properties(width=SIZE[0], height=SIZE[1], title=alt.TitleParams(name, frame="bounds"))


def _points(curve: Curve) -> alt.Data:
    return data([{"step": step, "value": value} for step, value in thin(curve)])


def running_mean(curve: Curve, width: int) -> Curve:
    """Compute the mean of the `width` values around each (odd; fewer at the ends, where there are no more)."""
    sums = [0.0, *accumulate(value for _, value in curve)]
    half = width // 2
    spans = [(max(0, i - half), min(len(curve), i + half + 1)) for i in range(len(curve))]
    return [(step, (sums[b] - sums[a]) / (b - a)) for (step, _), (a, b) in zip(curve, spans, strict=True)]


def width(curve: Curve) -> int:
    """Choose the steps of the running mean: a tenth of all, odd, 5 or more."""
    return max(5, len(curve) // 10 // 2 * 2 + 1)


def thin(curve: Curve, most: int = MOST) -> Curve:
    """Keep at most so many points: least and largest of equal stretches, so that no peak is lost."""
    if len(curve) <= most:
        return curve
    size = math.ceil(len(curve) / (most // 2))
    points: Curve = []
    for start in range(0, len(curve), size):
        stretch = curve[start : start + size]
        points += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return points
