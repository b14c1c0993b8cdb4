"""Test whether two methods are equal up to a margin, over seeds on fixed queries: what a claim of `no difference` needs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import special

from research.errors import UserError
from research.metrics.seeds import NAN, fraction, welch_test


class Equivalence(NamedTuple):
    """Two one-sided tests of |mean of b − mean of a| ≥ margin."""

    difference: float
    low: float  # interval of level 1 − 2·alpha: inside ±margin exactly when p < alpha
    high: float
    margin: float
    p: float  # the larger of the two one-sided p
    equivalent: bool  # False means not shown, never that the methods differ
    note: str


def equivalence_test(a: Sequence[float] | float, b: Sequence[float] | float, margin: float, alpha: float = 0.05) -> Equivalence:
    """Test by TOST with Welch's standard error whether the methods' means are within `margin` of each other.

    p = max(P(T ≥ (d + m) / SE), P(T ≤ (d − m) / SE)) with Welch's SE and df. A large p of `welch_test` shows nothing: at
    three seeds most real differences have one.

    Args:
        a, b: as in `welch_test`.
        margin: > 0, in the metric's units; the largest difference that does not matter, fixed before any value is seen.
        alpha: the share of pairs a margin apart, or more, that may be called equivalent.

    Raises:
        UserError: margin ≤ 0, and as `welch_test`.

    Source: Schuirmann 1987; with Welch's df, Gruman, Cribbie & Arpin-Cribbie 2007.
    """
    if not 0 < margin < math.inf:
        raise UserError(f"margin={margin} must be above 0: the largest difference, in the metric's units, that does not matter")
    test = welch_test(a, b, level=1 - 2 * fraction(alpha, "alpha", below=0.5))
    if math.isnan(test.p):
        return Equivalence(test.difference, NAN, NAN, margin, NAN, False, test.note)
    p = max(
        float(special.stdtr(test.df, -(test.difference + margin) / test.error)),
        float(special.stdtr(test.df, (test.difference - margin) / test.error)),
    )
    return Equivalence(test.difference, test.low, test.high, margin, p, p < alpha, test.note)
