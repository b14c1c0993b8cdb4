"""The exit codes, and the one exception that means: the user's input is wrong (exit code 2, no traceback)."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import get_args

WRONG_INPUT, DIVERGED, PREEMPTED, INTERRUPTED = 2, 3, 85, 130
"""Exit codes that say more than 0 (done) and 1 (a bug, or a check that did not hold); 85: run the same command again."""


class UserError(ValueError):
    """The message names the value, what was expected, and the cure, in one paragraph."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`known: a, b, c` with the nearest spelling first: the cure for every unknown name."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {listed or 'none'}"


def as_arguments(message: str, function: Callable) -> str:
    """The message, with a verb's options as arguments of a function that has them: `--top-k 0` → `top_k=0`."""
    names: set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        keywords = (
            [kind.__annotations__ for kind in get_args(parameter.annotation)] if parameter.kind is parameter.VAR_KEYWORD else []
        )
        names |= {name, *(key for part in keywords for key in part)}

    def argument(match: re.Match) -> str:
        name = match[1].replace("-", "_")
        return f"{name}{'=' if match[2] else ''}" if name in names else match[0]

    return re.sub(r"(?<![\w-])--([a-z][a-z0-9-]*)( (?=-?[\d.]))?", argument, message)
