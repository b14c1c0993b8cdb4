"""A trained run's model on its validation data.

research validate -c runs/dual_encoder/config.yaml
"""

import argparse

from research.verbs import configuration, evaluating

parse = configuration.parse
add_arguments = configuration.add_arguments


def run(args: argparse.Namespace) -> int:
    return evaluating.evaluate(args, "validate")
