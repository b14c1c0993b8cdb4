"""Which options of a configuration stand at their defaults, and so are no part of a point's id."""

import dataclasses
import enum
import functools
import importlib
import inspect
import json
from pathlib import Path

from research.types import Json

KNOWN: dict[str, list[str]] = json.loads(Path(__file__).with_name("known_options.json").read_text(encoding="utf-8"))
"""Class path ("" for the whole configuration) → the options that are always part of an id."""
DROPPED: dict[str, dict[str, Json]] = json.loads(Path(__file__).with_name("known_defaults.json").read_text(encoding="utf-8"))
"""Class path of a library → defaults of its options in KNOWN, used where another release lacks the option."""
ROW_OPTIONS = {"columns": None, "positive_from": None, "corpus_file": None, "queries_file": None}
SINCE: dict[str, dict[str, Json]] = {
    "research.data.pairs.PairData": ROW_OPTIONS | {"test": None},
    "research.data.candidates.CandidateData": ROW_OPTIONS | {"train_split": None, "test": None},
    "research.data.instructions.InstructionData": {"columns": None},
    "research.data.preferences.PreferenceData": {"columns": None},
    "research.training.dual_encoder.DualEncoderModule": {"loss": "info_nce"},
    "research.training.sft.SFTModule": {"loss": "cross_entropy"},
}
"""Class path → options of it that came later, with the default that they came with, which is no part of an id."""
AGREED = {
    name: first
    for options in SINCE.values()
    for name, first in options.items()
    if all(other.get(name, first) == first for other in SINCE.values())
}
"""Later options that came with the same default in every class."""


def spelled(value: Json, everything: bool = False, name: str = "") -> Json:
    """Return the configuration less options that are not KNOWN and stand at their defaults.

    Args:
        value: of the configuration, or of a part of it.
        everything: of classes that KNOWN does not have spell all options, as ids did once.
        name: of this part, dotted, with a dot at its end.
    """
    if isinstance(value, list):
        return [spelled(inner, everything, f"{name}{i}.") for i, inner in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if not name:
        return _options(value, "", everything, name)
    if isinstance(value.get("class_path"), str) and isinstance(value.get("init_args"), dict):
        return value | {"init_args": _options(value["init_args"], value["class_path"], everything, f"{name}init_args.")}
    return {key: spelled(inner, everything, f"{name}{key}.") for key, inner in value.items()}


def _options(options: dict, owner: str, everything: bool, name: str, group: str = "") -> dict:
    """Spell a class's options; `group` is the dotted prefix, with a dot at its end, where they are fields of one option."""
    known = _known(owner)
    out = {} if group else {key: value for key, value in DROPPED.get(owner, {}).items() if key not in options}
    for key, value in options.items():
        if everything and (known is None or f"{group}{key}".split(".")[0] not in _of_ours(owner)):
            out[key] = spelled(value, everything, f"{name}{key}.")
        elif known is not None and f"{group}{key}" in known:
            is_group = isinstance(value, dict) and any(other.startswith(f"{group}{key}.") for other in known)
            out[key] = (
                _options(value, owner, everything, f"{name}{key}.", f"{group}{key}.")
                if is_group
                else spelled(value, everything, f"{name}{key}.")
            )
        elif not _is_default(value, owner, f"{group}{key}"):
            out[key] = spelled(value, everything, f"{name}{key}.")
    return out


def _is_default(value: object, owner: str, place: str) -> bool:
    if place in (later := _later(owner)):
        return _plain(value) == later[place]
    default: object = _defaults(owner)
    for key in place.split("."):
        default = _plain(default)
        if not isinstance(default, dict) or key not in default:
            return False
        default = default[key]
    return _plain(value) == _plain(default)


@functools.cache
def _later(class_path: str) -> dict[str, Json]:
    """Map later options of a class, and of the classes of ours that it is made from, to the default they came with."""
    bases = [f"{base.__module__}.{base.__qualname__}" for base in _class(class_path).__mro__ if class_path]
    return {name: first for path in (*reversed(bases), class_path) for name, first in SINCE.get(path, {}).items()}


@functools.cache
def _known(class_path: str) -> frozenset[str] | None:
    """Return the options of a class, and of its bases of ours, that are always spelled; None: it is not known."""
    names: set[str] = set(KNOWN.get(class_path, ()))
    for base in _class(class_path).__mro__ if class_path else ():
        names |= {*KNOWN.get(f"{base.__module__}.{base.__qualname__}", ())}
    return frozenset(names) or None


@functools.cache
def _of_ours(class_path: str) -> frozenset[str]:
    """Return the options that a class has from those in KNOWN."""
    bases = [base for base in _class(class_path).__mro__ if f"{base.__module__}.{base.__qualname__}" in KNOWN]
    names = {name for base in bases for name in inspect.signature(base.__init__).parameters}
    return frozenset(names | (_known(class_path) or frozenset()))


def imported(class_path: str) -> object:
    """Import the object that a class path names.

    Raises:
        ImportError, AttributeError, ValueError: it is not there.
    """
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _class(class_path: str) -> type:
    try:
        named = imported(class_path)
    except (ImportError, AttributeError, ValueError):
        named = object  # a configuration of elsewhere: it is compared as it stands
    return named if isinstance(named, type) else object


@functools.cache
def _defaults(class_path: str) -> dict[str, object]:
    """Map each option to its default, of a class and of those that its **kwargs go to."""
    if not class_path:
        return {"trainer": _defaults("lightning.Trainer")}
    defaults: dict[str, object] = {}
    for base in _class(class_path).__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        for parameter in inspect.signature(base.__init__).parameters.values():
            if parameter.default is not parameter.empty:
                defaults.setdefault(parameter.name, parameter.default)
    for field in dataclasses.fields(_class(class_path)) if dataclasses.is_dataclass(_class(class_path)) else ():
        if field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def _plain(value: object) -> Json:
    """Return a Python value as YAML writes it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=repr)
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def without_later_defaults(value: Json) -> Json:
    """Return a configuration without the options that came later and stand at the defaults they came with.

    No class is imported: of one that SINCE lacks, as a user's own, an option goes where all classes that have it agree.
    """
    if not isinstance(value, dict):
        return value
    value = {key: without_later_defaults(inner) for key, inner in value.items()}
    path, options = value.get("class_path"), value.get("init_args")
    if isinstance(path, str) and isinstance(options, dict):
        later = SINCE.get(path, {} if path.startswith("research.") else AGREED)
        value["init_args"] = {key: inner for key, inner in options.items() if key not in later or _plain(inner) != later[key]}
    return value
