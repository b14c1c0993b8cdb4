"""Test whether two systems differ on this population of queries: paired permutation test and bootstrap intervals.

Both answer for *these checkpoints* over queries like these. They say nothing of how a method would do with other seeds:
used for that claim, this test rejected 82% of true nulls in simulation, where three seeds spread widely. That claim is
seeds.py's.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from research.errors import UserError

EXACT_UP_TO = 16  # 2^16 sign patterns: below this the permutation distribution is enumerated, above it sampled
CHUNK = 2**22  # at most this many signs or resampled indices in memory at once


class Comparison(NamedTuple):
    """System b against system a over the same queries."""

    difference: float  # mean of b − a
    low: float  # bootstrap interval of the mean difference
    high: float
    p: float  # two-sided paired permutation test
    better: int  # queries on which b is higher
    worse: int
    queries: int

    @property
    def share_better(self) -> float:
        """Compute the probability that b is higher on a query, ties counted half: .5 if neither is better, 1 if b always is.

        The effect size to stand beside `difference`: a mean can be moved by a few queries. Vargha & Delaney 2000, paired.
        """
        return (self.better + 0.5 * (self.queries - self.better - self.worse)) / self.queries


def permutation_test(difference: np.ndarray, samples: int = 10_000, seed: int = 0) -> float:
    """Compute the two-sided p of the paired permutation (sign-flip) test on the mean.

    Under the null that the two systems are exchangeable, each per-query difference is as likely as its negative.
    p = share of sign patterns whose |mean| reaches the observed one; exact enumeration up to 16 non-zero differences,
    else `samples` random patterns and p = (1 + hits) / (1 + samples), which is never 0.

    Args:
        difference: (Q,) per-query b − a.
        samples: random sign patterns when enumeration is too long.
        seed: of the random patterns.

    Source: Fisher 1935; Smucker, Allan & Carterette 2007; the +1 is Phipson & Smyth 2010.
    """
    flips = difference[difference != 0].astype(np.float64)  # zeros do not move the statistic
    if flips.size == 0:
        return 1.0
    observed = abs(flips.sum())
    reached = observed - 1e-9 * max(1.0, observed)  # sums of the same numbers in another order must count as equal
    if flips.size <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=flips.size - 1)))  # the mirrored half is the same
        totals = flips[0] + signs @ flips[1:]
        return float(np.mean(np.abs(totals) >= reached))
    rng = np.random.default_rng(seed)
    hits = 0
    for size in _chunks(samples, flips.size):
        signs = rng.integers(0, 2, size=(size, flips.size), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ flips) >= reached).sum())
    return (1 + hits) / (1 + samples)


MOST = 2 * 10**7  # examples that a bootstrap draws at most, in about a second


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95% bootstrap interval of a mean, as every command prints it: 10,000 samples, fewer of very many values."""
    return bootstrap_interval(values, samples=int(min(10_000, max(200, MOST // len(values)))))


def bootstrap_interval(values: np.ndarray, level: float = 0.95, samples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the mean over queries (Efron & Tibshirani 1993, ch. 13).

    Args:
        values: (Q,) per-query values, or per-query differences.
        level: coverage aimed at.
        samples: resamples of the queries.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [values[rng.integers(0, values.size, size=(size, values.size))].mean(axis=1) for size in _chunks(samples, values.size)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(a: dict[str, float], b: dict[str, float], samples: int = 10_000, seed: int = 0) -> Comparison:
    """Compare two systems' per-query values of one metric.

    Args:
        a: {query id: value} of the baseline.
        b: the same queries' values of the other system.
        samples: of the bootstrap, and of the permutation test where it does not enumerate.
        seed: of both.

    Raises:
        ValueError: the two do not cover the same queries.
    """
    if a.keys() != b.keys():
        raise ValueError(
            f"the systems cover different queries ({len(a.keys() - b.keys())} only in the first, "
            f"{len(b.keys() - a.keys())} only in the second)"
        )
    difference = np.array([b[query] - a[query] for query in a])
    low, high = bootstrap_interval(difference, samples=samples, seed=seed)
    return Comparison(
        difference=float(difference.mean()),
        low=low,
        high=high,
        p=permutation_test(difference, samples, seed),
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
        queries=difference.size,
    )


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p by Holm's step-down rule, in the order given: p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) · p_(j)).

    Rejecting every p̃ < alpha keeps the probability of any false rejection at alpha or below, however the tests depend on
    each other (pairs of a table share methods).

    Args:
        p: values in [0, 1]. NaN is a planned comparison that could not be tested: it stays NaN and counts in m, as a p of
            1 would. So a finding cannot vanish when a missing run arrives, nor appear by leaving out a failed one.
            (R's p.adjust leaves NA out of m.)

    Source: Holm 1979; adjusted p, Wright 1992.
    """
    p = np.asarray(p, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise UserError(f"p of {p[(p < 0) | (p > 1)][0]}: every p lies in [0, 1], or is NaN where nothing was tested")
    order = np.argsort(p)  # NaN last, where the factors that it leaves to the others are the largest
    steps = np.minimum(1.0, p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()


def _chunks(samples: int, width: int) -> list[int]:
    """Cut `samples` into pieces whose width × size fits CHUNK."""
    size = max(1, CHUNK // width)
    return [min(size, samples - start) for start in range(0, samples, size)]
