"""The false positive rate of Welch's test with unequal numbers of seeds.

    t = (b̄ − ā) / √(s_a²/n + s_b²/m),   df by Satterthwaite, a function of the two variances' ratio alone

With R = ν_a s_a²/σ_a² + ν_b s_b²/σ_b², which is χ² with ν = ν_a + ν_b, and its share B = ν_a s_a²/σ_a² / R, which is
Beta(ν_a/2, ν_b/2) and independent of R, t is Student's t with ν degrees of freedom times a function of B. So the rate of
false positives is one integral over B; no simulation is needed. Welch 1947; the Beta form: Lee & Gurland 1975.
"""

import functools
import math

import numpy as np
from scipy import optimize, special

NODES, WEIGHTS = np.polynomial.legendre.leggauss(1500)


def false_positives(n: int, m: int, ratio: float, level: float = 0.05) -> float:
    """Compute how often Welch's test rejects although the means are equal, for normal values.

    Args:
        n, m: values of a and of b, 2 or more.
        ratio: of the variances, σ_a² / σ_b², above 0.
        level: nominal.
    """
    a, b = n - 1, m - 1
    share = special.betaincinv(a / 2, b / 2, (NODES + 1) / 2)  # by its quantiles: the integrand stays smooth at 0 and 1
    share = np.clip(share, 1e-300, 1 - 1e-16)
    part_of_a = ratio * share / (a * n)  # of a in the squared error, in units of R σ_b²
    part_of_b = (1 - share) / (b * m)
    df = (part_of_a + part_of_b) ** 2 / (part_of_a**2 / a + part_of_b**2 / b)
    critical = special.stdtrit(df, 1 - level / 2)
    scaled = critical * np.sqrt((a + b) * (part_of_a + part_of_b) / (ratio / n + 1 / m))
    return float(WEIGHTS @ special.stdtr(a + b, -scaled))  # two sides, over weights that add up to 2


@functools.cache
def most_false_positives(n: int, m: int, level: float = 0.05) -> float:
    """Compute the largest false positive rate over all ratios of the variances."""
    grid = np.linspace(-12, 12, 97)  # of log ratio; beyond, one side is as good as known
    rates = [false_positives(n, m, math.exp(x), level) for x in grid]
    best = int(np.argmax(rates))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    optimum = optimize.minimize_scalar(
        lambda x: -false_positives(n, m, math.exp(x), level), bounds=(low, high), method="bounded"
    )
    return max(rates[best], -float(optimum.fun))
