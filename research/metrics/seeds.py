"""Test whether two methods differ when they are trained again with other seeds: one value for each seed, on fixed queries.

Three claims, three populations; a test of one says nothing of another (tests/parity/test_claims_simulated.py):

    claim                              drawn again         fixed          test
    these checkpoints differ           queries             checkpoints    significance.compare
    this method differs (this page)    seeds               queries        welch_test, paired_test
    this method differs anywhere       seeds and queries   –              crossed.seeds_and_queries_test

The second is the claim of most tables: the benchmark's test set is what it is, and someone else trains the method again.
A value is a run's mean over the same queries in every run. A method without seeds (BM25, an untrained model) is a plain
number in place of its sequence of values: it is known without error.

Longer than most files: the two tests share moments, rounding, effect size and degrees of freedom, and are read against them.

`welch_test` is for runs whose seeds have nothing in common across methods, and stays below its level when they have.
`paired_test` is for runs that were launched in pairs: run i of both methods shares something that its seed fixes, such as
the initial weights or the order of the data. Which of the two applies is a fact of the launch, settled before any value
is seen; to compute both and keep the smaller p makes 6.6% false positives at three seeds, not 5%.

Simulated false positives of welch_test at a nominal 5% (normal seeds, 400,000 repetitions; rows: seeds of a and of b;
columns: spread of b over spread of a). Equal numbers of seeds keep the level to within .008, unequal ones do not (2 and 30:
.125), which is why an unequal comparison carries a note with the rate of its own numbers (unequal.py).

                 .1     .5     1      2      10
    3 and 3     .057   .042   .035   .043   .057
    5 and 5     .052   .049   .043   .050   .052
    10 and 10   .050   .050   .049   .051   .051
    3 and 5     .057   .061   .046   .041   .052
    3 and 10    .055   .073   .064   .050   .050
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from research.errors import UserError
from research.metrics.unequal import most_false_positives

NAN = float("nan")
ROUNDING = 1e-12  # of the largest value: a spread below it is the rounding of sums, and would give p = 1e-9 from nothing
NO_SPREAD = "not estimable: no spread over seeds on either side (every run gave the same value)"
ONE_SEED = "not estimable: one seed gives no spread; train at least 3"


class SeedSummary(NamedTuple):
    """One method over its seeds, in the metric's units."""

    n: int  # seeds; below 3 the interval says little (n = 2: 12.7 standard errors to each side)
    mean: float
    sd: float  # between runs, with n − 1; NaN at n = 1
    low: float  # t interval of the mean; NaN at n = 1
    high: float


class MethodComparison(NamedTuple):
    """Method b against method a. `p`, interval, error and df are NaN when `note` begins with `not estimable`."""

    difference: float  # mean of b − mean of a
    low: float  # interval of the difference, for this comparison alone: a Holm-adjusted p may disagree with it
    high: float
    p: float  # two-sided
    error: float  # standard error of the difference
    df: float  # of the t distribution
    g: float  # Hedges' g of the runs; NaN without spread
    seeds: tuple[int, int]  # runs of a and of b; 0: a method without seeds
    note: str  # "", what weakens the result, or why there is none


def summarise(values: Sequence[float], level: float = 0.95) -> SeedSummary:
    """Compute n, mean, sd and mean ± t_{n−1} · sd / √n.

    Args:
        values: one finite value a seed, at least one.
        level: coverage of the interval.
    """
    values = checked(values)
    n, mean = values.size, float(values.mean())
    if n == 1:
        return SeedSummary(1, mean, NAN, NAN, NAN)
    sd = float(values.std(ddof=1))
    half = t_quantile(level, n - 1) * sd / math.sqrt(n)
    return SeedSummary(n, mean, sd, mean - half, mean + half)


def welch_test(a: Sequence[float] | float, b: Sequence[float] | float, level: float = 0.95) -> MethodComparison:
    """Test by t with Satterthwaite's degrees of freedom over two independent groups of seeds.

    t = (b̄ − ā) / √(u_a + u_b),  u = s² / n,  df = (u_a + u_b)² / (u_a² / (n_a − 1) + u_b² / (n_b − 1)).
    Against a method without seeds its u is 0, and this is the one-sample t test with n − 1 degrees of freedom.

    Claims: trained again with other seeds, the methods' mean values on these queries would differ. Not: on other queries.

    Args:
        a: the baseline, one value a seed; or one number for a method without seeds.
        b: the other method.
        level: coverage of the interval.

    Raises:
        UserError: an empty group, or a value that is not finite.

    Source: Welch 1947; Satterthwaite 1946.
    """
    a, b = checked(a), checked(b)
    first, second = moments(a), moments(b)
    difference, seeds = second.mean - first.mean, (first.n, second.n)
    error, df, why = _welch(first, second)
    if why:
        return untestable(difference, seeds, why)
    return _from_t(difference, error, df, level, standardised(a, b), seeds, unequal(seeds))


class Moments(NamedTuple):
    """The numbers of one method that Welch's test needs."""

    n: int  # seeds; 0: a method without seeds
    mean: float
    part: float  # s² / n, its share of the squared standard error; 0 without seeds, NaN at one
    largest: float  # absolute value


def moments(values: Sequence[float] | float) -> Moments:
    """Compute the numbers of one method that Welch's test needs.

    Raises:
        UserError: no value, or one that is not finite.
    """
    x = checked(values)
    n = x.size if x.ndim else 0
    part = 0.0 if n == 0 else NAN if n == 1 else float(x.var(ddof=1)) / n
    return Moments(n, float(x.mean()), part, float(np.abs(x).max()))


def welch_p(a: Moments, b: Moments) -> float:
    """Compute only the p of `welch_test`, for the thousands of pairs of a large table. NaN where nothing can be tested."""
    error, df, why = _welch(a, b)
    return NAN if why else _two_sided(b.mean - a.mean, error, df)


def _welch(a: Moments, b: Moments) -> tuple[float, float, str]:
    """Compute the standard error and degrees of freedom, or the reason why there are none."""
    if 1 in (a.n, b.n):
        return NAN, NAN, ONE_SEED
    error = math.sqrt(a.part + b.part)
    if error <= ROUNDING * max(a.largest, b.largest):
        return NAN, NAN, NO_SPREAD
    unit = math.frexp(error)[1]  # a power of two, so that no bit changes: a fourth power of 1e80 is no number
    parts = sum(math.ldexp(x.part, -2 * unit) ** 2 / (x.n - 1) for x in (a, b) if x.n)
    return error, math.ldexp(error, -unit) ** 4 / parts, ""


def paired_test(a: Mapping, b: Mapping, level: float = 0.95) -> MethodComparison:
    """Test by t on the differences of runs that share a seed: d_i = b_i − a_i, t = d̄ / (s_d / √n), n − 1 degrees of freedom.

    Same claim as `welch_test`. Keeps its level whatever the correlation within pairs, also none, and whatever the two
    spreads; pays with half the degrees of freedom, so it gains only if the shared seed explains much of the spread.

    Args:
        a: {seed: value} of the baseline.
        b: the same seeds' values of the other method. Runs belong together by their seed, never by their rank.
        level: coverage of the interval.

    Raises:
        UserError: the seeds differ, none, or a value that is not finite.

    Source: Student 1908.
    """
    if a.keys() != b.keys():
        raise UserError(
            f"unpaired seeds: only in the first {sorted(map(str, a.keys() - b.keys()))}, only in the second "
            f"{sorted(map(str, b.keys() - a.keys()))}; train the missing runs, or use welch_test if the "
            "methods share nothing by seed"
        )
    first, second = checked(list(a.values())), checked([b[seed] for seed in a])
    d = second - first
    n, difference = d.size, float(d.mean())
    if n == 1:
        return untestable(difference, (n, n), ONE_SEED)
    error = float(d.std(ddof=1)) / math.sqrt(n)
    if negligible(error, first, second):
        return untestable(difference, (n, n), "not estimable: every pair of runs has the same difference")
    return _from_t(difference, error, n - 1, level, standardised(first, second), (n, n), "")


def checked(values: Sequence[float] | float) -> np.ndarray:
    """Return the values as float64, checked to be finite and not empty; a plain number stays 0-dimensional."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise UserError("a method without any run; train it, or leave it out of the comparison")
    if not np.isfinite(array).all():
        raise UserError(
            f"{(~np.isfinite(array)).sum()} of {array.size} values are not finite; a failed run is a result to "
            "report: give it the value that it earned, or leave out the method"
        )
    return array


def fraction(value: float, name: str, below: float = 1.0) -> float:
    """Return `value` if it lies strictly between 0 and `below`; else refuse it."""
    if not 0 < value < below:
        raise UserError(f"{name}={value} must lie between 0 and {below}")
    return value


def negligible(error: float, *values: np.ndarray) -> bool:
    """Return whether a standard error is no more than the rounding error of the values."""
    return error <= ROUNDING * max(float(np.abs(x).max()) for x in values)


def t_quantile(level: float, df: float) -> float:
    """Return the t quantile of a two-sided interval of this level."""
    return float(special.stdtrit(df, (1 + fraction(level, "level")) / 2))


def noncentral_t(t: float, df: float, delta: float) -> float:
    """Compute P(T ≤ t) of the noncentral t; scipy gives NaN far in a tail, where the answer is 0 or 1."""
    p = float(special.nctdtr(df, delta, t))
    return float(t > delta) if math.isnan(p) else p


def untestable(difference: float, seeds: tuple[int, int], note: str) -> MethodComparison:
    """Return a comparison with a difference and a note, but no test."""
    return MethodComparison(difference, NAN, NAN, NAN, NAN, NAN, NAN, seeds, note)


def _from_t(difference, error, df, level, g, seeds, note) -> MethodComparison:
    half = t_quantile(level, df) * error
    p = _two_sided(difference, error, df)
    return MethodComparison(difference, difference - half, difference + half, p, error, float(df), g, seeds, note)


def _two_sided(difference: float, error: float, df: float) -> float:
    return 2 * float(special.stdtr(df, -abs(difference) / error))


def unequal(seeds: tuple[int, int]) -> str:
    """Return a warning about unequal numbers of seeds, or ""."""
    if min(seeds) < 2 or seeds[0] == seeds[1]:
        return ""
    rate = most_false_positives(*sorted(seeds))
    return (
        f"{seeds[0]} and {seeds[1]} seeds: unequal numbers make up to {rate:.1%} false positives at a nominal 5%; even them out"
    )


def standardised(a: np.ndarray, b: np.ndarray) -> float:
    """Compute Hedges' g with the spread pooled over the sides that have one; NaN if neither has."""
    seeded = [x for x in (a, b) if x.ndim and x.size > 1]
    nu = sum(x.size - 1 for x in seeded)
    pooled = math.sqrt(sum(float(x.var(ddof=1)) * (x.size - 1) for x in seeded) / nu)
    return NAN if negligible(pooled, a, b) else _correction(nu) * float(b.mean() - a.mean()) / pooled


def _correction(nu: int) -> float:
    """Compute J(ν) = Γ(ν/2) / (√(ν/2) · Γ((ν − 1)/2)) of Hedges 1981, through logarithms.

    0 at ν = 1, where no multiple of d is unbiased.
    """
    return math.exp(math.lgamma(nu / 2) - math.lgamma((nu - 1) / 2)) / math.sqrt(nu / 2) if nu > 1 else 0.0
