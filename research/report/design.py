"""Whether a study is a full factorial design, and its values as an array; what an analysis of variance needs."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from research.report.factors import shown
from research.report.study import Group, Study
from research.types import Json


class Design(NamedTuple):
    """Every combination of the factors' levels, once.

    Attributes:
        factors: in the order of the axes.
        levels: of each factor, as a table shows them.
        cells: combination of levels → group, in the order of the axes.
        names: factor → what tables call it.
    """

    factors: list[str]
    levels: list[list[str]]
    cells: dict[tuple[str, ...], Group]
    names: dict[str, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Count the levels of each factor."""
        return tuple(map(len, self.levels))

    @property
    def seeds(self) -> list[int | None]:
        """List the seeds that every combination has a value of, in order."""
        first, *rest = self.cells.values()
        return sorted((seed for seed in first.values if all(seed in group.values for group in rest)), key=_order)

    def crossed(self) -> np.ndarray:
        """Return (*shape, len(seeds)), a value for each combination and each of the seeds that all have."""
        rows = [[group.values[seed] for seed in self.seeds] for group in self.cells.values()]
        return np.array(rows, dtype=np.float64).reshape(*self.shape, len(self.seeds))

    def nested(self) -> np.ndarray | None:
        """Return (*shape, n), the n values of each combination, whatever their seeds; None where their numbers differ."""
        if len({len(group.values) for group in self.cells.values()}) > 1:
            return None
        rows = [[group.values[seed] for seed in sorted(group.values, key=_order)] for group in self.cells.values()]
        return np.array(rows, dtype=np.float64).reshape(*self.shape, -1)


def design(study: Study) -> tuple[Design | None, str]:
    """Return the study as a full factorial design; or None, and the reason why it is none.

    An option that some settings have not (r beside full fine-tuning) is a level of its own, –; where it goes with another
    option, combinations are missing, and the design is not full.
    """
    names = study.names
    levels = [_levels(study, name) for name in study.factors]
    factors = [name for name, texts in zip(study.factors, levels, strict=True) if len(texts) > 1]
    levels = [texts for texts in levels if len(texts) > 1]
    if len(factors) < 2:
        return None, "the study has fewer than two factors"
    groups: dict[tuple[str, ...], Group] = {}
    for group in study.groups:
        key = tuple(shown(group.factors[name]) for name in factors)
        if key in groups:
            return None, f"two groups have {_setting(factors, key, names)}, of other data or code"
        groups[key] = group
    combinations = itertools.product(*levels)  # of a random search too many to list
    size, known = math.prod(map(len, levels)), sum(bool(group.values) for group in groups.values())
    if known < size:
        first = next(key for key in combinations if key not in groups or not groups[key].values)
        return None, (
            f"{size - known:,} of {size:,} combinations of the factors have no value, such as {_setting(factors, first, names)}"
        )
    return Design(factors, levels, {key: groups[key] for key in combinations}, names), ""


def _levels(study: Study, factor: str) -> list[str]:
    """List a factor's levels: numbers by size, others by name, and where the option does not exist first."""
    values = {shown(group.factors[factor]): group.factors[factor] for group in study.groups}
    return sorted(values, key=lambda text: _order(values[text]))


def _order(value: Json) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (1, float(value), "") if number else (2, 0.0, shown(value))


def _setting(factors: list[str], key: tuple[str, ...], names: dict[str, str]) -> str:
    return " ".join(f"{names[name]}={value}" for name, value in zip(factors, key, strict=True))
