"""What each factor of a full factorial design explains: the functional ANOVA of a grid, and its F tests.

Every combination of levels holds equally many values, so the parts are orthogonal: sums of squares of type I, II and III are
one, and no part depends on the order of the factors (tests/parity/test_statsmodels.py).
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import special

from research.errors import UserError
from research.metrics.seeds import NAN, ROUNDING

Axes = tuple[int, ...]


class Effect(NamedTuple):
    """A row of an ANOVA table.

    Attributes:
        axes: of the factors whose main effect (one) or interaction (more) it is; () all interactions above the order, together.
        df: degrees of freedom, Π (levels − 1).
        squares: sum of squares, in the squared units of the metric.
        f: mean square over the residual's; NaN without spread of the residual.
        p: of F(df, df of the residual); NaN likewise.
    """

    axes: Axes
    df: int
    squares: float
    f: float
    p: float


class Anova(NamedTuple):
    """An ANOVA table: effects in the order of the factors, then the residual from the spread of the replicates.

    Attributes:
        effects: main effects, interactions of two, …
        block: of the replicates, where they are blocks: axes (), f and p of it; else None.
        df, squares: of the residual.
        total: sum of squares of all values around their mean.
    """

    effects: list[Effect]
    block: Effect | None
    df: int
    squares: float
    total: float


def variance_parts(values: np.ndarray) -> dict[Axes, float]:
    """Split the variance of a grid by functional ANOVA, all weights equal.

    f = f_∅ + Σ_U f_U, and Var f = Σ_U Var f_U over the non-empty subsets U of axes.

    f_U is the mean over the other axes, less all f_T of T ⊂ U. The shares of Hutter et al. are these over Var f.

    Args:
        values: (levels of axis 0, levels of axis 1, …), one value a combination.

    Returns:
        {axes: variance, with n in the denominator}; they add up to values.var().

    Source: Hoeffding 1948; Hutter, Hoos & Leyton-Brown 2014, Eq. 4 to 6.
    """
    values = _finite(values)
    parts = {}
    for size in range(1, values.ndim + 1):
        for axes in itertools.combinations(range(values.ndim), size):
            part = values
            for axis in range(values.ndim):  # projections onto and off an axis commute, so that each is taken once
                mean = part.mean(axis, keepdims=True)
                part = part - mean if axis in axes else mean
            parts[axes] = float((part**2).mean())
    return parts


def anova(values: np.ndarray, blocked: bool = False, order: int = 2) -> Anova:
    """Test main effects and interactions over replicates by F tests.

    The model holds every interaction, so that the residual is the spread of replicates within a setting alone.

    Supposes equal spreads in all settings, and independent replicates (or, blocked, replicates that share an additive shift).

    Args:
        values: (levels of factor 1, …, levels of factor k, n replicates), n ≥ 2.
        blocked: replicate i of every setting shares something (its seed fixes it): a row of its own, taken off the residual.
        order: interactions of more factors are tested together, in one effect with axes ().

    Raises:
        UserError: fewer than two replicates, a factor of one level, or a value that is not finite.

    Source: Fisher 1925; Montgomery, Design and Analysis of Experiments, ch. 5.
    """
    values = _finite(values)
    k, n = values.ndim - 1, values.shape[-1] if values.ndim else 0
    if k < 1 or min(values.shape) < 2:
        raise UserError(f"a design of {values.shape} levels and seeds; an ANOVA needs two or more of each")
    replicate = k
    parts = {axes: part * values.size for axes, part in variance_parts(values).items()}
    factors = {axes: squares for axes, squares in parts.items() if replicate not in axes}
    degrees = {axes: int(np.prod([values.shape[axis] - 1 for axis in axes])) for axes in factors}
    df = (int(np.prod(values.shape[:-1])) - (1 if blocked else 0)) * (n - 1)
    squares = sum(part for axes, part in parts.items() if replicate in axes and not (blocked and axes == (replicate,)))
    error = squares / df
    # a spread below the rounding of sums is none: it would give p = 1e-9 from nothing
    none = error <= (ROUNDING * float(np.abs(values).max())) ** 2

    def tested(axes: Axes, squares: float, degrees: int) -> Effect:
        f = NAN if none else squares / degrees / error
        return Effect(axes, degrees, squares, f, NAN if none else float(special.fdtrc(degrees, df, f)))

    effects = [tested(axes, factors[axes], degrees[axes]) for axes in factors if len(axes) <= order]
    if higher := [axes for axes in factors if len(axes) > order]:
        effects.append(tested((), sum(factors[axes] for axes in higher), sum(degrees[axes] for axes in higher)))
    block = tested((), parts[(replicate,)], n - 1) if blocked else None
    return Anova(effects, block, df, squares, float(((values - values.mean()) ** 2).sum()))


def _finite(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise UserError(
            f"{(~np.isfinite(array)).sum()} of {array.size} values of a design are not finite; expected a number "
            "for every combination. Leave out the failed setting with its level."
        )
    return array
