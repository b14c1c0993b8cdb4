"""The arithmetic of ties: `2 * model.adapter.r`."""

import ast
import operator
from collections.abc import Iterable
from pathlib import Path

from research.errors import UserError
from research.types import Json

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.FloorDiv: operator.floordiv,
}


def parse_expression(text: object, name: str, path: Path) -> ast.expr:
    """Parse a tie's expression; UserError where it is none."""
    try:
        return ast.parse(str(text), mode="eval").body
    except SyntaxError:
        raise UserError(
            f"{path}: tie {name}: {text!r} is no expression; expected arithmetic over options, such as "
            "`2 * model.adapter.r`. Correct it."
        ) from None


def names_in(tree: ast.expr) -> Iterable[str]:
    """Yield the dotted names that an expression uses."""
    if isinstance(tree, ast.Name | ast.Attribute):
        yield ast.unparse(tree)
    else:
        for child in ast.iter_child_nodes(tree):
            if isinstance(child, ast.expr):
                yield from names_in(child)


def evaluate(tree: ast.expr, known: dict[str, Json], name: str, path: Path) -> int | float:
    """Compute an expression's value from known options; UserError where it is not finite arithmetic."""

    def value(node: ast.expr) -> int | float:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if isinstance(node, ast.Name | ast.Attribute):
            return known[ast.unparse(node)]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise UserError(
            f"{path}: tie {name} has {ast.unparse(node)!r}; expected numbers, options, + - * / // and **. Correct it."
        )

    try:
        result = value(tree)
    except (TypeError, ZeroDivisionError, OverflowError) as error:
        raise UserError(
            f"{path}: tie {name}: {ast.unparse(tree)} fails for {known} ({error}); expected numbers. Correct it."
        ) from None
    return int(result) if isinstance(result, float) and result.is_integer() else result
