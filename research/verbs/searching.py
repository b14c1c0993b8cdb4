"""The early termination of a training by its sweep."""

from pathlib import Path


def pruning(out: Path) -> list:
    """The callback of a training that its sweep may end early; none elsewhere."""
    from research.sweeps.outcome import early_termination
    from research.training.pruning import Pruning

    rule = early_termination(out)
    return [] if rule is None else [Pruning(out, *rule)]
