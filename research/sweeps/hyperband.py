"""Early termination by W&B's rule, so that one YAML stops the same points here as on its server.

A run is looked at each time it has a new value of the metric. Bands are numbers of values: min_iter, min_iter·eta, … or
max_iter/eta, max_iter/eta², … (s of them). At the last band that it has reached, a run is stopped where its best value so far
(`strict`, the default: its value at the band) is worse than that of the best 1/eta of all runs at that band.

Source: W&B's package `sweeps` (tests/parity/test_wandb_sweeps.py compares them); Li et al. 2018, Hyperband, of which this is
one bracket.
"""

import math
from typing import Any, NamedTuple

DEFAULTS = {"eta": 3, "strict": True}
BANDS = 100


def bands(rule: dict[str, Any]) -> list[int]:
    """Numbers of values at which runs are compared, ascending.

    Args:
        rule: a sweep's early_terminate, checked by spec.
    """
    rule = DEFAULTS | rule
    if "max_iter" not in rule:  # which stands above min_iter, where a sweep has both
        return [int(rule["min_iter"] * rule["eta"] ** i) for i in range(BANDS)]
    shares = [rule["max_iter"] / rule["eta"] ** i for i in range(1, int(rule["s"]) + 1)]
    return sorted(int(share) for share in shares if share >= 1)


class Judged(NamedTuple):
    """A run at the last band that it has reached.

    Attributes:
        band: number of values.
        value: of the run, that is compared.
        threshold: that it may not be worse than.
        runs: how many have reached the band.
        eta: the best 1/eta of them go on.
        stop: whether this one is stopped.
    """

    band: int
    value: float
    threshold: float
    runs: int
    eta: float
    stop: bool

    def __str__(self) -> str:
        return (
            f"{self.value:.4f} is worse than {self.threshold:.4f}, the threshold of the best 1/{self.eta:g} of {self.runs} "
            f"points at {self.band} values (early_terminate)"
        )


def judged(own: list[float], others: list[list[float]], rule: dict[str, Any], goal: str) -> Judged | None:
    """A run as the rule sees it now; None before the first band.

    Args:
        own: its values of the metric so far, in order.
        others: those of the other runs of the sweep, whatever has become of them.
        rule: a sweep's early_terminate.
        goal: minimize | maximize.
    """
    rule = DEFAULTS | rule
    sign = -1 if goal == "maximize" else 1
    # a value that is no number was never the best, and must not move those that are
    histories = [[sign * value for value in history if math.isfinite(value)] for history in (own, *others)]
    reached = [band for band in bands(rule) if band <= len(histories[0])]
    if not reached:
        return None
    band = reached[-1]
    values = sorted(history[band - 1] for history in histories if len(history) >= band)
    threshold = values[int(1 / rule["eta"] * len(values))]
    value = histories[0][band - 1] if rule["strict"] else min(histories[0])
    return Judged(band, sign * value, sign * threshold, len(values), rule["eta"], value > threshold)


def is_stopped(own: list[float], others: list[list[float]], rule: dict[str, Any], goal: str) -> bool:
    """Whether a run is to be stopped now; see `judged`."""
    found = judged(own, others, rule, goal)
    return found is not None and found.stop
