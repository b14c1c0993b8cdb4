"""Ranges of options as types, which the command line's parser checks."""

try:
    from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt, restricted_number_type
except ImportError:  # on a machine that only measures (scripts/gpu_check.sh) there is no parser, and no user's value to check
    PositiveInt = NonNegativeInt = TwoOrMore = int
    ClosedUnitInterval = float
else:
    TwoOrMore = restricted_number_type("TwoOrMore", int, (">=", 2))

__all__ = ["ClosedUnitInterval", "NonNegativeInt", "PositiveInt", "TwoOrMore"]
