"""A trained run's model on its validation data.

research validate -c runs/dual_encoder/config.yaml
"""

import argparse

from research.verbs import configuration, training

parse = configuration.parse
add_arguments = configuration.add_arguments


def run(args: argparse.Namespace) -> int:
    return training.evaluate(args, "validate")
