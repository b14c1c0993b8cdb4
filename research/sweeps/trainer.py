"""What a sweep is told of the program whose trainings it runs: it knows no trainer itself."""

from collections.abc import Callable
from typing import NamedTuple

from research.types import Json

Description = dict[str, Json]
"""A command's point id and what it would compute: `point`, and of a training `former` ids, `data`, `trained_parameters`, …"""


class Program(NamedTuple):
    """The program whose trainings a sweep runs.

    Attributes:
        describe: arguments of `fit`, a metric that it must measure or None, and the goal that the sweep states for it → what it
            would compute, without computing it. Raises UserError where the command would end in one.
        run: a command line's arguments → its exit code.
        time_steps: arguments of `fit`, and a number of steps → `seconds` of the whole training and its `devices`.
    """

    describe: Callable[[list[str], str | None, str | None], Description]
    run: Callable[[list[str]], int]
    time_steps: Callable[[list[str], int], dict[str, Json]]
