"""Names under which W&B knows a run: its id, where its options lie in the configuration, which metrics it was sent."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from research.runs.curves import read_lines
from research.runs.folder import RunFolder
from research.runs.options import ADAPTER
from research.runs.record import RunRecord

WITHOUT_ADAPTER = ("model.train_layers", "model.train_pattern")  # what tells such runs apart, see runs.options.with_method
SCALE = "/r"  # ending of factors.with_scale's factor, which no configuration holds


def run_id(folder: Path) -> str | None:
    """The id of the folder's W&B run; None where there never was one.

    A training keeps its id in wandb.json; of the other verbs, the newest folder of W&B's own files has it in its name.
    """
    if noted := RunFolder(folder).wandb:
        return noted.get("id")
    names = sorted(path.name.partition("run-")[2] for path in folder.glob("wandb/*run-*-*"))  # TIME-ID
    return names[-1].partition("-")[2] if names else None


def offline_logs(folder: Path) -> list[Path]:
    """Folders of W&B's offline files, which `wandb sync` uploads."""
    return sorted(folder.glob("wandb/offline-run-*"))


def paths(config: dict[str, Any], name: str = "", place: str = "") -> dict[str, str]:
    """Option, as a user types it (`model.adapter.r`) → where W&B has it (`model.init_args.adapter.init_args.r`).

    Args:
        config: as config.yaml has it, which W&B was sent.
        name, place: of the part that is walked through.
    """
    places: dict[str, str] = {}
    for key, value in config.items():
        inner, there = (f"{name}.{key}" if name else key), (f"{place}.{key}" if place else key)
        if key == "class_path":
            places[name] = there
        elif key == "init_args":
            places |= paths(value or {}, name, there)
        elif isinstance(value, dict):
            places |= paths(value, inner, there)
        else:
            places[inner] = there
    return places


def config_of(run: RunRecord) -> dict[str, Any]:
    """The run's config.yaml; {} of one that was never begun."""
    folder = RunFolder(run.path)
    return folder.config if folder.has_config else {}


def factor_keys(configs: Sequence[dict[str, Any]], factors: Sequence[str]) -> dict[str, str]:
    """W&B's path of an option → the option, of those that the factors are made of and that differ between the runs.

    alpha / r is no option: the two that it is made of stand for it. "No adapter" is not one either: what is trained
    without one stands beside the adapter's class.

    Args:
        configs: of the runs, as config_of gives them.
        factors: of the study.
    """
    places: dict[str, set[str]] = {}
    for config in configs:
        for option, path in paths(config).items():
            places.setdefault(option, set()).add(path)
    options: list[str] = []
    for factor in factors:
        if factor.endswith(SCALE):
            alpha = factor.removesuffix(SCALE)
            options += [f"{alpha.rpartition('.')[0]}.r", alpha]
        else:
            options += [factor, *(WITHOUT_ADAPTER if factor == ADAPTER else ())]
    keys = {}
    for option in dict.fromkeys(options):
        if option in places:
            # null here and a class there: the class's name is what tells them apart
            path = max(places[option], key=len)
            if len({_key(value_at(config, path)) for config in configs}) > 1:
                keys[path] = option
    return keys


def value_at(config: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none, as W&B groups it."""
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def signature(config: dict[str, Any], keys: Iterable[str]) -> str:
    """What W&B groups a run by."""
    return _key([value_at(config, key) for key in keys])


def logged(folder: Path, names: Iterable[str]) -> set[str]:
    """Which of these metrics the run has logged over its steps: W&B was sent the lines of its curves."""
    return {name for name in names if read_lines(folder, name)}


def summarised(folder: Path) -> set[str]:
    """Names that W&B's summary was given besides the last values of what was logged (wandb.json of a finished training)."""
    names = RunFolder(folder).wandb.get("summary")
    return {*names} if isinstance(names, list) else set()


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
