"""A trained run's model on its test data.

research test -c runs/dual_encoder/config.yaml
"""

import argparse

from research.verbs import training

parse = training.parse
add_arguments = training.add_arguments


def run(args: argparse.Namespace) -> int:
    return training.evaluate(args, "test")
