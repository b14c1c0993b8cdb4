"""Effects of a full factorial design, by hand; the table, and when there is none."""

import numpy as np
import pytest

from research.errors import UserError
from research.metrics.factorial import anova, variance_parts
from research.report import latex
from research.report.factor_sheets import factorial, not_factorial
from tests.unit.test_study import grid, made, run


def test_a_grid_s_variance_is_the_sum_of_its_parts():
    """Means 2.0 1.9 | 1.8 1.5, around 1.8: rows ±.15, columns ±.1, what is left ±.05; squared .0225, .01 and .0025."""
    parts = variance_parts([[2.0, 1.9], [1.8, 1.5]])
    assert parts == pytest.approx({(0,): 0.0225, (1,): 0.01, (0, 1): 0.0025})
    cube = np.random.default_rng(0).normal(size=(3, 2, 4, 2))
    assert len(variance_parts(cube)) == 15
    assert sum(variance_parts(cube).values()) == pytest.approx(cube.var())
    alone = np.broadcast_to(np.array([1.0, 2.0, 6.0])[:, None], (3, 4))
    assert variance_parts(alone) == pytest.approx({(0,): 14 / 3, (1,): 0.0, (0, 1): 0.0})  # (−2)² + (−1)² + 3² over 3


def test_f_tests_by_hand():
    """Twelve values: squares 12 · .0225 = .27, .12 and .03; seeds −.01, 0, .01 leave 4 · 2 · .01² = .0008 on 8 degrees."""
    values = np.array([[[loss + e for e in (-0.01, 0, 0.01)] for loss in row] for row in ((2.0, 1.9), (1.8, 1.5))])
    found = anova(values)
    assert [(effect.axes, effect.df) for effect in found.effects] == [((0,), 1), ((1,), 1), ((0, 1), 1)]
    assert [effect.squares for effect in found.effects] == pytest.approx([0.27, 0.12, 0.03])
    assert [effect.f for effect in found.effects] == pytest.approx([2700, 1200, 300])
    assert (found.df, found.squares, found.total) == pytest.approx((8, 0.0008, 0.4208))
    # the seeds shift every setting alike: as a block they explain all that is left, and nothing is left to test with
    blocked = anova(values, blocked=True)
    assert (blocked.df, blocked.block.df, blocked.block.squares) == (6, 2, pytest.approx(0.0008))
    assert np.isnan([effect.p for effect in blocked.effects]).all()


def test_higher_interactions_are_tested_together():
    values = np.random.default_rng(0).normal(size=(2, 2, 3, 2, 2))
    found = anova(values)
    assert [effect.axes for effect in found.effects][-1] == ()
    assert len(found.effects) == 4 + 6 + 1
    assert sum(effect.squares for effect in found.effects) + found.squares == pytest.approx(found.total)
    assert sum(effect.df for effect in found.effects) + found.df == values.size - 1


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [1.0, 2.0], [[1.0, 2.0]], [[1.0, float("nan")], [1.0, 2.0]], []])
def test_what_is_no_design_is_refused(values):
    with pytest.raises(UserError, match=r"levels and seeds; an ANOVA needs|are not finite; expected a number"):
        anova(np.array(values))


def test_the_table_has_the_shares_and_holm_s_p():
    sheet = factorial(made(grid()))
    texts = [[cell.text for cell in row] for row in sheet.rows]
    assert [row[0] for row in texts] == ["r", "lora_alpha/r", "r × lora_alpha/r", "residual: seeds", "total"]
    assert texts[0][1:6] == ["1", ".27", "64.2%", "99.7%", "2,700.00"]  # .27 / .4208; .27 / .2708
    assert texts[3][1:4] == ["8", "8e−4", "0.2%"]
    ps = [row[6].value for row in sheet.rows[:3]]
    assert sheet.rows[0][7].value == pytest.approx(3 * ps[0])  # the least of three
    assert sheet.rows[2][7].value == pytest.approx(ps[2])
    assert sheet.rows[2][7].mark == "†"
    text = latex.render(sheet)
    assert r"$\eta$$^2$" in text
    assert r"r $\times$ lora\_alpha/r" in text
    assert "?" not in text
    assert factorial(made(grid()), paired=True).rows[3][0].text == "seed (block)"


def test_no_table_where_the_design_has_none():
    whole = grid()
    lost = [run(4, 4, seed, state="failed") for seed in range(3)]
    cases = {
        "the study has fewer than two factors": [one for one in whole if one.options["model.adapter.r"] == 4],
        "not balanced, settings have 2 and 3 seeds": whole[1:],
        "1 of 4 combinations of the factors have no value, such as r=4 lora_alpha/r=1": [*lost, *whole[3:]],
        "each setting has one seed": whole[::3],
    }
    for why, runs in cases.items():
        assert why in not_factorial(made(runs))
        assert factorial(made(runs)) is None
    other = [run(8, 16, seed, 1.5 + seed / 100) for seed in (3, 4, 5)]
    runs = [*whole[:9], *other]
    assert not_factorial(made(runs)) == ""  # seeds are replicates: which ones does not matter
    assert "the settings have different seeds" in not_factorial(made(runs), paired=True)
    assert "of other data or code" in not_factorial(made([*whole, run(4, 4, 0, 2.0, code="c2")]))


def test_a_random_search_spans_too_many_combinations_to_list():
    options = ("data.a", "data.b", "data.c", "data.d", "data.e")
    draws = [{name: i + k / 7 for k, name in enumerate(options)} for i in range(60)]
    runs = [run(4, 4, 0, 1.0, options=draw, name=str(i))._replace(swept=options) for i, draw in enumerate(draws)]
    assert not_factorial(made(runs)).startswith("777,599,940 of 777,600,000 combinations of the factors have no value")


def test_an_option_that_is_none_in_a_crossed_design_is_a_level():
    runs = [
        run(r, 2 * r, seed, r / 8 + bool(clip) + seed / 100, options={"model.optimisation.clip": clip})
        for r in (4, 8)
        for clip in (None, 1.0)
        for seed in range(3)
    ]
    sheet = factorial(made(runs))
    assert [row[0].text for row in sheet.rows[:3]] == ["r", "clip", "r × clip"]
    assert sheet.rows[1][5].value > 1000
