"""The exit codes, and the one exception that means: the user's input is wrong (exit code 2, no traceback)."""

import difflib
from collections.abc import Iterable

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
