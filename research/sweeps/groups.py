"""Options of a source that vary together (ties, zips, cases): rows of options, and the one parameter made of them."""

import itertools
from pathlib import Path

from research.errors import UserError, suggest
from research.sweeps.expressions import evaluate, names_in, parse_expression
from research.sweeps.spec import check_mapping
from research.types import Json


def tied(source: dict, parameters: dict, path: Path) -> list[dict[str, Json]]:
    """Make rows of the options that a tie joins: the product of what drives it, with what follows."""
    let = check_mapping(source.get("let") or {}, "let", path)
    ties = check_mapping(source.get("tie") or {}, "tie", path)
    trees = {name: parse_expression(text, name, path) for name, text in ties.items()}
    names = {inner for tree in trees.values() for inner in names_in(tree)}
    unknown = [name for name in names if name not in let and name not in parameters]
    if unknown:
        raise UserError(
            f"{path}: tie names {unknown[0]!r}, which is neither in let nor in parameters; "
            f"{suggest(unknown[0], [*let, *parameters])}. Correct it."
        )
    if idle := [name for name in let if name not in names]:
        raise UserError(f"{path}: let has {idle[0]!r}, which no tie uses; expected a variable of one. Leave it out.")
    axes = {name: _list(let[name], name, path) for name in let}
    axes |= {name: _values(parameters[name], name, path) for name in parameters if name in names}
    rows = []
    for values in itertools.product(*axes.values()):
        known = dict(zip(axes, values, strict=True))
        row = {name: value for name, value in known.items() if name not in let}
        row |= {name: evaluate(tree, known, name, path) for name, tree in trees.items()}
        if row not in rows:
            rows.append(row)
    return rows


def zipped(group: Json, path: Path) -> list[dict[str, Json]]:
    """Make rows of lists that go together, value by value."""
    lists = {name: _list(values, name, path) for name, values in check_mapping(group, "zip", path).items()}
    if len({len(values) for values in lists.values()}) != 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in lists.items())
        raise UserError(
            f"{path}: zip joins lists of different lengths ({counts}); expected as many values of each. Correct them."
        )
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def of_cases(cases: Json, path: Path) -> list[dict[str, Json]]:
    """Make rows of alternatives: the product of the lists in each of them."""
    rows = []
    for case in _list(cases, "cases", path):
        axes = {
            name: value if isinstance(value, list) else [value] for name, value in check_mapping(case, "cases", path).items()
        }
        rows += [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return rows


def one_parameter(rows: list[dict[str, Json]], path: Path) -> tuple[str, list]:
    """Make one parameter of options that vary together: their common section, and a mapping for each row."""
    options = sorted({option for row in rows for option in row})
    if len(options) == 1:
        return options[0], [row[options[0]] for row in rows]
    sections = [option.split(".") for option in options]
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len({*parts}) == 1, zip(*sections, strict=False))]
    shared = shared[: min(map(len, sections)) - 1]
    if not shared:
        raise UserError(
            f"{path}: {', '.join(options[:3])} hang together and have no section in common; expected options of "
            "one (model, data or trainer), since they become one parameter. Split the sweep."
        )
    prefix = ".".join(shared)
    return prefix, [{option[len(prefix) + 1 :]: value for option, value in row.items()} for row in rows]


def _list(value: Json, what: str, path: Path) -> list:
    if not isinstance(value, list) or not value:
        raise UserError(f"{path}: {what} is {str(value)[:60]!r}; expected a list of values. Correct it.")
    return value


def _values(parameter: Json, name: str, path: Path) -> list:
    if isinstance(parameter, dict) and set(parameter) == {"value"}:
        return [parameter["value"]]
    if not isinstance(parameter, dict) or set(parameter) != {"values"}:
        raise UserError(
            f"{path}: {name} drives a tie and is no list of values; expected `values: […]`, since each of them "
            "makes a value of what follows. Correct it."
        )
    return _list(parameter["values"], name, path)
