"""How much of a metric's variance each factor explains: exactly on a full factorial design, by fANOVA elsewhere.

The seed is a factor of its own: what it explains is noise, and a factor that explains no more has not been shown to matter.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from research.metrics.factorial import variance_parts
from research.metrics.fanova import main_effects
from research.progress import say
from research.report.design import Design, design
from research.report.factors import short_names, shown
from research.report.study import Study
from research.types import Json

EXACT, FOREST = "exact", "forest"
SEED = "seed"
FORESTS = 5  # grown from seeds 0 to 4: their range says what the forest's own chance is
TREES = 64
LOG_FROM = 4  # a number that spans so many times its least value is looked at on a log scale
MOST_SEEDS = 16  # with more, nearly each run has its own, and the seed would explain every one of them
GAP = 1e-3  # between the code of "has no such option" and the least number


class Share(NamedTuple):
    """What a factor, or factors together, explain.

    Attributes:
        label: r, r × lora_alpha/r, seed.
        order: 1 a factor alone, 2 and more an interaction, 0 the seed.
        share: of the variance over all settings and seeds, 0 to 1.
        low, high: over forests; of the exact decomposition share itself.
        chance: share that noise alone gives so many levels; NaN where it is not known.
    """

    label: str
    order: int
    share: float
    low: float
    high: float
    chance: float = math.nan


class Importance(NamedTuple):
    """Shares, the largest factor first, then interactions, then the seed.

    Attributes:
        kind: exact | forest.
        shares: of factors, interactions (exact only) and the seed (where there are seeds).
        rest: share of what is not listed: exact, the seed's interactions with the factors; forest, all interactions.
        notes: how it was made, and what weakens it.
    """

    kind: str
    shares: list[Share]
    rest: float
    notes: list[str]

    @property
    def seed(self) -> float | None:
        """Return what the seed alone explains; None where the runs do not tell."""
        return next((share.share for share in self.shares if not share.order), None)


def importance(study: Study) -> Importance | None:
    """Compute shares of variance; None where there are fewer than two factors, or no variance."""
    varied = [name for name in study.factors if len({shown(g.factors[name]) for g in study.groups if g.values}) > 1]
    values = [value for group in study.groups for value in group.values.values()]
    if len(varied) < 2 or len(values) < 3 or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return None
    full, reason = design(study)
    result = exact(full) if full else forest(study, varied, reason)
    if result is None or result.seed is None:
        return result
    weak = [share.label for share in result.shares if share.order == 1 and share.share <= result.seed]
    verb = "explains" if len(weak) == 1 else "explain"
    doubt = [f"Noise floor: {', '.join(weak)} {verb} no more than the seed alone ({result.seed:.1%})."] if weak else []
    return result._replace(notes=[*result.notes, *doubt])


def exact(design: Design) -> Importance:
    """Decompose the variance of a full grid, factors × seeds; every value counts alike.

    `chance` is the share that an effect of its degrees of freedom has on average if nothing but noise is there: df times the
    mean square within settings, over the total.
    """
    names, seeds, k = _names(design.factors, design.names), design.seeds, len(design.factors)
    crossed = len(seeds) > 1
    values = design.crossed() if seeds else _means(design)[..., None]
    parts = variance_parts(values if crossed else values[..., 0])
    total = sum(parts.values())
    noise = sum(part for axes, part in parts.items() if k in axes) / (math.prod(design.shape) * max(1, len(seeds) - 1))
    shares, higher = [], []
    for axes, part in parts.items():
        df = math.prod(values.shape[axis] - 1 for axis in axes)
        label = " × ".join(names[design.factors[axis]] for axis in axes if axis < k)
        chance = df * noise / total if crossed else math.nan
        if k in axes:
            shares += [_exact_share(SEED, 0, part / total)] if axes == (k,) else []
        elif len(axes) < 3:
            shares.append(_exact_share(label, len(axes), part / total, chance))
        else:
            higher.append((part / total, chance))
    if higher:
        label = "three factors and more" if k > 3 else "all three factors"
        shares.append(_exact_share(label, 3, *map(sum, zip(*higher, strict=True))))
    # what is left of 1 by rounding is nothing
    rest = max(0.0, sum(part for axes, part in parts.items() if k in axes and len(axes) > 1) / total)
    method = f"Exact decomposition of the full factorial design, {' × '.join(map(str, design.shape))} settings" + (
        f" × {len(seeds)} seeds." if crossed else "."
    )
    notes = [method] + (
        [f"The remaining {rest:.1%} are the seeds' interactions with the factors: noise too."] if crossed else []
    )
    if not crossed:
        reason = "the settings have one seed in common" if seeds else "the settings have no seed in common, means are compared"
        notes.append(f"No noise floor: {reason}; train each with the same two or more.")
    elif dropped := sum(len(group.values) - len(seeds) for group in design.cells.values()):
        notes.append(f"Of the seeds that every setting has; values of others ({dropped}) are left out.")
    return Importance(EXACT, _sorted(shares), rest, notes)


def forest(study: Study, factors: list[str], reason: str) -> Importance | None:
    """Compute fANOVA: the main effects of random forests that were fitted to the runs.

    Args:
        study: groups.
        factors: those that vary.
        reason: why the design is not full.
    """
    rows = [(group, seed, value) for group in study.groups for seed, value in group.values.items()]
    seeds = sorted({str(seed) for _, seed, _ in rows})
    use_seed = 1 < len(seeds) <= MOST_SEEDS and len(seeds) < len(rows)
    names = _names(factors, study.names)
    columns = {
        names[name]: _encode([group.factors[name] for group, _, _ in rows], _has_levels(study, name)) for name in factors
    }
    if use_seed:
        columns[SEED] = _categories([str(seed) for _, seed, _ in rows])
    values = np.array([value for _, _, value in rows])
    values = (values - values.min()) / np.ptp(values)  # shares have no unit; a forest does not split what varies by 1e-8
    # a forest draws rows by number: the order in which runs were named must not matter
    order = np.lexsort([values, *(codes for codes, _, _ in columns.values())])
    columns = {label: (codes[order], low, high) for label, (codes, low, high) in columns.items()}
    table, bounds = (np.stack([codes for codes, _, _ in columns.values()], axis=1), [ends for _, *ends in columns.values()])
    effects = (main_effects(table, np.array(bounds), values[order], TREES, seed) for seed in range(FORESTS))
    # the last digits of a matrix product depend on the number of threads; a report may not
    try:
        by_forest = [[round(share, 12) for share in shares.tolist()] for shares in effects]
    except ModuleNotFoundError as error:
        say(f"warning: no fANOVA: {error.name} is not installed (pip install 'tandem-research[report]')")
        return None
    shares = [
        Share(label, int(label != SEED), math.fsum(values) / FORESTS, min(values), max(values))
        for label, values in zip(columns, zip(*by_forest, strict=True), strict=True)
    ]
    rest = max(0.0, 1 - sum(share.share for share in shares))
    notes = [
        f"fANOVA: main effects of {FORESTS} random forests of {TREES} trees on {len(rows)} runs, and their range; the "
        f"remaining {rest:.1%} are interactions. It is an estimate: {reason}."
    ]
    if not use_seed:
        notes.append(
            "No noise floor: " + ("all runs have one seed." if len(seeds) < 2 else "nearly every run has a seed of its own.")
        )
    return Importance(FOREST, _sorted(shares), rest, [*notes, *_dependence_notes(study, factors, names)])


def _names(factors: list[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Map each factor to its name in tables; a factor called `seed` gets its short name, since the seed has a row itself."""
    names = short_names([*factors, SEED])
    return {name: names[name] if labels[name] == SEED else labels[name] for name in factors}


def _exact_share(label: str, order: int, share: float, chance: float = math.nan) -> Share:
    return Share(label, order, share, share, share, chance)


def _sorted(shares: list[Share]) -> list[Share]:
    """Sort factors first, then interactions, the largest first; the seed last."""
    return sorted(shares, key=lambda share: (not share.order, share.order, -share.share, share.label))


def _means(design: Design) -> np.ndarray:
    means = [sum(group.values.values()) / len(group.values) for group in design.cells.values()]
    return np.array(means).reshape(design.shape)


def _dependence_notes(study: Study, factors: list[str], names: dict[str, str]) -> list[str]:
    """Write notes on options that some settings lack, and on factors that follow from another."""
    notes = []
    groups = [group for group in study.groups if group.values]
    texts = {name: [shown(group.factors[name]) for group in groups] for name in factors}
    if some := [names[name] for name in factors if any(group.factors[name] is None for group in groups)]:
        notes.append(f"Where a setting has no {' or '.join(some)}, that counts as a value of its own.")
    for name in factors:
        for other in factors:
            pairs = len({*zip(texts[name], texts[other], strict=True)})
            if name != other and pairs == len({*texts[other]}) and (pairs > len({*texts[name]}) or name < other):
                notes.append(f"{names[name]} follows from {names[other]}: how the two share what they explain is arbitrary.")
    return notes


# ---- the forest -----------------------------------------------------------------------------------------------------


def _has_levels(study: Study, factor: str) -> bool:
    """Return whether a factor is a list of values, each in two settings or more on average, not numbers drawn from a range."""
    known = [group.factors[factor] for group in study.groups if group.values and group.factors[factor] is not None]
    numbers = [
        value for value in known if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]
    return len(numbers) < len(known) or 2 * len({*numbers}) <= len(known)


def _encode(values: list[Json], has_levels: bool) -> tuple[np.ndarray, float, float]:
    """Turn a factor's values into numbers; return also the range that a forest integrates over.

    Levels become 0, 1, …, each with the same weight; that the option does not exist is one of them. Other numbers stay where
    they are in [0, 1], by their logarithm where they span LOG_FROM times their least; below them lies, with the weight that
    it has among the runs, that the option does not exist. (With one column a category, as Optuna codes them, a forest
    integrates over combinations that cannot be; with the numbers' plain range, the levels at its ends count half.)
    """
    if has_levels:
        return _categories([shown(value) for value in values])
    numbers = [value for value in values if value is not None]
    low, high = min(numbers), max(numbers)
    scale = math.log2 if low > 0 and high / low >= LOG_FROM else float
    span = (scale(high) - scale(low)) or 1.0
    absent = values.count(None)
    codes = np.array([-GAP if value is None else (scale(value) - scale(low)) / span for value in values])
    return codes, min(-GAP, -GAP / 2 - absent / len(numbers)) if absent else 0.0, 1.0


def _categories(texts: list[str]) -> tuple[np.ndarray, float, float]:
    """Number the texts 0, 1, … by name; a threshold between two lies in their middle: each has one unit of the range."""
    levels = sorted({*texts})
    return np.array([float(levels.index(text)) for text in texts]), -0.5, len(levels) - 0.5
