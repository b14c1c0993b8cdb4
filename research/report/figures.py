"""Quality against latency as hand-written SVG, laid out twice: for a wide page and for a phone's.

Colours and fonts come from the page's CSS (classes s0 to s5), so that the plot follows dark mode; shapes tell the
systems apart without colour.
"""

import math
from html import escape
from typing import NamedTuple

from research.report.labels import Box, Label, place, text_width
from research.report.numbers import column, share
from research.report.scales import Scale, x_scale, x_ticks, y_scale, y_ticks
from research.report.tables import Line, title

SHAPES = ("circle", "square", "triangle", "diamond", "wedge", "cross")
LONGEST = 44  # characters of a label beside its point; the table has the whole name


class Layout(NamedTuple):
    """A canvas: its size in px, the margins around the plot, the font's size and the room right of the last point."""

    name: str
    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    font: float
    ticks: int  # at least so many px between two x ticks

    @property
    def plot(self) -> Box:
        return Box(self.left, self.top, self.width - self.right, self.height - self.bottom)


LAYOUTS = (Layout("wide", 1040, 440, 52, 40, 8, 52, 14, 46), Layout("narrow", 360, 350, 40, 34, 4, 50, 12.5, 40))

Drawn = tuple[Scale, list[tuple[float, float]], list[Label] | None]  # x, points, and their labels if all have a place


def plotted(lines: list[Line]) -> list[int]:
    """Positions of the rows that have a time, which a logarithmic axis needs to be above 0."""
    return [i for i, line in enumerate(lines) if (line.row.facts.get("ms_per_query") or 0) > 0]


def latency_plot(lines: list[Line], metric: str, layout: Layout) -> tuple[str, bool]:
    """The plot of one layout.

    Args:
        lines: all rows; those without a time are left out.
        metric: the y axis, with its 95% interval as a bar.
        layout: of LAYOUTS.

    Returns:
        The SVG, and whether names stand beside the points; if not, the rows' numbers do and the page adds a legend.
    """
    shown = plotted(lines)
    names = [shorten(lines[i].row.label) for i in shown]
    y = y_scale([(lines[i].low, lines[i].high) for i in shown], layout.plot)
    drawn = _arrange(lines, shown, names, y, layout)
    texts = names if drawn else [str(i + 1) for i in shown]
    x, points, placed = drawn or _spread(lines, shown, texts, y, layout, room=20, reach=10)
    times, shares = x_ticks(x, layout.ticks), y_ticks(y)
    x_marks = [(x(math.log10(tick)), f"{tick:,.10g}") for tick in times]
    y_marks = list(zip(map(y, shares), tick_texts(shares, least=2), strict=True))
    parts = axes(layout, x_marks, y_marks, "milliseconds a query, log scale →", f"↑ {title(metric)}")
    for k, i in enumerate(shown):
        parts.append(_point(lines[i], i, points[k], y, metric))
    for text, spot, point in zip(texts, placed or [], points, strict=False):
        parts.append(label(text, spot, point))
    described = "; ".join(f"{lines[i].row.label} {share(lines[i].mean)} at {_ms(lines[i])} ms" for i in shown)
    heading = f"{title(metric)} against milliseconds a query"
    return svg(parts, layout, f"plot-{layout.name}", heading, f"{described}."), drawn is not None


def _arrange(lines: list[Line], shown: list[int], names: list[str], y: Scale, layout: Layout) -> Drawn | None:
    """The least room at the right with which most names stand right beside their points; None if some find no place."""
    most = 0.4 * (layout.plot.right - layout.plot.left)
    rooms = sorted({20.0, *(text_width(name, layout.font) + 24 for name in names)})
    tries = [_spread(lines, shown, names, y, layout, room, reach=2) for room in rooms if room <= most]
    found = [drawn for drawn in tries if drawn[2]]
    return min(found, key=lambda drawn: sum(label.leader is not None for label in drawn[2]), default=None)


def _spread(
    lines: list[Line], shown: list[int], texts: list[str], y: Scale, layout: Layout, room: float, reach: float
) -> Drawn:
    times = [lines[i].row.facts["ms_per_query"] for i in shown]
    x = x_scale(times, layout.plot, room)
    points = [(x(math.log10(ms)), y(lines[i].mean)) for i, ms in zip(shown, times, strict=True)]
    taken = [Box(px - 8, py - 8, px + 8, py + 8) for px, py in points]
    taken += [Box(px - 5, y(lines[i].high), px + 5, y(lines[i].low)) for i, (px, _) in zip(shown, points, strict=True)]
    sizes = [(text_width(text, layout.font), layout.font * 1.25) for text in texts]
    return x, points, place(points, sizes, taken, layout.plot, gap=12, reach=reach)


def marker(i: int, x: float = 8, y: float = 8, r: float = 5.5) -> str:
    """The sign of row i, filled for the first six and hollow for the next six."""
    css = f"mark s{i % 6}" + (" hollow" if i // 6 % 2 else "")
    shape = SHAPES[i % 6]
    if shape == "circle":
        return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    a, b = r * 1.15, r * 0.92
    corners = {
        "square": [(-b, -b), (b, -b), (b, b), (-b, b)],
        "triangle": [(0, -a), (a, b), (-a, b)],
        "diamond": [(0, -1.35 * r), (1.35 * r, 0), (0, 1.35 * r), (-1.35 * r, 0)],
        "wedge": [(0, a), (a, -b), (-a, -b)],
        "cross": [(p * r, q * r) for p, q in _CROSS],
    }[shape]
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{css}" points="{path}"/>'


_CROSS = [
    (-0.4, -1.1),
    (0.4, -1.1),
    (0.4, -0.4),
    (1.1, -0.4),
    (1.1, 0.4),
    (0.4, 0.4),
    (0.4, 1.1),
    (-0.4, 1.1),
    (-0.4, 0.4),
    (-1.1, 0.4),
    (-1.1, -0.4),
    (-0.4, -0.4),
]


# ---- drawing --------------------------------------------------------------------------------------------------------


def axes(
    layout: Layout, x_ticks: list[tuple[float, str]], y_ticks: list[tuple[float, str]], x_name: str, y_name: str
) -> list[str]:
    """Grid, axis, ticks as (px, text), and the names of both axes."""
    plot, parts = layout.plot, []
    for at, text in y_ticks:
        parts.append(f'<line class="grid" x1="{plot.left}" x2="{plot.right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{plot.left - 8}" y="{at:.1f}" dy=".35em" text-anchor="end">{text}</text>')
    parts.append(f'<line class="axis" x1="{plot.left}" x2="{plot.right}" y1="{plot.bottom}" y2="{plot.bottom}"/>')
    for at, text in x_ticks:
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{plot.bottom}" y2="{plot.bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{plot.bottom + 20}" text-anchor="middle">{text}</text>')
    parts.append(f'<text class="name" x="2" y="16">{escape(y_name)}</text>')
    parts.append(f'<text class="name" x="{plot.right}" y="{layout.height - 8}" text-anchor="end">{escape(x_name)}</text>')
    return parts


def tick_texts(ticks: list[float], least: int = 0) -> list[str]:
    """Ticks with the decimals that tell them apart, `least` or more; no zero before the point."""
    apart = ticks[1] - ticks[0] if len(ticks) > 1 else 0.001
    decimals = max(least, -math.floor(math.log10(apart * (1 + 1e-9))))
    texts = [f"{tick:,.{decimals}f}" for tick in ticks]
    texts = [text.replace("-", "−").replace("0.", ".", 1) if abs(float(text.replace(",", ""))) < 1 else text for text in texts]
    return ["0" if not text.strip(".0") else text for text in texts]


def _point(line: Line, i: int, point: tuple[float, float], y: Scale, metric: str) -> str:
    px, py = point
    top, bottom = y(line.high), y(line.low)
    interval = f"95% interval {share(line.low)} to {share(line.high)}"
    text = f"{line.row.label}: {title(metric)} {share(line.mean)}, {interval}, {_ms(line)} ms a query"
    bar = f"M{px:.1f} {top:.1f}V{bottom:.1f}M{px - 4:.1f} {top:.1f}h8M{px - 4:.1f} {bottom:.1f}h8"
    return f'<g><title>{escape(text)}</title><path class="bar s{i % 6}" d="{bar}"/>{marker(i, px, py)}</g>'


def label(text: str, place: Label, point: tuple[float, float]) -> str:
    """A placed label with its leader."""
    box, parts = place.box, ""
    if place.leader:
        x0, y0, x1, y1 = place.leader
        parts = f'<line class="leader" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'
    left = box.left >= point[0]  # anchored at the point's side: the box is an upper estimate of the text
    at, anchor = (box.left, "start") if left else (box.right, "end")
    middle = (box.top + box.bottom) / 2
    return f'{parts}<text class="label" x="{at:.1f}" y="{middle:.1f}" dy=".35em" text-anchor="{anchor}">{escape(text)}</text>'


def svg(parts: list[str], layout: Layout, id: str, heading: str, described: str) -> str:
    """The figure, with its heading and description for those who hear it."""
    return (
        f'<svg class="plot {layout.name}" viewBox="0 0 {layout.width} {layout.height}" role="img" '
        f'aria-labelledby="{id}-title {id}-desc" font-size="{layout.font}">'
        f'<title id="{id}-title">{escape(heading)}</title>'
        f'<desc id="{id}-desc">{escape(described)}</desc>{"".join(parts)}</svg>'
    )


def _ms(line: Line) -> str:
    return column([line.row.facts["ms_per_query"]])[0]


def shorten(label: str) -> str:
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"
