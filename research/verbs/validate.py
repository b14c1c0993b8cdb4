"""A trained run's model on its validation data.

research validate -c runs/dual_encoder/config.yaml
"""

import argparse

from research.verbs import training

parse = training.parse
add_arguments = training.add_arguments


def run(args: argparse.Namespace) -> int:
    return training.evaluate(args, "validate")
