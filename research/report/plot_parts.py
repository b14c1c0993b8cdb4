"""What a study's figures share: the look, how series are told apart without colour, and names short enough to stand in them."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from research.metrics.seeds import summarise
from research.report.factors import shown
from research.report.labels import text_width
from research.report.study import Group, Study

Spec = dict[str, Any]
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
"""Okabe and Ito's, told apart by the colour-blind; with shapes, by a printer too."""
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
CONFIG = {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": "#e4e4e4",
        "domainColor": "#555",
        "tickColor": "#555",
    },
    "legend": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 320},
    "range": {"category": COLOURS},
}
MOST_LINES = 8  # more groups than colours would look alike
LONGEST = 44  # characters of a name in a figure; the tables have the whole


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


def told_apart(field: str, rows: list[Spec]) -> tuple[Spec, Spec]:
    """Colour for all marks, and shape for points: of one field, title and domain, so that they share a legend."""
    domain = list(dict.fromkeys(row[field] for row in rows))
    facts = {
        "field": field,
        "type": "nominal",
        "title": {"kind": "method", "line": "setting"}[field],
        "legend": {"symbolOpacity": 1} if len(domain) > 1 else None,
    }
    colour, shape = (
        {"domain": domain, "range": [some[i % len(some)] for i in range(len(domain))]} for some in (COLOURS, SHAPES)
    )
    return {"color": {**facts, "scale": colour}}, {"shape": {**facts, "scale": shape}}


def metric_axis(study: Study) -> Spec:
    """The y channel of the metric's mean."""
    return {"field": "mean", "type": "quantitative", "title": arrowed(study), "scale": {"zero": False}}


def arrowed(study: Study) -> str:
    """The metric with an arrow to its better side."""
    return f"{'↑' if study.higher else '↓'} {study.metric}"


def statistics(group: Group) -> dict[str, float]:
    """Of a group with values: mean, sd (0 of one seed), mean ± sd, seeds."""
    mean = summarise(list(group.values.values()))
    sd = 0.0 if math.isnan(mean.sd) else mean.sd
    return {"mean": mean.mean, "sd": sd, "low": mean.mean - sd, "high": mean.mean + sd, "seeds": mean.n}


def method(group: Group) -> str:
    """The method of a group: its adapter, where the study varies it."""
    return next((shown(value) for name, value in group.factors.items() if name.endswith("adapter")), "all settings")


def is_number(value: Any) -> bool:
    """Whether an axis has a place for it; an infinity is no JSON either, and would end the page's scripts."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def side(study: Study) -> str:
    return "higher" if study.higher else "lower"


def whole(spec: Spec) -> Spec:
    return {"$schema": SCHEMA, "config": CONFIG, "background": "white", **spec}


def brief(names: Iterable[str], most: int = LONGEST) -> dict[str, str]:
    """Name → one of at most so many characters that no other name has.

    All long names lose the same stretch, or two, so that what is left shows where they differ; a number is cut only where
    there is no other way (ef 15… is not ef 150), and names are numbered where nothing so short tells them apart.
    """
    names = list(dict.fromkeys(names))
    long = [name for name in names if len(name) > most]
    short = {name: name for name in names if len(name) <= most}
    tries = list(_cuts(long, most)) if long else [[]]
    numbered = [f"{name[: most - 6]}… #{i + 1}" for i, name in enumerate(long)]
    texts = [["…".join(name[a:b] for a, b in spans) for name, spans in zip(long, one, strict=True)] for one in tries]
    apart = [i for i, cut in enumerate(texts) if len({*cut, *short}) == len(names)]
    clean = [i for i in apart if all(map(_is_clean, long, tries[i]))]
    chosen = dict(zip(long, texts[(clean or apart)[0]] if apart else numbered, strict=True))
    return {name: {**short, **chosen}[name] for name in names}


def _cuts(names: list[str], most: int) -> Iterator[list[list[tuple[int, int]]]]:
    """Ways to shorten all of the names: for each the stretches that are kept. First head and tail, cut near the middle; then
    head, a window near the first difference, and tail."""
    for k in sorted(range(1, most - 1), key=lambda k: abs(k - most // 2)):
        yield [[(0, k), (len(name) - (most - 1 - k), len(name))] for name in names]
    head, tail = most // 8, most // 4
    window = most - head - tail - 2
    differ = next((i for i, ones in enumerate(zip(*names, strict=False)) if len({*ones}) > 1), 0)
    for k in sorted(range(head, max(map(len, names)) - window), key=lambda k: abs(k + window // 2 - differ)):
        yield [[(0, head), (k, k + window), (len(name) - tail, len(name))] for name in names]


def _is_clean(name: str, spans: list[tuple[int, int]]) -> bool:
    """Whether no number is cut."""
    ends = [end for span in spans for end in span if 0 < end < len(name)]
    return not any((name[end - 1].isdigit() or name[end - 1] == ".") and name[end].isdigit() for end in ends)


def widest(texts: Iterable[str], size: float) -> float:
    """Width in px that the longest text takes at most."""
    return max((text_width(text, size) for text in texts), default=0.0)
