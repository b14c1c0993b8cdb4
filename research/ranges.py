"""Ranges of options as types: the command line's parser checks them, and constructors that Python code calls do so too."""

import math
import types
import typing
from collections.abc import Callable, Mapping

from research.errors import UserError, did_you_mean

try:
    from jsonargparse.typing import register_type, restricted_number_type
except ImportError:  # on a machine that only measures (scripts/gpu_check.sh) there is no parser, and no user's value to check
    restricted_number_type = None

EXPECTED: dict[str, str] = {}
"""Name of a range → what it takes, for messages and help."""


def _range(name: str, kind: type, expected: str, *bounds: tuple[str, float]) -> type:
    """A number type within bounds; what it reads is a plain number: a checkpoint holds no class of a parser."""
    EXPECTED[name] = expected
    if restricted_number_type is None:
        return kind
    limited = restricted_number_type(name, kind, list(bounds))
    register_type(limited, kind, lambda value: kind(limited(value)))
    return limited


PositiveInt = _range("PositiveInt", int, "1 or more (a whole number)", (">", 0))
NonNegativeInt = _range("NonNegativeInt", int, "0 or more (a whole number)", (">=", 0))
TwoOrMore = _range("TwoOrMore", int, "2 or more (a whole number)", (">=", 2))
Seed = _range("Seed", int, "0 to 4294967295", (">=", 0), ("<=", 2**32 - 1))
ClosedUnitInterval = _range("ClosedUnitInterval", float, "0 to 1", (">=", 0), ("<=", 1))
BelowOne = _range("BelowOne", float, "0 to below 1", (">=", 0), ("<", 1))
BelowHalf = _range("BelowHalf", float, "0 to below .5", (">=", 0), ("<", 0.5))
PositiveFloat = _range("PositiveFloat", float, "a number above 0", (">", 0))
FinitePositive = _range("FinitePositive", float, "a finite number above 0", (">", 0), ("<", math.inf))
FiniteNonNegative = _range("FiniteNonNegative", float, "a finite number, 0 or more", (">=", 0), ("<", math.inf))


def check_types(function: Callable, values: Mapping[str, object], prefix: str = "") -> None:
    """Refuse arguments that the parser would have refused: Python code has no parser before it.

    Args:
        function: its annotations say what each argument takes.
        values: its arguments by name, and others.
        prefix: of the names, in the message.

    Raises:
        UserError: a number out of its range, or a text that is none of its choices.
    """
    for name, kind in typing.get_type_hints(function).items():
        if name in values and not _takes(kind, values[name]):
            near = did_you_mean(values[name], _choices(kind))
            raise UserError(f"{prefix}{name}={values[name]!r}; expected {expected(kind)}.{near} Correct it.")


def expected(kind: object) -> str:
    """What an option of this type takes, in words; "" of a type that says nothing to a reader."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(map(str, options))
    if _is_union(kind):
        texts = ["null" if each is type(None) else expected(each) for each in options]
        return " | ".join(texts) if all(texts) else ""
    if typing.get_origin(kind) is tuple:
        return f"{expected(options[0])} each" if expected(options[0]) else ""
    name = getattr(kind, "__name__", "")
    return EXPECTED.get(name, name if kind in (str, int, float, bool) else "")


def _is_union(kind: object) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _choices(kind: object) -> list[str]:
    """The texts that an option of this type takes, where these are few."""
    options = typing.get_args(kind)
    return [*options] if typing.get_origin(kind) is typing.Literal else [text for each in options for text in _choices(each)]


def _takes(kind: object, value: object) -> bool:
    """Whether a value is within a type's range or choices; of other types every value is."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return value in options
    if _is_union(kind):
        return any(_takes(each, value) for each in options)
    if kind is type(None):
        return value is None
    if typing.get_origin(kind) is tuple and isinstance(value, tuple | list):
        return len(value) == len(options) and all(map(_takes, options, value))
    if not hasattr(kind, "_restrictions"):
        return True
    try:
        kind(value)
    except (TypeError, ValueError):
        return False
    return True
