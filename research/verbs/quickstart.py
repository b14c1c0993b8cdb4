"""The whole road on the embedded data and models: retrieve, train, mine, rerank, teach a language model, and show a page.

  research quickstart                 # sized to five minutes
  research quickstart --minutes 15
  research quickstart --full          # everything, as in the README's table: some 20 minutes on two cores

No network, no account. The machine's speed is measured first, the work is sized to the minutes, and what is left out is said.
Every step is a command that you can type yourself; it is printed before it runs. Run the same command again to go on where it
stopped.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

from research.errors import UserError
from research.models.sources import SMOLLM2, check_name
from research.quickstart.steps import Names, check_configs

MINUTES = 5.0
DATA = None  # the embedded collections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the run folders and the page go (runs/quickstart, runs/quickstart-full, runs/quickstart-Nmin)",
    )
    parser.add_argument("--minutes", type=float, metavar="N", help=f"size the work to about so many minutes ({MINUTES:g})")
    parser.add_argument("--full", action="store_true", help="leave nothing out, whatever it takes")


def run(args: argparse.Namespace, main: Callable[[list[str]], int]) -> int:
    """Run the road; the exit code."""
    started = time.perf_counter()
    if args.full and args.minutes is not None:
        raise UserError(f"--full with --minutes {args.minutes:g}; expected one of them. Leave one out.")
    minutes = None if args.full else MINUTES if args.minutes is None else args.minutes
    if minutes is not None and not 0 < minutes < math.inf:
        raise UserError(f"--minutes {minutes:g}; expected a number above 0. Pass --minutes 5, say.")
    check_configs()
    check_name(SMOLLM2)

    # torch takes seconds to import: only once the command is known to be right
    from research.models.sources import MINILM, resolve
    from research.quickstart.run import Road, run_road
    from research.quickstart.speed import measure

    resolve(MINILM)  # a missing or altered package is said now, not after the first minute
    out = args.out or Path("runs", f"quickstart{'-full' if args.full else '' if minutes == MINUTES else f'-{minutes:g}min'}")
    return run_road(Road(out, minutes, started, main, lambda precision: Names(out, precision, MINILM, SMOLLM2, DATA)), measure)
