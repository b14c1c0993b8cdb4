"""Claims that a paper makes of a study, written down and checked: held, broken, or underpowered.

  metric: val/loss                       # of claims that name none
  goal: minimize                         # of that metric, or {metric: minimize | maximize}, where names do not tell it
  claims:
    - r=16 beats r=4 on val/loss
    - r=16 beats r=4 by .01, p < .01
    - lora_alpha/r=1 is equivalent to lora_alpha/r=2 within .005

A side names settings by conditions on factors (short or whole names; arithmetic over them), joined by `and`. Where it names
several, each seed's value is its mean over them, and both sides must have the same settings of all other factors.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

from scipy import special

from research.errors import UserError
from research.metrics.equivalence import Equivalence, equivalence_test
from research.metrics.families import holm
from research.metrics.planning import seeds_needed
from research.metrics.seeds import MethodComparison, paired_test, summarise, welch_test
from research.report.claim_sides import Claim, sides
from research.report.numbers import p_phrase
from research.report.sheets import Cell, Sheet, decimals, number
from research.report.study import Study
from research.runs.reading import read_yaml

GOALS = ("minimize", "maximize")
HELD, BROKEN, UNDERPOWERED = "held", "broken", "underpowered"
ALPHA = 0.05
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
MARGIN = rf"\s+(?P<kind>by|within)\s+(?P<margin>{NUMBER})"
METRIC, LEVEL = r"\s+on\s+(?P<metric>\S+?)", rf"(?:\s*,\s*p\s*<\s*(?P<p>{NUMBER}))?"
SIDES = r"(?P<a>.+?)\s+(?P<verb>beats|is equivalent to)\s+(?P<b>.+?)"
CLAIMS = [re.compile(rf"{SIDES}{tail}{LEVEL}\s*") for tail in (f"{MARGIN}{METRIC}", f"(?:{METRIC})?(?:{MARGIN})?")]
"""A claim with its margin before its metric, or behind it."""
EXAMPLE = "`r=16 beats r=4 on val/loss, p < .05` or `r=8 is equivalent to r=16 within .005`"


class Verdict(NamedTuple):
    """The result of testing a claim.

    Attributes:
        claim: the claim that was tested.
        state: held: shown at its level, after Holm over the claims of the file. broken: the opposite is shown. underpowered:
            neither.
        words: the numbers, as a sentence.
    """

    claim: Claim
    state: str
    words: str


def read_claims(path: Path) -> list[Claim]:
    """Read a file of claims.

    Raises:
        UserError: no claims, or one that cannot be read.
    """
    value = read_yaml(path, "claims")
    lines = value.get("claims") if isinstance(value, dict) else None
    if not isinstance(lines, list) or not lines:
        raise UserError(f"{path} has no claims; expected `claims:` and a list of lines such as {EXAMPLE}. Add some.")
    if unknown := set(value) - {"claims", "metric", "goal"}:
        raise UserError(f"{path} has {sorted(map(str, unknown))[0]!r}; expected claims, metric and goal. Correct it.")
    metric = value.get("metric")
    if not isinstance(metric, str | None):
        raise UserError(f"{path}: metric is {str(metric)[:60]}; expected a metric, such as val/loss. Correct it.")
    claims = [parse(str(line), metric, str(path)) for line in lines]
    goal = value.get("goal")
    goals = goal if isinstance(goal, dict) else {metric: goal}
    if unknown_goals := [side for side in goals.values() if side not in (None, *GOALS)]:
        raise UserError(
            f"{path}: goal is {str(unknown_goals[0])[:60]!r}; expected minimize or maximize, or one for each metric: "
            "{val/x: minimize}. Correct it."
        )
    return [claim._replace(goal=goals.get(claim.metric)) for claim in claims]


def parse(text: str, metric: str | None, where: str) -> Claim:
    """Read one claim.

    Raises:
        UserError: no claim.
    """
    match = next(filter(None, (form.fullmatch(text.strip()) for form in CLAIMS)), None)
    if match is None:
        raise UserError(f"{where}: {text!r} is no claim; expected {EXAMPLE}. Correct it.")
    equivalent = match["verb"] != "beats"
    if (equivalent and match["kind"] != "within") or (not equivalent and match["kind"] == "within"):
        raise UserError(
            f"{where}: {text!r}: expected `within` a margin for an equivalence and `by` one for a difference: no "
            "difference at all can never be shown. Correct it."
        )
    alpha = float(match["p"]) if match["p"] else ALPHA
    if not 0 < alpha < 1:
        raise UserError(f"{where}: {text!r}: p < {alpha:g}; expected between 0 and 1. Correct it.")
    margin = float(match["margin"]) if match["margin"] else 0.0
    if margin < 0 or (equivalent and margin == 0):
        raise UserError(f"{where}: {text!r}: margin {margin:g}; expected above 0. Correct it.")
    return Claim(text.strip(), match["a"], match["b"], equivalent, match["metric"] or metric, margin, alpha)


def check(claims: list[Claim], studies: dict[str, Study], where: str = "claims", paired: bool = False) -> list[Verdict]:
    """Test claims on the studies of their metrics, and adjust their p over all of them.

    Args:
        claims: as read_claims gives them.
        studies: metric → the same runs, grouped for it.
        where: for messages.
        paired: runs of one seed belong together; used for differences between sides of the same seeds.

    Raises:
        UserError: a claim's sides are not there, or cannot be compared.
    """
    tested = []
    for claim in claims:
        study = studies[claim.metric]
        a, b = sides(claim, study, where)
        if claim.goal is not None:
            study = study._replace(higher=claim.goal == "maximize", guessed=False)
        if study.guessed and not claim.equivalent:
            raise UserError(
                f"{where}: {claim.text!r}: the name of {claim.metric} does not tell which side of it is better; "
                f"expected it to be said. Add `goal: {{{claim.metric}: minimize}}` or maximize to the "
                "claims."
            )
        if claim.equivalent:
            test = equivalence_test(list(b.values()), list(a.values()), claim.margin, claim.alpha)
            tested.append((claim, study, a, b, test, _p_apart(a, b, claim.margin), test.p))
        else:
            # better by `margin`: shift the other side by it
            shift = claim.margin if study.higher else -claim.margin
            shifted = {seed: value + shift for seed, value in b.items()}
            same_seeds = paired and a.keys() == b.keys()
            test = paired_test(shifted, a) if same_seeds else welch_test(list(shifted.values()), list(a.values()))
            tested.append((claim, study, a, b, test, test.p, test.p))  # of both sides: it shows the opposite too
    adjusted = [holm([row[i] for row in tested]) for i in (-2, -1)]
    return [_verdict(*row[:-2], *p) for row, p in zip(tested, zip(*adjusted, strict=True), strict=True)]


def _p_apart(a: dict[int, float], b: dict[int, float], margin: float) -> float:
    """Compute p of the opposite of an equivalence, that the means are more than a margin apart; NaN without a spread."""
    test = welch_test(list(b.values()), list(a.values()))
    return math.nan if math.isnan(test.p) else float(special.stdtr(test.df, (margin - abs(test.difference)) / test.error))


def _verdict(
    claim: Claim,
    study: Study,
    a: dict[int, float],
    b: dict[int, float],
    test: MethodComparison | Equivalence,
    p_opposite: float,
    p: float,
) -> Verdict:
    """Decide one claim by the adjusted p of it and of its opposite."""
    counts = f"n = {len(a)} and {len(b)}"
    means = [summarise(list(side.values())).mean for side in (a, b)]
    difference = means[0] - means[1]
    digits = max(4, decimals(study.groups))
    words = (
        f"{study.metric_name} {number(means[0], digits)} and {number(means[1], digits)}, difference "
        f"{number(difference, digits, plus=True)}"
    )
    if math.isnan(p):
        return Verdict(claim, UNDERPOWERED, f"{words}, {counts}: {test.note or 'not estimable'}")
    words += f", {p_phrase(p)} after Holm, {counts}"
    if claim.equivalent:
        low, high = (number(end, digits, plus=True) for end in (test.low, test.high))
        inside = f"{100 * (1 - 2 * claim.alpha):.4g}% interval [{low}, {high}]"
        if p < claim.alpha:
            return Verdict(claim, HELD, f"{words}; {inside}")
        return Verdict(
            claim, BROKEN if p_opposite < claim.alpha else UNDERPOWERED, f"{words}; {inside}, margin {claim.margin:g}"
        )
    right = (test.difference > 0) == study.higher
    if p < claim.alpha:
        return Verdict(claim, HELD if right else BROKEN, words)
    spreads = [summarise(list(side.values())).sd for side in (a, b)]
    needed = seeds_needed(test.difference, *spreads, alpha=claim.alpha) if right and test.difference else None
    advice = f"; about {needed} seeds each would show it" if needed else ""
    return Verdict(claim, UNDERPOWERED, words + advice)


def sheet(verdicts: list[Verdict]) -> Sheet:
    """Show verdicts as a table."""
    texts = [(verdict.claim.text, verdict.state, verdict.words) for verdict in verdicts]
    rows = [[Cell(text, text) for text in row] for row in texts]
    notes = [
        "Held: shown at its level, after Holm over these claims. Broken: the opposite is shown. Underpowered: neither; "
        "more seeds are needed. Tests are over seeds: Welch's, or paired where the spec says so; for equivalence two "
        "one-sided tests, never paired."
    ]
    return Sheet("claims", "Claims", ["claim", "state", "numbers"], rows, notes, 3)
