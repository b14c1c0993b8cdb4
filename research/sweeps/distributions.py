"""The distributions of W&B's sweep parameters, by their quantile functions: one uniform number → one value.

Source: the schema and the percentage points of W&B's package `sweeps` (tests/parity/test_wandb_sweeps.py compares them).
"""

import math
from statistics import NormalDist
from typing import NamedTuple

from research.types import Json

BOUNDED = (
    "uniform",
    "q_uniform",
    "int_uniform",
    "log_uniform",
    "q_log_uniform",
    "inv_log_uniform",
    "log_uniform_values",
    "q_log_uniform_values",
    "inv_log_uniform_values",
)
NORMAL = ("normal", "q_normal", "log_normal", "q_log_normal")
FIELDS = {
    "constant": {"value"},
    "categorical": {"values"},
    "categorical_w_probabilities": {"values", "probabilities"},
    **{name: {"min", "max"} | ({"q"} if name.startswith("q_") else set()) for name in BOUNDED},
    **{name: {"mu", "sigma"} | ({"q"} if name.startswith("q_") else set()) for name in NORMAL},
    "beta": {"a", "b"},
    "q_beta": {"a", "b", "q"},
}
"""distribution → the fields that describe it."""
EDGE = 1e-3  # quantiles at which an unbounded distribution counts as extreme


class Parameter(NamedTuple):
    """One parameter of a sweep.

    Attributes:
        name: dotted, as an option.
        distribution: a key of FIELDS.
        facts: its fields.
        path: of one that is nested in others, their names and its own: W&B passes the outermost as one mapping.
    """

    name: str
    distribution: str
    facts: dict[str, Json]
    path: tuple[str, ...] = ()

    @property
    def values(self) -> list | None:
        """Return all values, where the parameter is a list; else None."""
        if self.distribution == "constant":
            return [self.facts["value"]]
        return list(self.facts["values"]) if self.distribution.startswith("categorical") else None

    def quantile(self, u: float) -> Json:
        """Return the value below which a share u of the draws lies, 0 ≤ u ≤ 1; of a list, the value at that quantile."""
        facts, kind = self.facts, self.distribution
        if (values := self.values) is not None:
            if kind != "categorical_w_probabilities":
                return values[min(int(u * len(values)), len(values) - 1)]
            total, below = sum(facts["probabilities"]), 0.0
            for value, probability in zip(values, facts["probabilities"], strict=True):
                below += probability / total
                if u <= below:
                    return value
            return values[-1]
        if kind == "int_uniform":
            return min(facts["min"] + int(u * (facts["max"] - facts["min"] + 1)), facts["max"])
        plain = kind.removeprefix("q_")
        value = (
            _normal(plain, facts, u) if plain in NORMAL else _beta(facts, u) if plain == "beta" else _bounded(plain, facts, u)
        )
        if not kind.startswith("q_"):
            return value
        q = facts.get("q", 1.0)
        value = round(value / q) * q
        return int(value) if isinstance(q, int) or float(q).is_integer() else value

    def listed(self) -> "Parameter | None":
        """Return the list that W&B's grid makes of the parameter; None where it has no end.

        Source: `sweeps.grid_search`: whole numbers of int_uniform, and of q_uniform min, min + q, … below max.
        """
        facts = self.facts
        if self.distribution in ("constant", "categorical"):
            return self
        if self.distribution == "int_uniform":
            values: list = list(range(facts["min"], facts["max"] + 1))
        elif self.distribution == "q_uniform":
            import numpy as np  # here: every worker reads the sweep as it starts, and few sweeps list a q_uniform

            values = np.arange(facts["min"], facts["max"], facts["q"]).tolist()
            if all(float(facts[name]).is_integer() for name in ("min", "q")):  # 4.0 is no value of a whole option
                values = [int(value) for value in values]
        else:
            return None
        return self._replace(distribution="categorical", facts={"values": values})

    def extremes(self) -> list:
        """Return every value of a list; else the lowest, the middle and the highest."""
        if self.values is not None:
            return self.values
        bounded = self.distribution in BOUNDED
        return [self.quantile(u) for u in ((0.0, 0.5, 1.0) if bounded else (EDGE, 0.5, 1 - EDGE))]


def _bounded(kind: str, facts: dict, u: float) -> float:
    low, high = facts["min"], facts["max"]
    if kind == "uniform":
        return low + u * (high - low)
    if kind == "log_uniform":
        return math.exp(low + u * (high - low))
    if kind == "log_uniform_values":
        return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    if kind == "inv_log_uniform":  # uniform in the logarithm of 1/x
        return math.exp(-(high - u * (high - low)))
    return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))  # inv_log_uniform_values


def _normal(kind: str, facts: dict, u: float) -> float:
    mu, sigma = facts.get("mu", 0.0), facts.get("sigma", 1.0)
    value = NormalDist(mu, sigma).inv_cdf(min(max(u, 1e-12), 1 - 1e-12))
    return math.exp(value) if kind == "log_normal" else value


def _beta(facts: dict, u: float) -> float:
    from scipy.stats import beta  # here: a second, for this distribution alone

    return float(beta.ppf(u, facts.get("a", 1.0), facts.get("b", 1.0)))
