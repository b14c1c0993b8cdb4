"""Altair's charts in a notebook: in the look of the report's figures, as SVG, which forges and browsers show."""

import altair as alt

from research.report.figures.render import svg
from research.report.figures.theme import COLOURS, CONFIG, Figure
from research.runs.hashes import hash_json
from research.types import Json

NAME = "tandem"


def show_charts() -> None:
    """Draw the charts that follow in the report's look, and show them as SVG."""
    config = CONFIG | {"mark": {"color": COLOURS[0]}, "legend": {**CONFIG["legend"], "orient": "bottom"}}  # narrow, for phones
    alt.theme.register(NAME, enable=True)(lambda: alt.theme.ThemeConfig(config=config))
    alt.renderers.register(NAME, shown)
    alt.renderers.enable(NAME)


def shown(spec: dict[str, Json], **_: Json) -> dict[str, str]:
    """Draw a specification for a notebook: MIME type → text, the same bytes each time."""
    name = hash_json(spec)[:12]  # ids within a drawing begin with it, and a page holds several drawings
    return {"image/svg+xml": svg(Figure(name, "", "", spec)), "text/plain": "a chart"}
