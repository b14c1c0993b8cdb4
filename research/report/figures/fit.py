"""Figures in the widths of a paper: a column of two, and a page. The first is what a phone shows, too."""

import re

from research.report.figures.render import svg
from research.report.figures.theme import Figure
from research.types import Json

COLUMN, PAGE = 320, 672  # px at 96 an inch: 3⅓ and 7 inches
LEAST = 150  # px of a plot; in fewer nothing can be read
LEGEND = 300  # px of one column of a legend


def fitted(figure: Figure, px: int, name: str = "") -> tuple[Figure, str] | None:
    """Draw the figure at most `px` wide, with texts as large as before; return it with its SVG, None where that is impossible.

    Its legend moves below the plot, names in its margin are left out, and then the plot is made narrower.

    Args:
        figure: of any width.
        px: of the whole drawing.
        name: of the narrower figure; "" keeps its name.
    """
    figure = figure._replace(name=name or figure.name)
    drawing = svg(figure)
    if width(drawing) <= px:
        return figure, drawing
    plot = figure.spec.get("width")
    if figure.is_rigid or not isinstance(plot, int | float):  # steps of a heatmap are as narrow as their texts allow
        return None
    margin = plot if px < PAGE else None
    spec = _below(figure.spec, max(1, px // LEGEND), margin)
    legend = {"orient": "bottom", "columns": max(1, px // LEGEND), "labelLimit": min(px, LEGEND) - 30}
    spec |= {"config": spec["config"] | {"legend": spec["config"].get("legend", {}) | legend}}
    for _ in range(2):  # ticks change with the width
        drawing = svg(figure._replace(spec=spec))
        if width(drawing) <= px:
            return figure._replace(spec=spec), drawing
        less = width(drawing) - px
        if spec["width"] - less < LEAST:
            return None
        spec = _moved(spec, spec["width"], -less) | {"width": spec["width"] - less}
    drawing = svg(figure._replace(spec=spec))
    return (figure._replace(spec=spec), drawing) if width(drawing) <= px else None


def width(drawing: str) -> float:
    """Read the width of an SVG, in px."""
    return float(re.search(r'<svg[^>]*?\bwidth="([\d.]+)"', drawing)[1])


def _below(spec: Json, columns: int, margin: float | None) -> Json:
    """Return the specification with legends below the plot, and without layers whose marks stand right of `margin` px."""
    if isinstance(spec, list):
        return [_below(part, columns, margin) for part in spec if not _is_beside(part, margin)]
    if not isinstance(spec, dict):
        return spec
    changed = {key: value if key in ("data", "datasets") else _below(value, columns, margin) for key, value in spec.items()}
    if isinstance(changed.get("legend"), dict):
        changed["legend"] = changed["legend"] | {"orient": "bottom", "columns": columns, "labelLimit": LEGEND - 30}
    return changed


def _is_beside(layer: Json, margin: float | None) -> bool:
    """Return whether the marks of a layer stand right of `margin` px."""
    channels = layer.get("encoding", {}) if isinstance(layer, dict) else {}
    places = [channels[name].get("value") for name in ("x", "x2") if isinstance(channels.get(name), dict)]
    return margin is not None and any(isinstance(place, int | float) and place >= margin for place in places)


def _moved(spec: Json, edge: float, by: float) -> Json:
    """Return the specification with places right of the plot moved along with its edge."""
    if isinstance(spec, list):
        return [_moved(part, edge, by) for part in spec]
    if not isinstance(spec, dict):
        return spec
    changed = {key: value if key in ("data", "datasets") else _moved(value, edge, by) for key, value in spec.items()}
    for name in ("x", "x2"):
        place = changed.get(name)
        if isinstance(place, dict) and isinstance(place.get("value"), int | float) and place["value"] >= edge:
            changed[name] = place | {"value": place["value"] + by}
    return changed
