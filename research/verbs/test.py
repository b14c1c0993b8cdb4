"""A trained run's model on its test data: prints each metric's mean, and writes values of single examples.

  research test runs/dual_encoder                            # a run folder
  research test -c configs/dual_encoder.yaml                 # the same; the untrained model where there is no run yet

It measures the model that `fit` kept as the best and prints one line a metric: its name and its mean, with --json one JSON
line. RUN/test.json then holds them, and the value of each query or example for paired tests.

A config.yaml names classes (callbacks, plugins), which are imported and made: that of somebody else is their code, and to
read it here is to run it. Look into it first.
"""

import argparse

from research.data.sources import check_source
from research.training.arguments import add_arguments, parse
from research.training.places import check_places

__all__ = ["add_arguments", "parse", "run"]


def run(args: argparse.Namespace) -> int:
    """Measure the best model on the test data; the exit code."""
    if args.help:
        from research.training.options_help import print_options  # torch, to read the classes' options

        return print_options(args)
    check_places(args, check_source)
    from research.training.run import test  # torch and Lightning take seconds, and the short help needs neither

    return test(args)
