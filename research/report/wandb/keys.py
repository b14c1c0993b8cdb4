"""Names under which W&B knows a run: its id, where its options lie in the configuration, which metrics it was sent."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from research.runs.curves import read_lines
from research.runs.folder import RunFolder
from research.runs.options import ADAPTER
from research.runs.record import RunRecord
from research.types import Json

WITHOUT_ADAPTER = ("model.train_layers", "model.train_pattern")  # what tells such runs apart, see runs.options.with_method
SCALE = "/r"  # ending of factors.with_scale's factor, which no configuration holds


def run_id(folder: Path) -> str | None:
    """Return the id of the folder's W&B run; None where there never was one.

    A training keeps its id in wandb.json; of the other verbs, the newest folder of W&B's own files has it in its name.
    """
    if record := RunFolder(folder).wandb:
        return record.get("id")
    names = sorted(path.name.partition("run-")[2] for path in folder.glob("wandb/*run-*-*"))  # TIME-ID
    return names[-1].partition("-")[2] if names else None


def offline_logs(folder: Path) -> list[Path]:
    """List the folders of W&B's offline files, which `wandb sync` uploads."""
    return sorted(folder.glob("wandb/offline-run-*"))


def paths(config: dict[str, Json], name: str = "", place: str = "") -> dict[str, str]:
    """Map each option, as a user types it (`model.adapter.r`), to W&B's path (`model.init_args.adapter.init_args.r`).

    Args:
        config: of config.yaml, as it was sent to W&B.
        name, place: prefix of the option and of W&B's path, of the part that is read.
    """
    places: dict[str, str] = {}
    for key, value in config.items():
        option, path = (f"{name}.{key}" if name else key), (f"{place}.{key}" if place else key)
        if key == "class_path":
            places[name] = path
        elif key == "init_args":
            places |= paths(value or {}, name, path)
        elif isinstance(value, dict):
            places |= paths(value, option, path)
        else:
            places[option] = path
    return places


def config_of(run: RunRecord) -> dict[str, Json]:
    """Read the run's config.yaml; {} if the run was never begun."""
    folder = RunFolder(run.path)
    return folder.config if folder.has_config else {}


def factor_keys(configs: Sequence[dict[str, Json]], factors: Sequence[str]) -> dict[str, str]:
    """Map W&B's path of an option to the option, of those that make up the factors and differ between the runs.

    alpha / r is no option: its two options take its place. "No adapter" is no option either: the options that say what is
    trained without an adapter are added to the adapter's class.

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


def value_at(config: dict[str, Json], path: str) -> Json:
    """Return the value at a dotted path; None if there is none, as W&B groups runs."""
    value: Json = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def signature(config: dict[str, Json], keys: Iterable[str]) -> str:
    """Return what W&B groups a run by."""
    return _key([value_at(config, key) for key in keys])


def logged(folder: Path, names: Iterable[str]) -> set[str]:
    """Return which of these metrics the run has logged over its steps: W&B was sent the lines of its curves."""
    return {name for name in names if read_lines(folder, name)}


def summarised(folder: Path) -> set[str]:
    """List names that W&B's summary was given besides the last logged values (wandb.json of a finished training)."""
    names = RunFolder(folder).wandb.get("summary")
    return {*names} if isinstance(names, list) else set()


def _key(value: Json) -> str:
    return json.dumps(value, sort_keys=True, default=str)
