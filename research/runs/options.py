"""Configurations and points of sweeps → options by dotted name, as a user types them."""

import json
from collections.abc import Sequence
from pathlib import Path

from research.runs.printable import printable
from research.runs.spelling import HOW
from research.types import Json

NO_FACTORS = {
    *(name.replace(".init_args", "") for name in HOW),
    "monitor",
    "mode",
    "trainer.default_root_dir",
    "trainer.logger",
}
"""Options that say how or where, not what is computed: those that are no part of a point id, and what a run is judged by."""
SEED = "seed_everything"
ADAPTER = "model.adapter"


def options_from(config: dict[str, Json]) -> dict[str, Json]:
    """Return a configuration's options by dotted name; a training without an adapter says what it trains."""
    return with_method(flat(config))


def with_method(options: dict[str, Json]) -> dict[str, Json]:
    """Add what is trained (the method), where there is no adapter."""
    if options.get(ADAPTER, "") is None:
        options[ADAPTER] = _without_adapter(options)
    return options


def _without_adapter(options: dict[str, Json]) -> str:
    """Name what is trained where there is no adapter."""
    if options.get("model.train_layers") is not None:
        return f"last {options['model.train_layers']} layers"
    if options.get("model.train_pattern") is not None:
        return f"weights {options['model.train_pattern']}"
    return "full fine-tuning"


def flat(config: dict[str, Json], prefix: str = "") -> dict[str, Json]:
    """Map dotted names to options, as a user types them: `model.adapter.r`; a class is its own option (`model.adapter`)."""
    options: dict[str, Json] = {}
    for key, value in config.items():
        name = printable(f"{prefix}.{key}" if prefix else str(key))
        if key == "class_path":
            options[prefix] = str(value).rpartition(".")[2]
        elif key == "init_args" and isinstance(value, dict | None):
            options |= flat(value or {}, prefix)
        elif isinstance(value, dict):
            options |= flat(value, name)
        else:
            options[name] = _writable(value)
    return {name: value for name, value in options.items() if name not in NO_FACTORS}


def _writable(value: Json) -> Json:
    """Return what JSON, UTF-8 and XML hold: YAML reads dates and sets, a program may log half a surrogate pair, or colours."""
    if isinstance(value, str):
        return printable(value.encode("utf-8", "replace").decode())
    if isinstance(value, list | tuple | set):
        return [_writable(inner) for inner in (sorted(value, key=str) if isinstance(value, set) else value)]
    if isinstance(value, dict):
        return {_writable(name): _writable(inner) for name, inner in value.items()}
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def options_of(values: dict[str, Json]) -> dict[str, Json]:
    """Return the values of a sweep's point as options: a mapping stands for the options under its name."""
    options: dict[str, Json] = {}
    for name, value in values.items():
        options |= flat({name: value}) if isinstance(value, dict) else {printable(name): _writable(value)}
    return options


def is_file(source: Json) -> bool:
    """Return whether a source of data is a file on the disk, which has no named splits."""
    return isinstance(source, str) and ":" not in source and bool(Path(source).suffix)


def as_key(value: Json) -> str:
    """Return a text that is equal for equal values: W&B's server gives a 1.0 of a configuration back as 1."""
    return json.dumps(_whole(value), sort_keys=True, default=str)


def _whole(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


# ---- how they are shown ---------------------------------------------------------------------------------------------


def scaled(options: Sequence[dict[str, Json]], names: list[str]) -> tuple[list[dict[str, Json]], list[str]]:
    """Replace LoRA's alpha by alpha / r, where the two are tied: the axes of such runs are r and the scale of the update.

    Args:
        options: of each run, by dotted name.
        names: of the options that differ; a scale that is everywhere the same is none of them.
    """
    options = list(options)
    for alpha in [name for name in names if name.endswith("lora_alpha")]:
        r = f"{alpha.removesuffix('lora_alpha')}r"
        ratios = [_ratio(one.get(alpha), one.get(r)) for one in options]
        known = {as_key(one[alpha]) for one in options if one.get(alpha) is not None}
        if r in names and len({*ratios} - {None}) < len(known):
            scale = f"{alpha}/r"
            options = [one | {scale: ratio} for one, ratio in zip(options, ratios, strict=True)]
            names = [scale if name == alpha else name for name in names]
            if len({*ratios} - {None}) < 2:
                names.remove(scale)
    return options, names


def _ratio(alpha: Json, r: Json) -> float | int | None:
    if not isinstance(alpha, int | float) or not isinstance(r, int | float) or not r:
        return None
    ratio = alpha / r
    return int(ratio) if ratio == int(ratio) else ratio


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Map each dotted name to its shortest end that no other one has: model.adapter.r → r."""
    parts = {name: name.split(".") for name in names}
    short = {}
    for name, segments in parts.items():
        for length in range(1, len(segments) + 1):
            end = segments[-length:]
            if sum(other[-length:] == end for other in parts.values()) == 1:
                break
        short[name] = ".".join(end)
    return short
