"""A trained run's model on its validation data.

research validate -c runs/dual_encoder/config.yaml

A config.yaml names classes (callbacks, plugins), which are imported and made: that of somebody else is their code, and to
read it here is to run it. Look into it first.
"""

import argparse

from research.training.arguments import add_arguments, parse

__all__ = ["add_arguments", "parse", "run"]


def run(args: argparse.Namespace) -> int:
    from research.training.run import validate  # torch and Lightning take seconds, and the short help needs neither

    return validate(args)
