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


def importance_bars(importance: Importance, metric: str) -> Figure:
    """Draw a bar for each factor and interaction, the largest first, and the seed's as a dashed line through them.

    Args:
        importance: as research.report.importance computes it.
        metric: of the study.
    """
    factors = [share for share in importance.shares if share.order][:MOST_BARS]  # and interactions
    shares = factors + [share for share in importance.shares if not share.order]
    names = brief(share.label for share in shares)
    rows = [
        {
            "label": names[share.label],
            "share": share.share,
            "low": share.low,
            "high": share.high,
            "text": f"{share.share:.1%}",
            "kind": _kind(share),
        }
        for share in shares
    ]
    end = max(0.01, *(share.high for share in shares))
    y = alt.Y("label:N", sort=[row["label"] for row in rows], title=None)
    y = y.axis(labelLimit=320, ticks=False, domain=False, labelPadding=6)

    def x(field: str) -> alt.X:
        scale = alt.Scale(domain=[0, end], nice=False)
        return alt.X(f"{field}:Q", title="share of variance", scale=scale, axis=alt.Axis(format="~%", tickCount=5))

    colour = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values())))
    bars = alt.Chart().encode(y=y)
    layers = [bars.mark_bar(height=STEP - 10, stroke=EDGE, strokeWidth=0.8).encode(x=x("share"), color=colour)]
    if importance.kind != EXACT:
        layers.append(bars.mark_rule(strokeWidth=1.5).encode(x=x("low"), x2="high"))
    layers.append(bars.mark_text(align="left", fontSize=11).encode(x=alt.value(WIDTH + 8), text="text:N"))
    if importance.seed is not None:
        noise = alt.Chart(data([{"share": importance.seed, "text": NOISE}]))
        align = "right" if importance.seed > end / 2 else "left"  # where there is room
        layers.append(noise.mark_rule(strokeDash=[4, 3], strokeWidth=1.2).encode(x=x("share")))
        name = noise.mark_text(align=align, baseline="bottom", fontSize=11, y=-4)
        layers.append(name.encode(x=x("share"), text="text:N"))
    chart = alt.layer(*layers, data=data(rows)).properties(width=WIDTH, height=alt.Step(STEP))
    sentences = ["Share of the variance over settings and seeds."]
    if importance.seed is not None:
        sentences.append(f"Dashed: {NOISE}; below it a factor has not been shown to matter.")
    if importance.kind != EXACT:
        sentences.append(f"Bars over bars are the range of the forests{_cut(importance)}.")
    elif any(share.order > 1 for share in shares):
        sentences.append(f"Light bars are interactions{_cut(importance)}.")
    return figure("importance", f"What explains {metric}", " ".join([*sentences, *importance.notes]), chart)


def _kind(share: Share) -> str:
    return "seed" if not share.order else "factor" if share.order == 1 else "interaction"


def _cut(importance: Importance) -> str:
    bars = sum(share.order > 0 for share in importance.shares)
    return f"; the {MOST_BARS} largest of {bars} are drawn" if bars > MOST_BARS else ""
