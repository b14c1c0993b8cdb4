"""Fixes that changed numbers: each says which configurations it touches, and so which finished runs are stale."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from research.runs.base_model import ADAPTER, COEFFICIENTS, base_config, base_folder, folder_of, option, read, template

if TYPE_CHECKING:  # see _config_class
    from transformers import PreTrainedConfig

OUTPUT_LAYERS = ("lm_head", "embed_out")  # by transformers' names
WRITES_ANSWERS = {"exact_match", "token_f1", "rouge_l"}


class Change(NamedTuple):
    """A fix that changed numbers.

    Attributes:
        name: of it.
        what: was wrong, for messages.
        touches: whether a run's resolved configuration has other numbers since; None where that depends on the base model,
            and the model is not to be found.
    """

    name: str
    what: str
    touches: Callable[[dict], bool | None]


def adapter_kind(config: dict) -> str:
    """Name PEFT's class; "" of none."""
    adapter = option(config, "model.adapter")
    return str(adapter.get("class_path", "")).rpartition(".")[2] if isinstance(adapter, dict) else ""


def trains(config: dict, *names: str) -> bool:
    """Return whether the LightningModule is one of these."""
    model = config.get("model")
    return isinstance(model, dict) and str(model.get("class_path", "")).rpartition(".")[2] in names


def _fixed_temperature(config: dict) -> bool:
    value, limits = option(config, "model.temperature"), option(config, "model.temperature_range") or (0.01, 0.5)
    learned = option(config, "model.learn_temperature")
    return isinstance(value, int | float) and not learned and not limits[0] <= value <= limits[1]


def _averaged_weights(config: dict) -> bool:
    callbacks = option(config, "trainer.callbacks")
    return any(
        "WeightAveraging" in str(callback.get("class_path")) and "Stochastic" not in str(callback.get("class_path"))
        for callback in (callbacks if isinstance(callbacks, list) else [callbacks])
        if isinstance(callback, dict)
    )


def _scaled_gradients(config: dict) -> bool:
    plugins = option(config, "trainer.plugins")
    return any(
        name in str(plugin)
        for plugin in (plugins if isinstance(plugins, list) else [plugins])
        for name in ("MixedPrecision", "HalfPrecision", "16-mixed", "16-true")
    )


def has_router_loss(config: dict) -> bool | None:
    """Return whether a causal language model's training adds its router's loss: as models.router.router_coefficient asks."""
    if not trains(config, "SFTModule", "DPOModule"):
        return False
    base = base_config(config)
    if base is None:
        return None
    if not any("expert" in name or name in COEFFICIENTS for name in base):
        return False
    type_defaults = _config_class(base)
    values = {name: base.get(name, getattr(type_defaults, name, None)) for name in (*COEFFICIENTS, "output_router_logits")}
    asked = values["router_aux_loss_coef"] is not None or values["output_router_logits"]
    return bool(asked and any(values[name] for name in COEFFICIENTS))


def _config_class(base: dict) -> "PreTrainedConfig | None":
    """Return transformers' configuration of that type, with its defaults; None of a type that it has not."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # here: a second, for mixtures of experts alone

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


def _adapter_template(config: dict) -> bool | None:
    if not trains(config, "SFTModule", "DPOModule"):
        return False
    folder = folder_of(config)
    if folder is None:
        return None
    if not (folder / ADAPTER).is_file() or not (adapter_template := template(folder)):
        return False
    base = base_folder(config)
    return None if base is None else adapter_template != template(base)


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
    """Return whether LoRA lies on the output layer, by the adapter that is made or by the one that is trained on."""
    if not trains(config, "SFTModule", "DPOModule"):
        return False
    folder = folder_of(config)
    if folder is None and option(config, "model.adapter") is None:
        return None
    saved = read(folder / ADAPTER) if folder is not None and option(config, "model.adapter") is None else {}
    targets = option(config, "model.adapter.target_modules") or saved.get("target_modules") or []
    if isinstance(targets, str) and targets != "all-linear":  # which leaves it out
        return any(_matches(targets, name) for name in OUTPUT_LAYERS)
    tied = option(config, "model.adapter.ensure_weight_tying") or saved.get("ensure_weight_tying")
    wanted = (*OUTPUT_LAYERS, *(("embed_tokens",) if tied else ()))
    return isinstance(targets, list) and any(str(target).rpartition(".")[2] in wanted for target in targets)


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None or pattern == name
    except re.error:
        return False


def _ended_prompts(config: dict) -> bool | None:
    """Return whether answers are measured, and the tokenizer ends every text."""
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
        last_part["SpecialToken"].get("id")
        for processor in frames
        for last_part in (processor.get("single") or [])[-1:]
        if isinstance(last_part, dict) and "SpecialToken" in last_part
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
    Change("own-template", "an adapter's own chat template was passed over for its base's", _adapter_template),
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
"""Fixes whose reach the data tells: a fact that a DataModule has counted since → what was wrong where there is any."""
