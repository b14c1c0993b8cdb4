"""The sides of a claim: conditions on factors → the settings that they name → a value a seed."""

import ast
import math
import operator
import re
from typing import Any, NamedTuple

from research.errors import UserError, suggest
from research.report.factors import short_names, shown
from research.report.study import Group, Study, marginal

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Claim(NamedTuple):
    """One claim as it is written.

    Attributes:
        text: the line.
        a, b: conditions of its sides.
        equivalent: whether it claims no difference; else that a is better.
        metric: that it is about.
        margin: by how much better; within what equivalent.
        alpha: level.
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
    """Seed → value of both sides."""
    found = []
    for text in (claim.a, claim.b):
        words = sorted(text.split())
        named = [g for g in study.groups if g.values and words in (sorted(g.label.split()), sorted(g.key.split()))]
        if named:  # a setting as the tables call it
            found.append((named, set(study.factors)))
            continue
        conditions = [_condition(part, study, f"{where}: {claim.text!r}") for part in re.split(r"\s+and\s+|\s*&\s*", text)]
        groups = [g for g in study.groups if g.values and all(_holds(one, g) for one in conditions)]
        if not groups:
            known = "; ".join(g.label for g in study.groups if g.values)
            raise UserError(f"{where}: {claim.text!r}: no setting has {text!r}; expected one of {known}. Correct it.")
        found.append((groups, {name for one in conditions for name in one.names}))
    (a, names_a), (b, names_b) = found
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


class Condition(NamedTuple):
    """`lora_alpha / r = 2`: an expression over factors, the names in it, and its value as text."""

    tree: ast.expr
    names: dict[str, str]  # as written → factor
    value: str


def _condition(text: str, study: Study, where: str) -> Condition:
    left, equals, right = text.partition("=")
    known = {short: name for name, short in short_names(study.factors).items()} | {name: name for name in study.factors}
    known |= {words: name for name, words in study.names.items()}
    whole = left.strip()
    if any(name.endswith("lora_alpha") or "lora_alpha/" in name for name in known):
        whole = re.sub(r"\balpha\b", "lora_alpha", whole)
    whole = next((name for name in known if name == whole.replace(" ", "")), whole)
    if not equals:  # a kind, such as LoRA
        for name in study.factors:
            if any(shown(g.factors[name]) == whole for g in study.groups):
                return Condition(ast.Name(name), {name: name}, whole)
        raise UserError(f"{where}: {whole!r} is no condition; expected factor=value ({', '.join(known)}). Correct it.")
    if whole in known:  # also names that hold a slash, such as lora_alpha/r
        return Condition(ast.Name(known[whole]), {known[whole]: known[whole]}, right.strip())
    try:
        tree = ast.parse(whole, mode="eval").body
    except SyntaxError:
        raise UserError(f"{where}: {whole!r} is no factor; {suggest(whole, list(known))}. Correct it.") from None
    names = {ast.unparse(node): "" for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)}
    names = {name: "" for name in names if not any(other != name and other.startswith(f"{name}.") for other in names)}
    for name in names:
        if name not in known:
            raise UserError(f"{where}: {name!r} is no factor of these runs; {suggest(name, list(known))}. Correct it.")
        names[name] = known[name]
    return Condition(tree, names, right.strip())


def _holds(condition: Condition, group: Group) -> bool:
    if isinstance(condition.tree, ast.Name):
        value = group.factors.get(next(iter(condition.names.values())))
    else:
        value = _computed(condition.tree, {name: group.factors.get(factor) for name, factor in condition.names.items()})
    try:
        return value is not None and math.isclose(float(value), float(condition.value), rel_tol=1e-9)
    except (TypeError, ValueError):
        return shown(value) == condition.value


def _computed(tree: ast.expr, known: dict[str, Any]) -> float | None:
    if isinstance(tree, ast.Name | ast.Attribute):
        return known[ast.unparse(tree)]
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATORS:
        sides = [_computed(side, known) for side in (tree.left, tree.right)]
        if all(isinstance(side, int | float) for side in sides) and not (isinstance(tree.op, ast.Div) and not sides[1]):
            return OPERATORS[type(tree.op)](*sides)
    return None
