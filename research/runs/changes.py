"""Mends that changed numbers: each says which configurations it touches, and so which finished runs are stale."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from research.runs.layout import MODEL_FACTS

ADAPTER = "adapter_config.json"
COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")
GGUF = {"router_aux_loss_coef": b".expert_count", "sliding_window": b".attention.sliding_window"}
"""Name in config.json → the key of a GGUF file where it is set."""
OUTPUT_LAYERS = ("lm_head", "embed_out")  # by transformers' names
WRITES_ANSWERS = {"exact_match", "token_f1", "rouge_l"}


class Change(NamedTuple):
    """A mend that changes numbers.

    Attributes:
        name: of it.
        what: was wrong, for messages.
        touches: whether a run's resolved configuration has other numbers since; None where that depends on the base model,
            and the model is not to be found.
    """

    name: str
    what: str
    touches: Callable[[dict], bool | None]


def option(config: dict, name: str) -> Any:
    """An option by its dotted name, init_args left out; None where it is not there."""
    value: Any = config
    for key in name.split("."):
        value = value.get("init_args", value) if isinstance(value, dict) else None
        value = value.get(key) if isinstance(value, dict) else None
    return value


def adapter_kind(config: dict) -> str:
    """PEFT's class by its name; "" of none."""
    adapter = option(config, "model.adapter")
    return str(adapter.get("class_path", "")).rpartition(".")[2] if isinstance(adapter, dict) else ""


def trains(config: dict, *names: str) -> bool:
    """Whether the LightningModule is one of these."""
    model = config.get("model")
    return isinstance(model, dict) and str(model.get("class_path", "")).rpartition(".")[2] in names


def placed(config: dict, run: Path | None) -> dict:
    """The configuration with the model's path as it was for the training, wherever this process stands.

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
    """Where the trained model's files lie, without fetching any; None where they are not here."""
    name = option(config, "model.model")
    if not isinstance(name, str):
        return None
    path = Path(name.removeprefix("random:")).expanduser()
    if name.startswith("pkg:"):
        package, _, inside = name.removeprefix("pkg:").partition("/")
        found = importlib.util.find_spec(package)
        path = Path(found.submodule_search_locations[0], inside) if found and found.submodule_search_locations else path
    if path.is_file() and (path.suffix == ".gguf" or name.startswith("random:")):
        return path
    cached = None if path.exists() else _in_hub_cache(name)
    places = [cached] if cached else [path / inside for inside in ("", "model")]
    return next((place for place in places if any((place / one).is_file() for one in ("config.json", ADAPTER))), None)


def _in_hub_cache(name: str) -> Path | None:
    """The folder of a hub model that was fetched once; None of no such name."""
    repo, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) or repo.startswith("."):
        return None
    from huggingface_hub import try_to_load_from_cache  # a quarter of a second, where a hub's model was trained

    for file in ("config.json", ADAPTER):
        if isinstance(found := try_to_load_from_cache(repo, file, revision=revision or None), str):
            return Path(found).parent
    return None


def base_folder(config: dict) -> Path | None:
    """The same of the base that an adapter lies on."""
    folder, seen = folder_of(config), set()
    while folder is not None and (folder / ADAPTER).is_file() and folder not in seen:
        seen.add(folder)
        name = read(folder / MODEL_FACTS).get("base") or read(folder / ADAPTER).get("base_model_name_or_path")
        beside = isinstance(name, str) and not Path(name).expanduser().exists() and (folder / name).is_dir()
        folder = folder_of({"model": {"model": str(folder / name) if beside else name}})
    return folder


def base_config(config: dict) -> dict | None:
    """config.json of the model that is trained; None where the model is not here."""
    folder = base_folder(config)
    if folder is None:
        return None
    if folder.suffix == ".gguf":
        with open(folder, "rb") as stream:
            keys = stream.read(2**16)  # they stand before the vocabulary
        return {name: 1 for name, key in GGUF.items() if key in keys}
    if folder.is_file():  # a file of arguments, whose weights are drawn
        try:
            found = yaml.safe_load(folder.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            found = {}
    else:
        found = read(folder / "config.json")
    found = found if isinstance(found, dict) else {}
    return found | found["text_config"] if isinstance(found.get("text_config"), dict) else found


def read(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def template(folder: Path) -> str:
    """The chat template of a model's folder."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return str(read(folder / "tokenizer_config.json").get("chat_template") or "")


def _fixed_temperature(config: dict) -> bool:
    value, limits = option(config, "model.temperature"), option(config, "model.temperature_range") or (0.01, 0.5)
    learned = option(config, "model.learn_temperature")
    return isinstance(value, int | float) and not learned and not limits[0] <= value <= limits[1]


def _averaged_weights(config: dict) -> bool:
    callbacks = option(config, "trainer.callbacks")
    return any(
        "WeightAveraging" in str(one.get("class_path")) and "Stochastic" not in str(one.get("class_path"))
        for one in (callbacks if isinstance(callbacks, list) else [callbacks])
        if isinstance(one, dict)
    )


def _scaled_gradients(config: dict) -> bool:
    plugins = option(config, "trainer.plugins")
    return any(
        name in str(one)
        for one in (plugins if isinstance(plugins, list) else [plugins])
        for name in ("MixedPrecision", "HalfPrecision", "16-mixed", "16-true")
    )


def has_router_loss(config: dict) -> bool | None:
    """Whether a causal language model's training adds its router's loss: as models.router.router_coefficient asks."""
    if not trains(config, "SFTModule", "DPOModule"):
        return False
    base = base_config(config)
    if base is None:
        return None
    if not any("expert" in name or name in COEFFICIENTS for name in base):
        return False
    own = _config_class(base)
    values = {name: base.get(name, getattr(own, name, None)) for name in (*COEFFICIENTS, "output_router_logits")}
    asked = values["router_aux_loss_coef"] is not None or values["output_router_logits"]
    return bool(asked and any(values[name] for name in COEFFICIENTS))


def _config_class(base: dict) -> Any:
    """transformers' configuration of that type, with its defaults; None of a type that it has not."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # a second, for mixtures of experts alone

    try:
        return CONFIG_MAPPING[base.get("model_type")]()
    except (KeyError, TypeError, ValueError):
        return None


def _whole_rate(config: dict) -> bool | None:
    if option(config, "model.dropout") is None:
        return False
    base = base_config(config)
    if base is None:
        return None
    return any(name.endswith("dropout") and type(value) is int for name, value in base.items())


def _own_template(config: dict) -> bool | None:
    if not trains(config, "SFTModule", "DPOModule"):
        return False
    folder = folder_of(config)
    if folder is None:
        return None
    if not (folder / ADAPTER).is_file() or not (own := template(folder)):
        return False
    base = base_folder(config)
    return None if base is None else own != template(base)


def _encoder_template(config: dict) -> bool | None:
    if not trains(config, "DualEncoderModule"):
        return False
    if (folder := folder_of(config)) is None:
        return None
    plain = not any((folder / name).exists() for name in ("modules.json", ADAPTER))
    return plain and bool(template(folder))


def _prefix_in_a_window(config: dict) -> bool | None:
    answers = WRITES_ANSWERS & {*(option(config, "model.metrics") or [])}
    if adapter_kind(config) != "PrefixTuningConfig" or not answers:
        return False
    base = base_config(config)
    return None if base is None else bool(base.get("sliding_window"))


def _output_layer(config: dict) -> bool | None:
    """LoRA on the output layer, of the adapter that is made or of the one that is trained on."""
    if not trains(config, "SFTModule", "DPOModule"):
        return False
    folder = folder_of(config)
    if folder is None and option(config, "model.adapter") is None:
        return None
    saved = read(folder / ADAPTER) if folder is not None and option(config, "model.adapter") is None else {}
    targets = option(config, "model.adapter.target_modules") or saved.get("target_modules") or []
    if isinstance(targets, str) and targets != "all-linear":  # which leaves it out
        return any(_found(targets, name) for name in OUTPUT_LAYERS)
    tied = option(config, "model.adapter.ensure_weight_tying") or saved.get("ensure_weight_tying")
    wanted = (*OUTPUT_LAYERS, *(("embed_tokens",) if tied else ()))
    return isinstance(targets, list) and any(str(one).rpartition(".")[2] in wanted for one in targets)


def _found(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None or pattern == name
    except re.error:
        return False


def _ended_prompts(config: dict) -> bool | None:
    """Answers are measured, and the tokenizer ends every text."""
    if not WRITES_ANSWERS & {*(option(config, "model.metrics") or [])}:
        return False
    folder = base_folder(config)
    if folder is None:
        return None
    settings = read(folder / "tokenizer_config.json")
    end = settings.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    frame = read(folder / "tokenizer.json").get("post_processor")
    frames = [frame, *(frame.get("processors") or [])] if isinstance(frame, dict) else []
    added = [
        one["SpecialToken"].get("id")
        for some in frames
        for one in (some.get("single") or [])[-1:]
        if isinstance(one, dict) and "SpecialToken" in one
    ]
    return bool(settings.get("add_eos_token")) or (end is not None and end in added)


CHANGES: tuple[Change, ...] = (
    Change("fixed-temperature", "a temperature that is not learned was clamped into temperature_range", _fixed_temperature),
    Change("averaged-weights", "model/ had other weights than the averaged ones that were measured", _averaged_weights),
    Change(
        "scaled-gradients",
        "trainer.plugins brought in a precision whose gradients were clipped as they were scaled",
        _scaled_gradients,
    ),
    Change("router-loss", "the router's loss of a mixture of experts was left out", has_router_loss),
    Change(
        "replicated-reference",
        "DPO's reference was not the base where layers are replicated",
        lambda config: trains(config, "DPOModule") and option(config, "model.adapter.layer_replication") is not None,
    ),
    Change("whole-dropout", "model.dropout passed over rates that config.json writes as whole numbers", _whole_rate),
    Change("own-template", "an adapter's own chat template was passed over for its base's", _own_template),
    Change(
        "prefix-in-a-window",
        "answers after a prefix depended on their neighbours where attention has a window",
        _prefix_in_a_window,
    ),
    Change(
        "encoder-template",
        "a chat template, through which sentence-transformers reads texts, was passed over",
        _encoder_template,
    ),
    Change(
        "p-tuning-dropout",
        "P-tuning by an LSTM was saved with its dropout at work",
        lambda config: (
            adapter_kind(config) == "PromptEncoderConfig"
            and bool(option(config, "model.adapter.encoder_dropout"))
            and "LSTM" in str(option(config, "model.adapter.encoder_reparameterization_type"))
        ),
    ),
    Change("output-layer-lora", "LoRA's update of the output layer was no part of the loss, and never trained", _output_layer),
    Change("ended-prompts", "answers began after the end that the tokenizer puts after every text", _ended_prompts),
)
"""In the order in which they came; new ones at the end."""

COUNTED: dict[str, str] = {
    "known_by_text": "documents of queries of equal text, and copies of relevant ones, were taken for negatives",
    "equal_pairs": "pairs whose two answers are equal were trained on",
}
"""Mends whose reach the data tells: a fact that a DataModule counts since → what was wrong where there is any."""
