"""A trained run's model on its test data.

research test -c runs/dual_encoder/config.yaml

A config.yaml names classes (callbacks, plugins), which are imported and made: that of somebody else is their code, and to
read it here is to run it. Look into it first.
"""

import argparse

from research.verbs import configuration, evaluating

parse = configuration.parse
add_arguments = configuration.add_arguments


def run(args: argparse.Namespace) -> int:
    return evaluating.evaluate(args, "test")
