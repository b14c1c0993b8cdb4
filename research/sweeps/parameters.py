"""The parameters of a sweep as its YAML has them: read, checked, and put together into a point."""

import json
import math
import re
from collections.abc import Iterable

from research.errors import UserError, suggest
from research.sweeps.distributions import BOUNDED, FIELDS, Parameter
from research.types import Json


def parameters_of(facts: dict[Json, Json], where: str, within: tuple[str, ...] = ()) -> list[Parameter]:
    """Read all parameters of a sweep, those within `parameters:` of another too.

    Raises:
        UserError: as `read_parameter`, or two of one name.
    """
    parameters: list[Parameter] = []
    for name, value in facts.items():
        if not isinstance(name, str):
            raise UserError(
                f"{where}: a parameter is called {name!r} ({type(name).__name__}); expected a text: YAML reads no, "
                "on and 1 as other things. Write the name in quotes."
            )
        if re.search(r"^-|[\s=\x00-\x1f\x7f\ud800-\udfff]", name) or not name:
            raise UserError(
                f"{where}: a parameter is called {name!r}; expected the name of an option, without its hyphens and "
                "without blanks. Correct it."
            )
        path = (*within, name)
        if isinstance(value, dict) and "parameters" in value:
            if more := value.keys() - {"parameters"}:
                raise UserError(
                    f"{where}: {'.'.join(path)} has parameters and {sorted(map(str, more))[0]!r}; expected "
                    "parameters alone. Leave one out."
                )
            if not isinstance(value["parameters"], dict) or not value["parameters"]:
                raise UserError(
                    f"{where}: {'.'.join(path)}.parameters is {str(value['parameters'])[:60]!r}; expected names "
                    "with values or distributions. Correct it."
                )
            parameters += parameters_of(value["parameters"], where, path)
        else:
            parameters.append(read_parameter(".".join(path), value, where)._replace(path=path if within else ()))
    names = [parameter.name for parameter in parameters]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"{where}: {twice[0]} is there twice, dotted and nested; expected it once. Leave one out.")
    return parameters


def assembled(parameters: Iterable[Parameter], values: Iterable[Json]) -> dict[str, Json]:
    """Map parameters to values; nested parameters become one mapping, as W&B's agent passes them."""
    point: dict[str, Json] = {}
    for parameter, value in zip(parameters, values, strict=True):
        *outer, last = parameter.path or (parameter.name,)
        place = point
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return point


def read_parameter(name: str, facts: Json, where: str) -> Parameter:
    """Read a parameter as the YAML has it.

    Raises:
        UserError: no distribution of W&B's, fields that it has not, or values out of order.
    """
    if not isinstance(facts, dict):
        raise UserError(
            f"{where}: {name} is {str(facts)[:60]!r}; expected `values: […]`, `value: …` or a distribution. Correct it."
        )
    facts = dict(facts)
    kind = facts.pop("distribution", None) or _implied(facts)
    if not isinstance(kind, str) or kind not in FIELDS:
        raise UserError(f"{where}: {name} has the distribution {kind!r}; {suggest(str(kind), list(FIELDS))}. Correct it.")
    if unknown := facts.keys() - FIELDS[kind]:
        raise UserError(
            f"{where}: {name} ({kind}) has {sorted(unknown)[0]!r}; expected {', '.join(sorted(FIELDS[kind]))}. Correct it."
        )
    defaults = {"mu": 0.0, "sigma": 1.0, "a": 1.0, "b": 1.0, "q": 1.0}
    if missing := FIELDS[kind] - facts.keys() - defaults.keys():
        raise UserError(
            f"{where}: {name} ({kind}) lacks {sorted(missing)[0]}; expected {', '.join(sorted(FIELDS[kind]))}. Add it."
        )
    checked = Parameter(name, kind, facts)
    _check(checked, where)
    checked.facts.update({field: value for field, value in defaults.items() if field in FIELDS[kind] and field not in facts})
    return checked


def listed(parameter: Parameter, where: str) -> Parameter:
    """Return a parameter as the list of its values, for a grid.

    Raises:
        UserError: W&B's grid does not take it.
    """
    if (categorical := parameter.listed()) is not None:
        return categorical
    if parameter.distribution == "categorical_w_probabilities":
        raise UserError(
            f"{where}: {parameter.name} has probabilities, and a grid takes every value once; expected `values` alone. "
            "Leave them out, or choose method: random."
        )
    raise UserError(
        f"{where}: {parameter.name} is {parameter.distribution}, and a grid has no end over it; expected `values: […]`. List "
        "them, or choose method: random."
    )


def _implied(facts: dict) -> str | None:
    if "value" in facts:
        return "constant"
    if "values" in facts:
        return "categorical_w_probabilities" if "probabilities" in facts else "categorical"
    if {"min", "max"} <= facts.keys():
        whole = all(isinstance(facts[name], int) and not isinstance(facts[name], bool) for name in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    return None


def _check(parameter: Parameter, where: str) -> None:
    facts, name, kind = parameter.facts, parameter.name, parameter.distribution
    for field in ("min", "max", "q", "mu", "sigma", "a", "b"):
        value = facts.get(field)
        if field in facts and (not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value)):
            raise UserError(f"{where}: {name}.{field}={value!r}; expected a number. YAML reads 1e-4 as a text: write 1.0e-4.")
    if "values" in facts and (not isinstance(facts["values"], list) or not facts["values"]):
        raise UserError(f"{where}: {name}.values={facts['values']!r}; expected a list of one value or more. Correct it.")
    for value in facts.get("values", [facts["value"]] if "value" in facts else []):
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            raise UserError(
                f"{where}: {name} has the value {str(value)[:60]} ({type(value).__name__}); expected numbers, "
                "texts, booleans, lists or mappings. Write a text in quotes."
            ) from None
        if lost := re.search(r"[\0\ud800-\udfff]", "".join(_texts(value))):
            raise UserError(
                f"{where}: {name} has a value with {lost[0]!r} in it; expected a text that a command can carry. "
                "Leave that character out."
            )
    if kind == "categorical_w_probabilities":
        odds = facts["probabilities"]
        if (
            not isinstance(odds, list)
            or len(odds) != len(facts["values"])
            or not all(isinstance(p, int | float) and not isinstance(p, bool) and p >= 0 for p in odds)
            or not math.isclose(sum(odds), 1.0, rel_tol=1e-5)
        ):
            raise UserError(
                f"{where}: {name}.probabilities={odds}; expected one of 0 or more for each of the "
                f"{len(facts['values'])} values, and 1 in all. Correct them."
            )
    if kind == "int_uniform" and not all(isinstance(facts[end], int) for end in ("min", "max")):
        raise UserError(
            f"{where}: {name} (int_uniform) goes from {facts['min']} to {facts['max']}; expected whole numbers. "
            "Correct it, or choose uniform."
        )
    if kind in BOUNDED:
        if facts["min"] >= facts["max"]:
            raise UserError(f"{where}: {name} goes from {facts['min']} to {facts['max']}; expected min below max. Correct it.")
        if kind.endswith("_values") and facts["min"] <= 0:
            raise UserError(
                f"{where}: {name} ({kind}) starts at {facts['min']}; expected above 0, since it is uniform in the "
                "logarithm. Raise min, or choose uniform."
            )
        if kind in ("log_uniform", "q_log_uniform", "inv_log_uniform") and facts["max"] > 50:
            raise UserError(
                f"{where}: {name} ({kind}) goes up to e^{facts['max']}: W&B takes min and max of it as exponents; "
                f"expected log_uniform_values for plain numbers. Correct it."
            )
    for field in ("q", "sigma", "a", "b"):
        if field in facts and facts[field] <= 0:
            raise UserError(f"{where}: {name}.{field}={facts[field]}; expected above 0. Correct it.")


def _texts(value: Json) -> Iterable[str]:
    """Yield all strings in a value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(inner)
