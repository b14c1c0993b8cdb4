"""`fit -c CONFIG --help`: every option of the classes that a configuration names, with the value that it has there."""

import argparse
import dataclasses
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import NamedTuple

import docstring_parser
import lightning as L

from research.ranges import expected
from research.runs.defaults import imported
from research.training import configuration
from research.training.arguments import HELP
from research.training.option_names import RUN_OPTIONS

LONGEST = 60
"""Characters of a value, and of a type, that are shown."""


class Option(NamedTuple):
    """An option by its dotted name."""

    name: str
    value: object
    text: str


class Group(NamedTuple):
    """Options of one class."""

    title: str
    text: str
    options: list[Option]


def print_options(args: argparse.Namespace) -> int:
    """Print every option with its value in this configuration: the model's, the data's, the run's, the trainer's; return 0.

    Args:
        args: as arguments.parse gives them, with a configuration and --help.
    """
    typed = [arg for arg in args.argv if arg not in HELP]
    _, values = configuration.read(argparse.Namespace(argv=typed, prog=args.prog))
    parser = argparse.ArgumentParser(
        usage=f"{args.prog} -c CONFIG [-c OVERLAY …] [--NAME VALUE …]",
        description=f"Options of `{args.prog} {' '.join(typed)}` with the value that each has there. null: none.",
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=48),
    )
    for group in groups(values):
        section = parser.add_argument_group(group.title, group.text.replace("%", "%%"))
        for option in group.options:
            section.add_argument(f"--{option.name}", metavar=_shown(option.value), help=option.text.replace("%", "%%"))
    parser.print_help()
    return 0


def groups(values: dict) -> Iterator[Group]:
    """Yield a resolved configuration's options: a group for each class, the trainer's last."""
    for name in ("model", "data"):
        yield from _of_class(name, imported(values[name]["class_path"]), values[name]["init_args"])
    of_run = {"mode": None, "json": False} | values
    yield Group("run", "", [Option(name, of_run[name], text) for name, text in RUN_OPTIONS.items()])
    yield from _of_class("trainer", L.Trainer, values["trainer"], short=True)


def _of_class(name: str, kind: type, values: dict, short: bool = False) -> Iterator[Group]:
    """Yield a class's options, then those of the classes within."""
    texts, types = _texts(kind), _types(kind)
    title = f"{name} ({kind.__module__}.{kind.__qualname__})"
    group, inner = Group(title, (inspect.getdoc(kind) or "").partition("\n")[0], []), []
    inherited = {field.name for base in kind.__bases__ if dataclasses.is_dataclass(base) for field in dataclasses.fields(base)}
    for key, value in sorted(values.items(), key=lambda option: option[0] in inherited):
        option, text = f"{name}.{key}", texts.get(key, "")
        if isinstance(value, dict) and dataclasses.is_dataclass(types.get(key)) and "class_path" not in value:
            inner += _of_class(option, types[key], value)
        elif isinstance(value, dict) and isinstance(value.get("init_args"), dict):
            inner += _of_class(option, imported(value["class_path"]), value["init_args"], short=True)
            group.options.append(Option(option, value["class_path"], _first_sentence(text)))
        elif key != "seed":  # it is seed_everything's
            type_text = _type(types.get(key))
            group.options.append(Option(option, value, (_first_sentence(text) if short else text) + type_text))
    yield group
    yield from inner


def _texts(kind: type) -> dict[str, str]:
    """Map each argument to its text in the docstring of a class, of its __init__, or of a class that it inherits."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    texts = {field.name: " ".join(field.metadata["help"].split()) for field in fields if "help" in field.metadata}  # PEFT's
    for each in kind.__mro__:
        for owner in (each, each.__init__):
            for param in docstring_parser.parse(owner.__doc__ or "").params:
                for name in param.arg_name.split(","):
                    texts.setdefault(name.strip(), " ".join((param.description or "").split()))
    return texts


def _types(kind: type) -> dict[str, object]:
    try:
        return typing.get_type_hints(kind.__init__)
    except (NameError, TypeError, AttributeError):  # names that exist for type checkers alone
        return {}


def _type(kind: object) -> str:
    """Return ` (int | null)`; nothing where a type says nothing to a reader."""
    text = expected(kind)
    return f" ({text})" if text and len(text) <= LONGEST else ""


def _first_sentence(text: str) -> str:
    """Return the first sentence of a docstring: a library's is long, and with the option's name it is enough."""
    plain = re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("`", "").removeprefix("Default: None.")
    return textwrap.shorten(re.split(r"(?<=[.?!])\s", plain)[0], 120, placeholder=" …")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return textwrap.shorten(text, LONGEST, placeholder=" …") or "''"
