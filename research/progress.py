"""Progress bars and plain statements on stderr; stdout carries results only.

TANDEM_QUIET=1 in the environment silences both, except warnings and errors.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
FIRST, INTERVAL = 2, 30  # seconds until a log file has the first state of a bar, and between its states


class Lines:
    """A log file's end of a bar: each state on a line of its own, where a terminal would redraw one."""

    last = ""

    def write(self, text: str) -> None:
        if (state := text.strip()) and state.partition("[")[0] != self.last:  # closing a bar shows its last state once more
            self.last = state.partition("[")[0]
            sys.stderr.write(state + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def bar(total: int, desc: str, unit: str, initial: int = 0, quiet: bool = False) -> tqdm:
    """A tqdm bar. In a log file (no terminal) it prints a line after 2 s and then every 30 s instead of redrawing; a quiet one
    shows nothing."""
    if quiet or is_quiet():
        return tqdm(total=total, disable=True)
    if sys.stderr.isatty():
        return tqdm(
            total=total,
            desc=desc,
            unit=unit,
            initial=initial,
            file=sys.stderr,
            leave=False,
            mininterval=0.2,
            dynamic_ncols=True,
            position=0,  # a bar within another takes its line: to go up, tqdm writes ESC[A, which some terminals show
        )
    # smoothing=0: the time left is by the mean speed, which the shift below would distort otherwise
    logged = tqdm(
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        file=Lines(),
        mininterval=INTERVAL,
        delay=FIRST,
        smoothing=0,
        ascii=True,
    )
    if not logged.disable:  # the user may have set TQDM_DISABLE
        logged.last_print_t -= INTERVAL - FIRST
    return logged


def each(items: Sequence[Item], desc: str, unit: str) -> Iterator[Item]:
    """Go through items under a bar."""
    with bar(len(items), desc, unit) as progress:
        for item in items:
            yield item
            progress.update()


def say(message: str) -> None:
    """Print one line about what is being done, and why, to stderr."""
    if is_quiet() and not message.startswith(("warning:", "error:")):
        return
    if sys.stderr.isatty():
        tqdm.write(message, file=sys.stderr)
    else:  # tqdm.write would draw the bar again after every message
        print(message, file=sys.stderr)
    sys.stderr.flush()


def is_quiet() -> bool:
    """Return whether the user wants neither bars nor lines; asked each time, so that a program may change its mind."""
    return os.environ.get("TANDEM_QUIET", "") not in ("", "0")
