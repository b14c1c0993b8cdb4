"""How many seeds? The smallest differences that n seeds resolve, and the seeds that a difference needs.

Two noise floors, often confused. The *critical* difference is the smallest observed one that would be significant. A true
difference of that size is found only about half the time; the *detectable* difference is the true one that is found with
the power asked for. At n = 3 and equal spreads the first is 2.3 spreads, the second 3.1.

All of it takes the spread as known, while 3 seeds tell it to within a factor of .5 to 6 (`sd_interval`). So pool it
over a table's methods if they spread alike, and read the answers as orders of magnitude.
Differences and spreads are in the metric's units; n counts the seeds of each method.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from research.errors import UserError
from research.metrics.seeds import checked, fraction, noncentral_t

LEAST_SEEDS = 3
MOST_SEEDS = 10_000  # a difference that needs more is too small to matter


class NoiseFloor(NamedTuple):
    """The smallest differences that n seeds for each method resolve, if both methods have the standard deviation `sd`."""

    n: int
    sd: float
    critical: float  # `differences below this are not resolved at n seeds`: no smaller observed difference has p < alpha
    detectable: float  # a true difference of this size is found with probability `power`
    power: float
    alpha: float


def pooled_sd(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Compute the pooled standard deviation and its degrees of freedom, of methods that are assumed to have equal variance.

    sd = √(Σ (n_i − 1) s_i² / Σ (n_i − 1))

    Args:
        groups: a method's values, one a seed, each; those of one seed add nothing.

    Raises:
        UserError: no method has two seeds.
    """
    groups = [values for values in map(checked, groups) if values.ndim and values.size > 1]
    df = sum(values.size - 1 for values in groups)
    if df == 0:
        raise UserError("no method has two seeds, so there is no spread; train at least 3 seeds of one")
    return math.sqrt(sum((values.size - 1) * float(values.var(ddof=1)) for values in groups) / df), df


def sd_interval(sd: float, df: int, level: float = 0.95) -> tuple[float, float]:
    """Compute the confidence interval of a standard deviation: sd · √(df / χ²_{df}), for normally distributed runs.

    Args:
        sd: from `pooled_sd`, or of one method.
        df: its degrees of freedom; n − 1 for one method.
        level: coverage.
    """
    tail = (1 - fraction(level, "level")) / 2
    return sd * math.sqrt(df / special.chdtri(df, tail)), sd * math.sqrt(df / special.chdtri(df, 1 - tail))


def power(difference: float, sd_a: float, sd_b: float, n: int, alpha: float = 0.05) -> float:
    """Compute the probability that `welch_test` on n seeds each finds a true difference (p < alpha).

    P(|T'| > t_{1−α/2, ν}), T' noncentral t with δ = difference / √((sd_a² + sd_b²) / n) and Welch's ν at these spreads:
    exact but for ν, which a test has to estimate. At n = 2, 3, 4, 5 and 10 and equal spreads, a power of .80 here was
    .48, .70, .76, .78 and .80 in simulation. Paired runs: sd_a = spread of the differences, sd_b = 0.

    Source: Cohen 1988, ch. 2; unequal spreads: Moser, Stevens & Watts 1989.
    """
    error, df = _error(sd_a, sd_b, n)
    critical = special.stdtrit(df, 1 - fraction(alpha, "alpha") / 2)
    delta = abs(difference) / error
    return 1 - noncentral_t(critical, df, delta) + noncentral_t(-critical, df, delta)


def critical_difference(sd_a: float, sd_b: float, n: int, alpha: float = 0.05) -> float:
    """Compute the smallest observed difference with p < alpha, given these observed spreads: t_{1−α/2, ν} · SE."""
    error, df = _error(sd_a, sd_b, n)
    return float(special.stdtrit(df, 1 - fraction(alpha, "alpha") / 2)) * error


def detectable_difference(sd_a: float, sd_b: float, n: int, aimed_power: float = 0.8, alpha: float = 0.05) -> float:
    """Compute the true difference at which `power` reaches `aimed_power` (above alpha)."""
    if not alpha < fraction(aimed_power, "aimed_power"):
        raise UserError(f"aimed_power={aimed_power} must be above alpha={alpha}, which chance alone reaches")
    error, _ = _error(sd_a, sd_b, n)
    high = error
    while power(high, sd_a, sd_b, n, alpha) < aimed_power:
        high *= 2
    return float(optimize.brentq(lambda d: power(d, sd_a, sd_b, n, alpha) - aimed_power, 0, high, xtol=1e-10 * error))


def noise_floor(sd: float, n: int, comparisons: int = 1, aimed_power: float = 0.8, alpha: float = 0.05) -> NoiseFloor:
    """Compute both floors of a table whose methods have standard deviation `sd` and n seeds each.

    Args:
        sd: > 0, from `pooled_sd`.
        n: ≥ 2.
        comparisons: of the table. With more than one, Holm's first step is taken (alpha / comparisons): what passes it is
            resolved whatever the others show.
    """
    if comparisons < 1:
        raise UserError(f"comparisons={comparisons} must be at least 1")
    level = alpha / comparisons
    return NoiseFloor(
        n, sd, critical_difference(sd, sd, n, level), detectable_difference(sd, sd, n, aimed_power, level), aimed_power, level
    )


def seeds_needed(difference: float, sd_a: float, sd_b: float, aimed_power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Compute the seeds (at least 3) that each method needs so that `welch_test` finds a true difference with `aimed_power`.

    For the difference that matters, not for the one observed: an observed difference that was picked because it looks
    good is too large on average, and n from it too small. An answer of 3 or 4 is about one short (see `power`); 2 is never
    given, since there a promised .80 would be .48.

    Returns:
        None if no number up to 10,000 does, or if neither method spreads.
    """
    if difference == 0 or sd_a == sd_b == 0:
        return None

    def enough(n: int) -> bool:
        return power(difference, sd_a, sd_b, n, alpha) >= aimed_power

    fraction(aimed_power, "aimed_power")
    low, high = LEAST_SEEDS - 1, LEAST_SEEDS
    while not enough(high):
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _error(sd_a: float, sd_b: float, n: int) -> tuple[float, float]:
    """Compute the standard error of the difference and Welch's degrees of freedom, n seeds each."""
    if not (min(sd_a, sd_b) >= 0 < max(sd_a, sd_b) < math.inf):
        raise UserError(f"spreads {sd_a} and {sd_b}: both must be finite, none below 0 and one above")
    if n < 2:
        raise UserError(f"n={n}: one seed gives no spread; at least 2")
    a, b = np.square([sd_a, sd_b], dtype=np.float64) / max(sd_a, sd_b) ** 2  # relative: 1e-200² would vanish
    return max(sd_a, sd_b) * math.sqrt((a + b) / n), (n - 1) * float((a + b) ** 2 / (a**2 + b**2))
