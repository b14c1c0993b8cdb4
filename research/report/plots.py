"""A study's figures as Vega-Lite specifications: one serves the paper (SVG, PDF) and the page.

A figure is left out where its axes do not exist: no two factors, no numbers on an axis, no curves.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from research.metrics.seeds import summarise
from research.report.factors import short_names, shown
from research.report.importance import Importance
from research.report.plot_parts import (
    MOST_LINES,
    Figure,
    Spec,
    brief,
    is_number,
    metric_axis,
    side,
    statistics,
    told_apart,
    whole,
    widest,
)
from research.report.plots_cost import against_parameters, against_seconds
from research.report.plots_importance import importance_bars
from research.report.plots_parallel import parallel
from research.report.sheets import decimals, number
from research.report.study import Group, Study

HEAD = 28  # characters of a heatmap's row or column


TRAIN = "train/loss"
WIDTH, PADDING = 420, 16  # px of an axis of levels, and beyond its outermost ones
APART = 4  # px between two lines at one level
BESIDE = "drawn at"


def figures(
    study: Study,
    curves: Callable[[Any], Sequence[tuple[int, float]]],
    shares: Importance | None = None,
    losses: Callable[[Any], Sequence[tuple[int, float]]] = lambda run: (),
) -> list[Figure]:
    """All figures that the study has the axes for.

    Args:
        study: groups.
        curves: a run → (step, value) of the study's metric.
        shares: what its factors explain, of `importance`.
        losses: a run → (step, value) of its training loss, drawn where it was validated less than three times.
    """
    made = [
        heatmap(study),
        *(against_factor(study, name) for name in study.factors),
        parallel(study),
        importance_bars(shares, study.metric) if shares else None,
        against_parameters(study),
        against_seconds(study),
        learning_curves(study, curves) or learning_curves(study, losses, TRAIN),
    ]
    return [figure for figure in made if figure is not None]


def heatmap(study: Study) -> Figure | None:
    """Means over two factors; the best cell framed."""
    if len(study.factors) != 2:
        return None
    down, across = study.factors
    cells = [
        {"down": shown(g.factors[down]), "across": shown(g.factors[across]), **statistics(g)} for g in study.groups if g.values
    ]
    lines, heads = ([str(value) for value in dict.fromkeys(cell[side] for cell in cells)] for side in ("down", "across"))
    if len(lines) < 2 or len(heads) < 2 or len({(cell["down"], cell["across"]) for cell in cells}) < len(cells):
        return None
    if any(g.factors[name] is None for g in study.groups for name in study.factors):
        return None
    names, digits = short_names(study.factors), decimals(study.groups)
    texts = [brief(some, HEAD) for some in (lines, heads)]
    for cell in cells:
        cell |= {"down": texts[0][cell["down"]], "across": texts[1][cell["across"]]}
    lines, heads = (list(text.values()) for text in texts)
    best = (max if study.higher else min)(cells, key=lambda cell: cell["mean"])
    middle = (min(cell["mean"] for cell in cells) + max(cell["mean"] for cell in cells)) / 2
    for cell in cells:
        cell |= {
            "text": number(cell["mean"], digits),
            "spread": f"± {number(cell['sd'], digits)}" if cell["sd"] else "",
            "best": cell is best,
            "dark": (cell["mean"] < middle) == study.higher,
        }
    x = {
        "field": "across",
        "type": "ordinal",
        "sort": heads,
        "title": names[across],
        "axis": {"labelAngle": 0, "labelLimit": 320},
    }
    y = {"field": "down", "type": "ordinal", "sort": lines, "title": names[down], "axis": {"labelLimit": 320}}
    scheme = {"scheme": "viridis", "reverse": not study.higher}
    ink = {"condition": {"test": "datum.dark", "value": "white"}, "value": "black"}
    layers = [
        {
            "mark": {"type": "rect"},
            "encoding": {"color": {"field": "mean", "type": "quantitative", "scale": scheme, "legend": None}},
        },
        {
            "mark": {"type": "rect", "fillOpacity": 0, "stroke": "black", "strokeWidth": 3},
            "transform": [{"filter": "datum.best"}],
        },
        {"mark": {"type": "text", "dy": -7, "fontSize": 13}, "encoding": {"text": {"field": "text"}, "color": ink}},
        {"mark": {"type": "text", "dy": 9, "fontSize": 10}, "encoding": {"text": {"field": "spread"}, "color": ink}},
    ]
    spec = {
        "data": {"values": cells},
        "encoding": {"x": x, "y": y},
        "layer": layers,
        "width": {"step": max(92, round(widest(heads, 11)) + 8)},
        "height": {"step": 52},
    }
    caption = f"Mean over seeds, ± standard deviation; the {side(study)} is better, the best is framed."
    return Figure("heatmap", f"{study.metric} by {names[down]} and {names[across]}", caption, whole(spec))


def against_factor(study: Study, factor: str) -> Figure | None:
    """The metric along one numeric factor, a line for each setting of the others."""
    groups = [g for g in study.groups if g.values and is_number(g.factors[factor])]
    rest = [name for name in study.factors if name != factor]
    names = short_names(study.factors)
    lines: dict[str, list[Group]] = {}
    for group in groups:
        others = [f"{names[name]}={shown(group.factors[name])}" for name in rest if group.factors[name] is not None]
        lines.setdefault(" ".join(others), []).append(group)
    levels = {group.factors[factor] for group in groups}
    if len(levels) < 2 or len(lines) > MOST_LINES or not any(len(line) > 1 for line in lines.values()):
        return None
    texts = brief(lines)
    low, high = min(levels), max(levels)
    is_log = low > 0 and high / low >= 4
    rows = []
    for i, (line, found) in enumerate(lines.items()):
        share = (i - (len(lines) - 1) / 2) * APART / (WIDTH - 2 * PADDING)
        for group in found:
            x = group.factors[factor]
            rows.append({"x": x, BESIDE: _beside(x, share, low, high, is_log), "line": texts[line], **statistics(group)})
    scale: Spec = {"type": "log", "base": 2} if is_log else {"zero": False}
    scale |= {"nice": False, "padding": PADDING, "domain": [low, high]}
    axis: Spec = {"grid": False, "format": "~r"} | ({"values": sorted(levels)} if len(levels) <= MOST_LINES else {})
    across = {"field": BESIDE, "type": "quantitative", "title": names[factor], "scale": scale, "axis": axis}
    beside = ", settings at one value are drawn side by side" if len(lines) > 1 else ""
    return Figure(
        f"by-{names[factor]}",
        f"{study.metric} by {names[factor]}",
        f"Mean over seeds; bars are ± one standard deviation{beside}. The {side(study)} is better.",
        whole({"data": {"values": rows}, **_lines(study, across, rows)}),
    )


def learning_curves(
    study: Study, curves: Callable[[Any], Sequence[tuple[int, float]]], name: str | None = None
) -> Figure | None:
    """A number along training: mean over seeds, and their range as a band; of the best groups where there are many.

    Args:
        study: groups.
        curves: a run → (step, value).
        name: of a loss that is drawn; None: the study's metric.
    """
    known = [g for g in study.groups if g.values]
    known.sort(key=lambda g: summarise(list(g.values.values())).mean, reverse=study.higher)
    best = {id(group) for group in known[:MOST_LINES]}
    chosen = [group for group in study.groups if id(group) in best]  # in their order: colours are those of other figures
    rows, texts = [], brief(group.label for group in chosen)
    for group in chosen:
        at: dict[int, list[float]] = {}
        runs = group.counted
        for run in runs:
            for step, value in dict(curves(run)).items():  # of a step that was taken again, the last
                at.setdefault(step, []).append(value)
        for step, values in sorted(at.items()):
            if len(values) == len(runs) and all(map(math.isfinite, values)):
                row = {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}
                rows.append({"x": step, "line": texts[group.label], **row})
    if len({row["x"] for row in rows}) < 3:
        return None
    x = {"field": "x", "type": "quantitative", "title": "optimizer steps", "axis": {"grid": False, "format": "~s"}}
    y = metric_axis(study) | ({"title": f"↓ {name}"} if name else {})
    band = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
    shared, shape = told_apart("line", rows)
    layers = [
        {"mark": {"type": "area", "opacity": 0.18}, "encoding": band},
        {"mark": {"type": "line"}, "encoding": {"x": x, "y": y}},
        {"mark": {"type": "point", "filled": True, "opacity": 1}, "encoding": {"x": x, "y": y, **shape}},
    ]
    more = f" The best {MOST_LINES} of {len(known)} settings." if len(known) > MOST_LINES else ""
    caption = f"Mean over seeds; the band is from the lowest to the highest.{more}"
    spec = {"data": {"values": rows}, "encoding": shared, "layer": layers, "width": 460, "height": 280}
    return Figure("curves", f"{name or study.metric} along training", caption, whole(spec))


# ---- parts ----------------------------------------------------------------------------------------------------------


def _beside(x: float, share: float, low: float, high: float, is_log: bool) -> float:
    """x moved by a share of the axis: bars of different lines would else lie on one another."""
    return x * (high / low) ** share if is_log else x + share * (high - low)


def _lines(study: Study, x: Spec, rows: list[Spec]) -> Spec:
    y = metric_axis(study)
    shared, shape = told_apart("line", rows)
    layers = [
        {"mark": {"type": "line"}, "encoding": {"x": x, "y": y}},
        {"mark": {"type": "rule"}, "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1}, "encoding": {"x": x, "y": y, **shape}},
    ]
    return {"encoding": shared, "layer": layers, "width": WIDTH, "height": 260}
