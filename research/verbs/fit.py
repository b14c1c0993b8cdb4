"""Train what a configuration says. Run it again to go on where it stopped.

  research fit -c configs/dual_encoder.yaml [-c OVERLAY.yaml …] [--out DIR] [--model.temperature 0.02 …]

A later -c changes what an earlier one says; options after them change single values. `research fit -c CONFIG --help` lists
every option of the classes that CONFIG names.
"""

import argparse

from research.verbs import configuration, training

parse = configuration.parse
add_arguments = configuration.add_arguments


def run(args: argparse.Namespace) -> int:
    return training.fit(args)
