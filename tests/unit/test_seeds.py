"""Methods over seeds on tables that can be checked by hand, and against scipy; families, planning, seeds and queries."""

import math

import numpy as np
import pytest
from scipy import stats

from research.errors import UserError
from research.metrics.crossed import seeds_and_queries_test
from research.metrics.equivalence import equivalence_test
from research.metrics.families import compare_methods, compare_paired_methods, holm
from research.metrics.planning import (
    critical_difference,
    detectable_difference,
    noise_floor,
    pooled_sd,
    power,
    sd_interval,
    seeds_needed,
)
from research.metrics.seeds import paired_test, summarise, welch_test
from research.metrics.significance import compare
from research.metrics.unequal import false_positives, most_false_positives

LOW, HIGH = [1.0, 2.0, 3.0], [4.0, 6.0, 8.0]  # means 2 and 6, variances 1 and 4


def p_with_two_degrees(t: float) -> float:
    """The t distribution of two degrees of freedom has a closed form."""
    return 1 - t / math.sqrt(t**2 + 2)


def random_groups(count: int = 30):
    rng = np.random.default_rng(0)
    for _ in range(count):
        a, b = rng.normal(size=rng.integers(2, 8)), rng.normal(0.5, rng.uniform(0.1, 3), size=rng.integers(2, 8))
        yield a.tolist(), b.tolist()


def test_summary_by_hand():
    summary = summarise(LOW)
    assert summary[:3] == (3, 2.0, 1.0)
    assert (summary.low, summary.high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))


def test_one_seed_has_a_mean_and_no_spread():
    summary = summarise([0.5])
    assert summary[:2] == (1, 0.5)
    assert all(math.isnan(x) for x in summary[2:])


def test_welch_by_hand():
    test = welch_test(LOW, HIGH)
    assert test.difference == 4
    assert test.error == pytest.approx(math.sqrt(1 / 3 + 4 / 3))
    assert test.df == pytest.approx((5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2))  # 50 / 17
    assert test.g == pytest.approx(math.sqrt(2 / math.pi) * 4 / math.sqrt(2.5))  # J(4) = √(2/π), pooled variance 2.5
    assert (test.seeds, test.note) == ((3, 3), "")


def test_against_a_method_without_seeds_by_hand():
    test = welch_test(2.0, HIGH)  # 4 / (2 / √3), two degrees of freedom
    assert test.p == pytest.approx(p_with_two_degrees(2 * math.sqrt(3)))
    assert (test.seeds, test.df) == ((0, 3), pytest.approx(2))
    assert welch_test(HIGH, 2.0).difference == -4


def test_paired_by_hand():
    test = paired_test({7: 1.0, 8: 2.0, 9: 3.0}, {9: 4.0, 8: 5.0, 7: 3.0})  # differences 2, 3, 1: mean 2, spread 1
    assert (test.difference, test.df) == (2, 2)
    assert test.p == pytest.approx(p_with_two_degrees(2 * math.sqrt(3)))


def test_welch_equals_scipy():
    for a, b in random_groups():
        ours, theirs = welch_test(a, b, level=0.9), stats.ttest_ind(b, a, equal_var=False)
        interval = theirs.confidence_interval(0.9)
        assert (ours.p, ours.df, ours.low, ours.high) == pytest.approx((theirs.pvalue, theirs.df, *interval))


def test_one_sample_and_paired_equal_scipy():
    for a, _ in random_groups():
        b = [x**2 for x in a]
        assert welch_test(0.3, a).p == pytest.approx(stats.ttest_1samp(a, 0.3).pvalue)
        assert paired_test(dict(enumerate(a)), dict(enumerate(b))).p == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_equivalence_is_two_one_sided_tests_of_scipy():
    for a, b in random_groups():
        above = stats.ttest_ind(np.array(b) + 1, a, equal_var=False, alternative="greater").pvalue
        below = stats.ttest_ind(np.array(b) - 1, a, equal_var=False, alternative="less").pvalue
        ours = equivalence_test(a, b, margin=1)
        assert ours.p == pytest.approx(max(above, below))
        assert ours.equivalent == (ours.low > -1 and ours.high < 1)  # the 90% interval, inside the margin


def test_swapping_and_rescaling_change_nothing_but_sign_and_scale():
    for a, b in random_groups():
        test, swapped = welch_test(a, b), welch_test(b, a)
        assert (swapped.difference, swapped.low, swapped.p) == pytest.approx((-test.difference, -test.high, test.p))
        percent = welch_test([100 * x + 7 for x in a], [100 * x + 7 for x in b])
        assert (percent.p, percent.g, percent.error) == pytest.approx((test.p, test.g, 100 * test.error))


def test_interval_and_p_agree():
    for a, b in random_groups():
        test = welch_test(a, b)
        assert (test.p < 0.05) == (test.low > 0 or test.high < 0)


@pytest.mark.parametrize(
    ("a", "b"), [([0.5, 0.5, 0.5], [0.6, 0.6, 0.6]), (0.5, [0.6, 0.6]), (0.5, 0.6), ([0.3, 0.3, 0.1 + 0.2], [0.4, 0.4, 0.4])]
)
def test_without_spread_there_is_no_p_rather_than_p_zero(a, b):
    """The last row's spread is rounding: scipy gives p = 3e-33 for it."""
    test = welch_test(a, b)
    assert math.isnan(test.p)
    assert math.isnan(test.low)
    assert test.note.startswith("not estimable: no spread")
    assert not equivalence_test(a, b, margin=1).equivalent


def test_the_same_difference_in_every_pair_has_no_p():
    assert math.isnan(paired_test({1: 0.1, 2: 0.2}, {1: 0.2, 2: 0.3}).p)


def test_one_side_without_spread_is_tested_by_the_others():
    assert welch_test([2.0, 2.0, 2.0], HIGH).p == pytest.approx(welch_test(2.0, HIGH).p)


def test_one_seed_is_not_estimable():
    assert welch_test([0.5], HIGH).note.startswith("not estimable: one seed")
    assert math.isnan(paired_test({1: 0.1}, {1: 0.3}).p)


def test_unequal_numbers_of_seeds_are_noted_with_their_own_rate():
    assert "unequal numbers make up to 8.7% false" in welch_test([1.0, 2.0, 3.0], [1.0, 2.0]).note
    assert "unequal numbers make up to 11.8% false" in welch_test([1.0, 2.0], [*range(10)]).note
    assert welch_test([1.0, 2.0, 3.0], [1.0, 2.0, 2.5]).note == ""


@pytest.mark.parametrize(
    ("n", "m", "ratio"), [(2, 10, 1.0), (2, 10, 4.0), (2, 30, 1.0), (3, 10, 0.25), (3, 5, 16.0), (5, 5, 1.0)]
)
def test_the_rate_of_false_positives_is_that_of_simulated_tests(n, m, ratio):
    draws = np.random.default_rng(n * m)
    a, b = draws.normal(size=(100_000, n)) * math.sqrt(ratio), draws.normal(size=(100_000, m))
    p = stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue
    assert false_positives(n, m, ratio) == pytest.approx((p < 0.05).mean(), abs=0.003)  # four standard errors
    assert most_false_positives(n, m) >= false_positives(n, m, ratio)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: welch_test([], HIGH), "without any run"),
        (lambda: welch_test([1.0, math.nan], HIGH), "1 of 2 values are not finite"),
        (lambda: welch_test(LOW, HIGH, level=95), "level=95 must lie between 0 and 1"),
        (lambda: paired_test({1: 0.1, 2: 0.2}, {1: 0.1, 3: 0.2}), r"only in the first \['2'\], only in the second \['3'\]"),
        (lambda: equivalence_test(LOW, HIGH, margin=0), "margin=0 must be above 0"),
        (lambda: critical_difference(1.0, 1.0, 1), "n=1"),
        (lambda: power(1.0, -1.0, 1.0, 3), "none below 0"),
        (lambda: detectable_difference(1.0, 1.0, 3, aimed_power=0.01), "above alpha"),
        (lambda: noise_floor(1.0, 3, comparisons=0), "comparisons=0"),
        (lambda: pooled_sd([[1.0], [2.0]]), "no method has two seeds"),
        (lambda: holm([0.5, 1.5]), "p of 1.5"),
        (lambda: compare_methods({"bm25": 0.4, "dense": {1: 0.5}}, baseline="bm52"), "did you mean 'bm25'"),
        (lambda: seeds_and_queries_test(np.ones((3, 4)), np.ones((3, 5))), r"\(3, 4\) and \(3, 5\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


# Seeds and queries


def test_seeds_and_queries_by_hand():
    a = np.array([[1.0, 3.0], [3.0, 5.0]])  # seed means 2, 4: variance 2, over 2 seeds: 1. query means 2, 4
    b = np.array([[5.0, 9.0], [7.0, 13.0]])  # seed means 7, 10: 4.5 / 2 = 2.25. query means 6, 11. residuals ±.5, MS 1
    test = seeds_and_queries_test(a, b)
    seeds, queries, residual = 1 + 2.25, 4.5 / 2, 1 / (2 * 2)  # differences per query 4 and 7: variance 4.5, over 2
    assert test.difference == 8.5 - 3
    assert test.error == pytest.approx(math.sqrt(seeds + queries - residual))
    df = 3.25**2 / (1 + 2.25**2)
    critical = (3.25 * stats.t.ppf(0.975, df) + 2 * stats.t.ppf(0.975, 1)) / 5.25
    assert test.high - test.difference == pytest.approx(critical * test.error)
    assert "2 queries" in test.note
    at_p = (3.25 * stats.t.isf(test.p / 2, df) + 2 * stats.t.isf(test.p / 2, 1)) / 5.25
    assert at_p == pytest.approx(test.difference / test.error)


def test_without_spread_over_seeds_it_is_the_paired_t_test_over_queries():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=40), rng.normal(0.4, 1, size=40)
    theirs = stats.ttest_rel(b, a).pvalue
    assert seeds_and_queries_test(a, b).p == pytest.approx(theirs)
    assert seeds_and_queries_test(np.tile(a, (3, 1)), np.tile(b, (3, 1))).p == pytest.approx(theirs)


def test_without_differences_between_queries_it_is_welch():
    a, b = np.add.outer(LOW, np.zeros(30)), np.add.outer(HIGH, np.zeros(30))
    ours, welch = seeds_and_queries_test(a, b), welch_test(LOW, HIGH)
    assert (ours.p, ours.low, ours.high, ours.g) == pytest.approx((welch.p, welch.low, welch.high, welch.g))


def test_its_interval_and_p_agree_and_tiny_p_are_found():
    rng = np.random.default_rng(2)
    for effect in (0.0, 0.1, 0.3, 0.5, 1e3, 1e9):
        a, b = rng.normal(size=(3, 30)), rng.normal(effect, 1, size=(3, 30)) + 0.1 * rng.normal(size=(3, 1))
        test = seeds_and_queries_test(a, b)
        assert (test.p < 0.05) == (test.low > 0 or test.high < 0)
        assert 0 < test.p <= 1


def test_nothing_varies_nothing_is_estimable():
    assert math.isnan(seeds_and_queries_test(np.ones((3, 30)), np.zeros((3, 30))).p)


def test_arguments_are_left_alone():
    a, b = np.random.default_rng(3).normal(size=(2, 3, 30))
    copies = a.copy(), b.copy()
    seeds_and_queries_test(a, b)
    assert (a == copies[0]).all()
    assert (b == copies[1]).all()


# Families


def test_holm_by_hand():
    # .005 · 4, .01 · 3, .03 · 2, then .04 · 1 = .04, which may not fall below .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_untested_comparison_stays_in_the_family():
    adjusted = holm([0.01, math.nan, 0.03])
    assert (adjusted[0], adjusted[2]) == pytest.approx((0.03, 0.06))
    assert math.isnan(adjusted[1])
    assert holm([0.01, 0.2, 0.03])[0] == adjusted[0]  # the missing run arrives: the finding is still there


def test_a_table_of_every_pair():
    groups = {"bm25": 2.0, "x": dict(enumerate(LOW)), "y": dict(enumerate([12.0, 13.0, 14.0])), "z": {0: 3.0}}
    pairs = compare_methods(groups)
    assert [(pair.a, pair.b) for pair in pairs] == [
        ("bm25", "x"),
        ("bm25", "y"),
        ("bm25", "z"),
        ("x", "y"),
        ("x", "z"),
        ("y", "z"),
    ]
    assert [pair.verdict for pair in pairs] == [
        "unresolved",
        "differs",
        "not estimable",
        "differs",
        "not estimable",
        "not estimable",
    ]
    xy = pairs[3]
    assert xy.comparison == welch_test(LOW, [12.0, 13.0, 14.0])
    assert xy.p_holm == pytest.approx(6 * xy.comparison.p)  # three were not tested and still count
    assert xy.seeds_needed == seeds_needed(11, 1, 1, alpha=0.05 / 6)
    assert pairs[0].seeds_needed is None  # no difference at all
    assert pairs[2].seeds_needed is None


def test_a_table_against_a_baseline():
    groups = {"x": dict(enumerate(LOW)), "y": dict(enumerate(HIGH)), "bm25": 2.0}
    assert [(pair.a, pair.b) for pair in compare_methods(groups, baseline="y")] == [("y", "x"), ("y", "bm25")]


def test_a_paired_table_pairs_by_seed_and_takes_a_method_without_seeds():
    groups = {"bm25": 0.0, "x": {7: 1.0, 8: 2.0, 9: 3.0}, "y": {9: 4.0, 8: 5.0, 7: 3.0}}
    first, _, last = compare_paired_methods(groups)
    assert first.comparison == welch_test(0.0, LOW)
    assert last.comparison == paired_test(groups["x"], groups["y"])
    assert last.seeds_needed == seeds_needed(2, 1, 0, alpha=0.05 / 3)  # differences 2, 3, 1 spread by 1


# Planning


def test_the_critical_difference_is_where_welch_turns_significant():
    sd = math.sqrt(7 / 3)  # of 0, 1, 3 and of twice it
    values, wide = np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 6.0])
    edge = critical_difference(sd, 2 * sd, 3)
    shift = values.mean() - wide.mean() + edge
    assert welch_test(values, wide + shift * 1.0001 + 0.0001).p < 0.05
    assert welch_test(values, wide + shift - 0.001).p > 0.05


def test_noise_floors_at_three_seeds():
    floor = noise_floor(1.0, 3)
    assert floor.critical == pytest.approx(2.776445 * math.sqrt(2 / 3))  # t of 4 degrees of freedom
    assert power(floor.detectable, 1.0, 1.0, 3) == pytest.approx(0.8)
    assert 0.4 < power(floor.critical, 1.0, 1.0, 3) < 0.6  # a true difference at the critical one: about half are found
    assert noise_floor(1.0, 3, comparisons=6).critical > floor.critical


def test_power_is_alpha_without_a_difference_and_grows():
    powers = [power(d, 1.0, 2.0, 5) for d in (0, 0.5, 1, 2, 4, 8, 16, 1e3)]
    assert powers[0] == pytest.approx(0.05)
    assert powers == sorted(powers)
    assert powers[-1] == 1


def test_seeds_needed_is_the_smallest_number():
    for difference, a, b in [(1.0, 1.0, 1.0), (0.5, 0.2, 1.3), (3.0, 0.0, 1.0), (100.0, 1.0, 1.0)]:
        n = seeds_needed(difference, a, b)
        assert power(difference, a, b, n) >= 0.8
        assert n == 3 or power(difference, a, b, n - 1) < 0.8
    assert seeds_needed(-1.0, 1.0, 1.0) == seeds_needed(1.0, 1.0, 1.0)


@pytest.mark.parametrize("arguments", [(0.0, 1.0, 1.0), (1e-6, 1.0, 1.0), (1.0, 0.0, 0.0)])
def test_what_no_number_of_seeds_resolves(arguments):
    assert seeds_needed(*arguments) is None


def test_pooled_spread_by_hand():
    assert pooled_sd([LOW, HIGH, [9.0]]) == pytest.approx((math.sqrt((2 * 1 + 2 * 4) / 4), 4))


def test_three_seeds_tell_the_spread_within_a_factor_of_six():
    # χ² of 2 degrees of freedom: quantiles −2 log(1 − p)
    assert sd_interval(1.0, 2) == pytest.approx((math.sqrt(2 / (-2 * math.log(0.025))), math.sqrt(2 / (-2 * math.log(0.975)))))


def test_share_better_counts_ties_half():
    result = compare({"q": 0.2, "r": 0.5, "s": 0.5, "t": 0.1}, {"q": 0.6, "r": 0.4, "s": 0.5, "t": 0.2})
    assert result.share_better == (2 + 0.5) / 4


@pytest.mark.parametrize("unit", [2.0**-400, 2.0**-200, 2.0**200, 2.0**400])
def test_welch_has_no_unit(unit):
    """The fourth power of the error is no number beyond 1e77, and 0 below 1e-81."""
    a, b = [1.0, 2.0, 4.0], [2.5, 3.5, 5.0, 7.0]
    one, other = welch_test(a, b), welch_test([unit * x for x in a], [unit * x for x in b])
    assert (other.p, other.g) == (one.p, one.g)
    assert other.difference == unit * one.difference
