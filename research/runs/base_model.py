"""Read a model's files without loading it: its configuration, its chat template, and the base of an adapter."""

import importlib.util
import json
import re
from pathlib import Path

import yaml

from research.runs.layout import MODEL_FACTS
from research.types import Json

ADAPTER = "adapter_config.json"
COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")
GGUF = {"router_aux_loss_coef": b".expert_count", "sliding_window": b".attention.sliding_window"}
"""Name in config.json → the key of a GGUF file where it is set."""


def option(config: dict, name: str) -> Json:
    """Return an option by its dotted name, init_args left out; None where it is not there."""
    value: Json = config
    for key in name.split("."):
        value = value.get("init_args", value) if isinstance(value, dict) else None
        value = value.get(key) if isinstance(value, dict) else None
    return value


def placed(config: dict, run: Path | None) -> dict:
    """Return the configuration with the model's path as it was for the training, wherever this process stands.

    Args:
        run: its folder; where that ends as `out` says, relative paths are those of the folder above.
    """
    name, out = option(config, "model.model"), config.get("out")
    if run is None or not isinstance(name, str) or not isinstance(out, str) or Path(name).expanduser().exists():
        return config
    parts = Path(out).parts
    if Path(out).is_absolute() or run.resolve().parts[-len(parts) :] != parts:
        return config
    there = run.resolve().parents[len(parts) - 1] / name
    if not there.exists():
        return config
    model = config["model"]
    inner = model["init_args"] | {"model": str(there)} if "init_args" in model else None
    return config | {"model": model | ({"init_args": inner} if inner else {"model": str(there)})}


def folder_of(config: dict) -> Path | None:
    """Find where the trained model's files lie, without fetching any; None where they are not here."""
    name = option(config, "model.model")
    if not isinstance(name, str):
        return None
    path = Path(name.removeprefix("random:")).expanduser()
    if name.startswith("pkg:"):
        package, _, inside = name.removeprefix("pkg:").partition("/")
        spec = importlib.util.find_spec(package)
        path = Path(spec.submodule_search_locations[0], inside) if spec and spec.submodule_search_locations else path
    if path.is_file() and (path.suffix == ".gguf" or name.startswith("random:")):
        return path
    cached = None if path.exists() else _in_hub_cache(name)
    places = [cached] if cached else [path / inside for inside in ("", "model")]
    return next((place for place in places if any((place / file).is_file() for file in ("config.json", ADAPTER))), None)


def _in_hub_cache(name: str) -> Path | None:
    """Find the folder of a hub model that was fetched once; None of no such name."""
    repo, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) or repo.startswith("."):
        return None
    from huggingface_hub import try_to_load_from_cache  # here: a quarter of a second, for models of a hub alone

    for file in ("config.json", ADAPTER):
        if isinstance(cached_file := try_to_load_from_cache(repo, file, revision=revision or None), str):
            return Path(cached_file).parent
    return None


def base_folder(config: dict) -> Path | None:
    """Return the folder of the base that an adapter lies on, or None."""
    folder, seen = folder_of(config), set()
    while folder is not None and (folder / ADAPTER).is_file() and folder not in seen:
        seen.add(folder)
        name = read(folder / MODEL_FACTS).get("base") or read(folder / ADAPTER).get("base_model_name_or_path")
        beside = isinstance(name, str) and not Path(name).expanduser().exists() and (folder / name).is_dir()
        folder = folder_of({"model": {"model": str(folder / name) if beside else name}})
    return folder


def base_config(config: dict) -> dict | None:
    """Read config.json of the model that is trained; None where the model is not here."""
    folder = base_folder(config)
    if folder is None:
        return None
    if folder.suffix == ".gguf":
        with open(folder, "rb") as stream:
            keys = stream.read(2**16)  # they stand before the vocabulary
        return {name: 1 for name, key in GGUF.items() if key in keys}
    if folder.is_file():  # a file of arguments, whose weights are drawn
        try:
            settings = yaml.safe_load(folder.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            settings = {}
    else:
        settings = read(folder / "config.json")
    settings = settings if isinstance(settings, dict) else {}
    return settings | settings["text_config"] if isinstance(settings.get("text_config"), dict) else settings


def read(path: Path) -> dict:
    """Read a JSON object; {} where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def template(folder: Path) -> str:
    """Read the chat template of a model's folder."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return str(read(folder / "tokenizer_config.json").get("chat_template") or "")
