"""A chart in a notebook is the report's drawing, the same bytes each time."""

import altair as alt
import pytest

from research.report.figures.notebook import show_charts
from research.report.figures.theme import COLOURS


@pytest.fixture(autouse=True)
def altair_as_before():
    themes, renderers = alt.theme.active, alt.renderers.active
    yield
    alt.theme.enable(themes)
    alt.renderers.enable(renderers)


def chart(height: int) -> alt.Chart:
    rows = alt.Data(values=[{"x": 1, "y": 2}, {"x": 2, "y": 3}])
    return alt.Chart(rows).mark_line(clip=True).encode(x="x:Q", y="y:Q").properties(height=height)


def test_charts_are_drawn_alike_each_time_and_no_two_share_an_id():
    show_charts()
    first, again, other = (chart(height)._repr_mimebundle_()["image/svg+xml"] for height in (100, 100, 120))
    assert first == again
    assert first.startswith("<svg")
    assert COLOURS[0] in first
    names = [{part.split('"')[0] for part in drawing.split('id="')[1:]} for drawing in (first, other)]
    assert names[0]
    assert names[1]
    assert not names[0] & names[1]
