"""What a training computes, as one name: the same configuration on the same data and base model has the same point id.

The id is the hash of the resolved configuration, the base model's hash and the data's facts, in a form that stays:

- an option at its default is no part of it. The options in known_options.json were there before this rule: they are always
  spelled, so that the ids of before stay. A default that changes is then named (SINCE keeps the first one);
- what says how a thing is computed (devices at an equal global batch, the faster parts of a CPU, chunks) has one spelling;
- where things lie is left out: the hashes of what is there stand in.

`ids_of` also gives the names by which earlier versions knew the same point: what was done under one of them is done.
"""

import dataclasses
import enum
import functools
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

from research.runs.changes import COUNTED, has_router_loss
from research.runs.hashes import hash_json

PLACE = "{point}"  # in --out: becomes the point id
LENGTH = 16  # hexadecimal digits
HOW = ("out", "wandb", "save_every", "data.init_args.workers")
"""Options that a run may go on without or with, and that were never part of an id."""
PATHS = (
    "model.init_args.model",
    "data.init_args.train",
    "data.init_args.val",
    "data.init_args.test",
    "data.init_args.other",
    "data.init_args.val_run",
    "data.init_args.test_run",
    "data.init_args.corpus_file",
    "data.init_args.queries_file",
    "trainer.default_root_dir",
)
"""Where things lie, for which the hashes of what is there stand in."""
ONE_SPELLING: dict[str, Any] = {
    "trainer.deterministic": None,
    "trainer.benchmark": None,
    "trainer.inference_mode": True,
    "trainer.profiler": None,
    "trainer.detect_anomaly": False,
    "trainer.sync_batchnorm": False,
    "model.init_args.fast": True,
    "data.init_args.chunk_overhead": 512,
    "data.init_args.share_prompt": None,
}
"""Options that change speed, memory or rounding alone → the value that stands for all of theirs."""
DOCUMENTED: dict[str, Any] = {
    "trainer.precision": "32-true",
    "trainer.limit_train_batches": 1.0,
    "trainer.limit_val_batches": 1.0,
    "trainer.limit_test_batches": 1.0,
    "trainer.limit_predict_batches": 1.0,
    "trainer.val_check_interval": 1.0,
}
"""What Lightning makes of its own default, None; 1.0 is all of the batches, and 1 is one of them."""
SINCE: dict[str, Any] = {
    "data.init_args.columns": None,
    "data.init_args.positive_from": None,
    "data.init_args.corpus_file": None,
    "data.init_args.queries_file": None,
    "data.init_args.train_split": None,
}
"""Options of ours that came later, by dotted name → the default that they came with, which is no part of an id."""
BATCH = "data.init_args.batch_size"
KNOWN: dict[str, list[str]] = json.loads(Path(__file__).with_name("known_options.json").read_text(encoding="utf-8"))
"""Class path, "" for the whole → the options that are always spelled."""
DROPPED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("known_defaults.json").read_text(encoding="utf-8"))
"""Class path of a library's → default of each option in KNOWN: what is spelled where another release of it lacks the option."""
KNOWN_FACTS = ("train", "queries", "examples", "pairs", "val", "test", "other", "val_run", "test_run")
"""Facts of data that are part of an id whatever they say; others only where they say something."""


def ids_of(resolved: dict, base_hash: str, data: dict) -> tuple[str, ...]:
    """The point id of a training, and after it the ids that earlier versions gave it.

    Args:
        resolved: the configuration with every default.
        base_hash: of the model that is trained.
        data: the DataModule's describe(): fingerprints and counts of what is read.
    """
    before = _without(_spelled(resolved, everything=True), (*HOW, *PATHS))
    trainer = before.get("trainer")
    typed = [before | {"trainer": one} for one in _as_typed(trainer)] if isinstance(trainer, dict) else [before]
    documented = _without(one_spelling(_spelled(resolved), {}, _are_free(resolved)), (*HOW, *PATHS))  # as typed once
    forms = (what_is_computed(resolved), documented, *typed)
    facts = known_facts(data)
    uncounted = {name: value for name, value in facts.items() if name not in COUNTED}  # as before each was counted
    ids = (hash_json([form, base_hash, one])[:LENGTH] for one in (facts, uncounted) for form in forms)
    return tuple(dict.fromkeys(ids))


def _as_typed(trainer: dict) -> list[dict]:
    """A trainer section as it is now, and with devices and precision as ids had them once where a user typed them."""
    devices, precision = trainer.get("devices"), trainer.get("precision")
    bits = str(precision).removesuffix("-true")
    counts = [devices, str(devices)] if isinstance(devices, int) else [devices]
    widths = [precision, int(bits), bits] if bits in ("32", "64") else [precision]
    return [trainer | {"devices": count, "precision": width} for count in counts for width in widths]


def what_is_computed(resolved: dict) -> dict:
    """A configuration without what says where or how, and without options at their defaults."""
    return _without(one_spelling(_spelled(resolved), processes=_are_free(resolved)), (*HOW, *PATHS))


def _are_free(resolved: dict) -> bool:
    """Whether any number of processes that share a batch computes the same; a router's loss is of a process's own tokens."""
    return not has_router_loss(resolved)


def differences(a: dict, b: dict) -> dict[str, tuple]:
    """Dotted name → (value in a, value in b), where two configurations differ in what is computed; in PATHS too."""
    found = _differences(*(_without(one_spelling(_spelled(one)), HOW) for one in (a, b)))
    if BATCH in found:  # of all processes together: named is what the user has changed
        typed = {name: tuple(_at(one, name) for one in (a, b)) for name in (BATCH, "trainer.devices", "trainer.num_nodes")}
        found = {name: pair for name, pair in found.items() if name != BATCH} | {
            name: pair for name, pair in typed.items() if pair[0] != pair[1]
        }
    return found


def _differences(a: Any, b: Any, name: str = "") -> dict[str, tuple]:
    if isinstance(a, dict) and isinstance(b, dict):
        found = {}
        for key in sorted({*a, *b}):
            found |= _differences(a.get(key), b.get(key), f"{name}{key}.")
        return found
    return {} if a == b else {name.rstrip("."): (a, b)}


def without_later_defaults(value: Any, name: str = "") -> Any:
    """A configuration without the options that came later and stand at the defaults they came with."""
    if not isinstance(value, dict):
        return value
    return {
        key: without_later_defaults(one, f"{name}{key}.")
        for key, one in value.items()
        if f"{name}{key}" not in SINCE or _plain(one) != SINCE[f"{name}{key}"]
    }


def known_facts(data: dict) -> dict:
    """The data's facts without those that came later and say nothing."""
    return {name: value for name, value in data.items() if name in KNOWN_FACTS or value}


# ---- options at their defaults --------------------------------------------------------------------------------------


def _spelled(value: Any, everything: bool = False, name: str = "") -> Any:
    """Without options that are not KNOWN and stand at their defaults.

    Args:
        value: of the configuration, or of a part of it.
        everything: of classes that KNOWN does not have spell all options, as ids did once.
        name: of this part, dotted, with a dot at its end.
    """
    if isinstance(value, list):
        return [_spelled(one, everything, f"{name}{i}.") for i, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if not name:
        return _options(value, "", everything, name)
    if isinstance(value.get("class_path"), str) and isinstance(value.get("init_args"), dict):
        return value | {"init_args": _options(value["init_args"], value["class_path"], everything, f"{name}init_args.")}
    return {key: _spelled(one, everything, f"{name}{key}.") for key, one in value.items()}


def _options(options: dict, owner: str, everything: bool, name: str, group: str = "") -> dict:
    """Options of a class; `group` is the one of them that they are together, with a dot at its end."""
    known = _known(owner)
    out = {} if group else {key: one for key, one in DROPPED.get(owner, {}).items() if key not in options}
    for key, one in options.items():
        if everything and (known is None or f"{group}{key}".split(".")[0] not in _of_ours(owner)):
            out[key] = _spelled(one, everything, f"{name}{key}.")
        elif known is not None and f"{group}{key}" in known:
            is_group = isinstance(one, dict) and any(other.startswith(f"{group}{key}.") for other in known)
            out[key] = (
                _options(one, owner, everything, f"{name}{key}.", f"{group}{key}.")
                if is_group
                else _spelled(one, everything, f"{name}{key}.")
            )
        elif not _is_default(one, f"{name}{key}", owner, f"{group}{key}"):
            out[key] = _spelled(one, everything, f"{name}{key}.")
    return out


def _is_default(value: Any, name: str, owner: str, place: str) -> bool:
    if name in SINCE:
        return _plain(value) == SINCE[name]
    default: Any = _defaults(owner)
    for key in place.split("."):
        default = _plain(default)
        if not isinstance(default, dict) or key not in default:
            return False
        default = default[key]
    return _plain(value) == _plain(default)


@functools.cache
def _known(class_path: str) -> frozenset[str] | None:
    """Options of a class, and of the classes of ours that it is made from, that are always spelled; None: it is not known."""
    names: set[str] = set(KNOWN.get(class_path, ()))
    for base in _class(class_path).__mro__ if class_path else ():
        names |= {*KNOWN.get(f"{base.__module__}.{base.__qualname__}", ())}
    return frozenset(names) or None


@functools.cache
def _of_ours(class_path: str) -> frozenset[str]:
    """Options that a class has from those in KNOWN."""
    bases = [base for base in _class(class_path).__mro__ if f"{base.__module__}.{base.__qualname__}" in KNOWN]
    names = {name for base in bases for name in inspect.signature(base.__init__).parameters}
    return frozenset(names | (_known(class_path) or frozenset()))


def imported(class_path: str) -> Any:
    """What a configuration names.

    Raises:
        ImportError, AttributeError, ValueError: it is not there.
    """
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _class(class_path: str) -> type:
    try:
        found = imported(class_path)
    except (ImportError, AttributeError, ValueError):
        found = object  # a configuration of elsewhere: it is compared as it stands
    return found if isinstance(found, type) else object


@functools.cache
def _defaults(class_path: str) -> dict[str, Any]:
    """Option → default, of a class and of those that its **kwargs go to."""
    if not class_path:
        return {"trainer": _defaults("lightning.Trainer")}
    found: dict[str, Any] = {}
    for base in _class(class_path).__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        for one in inspect.signature(base.__init__).parameters.values():
            if one.default is not one.empty:
                found.setdefault(one.name, one.default)
    for field in dataclasses.fields(_class(class_path)) if dataclasses.is_dataclass(_class(class_path)) else ():
        if field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _plain(value: Any) -> Any:
    """As YAML has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=repr)
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


# ---- one spelling of how --------------------------------------------------------------------------------------------


def one_spelling(resolved: dict, documented: dict[str, Any] = DOCUMENTED, processes: bool = True) -> dict:
    """With what says how, and not what, in one spelling.

    Args:
        resolved: configuration.
        documented: values of the Trainer that are its defaults by its documentation.
        processes: whether devices that share a batch are among what says how.
    """
    out = json.loads(json.dumps(resolved, default=str))
    for name, value in documented.items():
        section, _, option = name.rpartition(".")
        if (part := _part(out, section)) is not None and repr(part.get(option)) == repr(value):
            part[option] = None
    for name, value in ONE_SPELLING.items():
        section, _, option = name.rpartition(".")
        if (part := _part(out, section)) is not None and option in part:
            part[option] = value
    trainer, data, model = (_part(out, name) for name in ("trainer", "data.init_args", "model.init_args"))
    count = _processes(trainer) if trainer is not None and "devices" in trainer else None
    if count is None or (count > 1 and not processes):  # None: known on the machine alone
        return out
    if count > 1:
        size = (data or {}).get("batch_size")
        if not isinstance(size, int) or (model or {}).get("gather") is False:
            return out  # what a process computes depends on how many there are
        data["batch_size"] = size * count
    trainer |= {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    return out


def _part(value: Any, name: str) -> dict | None:
    """A section by its dotted name; None where a configuration of elsewhere has none."""
    found = _at(value, name)
    return found if isinstance(found, dict) else None


def _at(value: Any, name: str) -> Any:
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _processes(trainer: dict) -> int | None:
    """How many processes train, where the configuration alone says it."""
    devices, nodes = trainer["devices"], trainer.get("num_nodes", 1)
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if devices == "auto" and trainer.get("accelerator") == "cpu":
        devices = 1
    if isinstance(devices, str) and "," in devices:
        devices = [one for one in devices.split(",") if one.strip()]
    if isinstance(devices, list):
        devices = len(devices)
    known = isinstance(devices, int) and not isinstance(devices, bool) and devices > 0 and isinstance(nodes, int)
    return devices * nodes if known else None


def _without(value: Any, names: tuple[str, ...], name: str = "") -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without(inner, names, f"{name}{key}.") for key, inner in value.items() if f"{name}{key}" not in names}
