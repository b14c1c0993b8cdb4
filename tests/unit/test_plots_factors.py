"""Figures of factors and of costs: what is drawn, by hand; told apart without colour; the same bytes each time."""

import functools
import itertools
import math

import pytest

from research.report.figures import comparison, cost, of_study, parallel, render, theme
from research.report.figures.names import LONGEST, brief
from research.report.importance import importance
from research.report.systems import Row
from research.report.tables import Line
from tests.unit.test_study import grid, made, run

CURVE = [(0, 3.0), (5, 2.0), (10, 1.0)]
LONG = "target_modules=q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj in layers {}"


def values(figure) -> list[dict]:
    return figure.spec["data"]["values"]


def line(label: str, ms: float | None, mean: float) -> Line:
    facts = {} if ms is None else {"ms_per_query": ms}
    return Line(Row("a", "b", label, facts, {"ndcg@10": mean}, {}, {}), mean, mean - 0.02, mean + 0.02, None)


def search() -> list:
    """A random search: 40 draws of four factors, one that only LoRA has, methods with long names."""
    runs = []
    for i in range(40):
        u = [(i * k) % 41 / 41 for k in (7, 11, 17)]
        method = ("LoraConfig", LONG.format(i % 2), "full fine-tuning")[i % 3]
        r = 2 ** (1 + i % 7) if i % 3 == 0 else None
        options = {
            "model.adapter": method,
            "model.adapter.r": r,
            "model.optimisation.lr": 10 ** (-5 + 3 * u[0]),
            "model.optimisation.clip": u[1] < 0.5,
            "data.batch_size": 1 + int(60 * u[2]),
        }
        names = tuple(name for name in options if name != "model.adapter")
        runs.append(
            run(r or 0, i, 0, 1 + u[0] ** 2 + u[1] / 4, options=options, name=str(i))._replace(
                swept=names, facts={"trained_parameters": 1000 + 97 * i, "seconds": 10.0 * 1.1**i}
            )
        )
        del runs[-1].options["model.adapter.lora_alpha"]
    return runs


def studies() -> dict:
    """Studies of every kind of figure: small, with long names, conditional, of one seed, higher is better, of many lines."""
    modules = [LONG.format(f"{i} and {i + 1}") for i in range(4)]
    long = [
        run(
            4, 4, s, 1 + i + k / 5 + s / 100, options={"model.adapter.target_modules": name, "data.train": path}, name=f"{i}{k}"
        )._replace(facts={"trained_parameters": 1e6 + 2e4 * i + k, "seconds": 60 + i + s})
        for i, name in enumerate(modules)
        for k, path in enumerate(("/a/very/long/path/to/a/file/of/rows.jsonl", "b.jsonl"))
        for s in range(3)
    ]
    close = [
        run(r, a, s, 2 - r / 1e4 - a / 1e5 + s / 1e3) for r in (4, 5, 6, 7, 8, 9) for a in (16, 17, 18, 19) for s in range(2)
    ]
    return {
        "grid": made(grid()),
        "long": made(long),
        "search": made(search()),
        "higher": made(search(), higher=True),
        "close": made(close),
    }


@functools.cache
def every_figure() -> list:
    """(study, figure) of all studies, and latency figures."""
    found = [
        (name, figure) for name, study in studies().items() for figure in of_study(study, lambda one: CURVE, importance(study))
    ]
    near = [
        line(f"all-MiniLM-L6-v2, HNSW ef {ef}, a setting with a rather long name", 1 + i / 50, 0.5 + i / 1000)
        for i, ef in enumerate(range(50, 500, 50))
    ]
    usual = [line("BM25", 0.3, 0.34), line("all-MiniLM-L6-v2, exact", 2.0, 0.54), line("fused", 2.3, 0.46)]
    found += [
        ("neighbours", cost.against_latency(NEIGHBOURS, "ndcg@10")),
        ("near", cost.against_latency(near, "ndcg@10")),
        ("usual", cost.against_latency(usual, "ndcg@10")),
    ]
    return found


def test_every_kind_of_figure_is_in_the_tests():
    names = {(study, figure.name) for study, figure in every_figure()}
    assert {name for _, name in names} >= {
        "heatmap",
        "by-r",
        "parallel",
        "importance",
        "parameters",
        "seconds",
        "curves",
        "latency",
    }
    assert {("long", "heatmap"), ("search", "parallel"), ("search", "importance"), ("near", "latency")} <= names


# ---- parallel coordinates -------------------------------------------------------------------------------------------


def test_a_line_goes_through_its_setting_s_levels():
    """r 4, 8 spans twice its least: linear, 0 and 1; means 2.0 to 1.5, runs 2.01 to 1.49 on the metric's axis."""
    rows = values(parallel.parallel(made(grid())))
    lines = {label: [row["at"] for row in some] for label, some in itertools.groupby(rows, lambda row: row["label"])}
    bottom, span = 1.49, 2.01 - 1.49
    wanted = {(4, 1): (0, 0, 2.0), (4, 2): (0, 1, 1.9), (8, 1): (1, 0, 1.8), (8, 2): (1, 1, 1.5)}
    for (r, scale), (x, y, loss) in wanted.items():
        assert lines[f"r={r} lora_alpha/r={scale}"] == pytest.approx([x, y, (loss - bottom) / span])
    assert {row["label"] for row in rows if row["best"]} == {"r=8 lora_alpha/r=2"}
    assert list(lines)[-1] == "r=8 lora_alpha/r=2"  # above the others
    assert parallel.parallel(made([one for one in grid() if one.options["model.adapter.r"] == 4])) is None


def test_axes_are_logarithmic_where_numbers_span_and_lists_elsewhere():
    axis = parallel._factor_axis("r", [4, 8, 16, 64, None])
    assert [axis.place(r) for r in (4, 16, 64)] == pytest.approx([0.14, 0.57, 1])  # log2: 2, 4, 6
    assert axis.place(None) == 0
    assert [text for _, text in axis.ticks] == ["no r", "4", "8", "16", "64"]
    linear = parallel._factor_axis("layers", [10, 20, 30])
    assert [linear.place(one) for one in (10, 20, 30)] == [0, 0.5, 1]
    words = parallel._factor_axis("adapter", ["LoraConfig", "b", "a"])
    assert sorted(words.ticks, reverse=True) == [(1, "LoRA"), (0.5, "a"), (0, "b")]
    assert [text for _, text in parallel._factor_axis("lr", [10 ** (-4 + i / 7) for i in range(15)]).ticks] == [
        "0.0001",
        "0.0002",
        "0.0005",
        "0.001",
        "0.002",
        "0.005",
        "0.01",
    ]
    many = parallel._factor_axis("n", [100, 101, 102, 900])
    assert [text for _, text in many.ticks] == ["102", "900"] or [text for _, text in many.ticks] == ["100", "900"]


@pytest.mark.parametrize("higher", [False, True])
def test_better_has_the_end_of_the_colours_that_it_has_in_the_heatmap(higher):
    study = made(grid(), higher=higher)
    scales = []
    for figure in (comparison.heatmap(study), parallel.parallel(study)):
        layer = next(one for one in figure.spec["layer"] if one.get("encoding", {}).get("color", {}).get("field") == "mean")
        scales.append(layer["encoding"]["color"]["scale"])
    assert scales[0]["reverse"] == scales[1]["reverse"] == (not higher)
    assert scales[0]["scheme"] == scales[1]["scheme"]["name"] == "viridis"


# ---- costs ----------------------------------------------------------------------------------------------------------


def test_seconds_have_bars_both_ways_and_a_front():
    """Seconds 9, 10, 11 of r=4 alpha=4, as many times more of the others; the slowest is the best."""
    runs = [
        one._replace(facts={"seconds": k * (9.0 + one.seed)}) for k, one in zip(sorted([1, 2, 3, 4] * 3), grid(), strict=True)
    ]
    figure = cost.against_seconds(made(runs))
    rows = {row["label"]: row for row in values(figure)}
    first = rows["r=4 lora_alpha/r=1"]
    assert [first[name] for name in ("x_low", "x", "x_high", "low", "mean", "high")] == pytest.approx(
        [9, 10, 11, 1.99, 2.0, 2.01]
    )
    assert all(row["front"] for row in rows.values())
    higher = values(cost.against_seconds(made(runs, higher=True)))
    assert [row["label"] for row in higher if row["front"]] == ["r=4 lora_alpha/r=1"]
    assert cost.against_seconds(made([one._replace(facts={}) for one in grid()])) is None


def test_a_training_time_below_its_spread_is_no_logarithm():
    runs = [one._replace(facts={"seconds": (1.0, 1.0, 90.0)[one.seed] * one.options["model.adapter.r"]}) for one in grid()]
    figure = cost.against_seconds(made(runs))
    assert min(row["x_low"] for row in values(figure)) < 0
    assert "log" not in str([layer["encoding"]["x"].get("scale") for layer in figure.spec["layer"]])


def test_latency_names_every_system_that_has_a_time():
    """In the legend, with the colours and shapes that their rows have in the tables: the untimed one is the third."""
    lines = [line("BM25", 0.3, 0.34), line("dense", 2.0, 0.54), line("untimed", None, 0.9), line("slow", 9.0, 0.5)]
    for narrow in (False, True):
        figure = cost.against_latency(lines, "ndcg@10", narrow)
        rows = [(row["label"], row["front"]) for row in values(figure)]
        assert rows == [("BM25", True), ("dense", True), ("slow", False)]
        signs = next(layer["encoding"] for layer in figure.spec["layer"] if layer["mark"]["type"] == "point")
        for channel, which in (("color", 0), ("shape", 1)):
            assert signs[channel]["scale"] == {
                "domain": ["BM25", "dense", "slow"],
                "range": [theme.look(i)[which] for i in (0, 1, 3)],
            }
            assert signs[channel]["legend"] is not None
    assert cost.against_latency(lines[:1], "ndcg@10") is None


NEIGHBOURS = [
    line("dense, one", 1.0, 0.5),
    line("dense, other", 1.01, 0.5),
    line("dense, third", 1.08, 0.501),
    line("far", 10, 0.9),
    line("far, too", 9.5, 0.88),
]


def test_names_in_the_margin_stand_apart_and_near_their_points():
    """Of places 0, 1, 2 and 50 in 52 px, 10 apart: pushed down to 0, 10, 20, 50; of 40, 45, 50 up again to 32, 42, 52."""
    assert cost.spaced([0, 1, 2, 50], 10, 52) == [0, 10, 20, 50]
    assert cost.spaced([40, 45, 50], 10, 52) == [32, 42, 52]
    many = [run(4, 4, 0, 2 - i / 1000, options={"n": i}, name=str(i)) for i in range(50)]
    figure = cost.against_parameters(made([one._replace(facts={"trained_parameters": 100 + i}) for i, one in enumerate(many)]))
    (text,) = (layer for layer in figure.spec["layer"] if layer["mark"]["type"] == "text")
    names = {row["text"] for row in text["data"]["values"]}
    assert names == {f"n={i}" for i in range(50)}
    low, high = text["encoding"]["y"]["scale"]["domain"]
    heights = sorted((high - row["at"]) / (high - low) * figure.spec["height"] for row in text["data"]["values"])
    assert all(b - a >= 14 - 1e-9 for a, b in itertools.pairwise(heights))
    assert 0 <= heights[0] < heights[-1] <= figure.spec["height"]


# ---- all figures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("study", "figure"), every_figure(), ids=lambda one: getattr(one, "name", one))
def test_series_are_told_apart_without_colour(study, figure):
    """A colour of categories goes with a shape of the same field, no shape twice; or every mark of it is named by an axis, a
    text or its place."""
    layers = figure.spec["layer"]
    channels = [{**figure.spec.get("encoding", {}), **layer.get("encoding", {})} for layer in layers]
    coloured = {one["color"]["field"] for one in channels if one.get("color", {}).get("type") == "nominal"}
    for field in coloured:
        shapes = [one["shape"]["scale"] for one in channels if one.get("shape", {}).get("field") == field]
        if field == "kind" and figure.name == "importance":
            labels = [row["label"] for row in values(figure)]
            assert len({*labels}) == len(labels)  # bars stand beside their names
        elif figure.name == "latency":
            colours = next(one["color"]["scale"] for one in channels if one.get("color", {}).get("field") == field)
            looks = list(zip(colours["range"], shapes[0]["range"], strict=True))
            assert len({*looks}) == len(looks) == len(values(figure))
            assert colours["domain"] == shapes[0]["domain"]
        else:
            assert shapes
            assert all(len({*one["range"]}) == len(one["domain"]) for one in shapes), shapes
            drawn = {row[field] for row in values(figure)}
            assert drawn == {*shapes[0]["domain"]}


def test_colours_keep_apart_in_grey():
    """Relative luminance (ITU-R BT.709) of the bars' three kinds: more than .2 apart each."""
    from research.report.figures.importance import KINDS

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) ** (1 / 2.2)

    greys = sorted(map(luminance, KINDS.values()))
    assert min(b - a for a, b in itertools.pairwise(greys)) > 0.15


@pytest.mark.parametrize(
    "names",
    [
        [LONG.format(i) for i in range(20)],
        [f"{'x' * 60}{i} and {'y' * 60}" for i in range(20)],
        ["a" * 100, "a" * 101, "short"],
        [f"{LONG.format(i)} train={path}" for i in range(4) for path in ("/a/very/long/path/to/rows.jsonl", "b.jsonl")],
    ],
)
def test_short_names_of_long_ones_stay_apart(names):
    found = brief(names)
    assert list(found) == names
    assert len({*found.values()}) == len(names)
    assert max(map(len, found.values())) <= LONGEST
    assert all(text == name for name, text in found.items() if len(name) <= LONGEST)


def test_short_names_show_where_long_ones_differ():
    found = brief([LONG.format(3), LONG.format(4)])
    assert found[LONG.format(3)] == "target_modules=q_proj,…down_proj in layers 3"
    systems = [f"all-MiniLM-L6-v2, HNSW ef {ef}, a setting with a rather long name" for ef in (100, 150)]
    assert [text.partition("ef ")[2][:4] for text in brief(systems).values()] == ["100…", "150…"]  # no number is cut
    names = [f"{'x' * 60}{i} and {'y' * 60}" for i in (3, 4)]
    assert all(f"{i} and" in brief(names)[name] for i, name in zip((3, 4), names, strict=True))


@pytest.mark.skipif(not render.can_draw(), reason="vl-convert-python is not installed")
def test_every_figure_is_the_same_bytes_each_time():
    first, again = ([render.svg(figure) for _, figure in every_figure.__wrapped__()] for _ in range(2))
    assert first == again
    assert all(math.isfinite(float(size)) for text in first for size in text.split('viewBox="')[1].split('"')[0].split())
    assert "NaN" not in "".join(first)
