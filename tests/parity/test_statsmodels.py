"""Holm, power, equivalence and intervals against statsmodels."""

import numpy as np
import pytest

from research.metrics.equivalence import equivalence_test
from research.metrics.families import holm
from research.metrics.planning import detectable_difference, power, seeds_needed
from research.metrics.seeds import summarise, welch_test

pytest.importorskip("statsmodels")
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_ind

RNG = np.random.default_rng(0)
GROUPS = [(RNG.normal(size=n), RNG.normal(0.5, spread, size=m)) for n, m, spread in [(3, 3, 1), (5, 5, 3), (10, 4, 0.2)]]


@pytest.mark.parametrize("size", [1, 2, 6, 30])
def test_holm(size):
    p = np.random.default_rng(size).uniform(size=size) ** 3
    p[size // 2] = p[0]  # a tie
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("difference", [0.2, 0.6, 1.0])  # theirs is NaN where power rounds to 1
def test_power(n, difference):
    theirs = TTestIndPower().power(effect_size=difference, nobs1=n, alpha=0.05)
    assert power(difference * 0.02, 0.02, 0.02, n) == pytest.approx(theirs, abs=1e-9)
    paired = TTestPower().power(effect_size=difference, nobs=n, alpha=0.05)
    assert power(difference, 1.0, 0.0, n) == pytest.approx(paired, abs=1e-9)


@pytest.mark.parametrize("difference", [0.1, 0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
def test_seeds_needed(difference, alpha):
    theirs = TTestIndPower().solve_power(effect_size=difference, power=0.8, alpha=alpha)
    assert seeds_needed(difference, 1.0, 1.0, alpha=alpha) == int(np.ceil(theirs))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_detectable_difference(n):
    theirs = TTestIndPower().solve_power(nobs1=n, power=0.8, alpha=0.05)
    assert detectable_difference(1.0, 1.0, n) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("a", "b"), GROUPS)
def test_equivalence(a, b):
    theirs = ttost_ind(b, a, -0.8, 0.8, usevar="unequal")[0]
    assert equivalence_test(a, b, margin=0.8).p == pytest.approx(theirs)


@pytest.mark.parametrize(("a", "b"), GROUPS)
def test_intervals(a, b):
    summary = summarise(a)
    assert (summary.low, summary.high) == pytest.approx(DescrStatsW(a).tconfint_mean())
    test = welch_test(a, b)
    theirs = CompareMeans(DescrStatsW(b), DescrStatsW(a)).tconfint_diff(usevar="unequal")
    assert (test.low, test.high) == pytest.approx(theirs)


@pytest.mark.parametrize(("a", "b"), GROUPS)
def test_g_up_to_their_approximate_correction(a, b):
    theirs, _ = effectsize_smd(b.mean(), b.std(ddof=1), b.size, a.mean(), a.std(ddof=1), a.size)
    assert welch_test(a, b).g == pytest.approx(theirs, rel=0.003)  # theirs is 1 − 3 / (4N − 9): .8 for .798 at N = 6
