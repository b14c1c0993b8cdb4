"""Early termination by W&B's rule, so that one YAML stops the same points here as on its server.

A run is looked at each time it has a new value of the metric. Bands are numbers of values: min_iter, min_iter·eta, … or
max_iter/eta, max_iter/eta², … (s of them). At the last band that it has reached, a run is stopped where its best value so far
(`strict`, the default: its value at the band) is worse than that of the best 1/eta of all runs at that band.

Source: W&B's package `sweeps` (tests/parity/test_wandb_sweeps.py compares them); Li et al. 2018, Hyperband, of which this is
one bracket.
"""

import math
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.types import Json

DEFAULTS = {"eta": 3, "strict": True}
BANDS = 100
FIELDS = {"type", "min_iter", "max_iter", "s", "eta", "strict"}


def checked_rule(facts: dict, metric: dict, path: Path) -> dict | None:
    """Check a sweep's early_terminate, and return it; None where it has none.

    Args:
        facts: the sweep's YAML.
        metric: of the sweep.
        path: of the YAML, for messages.

    Raises:
        UserError: it is not W&B's hyperband.
    """
    rule = facts.get("early_terminate")
    if rule is None:
        return None
    if not isinstance(rule, dict) or rule.get("type") != "hyperband":
        given = rule.get("type") if isinstance(rule, dict) else rule
        raise UserError(f"{path}: early_terminate.type is {given!r}; expected hyperband. Correct it.")
    if unknown := rule.keys() - FIELDS:
        raise UserError(
            f"{path}: early_terminate has {sorted(unknown)[0]!r}; expected {', '.join(sorted(FIELDS))}. Correct it."
        )
    if "min_iter" not in rule and "max_iter" not in rule:
        raise UserError(
            f"{path}: early_terminate has neither min_iter nor max_iter; expected one of them (max_iter with s). Add it."
        )
    numbers = {"min_iter": 1, "max_iter": 1, "s": 1, "eta": 1}
    for name, least in numbers.items():
        value = rule.get(name, least + 1)
        whole = isinstance(value, int) or (name == "eta" and isinstance(value, float))
        if isinstance(value, bool) or not whole or value < least or (name == "eta" and value <= 1):
            raise UserError(
                f"{path}: early_terminate.{name}={value!r}; expected "
                f"{'above 1' if name == 'eta' else 'a whole number of 1 or more'}. Correct it."
            )
    if "max_iter" in rule and "s" not in rule:
        raise UserError(f"{path}: early_terminate has max_iter without s; expected how many bands lie below it. Add s: 2.")
    if "max_iter" in rule and rule["max_iter"] < rule.get("eta", 3):
        raise UserError(
            f"{path}: early_terminate.max_iter={rule['max_iter']} is below eta={rule.get('eta', 3)}: there would "
            "be no band; expected eta or more. Raise it."
        )
    if not isinstance(rule.get("strict", True), bool):
        raise UserError(f"{path}: early_terminate.strict={rule['strict']!r}; expected true or false. Correct it.")
    if not metric.get("name"):
        raise UserError(
            f"{path}: early_terminate without a metric; expected metric: {{name: val/loss, goal: minimize}}. Add it."
        )
    return dict(rule)


def bands(rule: dict[str, Json]) -> list[int]:
    """List the numbers of values at which runs are compared, ascending.

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


def judge(history: list[float], others: list[list[float]], rule: dict[str, Json], goal: str) -> Judged | None:
    """Judge a run by the rule, as it stands now; None before the first band.

    Args:
        history: its values of the metric so far, in order.
        others: those of the other runs of the sweep, whatever has become of them.
        rule: a sweep's early_terminate.
        goal: minimize | maximize.
    """
    rule = DEFAULTS | rule
    sign = -1 if goal == "maximize" else 1
    # a value that is no number was never the best, and must not move those that are
    histories = [[sign * value for value in run if math.isfinite(value)] for run in (history, *others)]
    reached = [band for band in bands(rule) if band <= len(histories[0])]
    if not reached:
        return None
    band = reached[-1]
    values = sorted(history[band - 1] for history in histories if len(history) >= band)
    threshold = values[int(1 / rule["eta"] * len(values))]
    value = histories[0][band - 1] if rule["strict"] else min(histories[0])
    return Judged(band, sign * value, sign * threshold, len(values), rule["eta"], value > threshold)


def is_stopped(history: list[float], others: list[list[float]], rule: dict[str, Json], goal: str) -> bool:
    """Return whether a run is to be stopped now; see `judge`."""
    judgement = judge(history, others, rule, goal)
    return judgement is not None and judgement.stop
