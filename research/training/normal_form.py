"""Brings equal settings to one form, typed or written in YAML: otherwise one run would have two ids."""

import ast
import datetime
import enum
import inspect
import json
import re
import types
from typing import Union, get_args, get_origin

import jsonargparse
import yaml

from research.runs.defaults import imported
from research.types import Json

MAPPINGS = ("_pattern", "_config", "_kwargs")
"""Ends of options whose values are mappings: PEFT's rank_pattern, loftq_config, …"""
Section = jsonargparse.Namespace | dict[str, object]
"""A part of a configuration, as it was parsed or as a config.yaml has it."""


def as_written(argv: list[str]) -> list[str]:
    """Spell typed options so that jsonargparse takes them for what the same text in YAML means."""
    return _with_nulls(_unfolded(argv))


def listed(value: object) -> list:
    """Make a list of one callback or plugin, of several, or of none."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def in_order(kind: object) -> object:
    """Order a type that takes several plain values so that a typed value means what it means in a YAML file.

    str comes last: `--trainer.devices 2` is the number. A timedelta stays behind str: it would take Lightning's DD:HH:MM:SS
    for hours, minutes and seconds. int comes before float: `--trainer.limit_train_batches 1` is one batch, and 1.0 is all of
    them; Python's cache of types may hand out `float | int` for Lightning's `int | float`, as the two are equal.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()
    plain = {int, float, bool, list, dict, type(None), datetime.timedelta}
    if not ({str} <= {*kinds} or {int, float} <= {*kinds}) or any(
        (get_origin(inner) or inner) not in {str, *plain} for inner in kinds
    ):
        return kind
    order = {float: 1, str: 2, datetime.timedelta: 3}
    return Union[tuple(sorted(kinds, key=lambda inner: order.get(inner, 0)))]  # noqa: UP007


def take_normal_form(trainer: Section) -> None:
    """Give what means the same one value, in place: the one that YAML files have had.

    Args:
        trainer: that section of a configuration; of a config.yaml too, as an earlier command wrote it.
    """
    devices, precision = trainer.get("devices"), trainer.get("precision")
    if isinstance(devices, str) and re.fullmatch(r"-1|\d+(,\d+)*,?", devices):
        numbers = [int(number) for number in devices.split(",") if number]
        trainer["devices"] = numbers if "," in devices else numbers[0]
    if str(precision) in ("32", "64"):
        trainer["precision"] = f"{precision}-true"


def take_enum_defaults(trainer: Section) -> None:
    """Replace members of an enumeration that are defaults of texts, such as Timer's interval, by the texts, in place.

    YAML has no form for them.
    """
    for callback in listed(trainer.get("callbacks")):
        parameters = inspect.signature(imported(callback.class_path).__init__).parameters
        options = callback.get("init_args") or {}
        for name, value in dict(options).items():
            if isinstance(value, enum.Enum) and name in parameters and parameters[name].annotation in (str, "str"):
                options[name] = str(value.value)


def _unfolded(argv: list[str]) -> list[str]:
    """Split `--model.adapter={'r': 4, 'lora_alpha': 8}`, as a sweep's agent writes tied options, into the two options.

    Python's notation is read as well as YAML's. A mapping with a class_path stays whole: as from a configuration after others,
    its class takes the place of another one, and over the same class it changes the options that it names.
    """
    out: list[str] = []
    for arg in argv:
        name, equals, text = arg.partition("=")
        if equals and re.fullmatch(r"--[\w.]+", name) and text.startswith(("{", "[")):
            out += _leaves(name, _read(text))
        else:
            out.append(arg)
    return out


def _read(text: str) -> Json:
    try:
        return ast.literal_eval(text)  # None and True, which YAML takes for texts or not at all
    except (ValueError, SyntaxError):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text


def _leaves(name: str, value: object) -> list[str]:
    if isinstance(value, dict) and value and "class_path" not in value and not name.endswith(MAPPINGS):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]
    return [f"{name}={value if isinstance(value, str) else json.dumps(value)}"]


def _with_nulls(argv: list[str]) -> list[str]:
    """Rewrite `--model.optimisation.clip null` as `--model.optimisation={clip: null}`.

    jsonargparse takes the null of a dataclass within a class for the string "None".
    """
    joined: list[str] = []
    for arg in argv:
        if arg == "null" and joined and re.fullmatch(r"--[\w.]+", joined[-1]):
            arg = f"{joined.pop()}=null"
        nested = re.fullmatch(r"(--\w+\.(?:init_args\.)?\w+)\.(?:init_args\.)?(\w+)=null", arg)
        inner = nested and not nested[1].endswith(".init_args")
        joined.append(f"{nested[1]}={{{nested[2]}: null}}" if inner else arg)
    return joined
