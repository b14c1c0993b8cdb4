"""What explains a metric, as bars in Vega-Lite, with the seed's bar as the line that a factor must pass."""

from research.report.importance import EXACT, Importance, Share
from research.report.plot_parts import Figure, Spec, brief, whole

WIDTH, STEP = 380, 26  # px
MOST_BARS = 14
NOISE = "what the seed alone explains"
KINDS = {"factor": "#0072B2", "interaction": "#B7D3E8", "seed": "#999999"}  # dark, light and middle in grey
EDGE = "#004a75"


def importance_bars(found: Importance, metric: str) -> Figure:
    """A bar for each factor and interaction, the largest first, and the seed's as a dashed line through them.

    Args:
        found: of `importance`.
        metric: of the study.
    """
    shown = [one for one in found.shares if one.order][:MOST_BARS] + [one for one in found.shares if not one.order]
    names = brief(one.label for one in shown)
    rows = [
        {
            "label": names[one.label],
            "share": one.share,
            "low": one.low,
            "high": one.high,
            "text": f"{one.share:.1%}",
            "kind": _kind(one),
        }
        for one in shown
    ]
    end = max(0.01, *(one.high for one in shown))
    y = {
        "field": "label",
        "type": "nominal",
        "sort": [row["label"] for row in rows],
        "title": None,
        "axis": {"labelLimit": 320, "ticks": False, "domain": False, "labelPadding": 6},
    }
    x = {
        "field": "share",
        "type": "quantitative",
        "title": "share of variance",
        "scale": {"domain": [0, end], "nice": False},
        "axis": {"format": "~%", "tickCount": 5},
    }
    colour = {
        "field": "kind",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": list(KINDS), "range": list(KINDS.values())},
    }
    layers: list[Spec] = [
        {
            "mark": {"type": "bar", "height": STEP - 10, "stroke": EDGE, "strokeWidth": 0.8},
            "encoding": {"x": x, "y": y, "color": colour},
        },
        {
            "mark": {"type": "text", "align": "left", "fontSize": 11},
            "encoding": {"x": {"value": WIDTH + 8}, "y": y, "text": {"field": "text"}},
        },
    ]
    if found.kind != EXACT:
        layers.insert(
            1,
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y},
            },
        )
    if found.seed is not None:
        layers += _noise(found.seed, x, end)
    spec = {"data": {"values": rows}, "layer": layers, "width": WIDTH, "height": {"step": STEP}}
    parts = ["Share of the variance over settings and seeds."]
    if found.seed is not None:
        parts.append(f"Dashed: {NOISE}; below it a factor has not been shown to matter.")
    if found.kind != EXACT:
        parts.append(f"Bars over bars are the range of the forests{_cut(found)}.")
    elif any(one.order > 1 for one in shown):
        parts.append(f"Light bars are interactions{_cut(found)}.")
    return Figure("importance", f"What explains {metric}", " ".join([*parts, *found.notes]), whole(spec))


def _noise(share: float, x: Spec, end: float) -> list[Spec]:
    """The seed's share as a line through all bars, and its name above them, at the side where there is room."""
    at = {"data": {"values": [{"share": share, "text": NOISE}]}}
    right = share > end / 2
    text = {"type": "text", "align": "right" if right else "left", "baseline": "bottom", "fontSize": 10, "y": -4}
    return [
        {**at, "mark": {"type": "rule", "strokeDash": [4, 3], "strokeWidth": 1.2}, "encoding": {"x": x}},
        {**at, "mark": text, "encoding": {"x": x, "text": {"field": "text"}}},
    ]


def _kind(one: Share) -> str:
    return "seed" if not one.order else "factor" if one.order == 1 else "interaction"


def _cut(found: Importance) -> str:
    bars = sum(one.order > 0 for one in found.shares)
    return f"; the {MOST_BARS} largest of {bars} are drawn" if bars > MOST_BARS else ""
