"""What all figures share: their look in a paper, and the CSS variables that take its place on the page, light or dark."""

from typing import NamedTuple

from research.types import Json

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
"""Okabe and Ito's colours: the colour-blind can distinguish them; with shapes, so can readers of a black and white print."""
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
INK, PAPER, SOFT, GRID, PALE, EDGE = "#111111", "#ffffff", "#555555", "#e4e4e4", "#B7D3E8", "#004a75"
VARIABLES = {colour: f"var(--s{i})" for i, colour in enumerate(COLOURS)} | {
    colour: f"var(--{name})"
    for name, colour in (("ink", INK), ("paper", PAPER), ("soft", SOFT), ("line", GRID), ("pale", PALE), ("edge", EDGE))
}
"""A colour → the variable of page.css."""
_LABELS = {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK}
CONFIG = {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "background": PAPER,
    "view": {"stroke": None},
    "axis": {**_LABELS, "gridColor": GRID, "domainColor": SOFT, "tickColor": SOFT},
    "legend": {**_LABELS, "labelLimit": 320},
    "title": {"color": INK, "fontSize": 12, "fontWeight": "normal", "anchor": "start"},
    "text": {"color": INK},
    "rule": {"color": INK},
    "range": {"category": COLOURS},
}


class Figure(NamedTuple):
    """One figure.

    Attributes:
        name: of its files.
        title: above it.
        caption: what is drawn, and which side is better.
        spec: Vega-Lite.
        is_rigid: whether its texts would touch in a narrower plot.
    """

    name: str
    title: str
    caption: str
    spec: dict[str, Json]
    is_rigid: bool = False


SIGNS = dict(zip(SHAPES, "●■▲◆✚▼▶◀", strict=True))
"""The shapes as characters, for the page's tables."""


def look(i: int) -> tuple[str, str]:
    """Return colour and shape of the i-th series: no two of the first 64 have both in common."""
    turn = len(COLOURS)
    return COLOURS[i % turn], SHAPES[(i + i // turn) % turn]


def for_page(text: str) -> str:
    """Put the page's variables in place of the paper's colours, in the text of an SVG or a specification."""
    for colour, variable in VARIABLES.items():
        text = text.replace(f'"{colour}"', f'"{variable}"')
    return text
