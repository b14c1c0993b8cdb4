"""Test whether two methods differ when both the seeds and the queries are drawn again.

Of the components of a run's value on a query,

    y_msq = μ_m + S_ms + Q_q + (MQ)_mq + e_msq          method m, seed s, query q

Q_q cancels from a difference of methods. `welch_test` on means sees S and e, and takes MQ (which queries suit which
method) as fixed; `significance.compare` sees MQ and e, and takes S (this training run's luck) as fixed. Here all count.

Not offered, after simulation: the hierarchical bootstrap (seeds drawn again, within them queries, percentile interval).
Where seeds spread widely its 95% interval holds the truth in 81%, 88% and 92% of repetitions at n = 3, 5 and 10 seeds,
since n values drawn again spread by only (n − 1) / n of what they should, and a percentile knows no t. Nor Satterthwaite's
df for the sum of all components: up to 7.6% false positives at n = 3, where one method spreads and the other does not or
has no seeds. Offered instead: at most 6.0% with equal numbers of seeds and 5 to 200 queries, whichever component leads and
whichever method spreads (40,000 repetitions a setting; what exceeds 5% is Welch's own excess, see seeds.py).
"""

import math

import numpy as np
from scipy import optimize, special

from research.errors import UserError
from research.metrics.seeds import (
    NAN,
    NO_SPREAD,
    ONE_SEED,
    MethodComparison,
    checked,
    negligible,
    standardised,
    t_quantile,
    unequal,
    untestable,
)

SMALLEST = 1e-300  # a smaller p is given as this one
FEW_QUERIES = 10  # below this 6% false positives also at 10 seeds


def seeds_and_queries_test(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> MethodComparison:
    """Test a difference of means over random seeds and queries, by t' with Cochran and Cox's weighted critical value.

    u_s = s_a² / n_a + s_b² / n_b             over seed means; Welch's df ν_s
    u_q = var_q(b̄_q − ā_q) / Q                over per-query differences of the methods' means; df Q − 1
    u_e = Σ_m MS_e,m / (n_m · Q)              the seed × query residual, which both of them contain
    w_q = max(0, u_q − min(u_e, u_s))         so that the residual counts once, and u_s + w_q ≥ u_q
    t'  = (b̄ − ā) / √(u_s + w_q), against the critical value (u_s · t(ν_s) + w_q · t(Q − 1)) / (u_s + w_q)

    With seeds only this is `welch_test`, with queries only the paired t test; between them `df` is NaN.

    Claims: trained again with other seeds, on other queries like these, the methods' means would differ.

    Args:
        a: (n_a, Q) values of the baseline, a row a seed, the same queries in the same columns; or (Q,) for a method
            without seeds.
        b: (n_b, Q) or (Q,), the other method.
        level: coverage of the interval.

    Raises:
        UserError: other numbers of queries, fewer than 2, or a value that is not finite.

    Source: components, Cornfield & Tukey 1956; as a test with two random factors, Clark 1973 (F'); weights of the critical
    value, Cochran & Cox 1957.
    """
    a, b = checked(a), checked(b)
    queries = a.shape[-1] if a.ndim else 0
    if not (1 <= a.ndim <= 2 and 1 <= b.ndim <= 2) or b.shape[-1] != queries or queries < 2:
        raise UserError(
            f"values of shapes {a.shape} and {b.shape}: (seeds, queries) or (queries,), the same two or more queries in both"
        )
    seeds = tuple(x.shape[0] if x.ndim == 2 else 0 for x in (a, b))
    difference = float(b.mean() - a.mean())
    if 1 in seeds:
        return untestable(difference, seeds, ONE_SEED)
    per_query = _over_seeds(b) - _over_seeds(a)  # (Q,)
    seeded = [x for x in (a, b) if x.ndim == 2]
    parts = [(float(x.mean(axis=1).var(ddof=1)) / x.shape[0], x.shape[0] - 1) for x in seeded]
    u_s, u_q, u_e = sum(u for u, _ in parts), float(per_query.var(ddof=1)) / queries, sum(map(_residual, seeded))
    if negligible(math.sqrt(u_s), a, b):
        u_s = 0.0
    w_q = max(0.0, u_q - min(u_e, u_s))
    error = math.sqrt(u_s + w_q)
    if negligible(error, a, b):
        return untestable(difference, seeds, NO_SPREAD + ", nor over queries")
    weights = [(w_q / error**2, queries - 1)]
    if u_s:
        weights.append((u_s / error**2, u_s**2 / sum(u**2 / nu for u, nu in parts)))
    critical = sum(w * t_quantile(level, nu) for w, nu in weights)
    means = [x.mean(axis=1) if x.ndim == 2 else x.mean() for x in (a, b)]
    note = unequal(seeds) or (
        f"{queries} queries: up to 6% false positives at a nominal 5% below {FEW_QUERIES}" if queries < FEW_QUERIES else ""
    )
    return MethodComparison(
        difference=difference,
        low=difference - critical * error,
        high=difference + critical * error,
        p=_p(abs(difference) / error, weights),
        error=error,
        df=NAN,
        g=standardised(*means) if seeded else NAN,
        seeds=seeds,
        note=note,
    )


def _over_seeds(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=0) if x.ndim == 2 else x


def _residual(x: np.ndarray) -> float:
    """Compute MS_e / (n · Q) of an (n, Q) table: the variance that remains after its row and column means are removed."""
    n, queries = x.shape
    left = x - x.mean(axis=1, keepdims=True) - x.mean(axis=0, keepdims=True) + x.mean()
    return float((left**2).sum()) / ((n - 1) * (queries - 1)) / (n * queries)


def _p(t: float, weights: list[tuple[float, float]]) -> float:
    """Find the alpha at which the weighted critical value is t: between the p that each component's df alone would give."""
    ends = [2 * float(special.stdtr(nu, -t)) for w, nu in weights if w > 0]
    low, high = max(min(ends), SMALLEST), max(ends)
    if high - low <= 1e-12 * high:  # also where both vanish
        return high

    def excess(log_alpha: float) -> float:
        return sum(w * -special.stdtrit(nu, math.exp(log_alpha) / 2) for w, nu in weights) - t

    low, high = math.log(low), math.log(high)
    return math.exp(optimize.brentq(excess, low, high, xtol=1e-12) if excess(low) > 0 > excess(high) else high)
