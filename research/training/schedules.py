"""Learning-rate schedules: warmup, then decay. Pure functions of the step."""

import math

DECAYS = ("linear", "cosine", "constant")


def rate(step: int, steps: int, warmup: int, decay: str) -> float:
    """The factor of the learning rate.

    Args:
        step: optimizer steps already taken, 0 to steps − 1.
        steps: of the whole training.
        warmup: steps over which the factor rises linearly; step 0 then has 1/warmup... of it, never 0.
        decay: "linear" to 0, "cosine" to 0, or "constant".

    Returns:
        in (0, 1].
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    if decay == "constant":
        return 1.0
    return 1 - done if decay == "linear" else (1 + math.cos(math.pi * done)) / 2
