"""The certainty of a validation: an interval for each metric over its examples, and whether they single out one checkpoint.

Both are about these checkpoints on examples like these, and say nothing of other seeds.
"""

import math
from collections.abc import Mapping

import numpy as np

from research.metrics.significance import MOST, mean_interval

Values = Mapping[str, float]
"""Example → value of a metric."""


def intervals(per_example: Mapping[str, Values], weights: Values | None = None) -> dict[str, tuple[float, float]]:
    """Compute the 95% bootstrap interval of each metric's mean over examples.

    Args:
        per_example: metric → its values.
        weights: of the examples in `loss` and `token_accuracy`, which are means over tokens.
    """
    out = {}
    for metric, values in per_example.items():
        weighted = weights if metric in ("loss", "token_accuracy") else None
        numbers = np.array([values[name] for name in values])
        if len(numbers) > 1 and np.isfinite(numbers).all():
            out[metric] = _interval(numbers, None if weighted is None else np.array([weighted[name] for name in values]))
    if "loss" in out:
        out["perplexity"] = tuple(math.exp(min(bound, 700)) for bound in out["loss"])
    return out


def _interval(values: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    if weights is None:
        return mean_interval(values)
    # of a ratio of sums: the mean over tokens of resampled rows
    rng = np.random.default_rng(0)
    means = []
    for _ in range(min(2000, max(200, MOST // len(values)))):
        rows = rng.integers(0, len(values), len(values))
        means.append(np.average(values[rows], weights=weights[rows]))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def doubts(metric: str, best: int, checkpoints: Mapping[int, Values], untrained: Values | None) -> list[str]:
    """List the sentences that the user must read about the choice of the best model.

    A checkpoint is told from the best one where the 95% bootstrap interval of their paired difference over the examples does
    not hold 0. The sample is too small to choose by where that is so of no other checkpoint; and to see a gain where it is
    not so of the untrained model.

    Args:
        metric: by which the best was chosen.
        best: its step.
        checkpoints: step → values of the metric, of each validation.
        untrained: values before the training; None where they are not known.
    """
    chosen, warnings = checkpoints.get(best), []
    if chosen is None or len(chosen) < 2:
        return warnings
    others = {step: values for step, values in checkpoints.items() if step != best and values.keys() == chosen.keys()}
    count, steps = f"{len(chosen):,} examples", ", ".join(map(str, sorted(others)))
    if others and not any(_differs(chosen, values) for values in others.values()):
        warnings.append(
            f"the validation's {count} are too few to choose a model by {metric}: step {best} is kept, and within chance of "
            f"{'each other checkpoint' if len(others) > 1 else 'the other checkpoint'} (step {steps}). Validate on more, or "
            "fix the number of steps beforehand"
        )
    if untrained is not None and untrained.keys() == chosen.keys() and not _differs(chosen, untrained):
        warnings.append(f"on the validation's {count} the change in {metric} since the untrained model is within chance")
    return warnings


def _differs(a: Values, b: Values) -> bool:
    difference = np.array([a[name] - b[name] for name in a])
    if not np.isfinite(difference).all():
        return True
    low, high = _interval(difference)
    return not low <= 0 <= high
