"""A study's figures: what is drawn, by hand; and the same bytes each time."""

import pytest

from research.report.figures import comparison, cost, curves, of_study, parts, render, theme
from research.report.importance import importance
from tests.unit.test_study import grid, made, run


def values(figure) -> list[dict]:
    return figure.spec["data"]["values"]


def test_a_heatmap_of_two_factors_frames_the_best():
    cells = {(cell["down"], cell["across"]): cell for cell in values(comparison.heatmap(made(grid())))}
    assert {key: cell["text"] for key, cell in cells.items()} == {
        ("4", "1"): "2.000",
        ("4", "2"): "1.900",
        ("8", "1"): "1.800",
        ("8", "2"): "1.500",
    }
    assert [key for key, cell in cells.items() if cell["best"]] == [("8", "2")]
    assert cells["8", "2"]["spread"] == "± 0.010"
    assert comparison.heatmap(made([r for r in grid() if r.options["model.adapter.r"] == 4])) is None  # one factor


def test_a_factor_s_lines_are_the_settings_of_the_others():
    rows = values(comparison.against_factor(made(grid()), "model.adapter.r"))
    drawn = {(row["x"], row["line"].partition("=")[2]): round(row["mean"], 3) for row in rows}
    assert drawn == {(4, "1"): 2.0, (8, "1"): 1.8, (4, "2"): 1.9, (8, "2"): 1.5}
    assert rows[0]["high"] - rows[0]["mean"] == pytest.approx(0.01)


def test_settings_at_one_level_are_drawn_side_by_side():
    """Two lines, four pixels apart on an axis of 388 whose ends are the levels: logarithmic from a ratio of four."""
    few = made(grid())
    figure = comparison.against_factor(few, "model.adapter.r")
    assert sorted(row["drawn at"] for row in values(figure)) == pytest.approx(
        [4 - 4 * 2 / 388, 4 + 4 * 2 / 388, 8 - 4 * 2 / 388, 8 + 4 * 2 / 388]
    )
    assert "side by side" in figure.caption
    wide = made([*grid(), *(run(16, 16 * scale, s, 1.5) for scale in (1, 2) for s in range(3))])
    rows = values(comparison.against_factor(wide, "model.adapter.r"))
    assert [row["drawn at"] for row in rows if row["x"] == 4] == pytest.approx([4 * 4 ** (-2 / 388), 4 * 4 ** (2 / 388)])
    alone = made([one for one in grid() if one.options["model.adapter.lora_alpha"] == one.options["model.adapter.r"]])
    figure = comparison.against_factor(alone, "model.adapter.r")
    assert [row["drawn at"] for row in values(figure)] == [4, 8]
    assert "side by side" not in figure.caption


def test_the_front_holds_what_nothing_smaller_beats():
    """Of 400 parameters 2.0 and 1.9, of 800 1.8 and 1.5, of 1,600 1.7: that one is larger and worse than 1.5."""
    runs = [*grid(), *(run(16, 16, s, 1.7) for s in range(3))]
    rows = values(cost.against_parameters(made(runs)))
    assert {(row["x"], round(row["mean"], 2)) for row in rows if row["front"]} == {(400, 1.9), (800, 1.5)}
    higher = values(cost.against_parameters(made(runs, higher=True)))
    assert {(row["x"], round(row["mean"], 2)) for row in higher if row["front"]} == {(400, 2.0)}


def test_of_many_settings_the_best_keep_their_colours_and_the_others_are_grey():
    """Ten settings, less is better: the first and the sixth are the worst. r = 2 is the second, and looks so; the tenth would
    look like it again, and has the look of the sixth, which is grey."""
    found = made([run(r, r, seed, 9.0 if r in (1, 6) else r / 10) for r in range(1, 11) for seed in range(2)])
    figure = curves.learning_curves(found, lambda one: [(step, one.metrics["val/loss"] / (step + 1)) for step in range(3)])
    colour, shape = (figure.spec["encoding"]["color"], figure.spec["layer"][-1]["encoding"]["shape"])
    best = [f"r={r}" for r in (2, 3, 4, 5, 7, 8, 9, 10)]
    assert colour["scale"]["domain"] == best
    looks = list(zip(colour["scale"]["range"], shape["scale"]["range"], strict=True))
    assert looks == [theme.look(i) for i in (1, 2, 3, 4, 6, 7, 0, 5)]
    assert len({*looks}) == 8
    grey = figure.spec["layer"][0]
    assert {row["line"] for row in grey["data"]["values"]} == {"r=1", "r=6"}
    assert grey["encoding"]["color"] == {"value": theme.SOFT}
    assert figure.caption.endswith("The best 8 of 10 settings, the others in grey.")


def test_curves_are_means_over_the_seeds_that_have_a_step():
    losses = {0: [(0, 3.0), (5, 2.0), (10, 1.0)], 1: [(0, 3.0), (5, 2.2), (10, 1.2)], 2: [(0, 3.0), (5, 2.4), (11, 1.0)]}
    found = made(grid())
    figure = curves.learning_curves(found, lambda one: losses[one.seed])
    assert figure is None  # two steps that all seeds have
    losses[2][2] = (10, 1.4)
    rows = [
        row
        for row in values(curves.learning_curves(found, lambda one: losses[one.seed]))
        if row["line"] == "r=4 lora_alpha/r=1"
    ]
    assert [(row["x"], round(row["mean"], 2), row["low"], row["high"]) for row in rows] == [
        (0, 3.0, 3.0, 3.0),
        (5, 2.2, 2.0, 2.4),
        (10, 1.2, 1.0, 1.4),
    ]


def test_colours_and_shapes_share_one_legend():
    colour, shape = (one.to_dict() for one in parts.colour_and_shape("line", "abba", "setting"))
    assert colour["scale"]["domain"] == shape["scale"]["domain"] == ["a", "b"]
    assert colour["title"] == shape["title"] == "setting"
    assert len({*theme.COLOURS}) == len({*theme.SHAPES}) == parts.MOST_LINES


@pytest.mark.skipif(not render.can_draw(), reason="vl-convert-python is not installed")
def test_figures_are_the_same_bytes_each_time(tmp_path):
    study = made(grid())
    figures = of_study(study, lambda one: [(0, 3.0), (5, 2.0), (10, 1.0)], importance(study))
    assert [figure.name for figure in figures] == [
        "heatmap",
        "by-r",
        "by-lora_alpha/r",
        "parallel",
        "importance",
        "parameters",
        "curves",
    ]
    render.write_figures(tmp_path, [(figure, render.svg(figure)) for figure in figures])
    first = {path: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert {path.suffix for path in first} == {".svg", ".pdf", ".json"}
    render.write_figures(tmp_path, [(figure, render.svg(figure)) for figure in figures])
    assert {path: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == first
    text = (tmp_path / "figures/heatmap.svg").read_text()
    for words in ("2.000", "± 0.010", "lora_alpha/r"):
        assert words in text


def test_no_two_of_64_series_look_alike():
    assert len({theme.look(i) for i in range(64)}) == 64
