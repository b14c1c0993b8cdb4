"""What explains a metric, as bars, with the seed's bar as the line that a factor must pass."""

import altair as alt

from research.report.figures.names import brief
from research.report.figures.parts import data, figure
from research.report.figures.theme import COLOURS, EDGE, PALE, Figure
from research.report.importance import EXACT, Importance, Share

WIDTH, STEP = 380, 26  # px
MOST_BARS = 14
NOISE = "what the seed alone explains"
KINDS = {"factor": COLOURS[0], "interaction": PALE, "seed": COLOURS[7]}  # dark, light and middle in grey


def importance_bars(found: Importance, metric: str) -> Figure:
    """A bar for each factor and interaction, the largest first, and the seed's as a dashed line through them.

    Args:
        found: of `importance`.
        metric: of the study.
    """
    shares = [one for one in found.shares if one.order][:MOST_BARS] + [one for one in found.shares if not one.order]
    names = brief(one.label for one in shares)
    rows = [
        {
            "label": names[one.label],
            "share": one.share,
            "low": one.low,
            "high": one.high,
            "text": f"{one.share:.1%}",
            "kind": _kind(one),
        }
        for one in shares
    ]
    end = max(0.01, *(one.high for one in shares))
    y = alt.Y("label:N", sort=[row["label"] for row in rows], title=None)
    y = y.axis(labelLimit=320, ticks=False, domain=False, labelPadding=6)

    def x(field: str) -> alt.X:
        scale = alt.Scale(domain=[0, end], nice=False)
        return alt.X(f"{field}:Q", title="share of variance", scale=scale, axis=alt.Axis(format="~%", tickCount=5))

    colour = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values())))
    bars = alt.Chart().encode(y=y)
    layers = [bars.mark_bar(height=STEP - 10, stroke=EDGE, strokeWidth=0.8).encode(x=x("share"), color=colour)]
    if found.kind != EXACT:
        layers.append(bars.mark_rule(strokeWidth=1.5).encode(x=x("low"), x2="high"))
    layers.append(bars.mark_text(align="left", fontSize=11).encode(x=alt.value(WIDTH + 8), text="text:N"))
    if found.seed is not None:
        noise = alt.Chart(data([{"share": found.seed, "text": NOISE}]))
        align = "right" if found.seed > end / 2 else "left"  # where there is room
        layers.append(noise.mark_rule(strokeDash=[4, 3], strokeWidth=1.2).encode(x=x("share")))
        name = noise.mark_text(align=align, baseline="bottom", fontSize=11, y=-4)
        layers.append(name.encode(x=x("share"), text="text:N"))
    chart = alt.layer(*layers, data=data(rows)).properties(width=WIDTH, height=alt.Step(STEP))
    sentences = ["Share of the variance over settings and seeds."]
    if found.seed is not None:
        sentences.append(f"Dashed: {NOISE}; below it a factor has not been shown to matter.")
    if found.kind != EXACT:
        sentences.append(f"Bars over bars are the range of the forests{_cut(found)}.")
    elif any(one.order > 1 for one in shares):
        sentences.append(f"Light bars are interactions{_cut(found)}.")
    return figure("importance", f"What explains {metric}", " ".join([*sentences, *found.notes]), chart)


def _kind(one: Share) -> str:
    return "seed" if not one.order else "factor" if one.order == 1 else "interaction"


def _cut(found: Importance) -> str:
    bars = sum(one.order > 0 for one in found.shares)
    return f"; the {MOST_BARS} largest of {bars} are drawn" if bars > MOST_BARS else ""
