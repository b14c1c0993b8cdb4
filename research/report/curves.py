"""The two small figures of a training as hand-written SVG: loss, and the validation metric, over optimizer steps.

Their ink is the page's: colours s0 to s5 belong to the systems.
"""

import math
from itertools import accumulate, pairwise

from research.report.figures import Layout, axes, label, shorten, svg, tick_texts
from research.report.labels import Box, Label, text_width
from research.report.numbers import plain, share
from research.report.scales import Scale, round_values, step_scale, step_ticks, y_scale, y_ticks
from research.report.training import Training
from research.report.training_words import metric, result
from research.runs.curves import Curve

LAYOUTS = (Layout("wide", 508, 250, 48, 36, 4, 50, 14, 0), Layout("narrow", 360, 220, 42, 34, 4, 48, 12.5, 0))
MOST = 400  # points of a line: more than a figure has px
SIGNS = 30  # validations that each get a sign; more would hide the line


def running_mean(curve: Curve, width: int) -> Curve:
    """The mean of the `width` values around each (odd; fewer at the ends, where there are no more)."""
    sums = [0.0, *accumulate(value for _, value in curve)]
    half = width // 2
    spans = [(max(0, i - half), min(len(curve), i + half + 1)) for i in range(len(curve))]
    return [(step, (sums[b] - sums[a]) / (b - a)) for (step, _), (a, b) in zip(curve, spans, strict=True)]


def width(curve: Curve) -> int:
    """Steps of the running mean: a tenth of all, odd, 5 or more."""
    return max(5, len(curve) // 10 // 2 * 2 + 1)


def thin(curve: Curve, most: int = MOST) -> Curve:
    """At most so many points: least and largest of equal stretches, so that no peak is lost."""
    if len(curve) <= most:
        return curve
    size = math.ceil(len(curve) / (most // 2))
    kept = []
    for start in range(0, len(curve), size):
        stretch = curve[start : start + size]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept


def loss_figure(training: Training, layout: Layout, id: str) -> str:
    """Training loss: every step thin, its running mean thick."""
    curve, n = training.loss, width(training.loss)
    smooth = running_mean(curve, n)
    least = min(value for _, value in curve)
    y = y_scale([(value, value) for _, value in curve], layout.plot)
    y = y._replace(low=max(y.low, 0)) if least >= 0 else y
    x, layout, parts = _frame(training, layout, y, "training loss", bounds=(-math.inf, math.inf))
    for css, points in (("raw", curve), ("smooth", smooth)):
        parts.append(f'<path class="{css}" d="{_path(_place(thin(points), x, y))}"/>')
    if len(curve) == 1:
        parts.append(_dot(x(curve[0][0]), y(curve[0][1])))
    ends = [f"{plain(value)} at step {step:,}" for step, value in (smooth[0], smooth[-1])]
    described = f"The mean of {n} steps goes from {ends[0]} to {ends[1]}."
    return svg(parts, layout, id, f"Training loss of {training.name} over steps", described)


def value_figure(training: Training, layout: Layout, id: str) -> str:
    """The monitored metric from the untrained model on: hollow the untrained, a diamond the best."""
    curve, best = training.values, training.best
    points = dict.fromkeys([*curve, *([best] if best else [])])
    y = y_scale([(value, value) for _, value in points], layout.plot, room=layout.font * 1.2 + 12)
    bounds = (0, 1) if all(0 <= value <= 1 for _, value in points) else (-math.inf, math.inf)
    x, layout, parts = _frame(training, layout, y, f"{'↓' if training.lower else '↑'} {shorten(metric(training))}", bounds)
    places = _place(thin(curve), x, y)
    parts.append(f'<path class="smooth" d="{_path(places)}"/>')
    if training.untrained is not None:
        at = y(training.untrained)
        parts.insert(0, f'<path class="level" d="M{layout.plot.left} {at:.1f}H{layout.plot.right}"/>')
    for (step, value), (px, py) in zip(thin(curve), places, strict=True):
        if step == 0:
            parts.append(f'<circle class="mark start" cx="{px:.1f}" cy="{py:.1f}" r="5"/>')
        elif len(curve) <= SIGNS and (best is None or step != best[0]):
            parts.append(_dot(px, py, value))
    if best:
        px, py = x(best[0]), y(best[1])
        corners = " ".join(f"{px + dx:.1f},{py + dy:.1f}" for dx, dy in ((0, -8), (8, 0), (0, 8), (-8, 0)))
        parts.append(f'<polygon class="mark best" points="{corners}"/>')
    parts += _labels(training, x, y, places + ([(x(best[0]), y(best[1]))] if best else []), layout)
    return svg(parts, layout, id, f"{metric(training)} of {training.name} over steps", result(training))


# ---- drawing --------------------------------------------------------------------------------------------------------


def _frame(training: Training, layout: Layout, y: Scale, name: str, bounds: tuple[float, float]) -> tuple:
    """Axes: (scale of steps, the layout with room for the ticks at its left, parts)."""
    ticks = y_ticks(y, *bounds)
    if len(ticks) < 2:  # so narrow a range that no two round numbers fall into it at that distance
        ticks = round_values(max(y.low, bounds[0]), min(y.high, bounds[1]), (y.high - y.low) / 14)
    texts = tick_texts(ticks)
    layout = layout._replace(left=max([layout.left, *(round(text_width(text, layout.font)) + 10 for text in texts)]))
    last = max(training.steps, training.drawn)
    wide = text_width(f"{last:,}", layout.font)
    x = step_scale(last, layout.plot, edge=max(10, wide / 2))
    x_marks = [(x(step), f"{step:,}") for step in step_ticks(x, wide + 16)]
    return x, layout, axes(layout, x_marks, list(zip(map(y, ticks), texts, strict=True)), "steps →", name)


def _place(curve: Curve, x: Scale, y: Scale) -> list[tuple[float, float]]:
    return [(x(step), y(value)) for step, value in curve]


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points) if points else ""


def _dot(x: float, y: float, value: float | None = None) -> str:
    title = "" if value is None else f"<title>{share(value)}</title>"
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{title}</circle>'


def _labels(training: Training, x: Scale, y: Scale, line: list[tuple[float, float]], layout: Layout) -> list[str]:
    """Names of best and untrained off the line and its signs; one without a free place is left to the words below."""
    plot, parts = layout.plot, []
    taken = [Box(px - 7, py - 7, px + 7, py + 7) for px, py in line]
    for (ax, ay), (bx, by) in pairwise(line):
        pieces = max(1, math.ceil(math.dist((ax, ay), (bx, by)) / 4))
        at = [(ax + (bx - ax) * k / pieces, ay + (by - ay) * k / pieces) for k in range(pieces + 1)]
        taken += [Box(px - 3, py - 3, px + 3, py + 3) for px, py in at]
    if training.untrained is not None:
        taken.append(Box(plot.left, y(training.untrained) - 1, plot.right, y(training.untrained) + 1))
    for name, point in (("best", training.best), ("untrained", (0, training.untrained))):
        if point is None or point[1] is None:
            continue
        text, px, py = f"{name} {share(point[1])}", x(point[0]), y(point[1])
        spot = next((box for box in _spots(text, px, py, layout) if not any(map(box.meets, taken))), None)
        if spot:
            taken.append(spot)
            parts.append(label(text, Label(spot, None), (spot.left, 0)))
    return parts


def _spots(text: str, px: float, py: float, layout: Layout) -> list[Box]:
    """Places of a label in the plot: above and below its point, then the same at the right end."""
    plot, wide, high = layout.plot, text_width(text, layout.font), layout.font * 1.2
    lefts = (min(max(px - wide / 2, plot.left + 2), plot.right - wide), plot.right - wide)
    boxes = [Box(left, top, left + wide, top + high) for left in lefts for top in (py - 10 - high, py + 10)]
    return [box for box in boxes if box.within(plot)]
