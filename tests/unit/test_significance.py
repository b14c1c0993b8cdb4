"""The paired permutation test against enumeration and simulation; the bootstrap against the normal interval."""

import itertools

import numpy as np
import pytest
from scipy import stats

from research.metrics.significance import bootstrap_interval, compare, permutation_test


def enumerated(difference) -> float:
    """Every one of the 2^n sign patterns, zeros too."""
    observed = abs(sum(difference))
    patterns = list(itertools.product((1, -1), repeat=len(difference)))
    hits = sum(abs(sum(s * d for s, d in zip(signs, difference, strict=True))) >= observed - 1e-12 for signs in patterns)
    return hits / len(patterns)


@pytest.mark.parametrize(
    "difference",
    [[1.0, 1.0, 1.0], [0.5, -0.2, 0.3, 0.0], [0.1] * 8, [0.3, -0.3], [0.2, 0.0, 0.0, -0.1, 0.4, 0.4], [-1.0, -2.0]],
)
def test_small_samples_equal_full_enumeration(difference):
    assert permutation_test(np.array(difference)) == pytest.approx(enumerated(difference), abs=1e-12)


def test_three_equal_differences_give_a_quarter():
    assert permutation_test(np.array([1.0, 1.0, 1.0])) == 2 / 8  # only +++ and −−− reach the sum of 3


def test_sampled_p_equals_scipys_within_its_noise():
    difference = np.random.default_rng(1).normal(0.1, 1, size=300)
    theirs = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(2)
    ).pvalue
    assert permutation_test(difference, samples=20_000) == pytest.approx(theirs, abs=0.01)


def test_p_is_never_zero():
    assert permutation_test(np.ones(500), samples=999) == 1 / 1000


def test_equal_systems_give_p_one():
    assert permutation_test(np.zeros(20)) == 1.0


def test_false_positives_stay_at_five_percent():
    rng = np.random.default_rng(3)
    hits = sum(permutation_test(rng.normal(size=30), samples=400, seed=i) < 0.05 for i in range(600))
    assert hits / 600 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_bootstrap_interval_is_near_the_normal_one():
    values = np.random.default_rng(4).normal(0.3, 0.2, size=1000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(1000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_same_seed_same_numbers():
    values = np.random.default_rng(5).normal(size=50)
    assert bootstrap_interval(values, seed=7) == bootstrap_interval(values, seed=7)
    assert permutation_test(values, seed=7) == permutation_test(values, seed=7)


def test_compare_counts_queries_and_points_from_a_to_b():
    result = compare({"q": 0.2, "r": 0.5, "s": 0.5}, {"q": 0.6, "r": 0.4, "s": 0.5})
    assert (result.better, result.worse, result.queries) == (1, 1, 3)
    assert result.difference == pytest.approx(0.1)


def test_compare_refuses_different_queries():
    with pytest.raises(ValueError, match="different queries"):
        compare({"q": 1.0}, {"r": 1.0})
