"""The sides of a claim: conditions on factors → the settings that they name → a value a seed."""

import ast
import math
import operator
import re
from typing import NamedTuple

from research.errors import UserError, suggest
from research.report.factors import short_names, shown
from research.report.study import Group, Study, marginal
from research.types import Json

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Claim(NamedTuple):
    """One claim as it is written.

    Attributes:
        text: the line.
        a, b: conditions of its sides.
        equivalent: whether it claims no difference; else that a is better.
        metric: the metric it is about; None where neither line nor file names one.
        margin: by how much a is better, or within which difference the sides are equivalent.
        alpha: level of its test.
        goal: maximize | minimize, where the file says it.
    """

    text: str
    a: str
    b: str
    equivalent: bool
    metric: str | None
    margin: float
    alpha: float
    goal: str | None = None


def sides(claim: Claim, study: Study, where: str) -> tuple[dict[int, float], dict[int, float]]:
    """Map each seed to its value, for each of the two sides of a claim."""
    (a, names_a), (b, names_b) = (_named_groups(text, claim, study, where) for text in (claim.a, claim.b))
    rest = [name for name in study.factors if name not in names_a | names_b]
    settings = [sorted(str([shown(g.factors[name]) for name in rest]) for g in groups) for groups in (a, b)]
    if settings[0] != settings[1] and (len(a) > 1 or len(b) > 1):
        raise UserError(
            f"{where}: {claim.text!r}: the sides differ in other factors too ({len(a)} and {len(b)} settings of "
            f"{', '.join(study.names[name] for name in rest)}); expected the same. Name more "
            "conditions, joined by `and`."
        )
    if {g.label for g in a} & {g.label for g in b}:
        raise UserError(f"{where}: {claim.text!r}: both sides have {a[0].label}; expected different settings. Correct it.")
    values = [marginal(groups) for groups in (a, b)]
    if not all(values):
        raise UserError(f"{where}: {claim.text!r}: the settings of a side have no seed in common. Train the missing runs.")
    return values[0], values[1]


def _named_groups(side: str, claim: Claim, study: Study, where: str) -> tuple[list[Group], set[str]]:
    """Find the groups that one side of a claim names, and the factors that it names them by."""
    groups = [group for group in study.groups if group.values]
    parts = sorted(side.split())
    labelled = [group for group in groups if parts in (sorted(group.label.split()), sorted(group.key.split()))]
    if labelled:  # a setting as the tables call it
        return labelled, set(study.factors)
    conditions = [_parse_condition(part, study, f"{where}: {claim.text!r}") for part in re.split(r"\s+and\s+|\s*&\s*", side)]
    matching = [group for group in groups if all(_holds(condition, group) for condition in conditions)]
    if not matching:
        known = "; ".join(group.label for group in groups)
        raise UserError(f"{where}: {claim.text!r}: no setting has {side!r}; expected one of {known}. Correct it.")
    return matching, {name for condition in conditions for name in condition.names}


class Condition(NamedTuple):
    """`lora_alpha / r = 2`: an expression over factors, the names in it, and its value as text."""

    tree: ast.expr
    names: dict[str, str]  # as written → factor
    value: str


def _parse_condition(text: str, study: Study, where: str) -> Condition:
    left, equals, right = text.partition("=")
    known = {short: name for name, short in short_names(study.factors).items()} | {name: name for name in study.factors}
    known |= {label: name for name, label in study.names.items()}
    expression = left.strip()
    if any(name.endswith("lora_alpha") or "lora_alpha/" in name for name in known):
        expression = re.sub(r"\balpha\b", "lora_alpha", expression)
    expression = next((name for name in known if name == expression.replace(" ", "")), expression)
    if not equals:  # a kind, such as LoRA
        for name in study.factors:
            if any(shown(g.factors[name]) == expression for g in study.groups):
                return Condition(ast.Name(name), {name: name}, expression)
        raise UserError(f"{where}: {expression!r} is no condition; expected factor=value ({', '.join(known)}). Correct it.")
    if expression in known:  # also names that hold a slash, such as lora_alpha/r
        factor = known[expression]
        return Condition(ast.Name(factor), {factor: factor}, right.strip())
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise UserError(f"{where}: {expression!r} is no factor; {suggest(expression, list(known))}. Correct it.") from None
    names = {ast.unparse(node): "" for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)}
    names = {name: "" for name in names if not any(other != name and other.startswith(f"{name}.") for other in names)}
    for name in names:
        if name not in known:
            raise UserError(f"{where}: {name!r} is no factor of these runs; {suggest(name, list(known))}. Correct it.")
        names[name] = known[name]
    return Condition(tree, names, right.strip())


def _holds(condition: Condition, group: Group) -> bool:
    """Return whether a group's factors meet a condition: equal as numbers, or as the tables show them."""
    if isinstance(condition.tree, ast.Name):
        value = group.factors.get(next(iter(condition.names.values())))
    else:
        value = _evaluate(condition.tree, {name: group.factors.get(factor) for name, factor in condition.names.items()})
    try:
        return value is not None and math.isclose(float(value), float(condition.value), rel_tol=1e-9)
    except (TypeError, ValueError):
        return shown(value) == condition.value


def _evaluate(tree: ast.expr, values: dict[str, Json]) -> Json:
    """Compute the value of an expression over factors; None where it has none."""
    if isinstance(tree, ast.Name | ast.Attribute):
        return values[ast.unparse(tree)]
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATORS:
        operands = [_evaluate(side, values) for side in (tree.left, tree.right)]
        if all(isinstance(operand, int | float) for operand in operands) and not (
            isinstance(tree.op, ast.Div) and not operands[1]
        ):
            return OPERATORS[type(tree.op)](*operands)
    return None
