"""A study's figures as Vega-Lite specifications: one serves the paper (SVG, PDF) and the page.

A figure is left out where its axes do not exist: no two factors, no numbers on an axis, no curves.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from research.metrics.seeds import summarise
from research.report.groups import Group, Study, short_names, shown
from research.report.sheets import decimals, number

Spec = dict[str, Any]
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
"""Okabe and Ito's, told apart by the colour-blind; with shapes, by a printer too."""
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
CONFIG = {"font": "Liberation Sans, Arial, Helvetica, sans-serif", "view": {"stroke": None},
          "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#e4e4e4",
                   "domainColor": "#555", "tickColor": "#555"},
          "legend": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 260},
          "range": {"category": COLOURS}}  # fmt: skip
MOST_LINES = 8  # more groups than colours would look alike


class Figure(NamedTuple):
    """One figure.

    Attributes:
        name: of its files.
        title: above it.
        caption: what is drawn, and which side is better.
        spec: Vega-Lite.
    """

    name: str
    title: str
    caption: str
    spec: Spec


def figures(study: Study, curves: Callable[[Any], Sequence[tuple[int, float]]]) -> list[Figure]:
    """All figures that the study has the axes for.

    Args:
        study: groups.
        curves: a run → (step, value) of the study's metric.
    """
    made = [heatmap(study), *(against_factor(study, name) for name in study.factors), against_parameters(study),
            learning_curves(study, curves)]  # fmt: skip
    return [figure for figure in made if figure is not None]


def heatmap(study: Study) -> Figure | None:
    """Means over two factors; the best cell framed."""
    if len(study.factors) != 2:
        return None
    down, across = study.factors
    cells = [
        {"down": shown(g.factors[down]), "across": shown(g.factors[across]), **_values(g)}
        for g in study.groups
        if g.values
    ]
    lines, heads = (
        [str(value) for value in dict.fromkeys(cell[side] for cell in cells)] for side in ("down", "across")
    )
    if len(lines) < 2 or len(heads) < 2 or len({(cell["down"], cell["across"]) for cell in cells}) < len(cells):
        return None
    if any(g.factors[name] is None for g in study.groups for name in study.factors):
        return None
    names, digits = short_names(study.factors), decimals(study.groups)
    best = (max if study.higher else min)(cells, key=lambda cell: cell["mean"])
    middle = (min(cell["mean"] for cell in cells) + max(cell["mean"] for cell in cells)) / 2
    for cell in cells:
        cell |= {"text": number(cell["mean"], digits), "spread": f"± {number(cell['sd'], digits)}" if cell["sd"] else "",
                 "best": cell is best, "dark": (cell["mean"] < middle) == study.higher}  # fmt: skip
    x = {"field": "across", "type": "ordinal", "sort": heads, "title": names[across], "axis": {"labelAngle": 0}}
    y = {"field": "down", "type": "ordinal", "sort": lines, "title": names[down]}
    scheme = {"scheme": "viridis", "reverse": not study.higher}
    ink = {"condition": {"test": "datum.dark", "value": "white"}, "value": "black"}
    layers = [
        {"mark": {"type": "rect"}, "encoding": {"color": {"field": "mean", "type": "quantitative", "scale": scheme,
                                                          "legend": None}}},
        {"mark": {"type": "rect", "fillOpacity": 0, "stroke": "black", "strokeWidth": 3},
         "transform": [{"filter": "datum.best"}]},
        {"mark": {"type": "text", "dy": -7, "fontSize": 13}, "encoding": {"text": {"field": "text"}, "color": ink}},
        {"mark": {"type": "text", "dy": 9, "fontSize": 10}, "encoding": {"text": {"field": "spread"}, "color": ink}},
    ]  # fmt: skip
    spec = {
        "data": {"values": cells},
        "encoding": {"x": x, "y": y},
        "layer": layers,
        "width": {"step": 92},
        "height": {"step": 52},
    }
    caption = f"Mean over seeds, ± standard deviation; the {_side(study)} is better, the best is framed."
    return Figure("heatmap", f"{study.metric} by {names[down]} and {names[across]}", caption, _whole(spec))


def against_factor(study: Study, factor: str) -> Figure | None:
    """The metric along one numeric factor, a line for each setting of the others."""
    groups = [g for g in study.groups if g.values and _is_number(g.factors[factor])]
    rest = [name for name in study.factors if name != factor]
    names = short_names(study.factors)
    lines: dict[str, list[Group]] = {}
    for group in groups:
        others = [f"{names[name]}={shown(group.factors[name])}" for name in rest if group.factors[name] is not None]
        lines.setdefault(" ".join(others), []).append(group)
    levels = {group.factors[factor] for group in groups}
    if len(levels) < 2 or len(lines) > MOST_LINES or not any(len(line) > 1 for line in lines.values()):
        return None
    rows = [{"x": g.factors[factor], "line": line, **_values(g)} for line, found in lines.items() for g in found]
    ratio = max(levels) / min(levels) if min(levels) > 0 else 0
    scale: Spec = {"type": "log", "base": 2} if ratio >= 4 else {"zero": False}
    scale |= {"nice": False, "padding": 16}
    axis: Spec = {"grid": False, "format": "~g"} | ({"values": sorted(levels)} if len(levels) <= MOST_LINES else {})
    x = {"field": "x", "type": "quantitative", "title": names[factor], "scale": scale, "axis": axis}
    return Figure(f"by-{names[factor]}", f"{study.metric} by {names[factor]}",
                  f"Mean over seeds; bars are ± one standard deviation. The {_side(study)} is better.",
                  _whole({"data": {"values": rows}, **_lines(study, x, rows)}))  # fmt: skip


def against_parameters(study: Study) -> Figure | None:
    """The metric against trainable parameters, with the front of those that none with fewer parameters beats."""
    groups = [g for g in study.groups if g.values and g.numbers.get("trained_parameters")]
    sizes = {g.numbers["trained_parameters"] for g in groups}
    if len(sizes) < 2 or len(groups) > 4 * MOST_LINES:
        return None
    rows = [{"x": g.numbers["trained_parameters"], "label": g.label, "kind": _kind(g), **_values(g)} for g in groups]
    front, best = [], None
    for row in sorted(rows, key=lambda row: (row["x"], -row["mean"] if study.higher else row["mean"])):
        if best is None or (row["mean"] > best if study.higher else row["mean"] < best):
            best = row["mean"]
            front.append(row)
    for row in rows:
        row["front"] = row in front
    x = {"field": "x", "type": "quantitative", "title": "trained parameters",
         "scale": {"type": "log", "nice": False, "padding": 24},
         "axis": {"format": "~s", "grid": False, "tickCount": 5}}  # fmt: skip
    y = _y(study)
    bar = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
    shared, shape = _told_apart("kind", rows)
    apart = {"color": {"value": "#999"}}  # the front is no method's
    layers = [
        {"mark": {"type": "line", "strokeDash": [4, 3], "interpolate": "step-after"},
         "transform": [{"filter": "datum.front"}], "encoding": {"x": x, "y": y, **apart}},
        {"mark": {"type": "rule"}, "encoding": bar},
        {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1}, "encoding": {"x": x, "y": y, **shape}},
        {"mark": {"type": "text", "align": "left", "dx": 8, "dy": -8, "fontSize": 10}, "transform": [{"filter": "datum.front"}],
         "encoding": {"x": x, "y": y, "text": {"field": "label"}, "color": {"value": "black"}}},
    ]  # fmt: skip
    caption = (f"Mean over seeds, ± one standard deviation; the {_side(study)} is better. Named and joined: no setting with as "
               "many parameters or fewer is better.")  # fmt: skip
    spec = {"data": {"values": rows}, "encoding": shared, "layer": layers, "width": 460, "height": 280}
    return Figure("parameters", f"{study.metric} against trainable parameters", caption, _whole(spec))


def learning_curves(study: Study, curves: Callable[[Any], Sequence[tuple[int, float]]]) -> Figure | None:
    """Validation along training: mean over seeds, and their range as a band; of the best groups where there are many."""
    known = [g for g in study.groups if g.values]
    known.sort(key=lambda g: summarise(list(g.values.values())).mean, reverse=study.higher)
    rows = []
    for group in known[:MOST_LINES]:
        at: dict[int, list[float]] = {}
        runs = [run for run in group.runs if run.state == "done"]
        for run in runs:
            for step, value in curves(run):
                at.setdefault(step, []).append(value)
        for step, values in sorted(at.items()):
            if len(values) == len(runs) and all(map(math.isfinite, values)):
                row = {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}
                rows.append({"x": step, "line": group.label, **row})
    if len({row["x"] for row in rows}) < 3:
        return None
    x = {"field": "x", "type": "quantitative", "title": "optimizer steps", "axis": {"grid": False, "format": "~s"}}
    y = _y(study)
    band = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
    shared, shape = _told_apart("line", rows)
    layers = [
        {"mark": {"type": "area", "opacity": 0.18}, "encoding": band},
        {"mark": {"type": "line"}, "encoding": {"x": x, "y": y}},
        {"mark": {"type": "point", "filled": True, "opacity": 1}, "encoding": {"x": x, "y": y, **shape}},
    ]
    more = f" The best {MOST_LINES} of {len(known)} settings." if len(known) > MOST_LINES else ""
    caption = f"Mean over seeds; the band is from the lowest to the highest.{more}"
    spec = {"data": {"values": rows}, "encoding": shared, "layer": layers, "width": 460, "height": 280}
    return Figure("curves", f"{study.metric} along training", caption, _whole(spec))


# ---- parts ----------------------------------------------------------------------------------------------------------


def _lines(study: Study, x: Spec, rows: list[Spec]) -> Spec:
    y = _y(study)
    shared, shape = _told_apart("line", rows)
    layers = [
        {"mark": {"type": "line"}, "encoding": {"x": x, "y": y}},
        {"mark": {"type": "rule"}, "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1}, "encoding": {"x": x, "y": y, **shape}},
    ]
    return {"encoding": shared, "layer": layers, "width": 420, "height": 260}


def _told_apart(field: str, rows: list[Spec]) -> tuple[Spec, Spec]:
    """Colour for all marks, and shape for points: of one field, title and domain, so that they share a legend."""
    domain = list(dict.fromkeys(row[field] for row in rows))
    facts = {"field": field, "type": "nominal", "title": {"kind": "method", "line": "setting"}[field],
             "legend": {} if len(domain) > 1 else None}  # fmt: skip
    colour, shape = (
        {"domain": domain, "range": [some[i % len(some)] for i in range(len(domain))]} for some in (COLOURS, SHAPES)
    )
    return {"color": {**facts, "scale": colour}}, {"shape": {**facts, "scale": shape}}


def _y(study: Study) -> Spec:
    arrow = "↑" if study.higher else "↓"
    return {"field": "mean", "type": "quantitative", "title": f"{arrow} {study.metric}", "scale": {"zero": False}}


def _values(group: Group) -> dict[str, float]:
    mean = summarise(list(group.values.values()))
    sd = 0.0 if math.isnan(mean.sd) else mean.sd
    return {"mean": mean.mean, "sd": sd, "low": mean.mean - sd, "high": mean.mean + sd, "seeds": mean.n}


def _kind(group: Group) -> str:
    """The method of a group: its adapter, where the study varies it."""
    return next((shown(value) for name, value in group.factors.items() if name.endswith("adapter")), "all settings")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _side(study: Study) -> str:
    return "higher" if study.higher else "lower"


def _whole(spec: Spec) -> Spec:
    return {"$schema": SCHEMA, "config": CONFIG, "background": "white", **spec}
