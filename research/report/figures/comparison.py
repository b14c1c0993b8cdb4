"""Settings compared: means over two factors as a heatmap, and along one factor as lines."""

import altair as alt

from research.report.factors import short_names, shown
from research.report.figures.names import brief, widest
from research.report.figures.parts import (
    MOST_LINES,
    colour_and_shape,
    data,
    figure,
    is_number,
    method,
    metric_axis,
    side,
    statistics,
)
from research.report.figures.theme import Figure
from research.report.sheets import decimals, number
from research.report.study import Group, Study

HEAD = 28  # characters of a heatmap's row or column
WIDTH, PADDING = 420, 16  # px of an axis of levels, and beyond its outermost ones
APART = 4  # px between two lines at one level


def heatmap(study: Study) -> Figure | None:
    """Draw means over two factors, the best framed. None where a cell would have two settings, or a factor one level."""
    if len(study.factors) != 2:
        return None
    down, across = study.factors
    cells = [
        {"down": shown(g.factors[down]), "across": shown(g.factors[across]), **statistics(g)} for g in study.groups if g.values
    ]
    lines, heads = (list(dict.fromkeys(cell[way] for cell in cells)) for way in ("down", "across"))
    if len(lines) < 2 or len(heads) < 2 or len({(cell["down"], cell["across"]) for cell in cells}) < len(cells):
        return None
    if any(g.factors[name] is None for g in study.groups for name in study.factors):
        return None
    names, digits = study.names, decimals(study.groups)
    lines, heads = brief(lines, HEAD), brief(heads, HEAD)
    best = (max if study.higher else min)(cells, key=lambda cell: cell["mean"])
    middle = (min(cell["mean"] for cell in cells) + max(cell["mean"] for cell in cells)) / 2
    for cell in cells:
        cell |= {
            "down": lines[cell["down"]],
            "across": heads[cell["across"]],
            "text": number(cell["mean"], digits),
            "spread": f"± {number(cell['sd'], digits)}" if cell["sd"] else "",
            "best": cell is best,
            "dark": (cell["mean"] < middle) == study.higher,
        }
    chart = alt.Chart()
    scale = alt.Scale(scheme="viridis", reverse=not study.higher)
    ink = alt.condition("datum.dark", alt.value("white"), alt.value("black"))  # on the cell's colour, not on the page's
    layers = [
        chart.mark_rect().encode(color=alt.Color("mean:Q", scale=scale, legend=None)),
        chart.mark_rect(fillOpacity=0, stroke="black", strokeWidth=3).transform_filter("datum.best"),
        chart.mark_text(dy=-7, fontSize=13).encode(text="text:N", color=ink),
        chart.mark_text(dy=9, fontSize=11).encode(text="spread:N", color=ink),
    ]
    x = alt.X("across:O", sort=[*heads.values()], title=names[across], axis=alt.Axis(labelAngle=0, labelLimit=320))
    y = alt.Y("down:O", sort=[*lines.values()], title=names[down], axis=alt.Axis(labelLimit=320))
    width = alt.Step(max(92, round(widest(heads.values(), 11)) + 8))
    chart = alt.layer(*layers, data=data(cells)).encode(x=x, y=y).properties(width=width, height=alt.Step(52))
    caption = f"Mean over seeds, ± standard deviation; the {side(study)} is better, the best is framed."
    return figure("heatmap", f"{study.metric_name} by {names[down]} and {names[across]}", caption, chart)


def against_factor(study: Study, factor: str) -> Figure | None:
    """Draw the metric along one numeric factor, a line for each setting of the others."""
    groups = [g for g in study.groups if g.values and is_number(g.factors[factor])]
    rest = [name for name in study.factors if name != factor]
    names = study.names
    lines: dict[str, list[Group]] = {}
    for group in groups:
        others = [f"{names[name]}={shown(group.factors[name])}" for name in rest if group.factors[name] is not None]
        lines.setdefault(" ".join(others), []).append(group)
    levels = {group.factors[factor] for group in groups}
    if len(levels) < 2 or len(lines) > MOST_LINES or not any(len(line) > 1 for line in lines.values()):
        return None
    low, high = min(levels), max(levels)
    is_log = low > 0 and high / low >= 4
    texts, rows = brief(lines), []
    for i, (line, members) in enumerate(lines.items()):
        # moved by a share of the axis: the bars of different lines would overlap otherwise
        share = (i - (len(lines) - 1) / 2) * APART / (WIDTH - 2 * PADDING)
        for group in members:
            x = group.factors[factor]
            place = x * (high / low) ** share if is_log else x + share * (high - low)
            rows.append({"x": x, "drawn at": place, "line": texts[line], **statistics(group)})
    scale = alt.Scale(
        nice=False, padding=PADDING, domain=[low, high], **({"type": "log", "base": 2} if is_log else {"zero": False})
    )
    axis = alt.Axis(grid=False, format="~r", **({"values": sorted(levels)} if len(levels) <= MOST_LINES else {}))
    methods = list(dict.fromkeys(map(method, study.groups)))
    line_methods = [list(dict.fromkeys(map(method, members))) for members in lines.values()]
    # lines that are methods look as they do in every figure
    is_method = all(len(of_line) == 1 for of_line in line_methods) and len({first for first, *_ in line_methods}) == len(lines)
    looks = [methods.index(first) for first, *_ in line_methods] if len(methods) > 1 and is_method else None
    colour, shape = colour_and_shape("line", texts.values(), "setting", looks)
    chart, mean = alt.Chart(), metric_axis(study)
    layers = [
        chart.mark_line().encode(y=mean),
        chart.mark_rule().encode(y=metric_axis(study, "low"), y2="high"),
        chart.mark_point(filled=True, size=70, opacity=1).encode(y=mean, shape=shape),
    ]
    across = alt.X("drawn at:Q", title=names[factor], scale=scale, axis=axis)
    chart = alt.layer(*layers, data=data(rows)).encode(x=across, color=colour).properties(width=WIDTH, height=260)
    beside = ", settings at one value are drawn side by side" if len(lines) > 1 else ""
    caption = f"Mean over seeds; bars are ± one standard deviation{beside}. The {side(study)} is better."
    return figure(f"by-{short_names(study.factors)[factor]}", f"{study.metric_name} by {names[factor]}", caption, chart)
