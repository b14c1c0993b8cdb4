"""What the factors of a study do, as tables: each alone, an ANOVA of a full factorial design, and shares of variance."""

import math

import numpy as np

from research.metrics.factorial import Effect, anova
from research.metrics.families import DIFFERS, compare_methods, compare_paired_methods, holm
from research.metrics.seeds import summarise
from research.report.design import Design, design
from research.report.factors import short_names, shown
from research.report.importance import EXACT, Importance, Share
from research.report.numbers import p_value, plain
from research.report.sheets import ALPHA, MARK, NOTHING, Cell, Sheet, decimals, difference_cells, mean_cells, ranks
from research.report.study import Group, Study, marginal


def by_factor(study: Study, factor: str, paired: bool = False) -> Sheet | None:
    """Return marginal means of a factor, over all settings of the others; None where the design is not full.

    A value is, for each seed, the mean over the other factors' settings, so that seeds stay the unit of the spread.

    Args:
        study: groups.
        factor: one of its.
        paired: runs of one seed belong together; used where all levels have the same seeds.
    """
    levels, others = _full_design(study, factor)
    if levels is None:
        return None
    values = {level: marginal([cells[other] for other in others]) for level, cells in levels.items()}
    if not all(values.values()):
        return None
    names, digits = study.names, decimals(study.groups)
    means = [summarise(list(by_seed.values())) for by_seed in values.values()]
    places = ranks([round(mean.mean, digits) for mean in means], study.higher)
    first = next(iter(values))
    paired = paired and len({frozenset(by_seed) for by_seed in values.values()}) == 1
    pairs = {pair.b: pair for pair in (compare_paired_methods if paired else compare_methods)(values, first)}
    rows = []
    for level, mean, place in zip(values, means, places, strict=True):
        mark = MARK if level in pairs and pairs[level].verdict == DIFFERS else ""
        rows.append(
            [
                Cell(level, levels[level][others[0]].factors[factor]),
                Cell(str(mean.n), mean.n),
                *mean_cells(mean, digits, place, mark),
                *difference_cells(pairs.get(level), digits, level == first),
            ]
        )
    columns = [names[factor], "seeds", study.metric_name, "95% interval", "difference", "p (Holm)"]
    rest = ", ".join(names[name] for name in study.factors if name != factor)
    test = "the paired" if paired else "Welch's"
    notes = [
        f"Each seed's value is its mean over the {len(others)} settings of {rest}; ± is the standard deviation over seeds.",
        f"Difference from {names[factor]} = {first} by {test} t test over seeds, p after Holm; {MARK} p < .05.",
    ]
    return Sheet(
        f"by_{short_names(study.factors)[factor]}", f"{study.metric_name} by {names[factor]} alone", columns, rows, notes
    )


def factorial(study: Study, paired: bool = False) -> Sheet | None:
    """Show main effects and interactions with F tests over seeds; None where `not_factorial` gives a reason.

    Args:
        study: groups.
        paired: runs of one seed belong together: the seed is a block.
    """
    full, _ = design(study)
    if full is None or not_factorial(study, paired):
        return None
    values = full.crossed() if paired else full.nested()
    variance, n = anova(values, blocked=paired), values.shape[-1]
    tested = [*variance.effects]
    adjusted = holm([effect.p for effect in tested])
    rows = [
        _row(_name(effect, full), effect, variance.squares, variance.total, p)
        for effect, p in zip(tested, adjusted, strict=True)
    ]
    if variance.block:  # a nuisance, not a finding: it is in no family
        rows.append(_row("seed (block)", variance.block, variance.squares, variance.total, math.nan))
    for name, df, squares in (("residual: seeds", variance.df, variance.squares), ("total", values.size - 1, variance.total)):
        share = _share(squares / variance.total) if name != "total" else Cell(NOTHING)
        rows.append([Cell(name, name), Cell(str(df), df), Cell(plain(squares), squares), share, *[Cell(NOTHING)] * 4])
    columns = ["effect", "df", "sum of squares", "η²", "partial η²", "F", "p", "p (Holm)"]
    return Sheet(
        "factorial",
        f"{study.metric_name}: effects of the full factorial design",
        columns,
        rows,
        _factorial_notes(full, n, paired, len(tested), math.isnan(tested[0].f)),
    )


def not_factorial(study: Study, paired: bool = False) -> str:
    """Return why there is no F test, in words; "" where there is one."""
    full, reason = design(study)
    if full is None:
        return reason
    if full.nested() is None:
        counts = sorted({len(group.values) for group in full.cells.values()})
        return f"the design is not balanced, settings have {' and '.join(map(str, counts))} seeds"
    if full.nested().shape[-1] < 2:
        return "each setting has one seed, whose spread nobody knows"
    if paired and len(full.seeds) < full.nested().shape[-1]:
        return "runs are paired by seed, and the settings have different seeds"
    if not np.ptp(full.nested()):
        return "every run has the same value"
    return ""


def shares(importance: Importance, metric: str, no_test: str = "") -> Sheet:
    """Show shares of variance as a table.

    Args:
        importance: of `importance`.
        metric: of the study.
        no_test: why there is no F test beside it, in words; "" where there is.
    """
    if importance.kind == EXACT:
        columns = ["factor", "share of variance", "of noise alone"]
        rows = [[Cell(part.label, part.label), _share(part.share), _share(part.chance)] for part in importance.shares]
        if importance.seed is not None:
            rows.append([Cell("seed × factors", "seed × factors"), _share(importance.rest), Cell(NOTHING)])
            meaning = "Of noise alone: the share that an effect without any influence would have on average."
            notes = [*importance.notes, meaning]
        else:
            rows, columns, notes = [row[:2] for row in rows], columns[:2], importance.notes
    else:
        columns = ["factor", "share of variance", "over forests"]
        rows = [[Cell(part.label, part.label), _share(part.share), _range(part)] for part in importance.shares]
        rows.append([Cell("interactions", "interactions"), _share(importance.rest), Cell(NOTHING)])
        notes = importance.notes
    if no_test:
        notes = [*notes, f"No F tests: {no_test}."]
    return Sheet("importance", f"What explains {metric}", columns, rows, notes)


def _full_design(study: Study, factor: str) -> tuple[dict[str, dict[tuple[str, ...], Group]] | None, list[tuple[str, ...]]]:
    """Map each level to {setting of the other factors: group}, of a full factorial design; (None, []) of another."""
    rest = [name for name in study.factors if name != factor]
    levels: dict[str, dict[tuple[str, ...], Group]] = {}
    for group in study.groups:
        other = tuple(shown(group.factors[name]) for name in rest)
        if not group.values or other in levels.setdefault(shown(group.factors[factor]), {}):
            return None, []
        levels[shown(group.factors[factor])][other] = group
    others = list(next(iter(levels.values()), {}))
    full = len(levels) > 1 and len(others) > 1 and all(cells.keys() == {*others} for cells in levels.values())
    return (levels, others) if full else (None, [])


def _row(name: str, effect: Effect, residual: float, total: float, adjusted: float) -> list[Cell]:
    partial = effect.squares / (effect.squares + residual) if effect.squares + residual else 0.0
    ps = [Cell(NOTHING) if math.isnan(p) else Cell(p_value(p), p) for p in (effect.p, adjusted)]
    if adjusted < ALPHA:
        ps[1] = ps[1]._replace(mark=MARK)
    f = Cell(NOTHING) if math.isnan(effect.f) else Cell(f"{effect.f:,.2f}", effect.f)
    return [
        Cell(name, name),
        Cell(str(effect.df), effect.df),
        Cell(plain(effect.squares), effect.squares),
        _share(effect.squares / total),
        _share(partial),
        f,
        *ps,
    ]


def _name(effect: Effect, full: Design) -> str:
    return " × ".join(full.names[full.factors[axis]] for axis in effect.axes) or "three factors and more"


def _factorial_notes(full: Design, n: int, paired: bool, tests: int, no_spread: bool) -> list[str]:
    model = "the seed as a block" if paired else "seeds as replicates"
    notes = [
        f"ANOVA of the {' × '.join(map(str, full.shape))} settings with {n} seeds each, {model}; the design is balanced, so "
        "that sums of squares of type I, II and III are one. η² is the share of all squares, partial η² that of an effect's "
        "and the residual's.",
        f"p after Holm over {tests} effects; {MARK} p < {plain(ALPHA)}. The F test supposes equal spreads over seeds in all "
        "settings.",
    ]
    return [*notes, "Not estimable: every seed gave the same value."] if no_spread else notes


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _share(value: float) -> Cell:
    return Cell(NOTHING) if math.isnan(value) else Cell(_percent(value), value)


def _range(share: Share) -> Cell:
    return Cell(f"[{_percent(share.low)}, {_percent(share.high)}]", [share.low, share.high])
