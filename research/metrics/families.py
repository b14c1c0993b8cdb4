"""All comparisons that a table makes, with Holm's correction over them.

A family is what one reader scans for small p: the pairs of one table on one metric. A table that draws conclusions from
several metrics is one larger family: collect its p and pass them to `holm` once. Difference and equivalence are two
claims and two families.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from research.errors import UserError, suggest
from research.metrics.planning import seeds_needed
from research.metrics.seeds import MethodComparison, fraction, moments, paired_test, welch_p, welch_test
from research.metrics.significance import holm

DIFFERS, UNRESOLVED, UNTESTABLE = "differs", "unresolved", "not estimable"

Means = Mapping[str, Mapping | float]  # {method: {seed: mean over queries}}; a number for a method without seeds


class Pair(NamedTuple):
    """One line of a table: b against a."""

    a: str
    b: str
    comparison: MethodComparison
    p_holm: float  # adjusted over the family; NaN where p is
    verdict: str  # differs: p_holm < alpha. unresolved: not so, which does not mean equal. not estimable: see the note
    seeds_needed: int | None  # of each method, for power .8 at the observed difference and spread and alpha / family size;
    # None if beyond 10,000, or not estimable


def compare_methods(groups: Means, baseline: str | None = None, alpha: float = 0.05) -> list[Pair]:
    """Run `welch_test` on every pair of methods, or on each against the baseline: over seeds, on fixed queries.

    Args:
        groups: {method: {seed: mean}}; a number in place of {seed: mean} for a method without seeds.
        baseline: compare only with this method; it is `a` in every pair.
        alpha: of the family.

    Returns:
        A Pair for each two methods, in the order of `groups`; b is the later, or the one that is not the baseline.
    """
    return _family(groups, baseline, alpha, lambda a, b: welch_test(_plain(a), _plain(b)), _needed_by_welch)


def compare_pair(groups: Means, a: str, b: str, alpha: float = 0.05) -> Pair:
    """Return one line of `compare_methods(groups)`, adjusted over every pair.

    Of the other pairs only the p is computed: 1,000 runs of 333 methods are 55,000 pairs.
    """
    fraction(alpha, "alpha")
    known = {name: moments(_plain(group)) for name, group in groups.items()}
    pairs = _pairs(groups, None)
    here = next(i for i, pair in enumerate(pairs) if {*pair} == {a, b})
    a, b = pairs[here]
    p = holm([welch_p(known[x], known[y]) for x, y in pairs])[here]
    result = welch_test(_plain(groups[a]), _plain(groups[b]))
    needed = None if math.isnan(p) else _needed_by_welch(groups[a], groups[b], result.difference, alpha / len(pairs))
    return Pair(a, b, result, p, _verdict(p, alpha), needed)


def compare_paired_methods(groups: Means, baseline: str | None = None, alpha: float = 0.05) -> list[Pair]:
    """Do the same with `paired_test`, for methods whose runs with equal seeds share something; all methods need the same seeds.

    Against a method without seeds there is nothing to pair: that line is `welch_test`'s.
    """
    return _family(groups, baseline, alpha, _paired_or_one_sample, _needed_by_pairs)


def _family(groups: Mapping, baseline: str | None, alpha: float, test: Callable, needed: Callable) -> list[Pair]:
    fraction(alpha, "alpha")
    tested = [(a, b, test(groups[a], groups[b])) for a, b in _pairs(groups, baseline)]
    adjusted = holm([result.p for *_, result in tested])
    return [
        Pair(
            a,
            b,
            result,
            p,
            _verdict(p, alpha),
            None if math.isnan(p) else needed(groups[a], groups[b], result.difference, alpha / len(tested)),
        )
        for (a, b, result), p in zip(tested, adjusted, strict=True)
    ]


def _pairs(groups: Mapping, baseline: str | None) -> list[tuple[str, str]]:
    if baseline is None:
        return list(itertools.combinations(groups, 2))
    if baseline not in groups:
        raise UserError(f"no method {baseline!r} to compare with; {suggest(baseline, groups)}")
    return [(baseline, name) for name in groups if name != baseline]


def _verdict(p: float, alpha: float) -> str:
    return UNTESTABLE if math.isnan(p) else DIFFERS if p < alpha else UNRESOLVED


def _paired_or_one_sample(a: Mapping | float, b: Mapping | float) -> MethodComparison:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return paired_test(a, b)
    return welch_test(_plain(a), _plain(b))


def _plain(method: Mapping | float) -> list[float] | float:
    return list(method.values()) if isinstance(method, Mapping) else method


def _needed_by_welch(a: Mapping | float, b: Mapping | float, difference: float, alpha: float) -> int | None:
    spreads = [float(np.std(list(x.values()), ddof=1)) if isinstance(x, Mapping) else 0.0 for x in (a, b)]
    return seeds_needed(difference, *spreads, alpha=alpha)


def _needed_by_pairs(a: Mapping | float, b: Mapping | float, difference: float, alpha: float) -> int | None:
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return _needed_by_welch(a, b, difference, alpha)
    return seeds_needed(difference, float(np.std([b[seed] - a[seed] for seed in a], ddof=1)), 0.0, alpha=alpha)
