"""The command of a point, as W&B's agent would write it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from research.errors import UserError, suggest
from research.runs.plan import JSON_FILE, VARIABLE
from research.types import Json

COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]  # W&B's own
MACROS = (  # W&B's
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_hyphens",
    "args_no_equals",
    "args_no_boolean_flags",
    "args_json",
    "args_json_file",
    "args_append_hydra",
    "args_override_hydra",
)

Point = dict[str, Json]
"""Parameter → value."""


def checked_command(facts: dict, path: Path) -> tuple[str, ...]:
    """Check a sweep's command, and return its words, with W&B's macros.

    Args:
        facts: the sweep's YAML.
        path: of it, for messages.

    Raises:
        UserError: it cannot be started, or would not get the parameters.
    """
    command = facts.get("command") or COMMAND
    if not isinstance(command, list):
        raise UserError(f"{path}: command is {str(command)[:60]!r}; expected a list of words. Correct it.")
    arguments = [str(argument) for argument in [*command, facts.get("program", "")]]
    if "${program}" in arguments and not facts.get("program"):
        raise UserError(
            f"{path}: the command has ${{program}} and there is no program; expected one of them. Name the "
            "program, or write the command out."
        )
    for argument in arguments:
        whole = argument[2:-1] if argument.startswith("${") and argument.endswith("}") else None
        if whole is not None and whole not in MACROS and not VARIABLE.search(argument):
            known = [*MACROS, "envvar:NAME"]  # W&B's agent leaves such a word out; NAME has capitals, digits and _
            raise UserError(f"{path}: command has {argument}; {suggest(whole, known)}. Correct it.")
        if whole is None and (macro := re.search(r"\$\{(" + "|".join(MACROS[1:]) + r")\}", argument)):
            raise UserError(
                f"{path}: the command has {macro[0]} within the word {argument[:60]!r}, where W&B's agent does not "
                "fill it in; expected a word of its own. Write it as one: in a shell, [bash, -c, "
                '\'python "$0" "$@"\', "${program}", "${args}"].'
            )
        if lost := re.search(r"[\0\ud800-\udfff]", argument):
            raise UserError(f"{path}: the command has {lost[0]!r} in a word; expected text. Leave that character out.")
    if not any(argument.startswith("${args") for argument in arguments[:-1]):
        raise UserError(f"{path}: the command has no ${{args}}: every point would be the same; expected it at its end. Add it.")
    return tuple(arguments[:-1])


def rendered(command: Sequence[str], program: str, point: Point) -> tuple[list[str], list[int]]:
    """Render the command of a point as W&B's agent does: values by Python's str(), in the sweep's order.

    Args:
        command: of the sweep, with macros.
        program: of the sweep; "" where it names none.
        point: parameter → value.

    Returns:
        The words, and the numbers of those that only the machine that starts the command can fill in: variables of its
        environment, which may be secrets, and a file for ${args_json_file}. `fill_in` does it.
    """
    flags = [f"{name}={value}" for name, value in point.items()]
    booleans = [name if value is True else f"{name}={value}" for name, value in point.items() if value is not False]
    expanded = {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [program],
        "args": [f"--{flag}" for flag in flags],
        "args_no_hyphens": flags,
        "args_no_equals": [part for name, value in point.items() for part in (f"--{name}", str(value))],
        "args_no_boolean_flags": [f"--{flag}" for flag in booleans],
        "args_json": [json.dumps(point)],
        "args_append_hydra": [f"+{flag}" for flag in flags],
        "args_override_hydra": [f"++{flag}" for flag in flags],
    }
    argv: list[str] = []
    later: list[int] = []
    for argument in command:
        if argument == JSON_FILE or VARIABLE.search(argument):
            later.append(len(argv))
            argv.append(argument)
        else:
            argv += (
                expanded.get(argument[2:-1], [argument]) if argument.startswith("${") and argument.endswith("}") else [argument]
            )
    return argv, later


def ours(argv: list[str]) -> list[str] | None:
    """Return the arguments of our own verb in a command (`fit -c …`); None of a foreign one."""
    arguments = argv[1:] if argv and argv[0].endswith("/env") else argv
    if arguments and Path(arguments[0]).name == "research":
        return arguments[1:]
    python = bool(arguments) and re.fullmatch(r"python[\d.]*", Path(arguments[0]).name) is not None
    return arguments[3:] if python and arguments[1:3] == ["-m", "research"] else None


def lost_in_text(point: Point, command: Sequence[str] = ()) -> list[str]:
    """List parameters whose value is another one once it is a word of the command: None, which becomes the text "None".

    JSON carries it; so does a mapping, whose text our own verbs read again.
    """
    if {"${args_json}", JSON_FILE} & {*command} and not any(
        argument.startswith("${args") and argument not in ("${args_json}", JSON_FILE) for argument in command
    ):
        return []
    return [name for name, value in point.items() if value is None]
