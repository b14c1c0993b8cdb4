"""Mends that changed numbers: each says which configurations it touches, and so which finished runs are stale."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ADAPTER = "adapter_config.json"
OUTPUT_LAYERS = ("lm_head", "embed_out")  # by transformers' names
WRITES_ANSWERS = {"exact_match", "token_f1", "rouge_l"}


class Change(NamedTuple):
    """A mend that changes numbers.

    Attributes:
        name: of it.
        what: was wrong, for messages.
        touches: whether a run's resolved configuration has other numbers since.
    """

    name: str
    what: str
    touches: Callable[[dict], bool]


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


def folder_of(config: dict) -> Path | None:
    """Where the trained model's files lie, as far as that can be said without looking a name up; else None."""
    name = option(config, "model.model")
    places = [Path(name).expanduser() / inside for inside in ("", "model")] if isinstance(name, str) else []
    return next((place for place in places if any((place / one).is_file() for one in ("config.json", ADAPTER))), None)


def base_folder(config: dict) -> Path | None:
    """The same of the base that an adapter lies on."""
    folder, seen = folder_of(config), set()
    while folder is not None and (folder / ADAPTER).is_file() and folder not in seen:
        seen.add(folder)
        name = read(folder / "tandem.json").get("base") or read(folder / ADAPTER).get("base_model_name_or_path")
        folder = folder_of({"model": {"model": name}})
    return folder


def base_config(config: dict) -> dict:
    """config.json of the model that is trained; {} where it cannot be said."""
    folder = base_folder(config)
    found = read(folder / "config.json") if folder is not None else {}
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
    return any("WeightAveraging" in str(one.get("class_path")) and "Stochastic" not in str(one.get("class_path"))
               for one in (callbacks if isinstance(callbacks, list) else [callbacks]) if isinstance(one, dict))  # fmt: skip


def _scaled_gradients(config: dict) -> bool:
    plugins = option(config, "trainer.plugins")
    return any(name in str(one) for one in (plugins if isinstance(plugins, list) else [plugins])
               for name in ("MixedPrecision", "HalfPrecision", "16-mixed", "16-true"))  # fmt: skip


def _router(config: dict) -> bool:
    if not trains(config, "SFTModule", "DPOModule"):
        return False
    base = base_config(config)
    routed = [value for name, value in base.items() if name.endswith("aux_loss_coef")]
    return bool(base.get("output_router_logits")) and (any(routed) or not routed)


def _whole_rate(config: dict) -> bool:
    return option(config, "model.dropout") is not None and any(
        name.endswith("dropout") and type(value) is int for name, value in base_config(config).items()
    )


def _own_template(config: dict) -> bool:
    folder = folder_of(config)
    base = base_folder(config) if folder is not None and (folder / ADAPTER).is_file() else None
    return base is not None and bool(own := template(folder)) and own != template(base)


def _encoder_template(config: dict) -> bool:
    folder = folder_of(config) if trains(config, "DualEncoderModule") else None
    plain = folder is not None and not any((folder / name).exists() for name in ("modules.json", ADAPTER))
    return plain and bool(template(folder))


def _prefix_in_a_window(config: dict) -> bool:
    answers = WRITES_ANSWERS & {*(option(config, "model.metrics") or [])}
    return (
        adapter_kind(config) == "PrefixTuningConfig"
        and bool(answers)
        and bool(base_config(config).get("sliding_window"))
    )


def _output_layer(config: dict) -> bool:
    """LoRA on the output layer, of the adapter that is made or of the one that is trained on."""
    if not trains(config, "SFTModule", "DPOModule"):
        return False
    folder = folder_of(config)
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


def _ended_prompts(config: dict) -> bool:
    """Answers are measured, and the tokenizer ends every text."""
    folder = base_folder(config)
    if not WRITES_ANSWERS & {*(option(config, "model.metrics") or [])} or folder is None:
        return False
    settings = read(folder / "tokenizer_config.json")
    end = settings.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    frame = read(folder / "tokenizer.json").get("post_processor")
    frames = [frame, *(frame.get("processors") or [])] if isinstance(frame, dict) else []
    added = [one["SpecialToken"].get("id") for some in frames for one in (some.get("single") or [])[-1:]
             if isinstance(one, dict) and "SpecialToken" in one]  # fmt: skip
    return bool(settings.get("add_eos_token")) or (end is not None and end in added)


CHANGES: tuple[Change, ...] = (
    Change("fixed-temperature", "a temperature that is not learned was clamped into temperature_range", _fixed_temperature),
    Change("averaged-weights", "model/ had other weights than the averaged ones that were measured", _averaged_weights),
    Change("scaled-gradients", "trainer.plugins brought in a precision whose gradients were clipped as they were scaled",
           _scaled_gradients),
    Change("router-loss", "the router's loss of a mixture of experts was left out", _router),
    Change("replicated-reference", "DPO's reference was not the base where layers are replicated",
           lambda config: trains(config, "DPOModule") and option(config, "model.adapter.layer_replication") is not None),
    Change("whole-dropout", "model.dropout passed over rates that config.json writes as whole numbers", _whole_rate),
    Change("own-template", "an adapter's own chat template was passed over for its base's", _own_template),
    Change("prefix-in-a-window", "answers after a prefix depended on their neighbours where attention has a window",
           _prefix_in_a_window),
    Change("encoder-template", "a chat template, through which sentence-transformers reads texts, was passed over",
           _encoder_template),
    Change("p-tuning-dropout", "P-tuning by an LSTM was saved with its dropout at work",
           lambda config: adapter_kind(config) == "PromptEncoderConfig" and bool(
               option(config, "model.adapter.encoder_dropout")) and "LSTM" in str(
               option(config, "model.adapter.encoder_reparameterization_type"))),
    Change("output-layer-lora", "LoRA's update of the output layer was no part of the loss, and never trained", _output_layer),
    Change("ended-prompts", "answers began after the end that the tokenizer puts after every text", _ended_prompts),
)  # fmt: skip
"""In the order in which they came; new ones at the end."""
