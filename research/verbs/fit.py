"""Train what a configuration says. Run it again to resume where it stopped.

  research fit -c configs/dual_encoder.yaml [-c OVERLAY.yaml …] [--out DIR] [--model.temperature 0.02 …]

  research fit runs/dual_encoder                      # resume a run, from its own config.yaml

A later -c changes what an earlier one says; options after them change single values.
"""

import argparse
from pathlib import Path

from research.data.sources import check_source
from research.runs.fingerprint import code_fingerprint
from research.training.arguments import add_arguments, parse
from research.training.places import check_places
from research.training.stop import stop_at_once

__all__ = ["add_arguments", "parse", "run"]


def run(args: argparse.Namespace) -> int:
    """Train; the exit code."""
    if args.help:
        from research.training.options_help import print_options  # torch, to read the classes' options

        return print_options(args)
    check_places(args, check_source)
    with stop_at_once():  # while torch is loaded, too
        code_fingerprint()  # reads the code that is loaded next, and not what it is edited to meanwhile
        from research.sweeps.outcome import early_termination
        from research.training.pruning import Pruning
        from research.training.run import fit  # torch and Lightning take seconds, and the short help needs neither

        def watchers(out: Path) -> list[Pruning]:
            rule = early_termination(out)  # of the sweep that this training is a point of
            return [] if rule is None else [Pruning(out, *rule)]

        return fit(args, watchers)
