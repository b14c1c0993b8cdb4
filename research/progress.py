"""Progress bars and plain statements on stderr; stdout carries results only."""

import sys

from tqdm import tqdm


def bar(total: int, desc: str, unit: str, initial: int = 0) -> tqdm:
    """A tqdm bar. In a log file (no terminal) it prints a line every 30 s instead of redrawing."""
    interactive = sys.stderr.isatty()
    return tqdm(
        total=total, desc=desc, unit=unit, initial=initial, file=sys.stderr, leave=not interactive,
        mininterval=0.2 if interactive else 30, delay=0 if interactive else 30, ascii=not interactive, dynamic_ncols=True,
    )  # fmt: skip


def say(message: str) -> None:
    """One line of the running statement of what is being done and why."""
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()
