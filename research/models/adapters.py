"""Puts PEFT's adapters on a model, and tells which of its parameters are trained."""

import contextlib
import copy
import math
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import peft
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from research.errors import UserError
from research.models.adapter_fields import check_fields, peft_warnings
from research.models.adapter_names import check_names, check_patterns
from research.models.adapter_rules import LORA, PREFIX, check, plain

# PEFT reads it of every model that it wraps; nothing here or in a user's hands can change that
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

# of PEFT's N(0, 1) keys and values; at 1 the loss of SmolLM2-135M starts at 8.9 instead of 3.7, at .1 at 3.9
PREFIX_SCALE = 0.1
ADAPTER_PARTS = ("lora_", "prompt_encoder.", "trainable_tokens_")  # of PEFT's names of parameters
MODEL_TOKENIZER = "model"  # as tokenizer_name_or_path: the tokenizer of the model that the adapter is put on


class Parts(NamedTuple):
    """Counts of a training's parameters, by kind.

    Attributes:
        adapter: of LoRA matrices, virtual tokens and their projections.
        saved_modules: of whole modules trained beside the adapter (modules_to_save).
        base: of the model itself that are trained (partial or full fine-tuning).
        total: of the model, adapters included.
    """

    adapter: int
    saved_modules: int
    base: int
    total: int

    @property
    def trained(self) -> int:
        """Return the number of all trained parameters."""
        return self.adapter + self.saved_modules + self.base


def attach(
    model: nn.Module, config: peft.PeftConfig, tokenizer_folder: str | None = None, init_scale: float | None = None
) -> nn.Module:
    """Put the adapter on `model`, and freeze everything else.

    Args:
        model: a transformers model.
        config: peft.PeftConfig.
        tokenizer_folder: where PromptTuningInit.TEXT reads the tokenizer from, which is by path.
        init_scale: factor on the virtual tokens as PEFT draws them; None: PREFIX_SCALE for prefix tuning without projection,
            else 1.

    Raises:
        UserError: `check`, with what the model is.
    """
    typed, config = config, check_names(config, model)  # a copy: PEFT writes into it
    values = plain(config)
    check(values, layers=layer_count(model), context=context_of(model), modules=linear_names(model), init_scale=init_scale)
    if values.get("prompt_tuning_init") == "TEXT" and config.tokenizer_name_or_path in (None, MODEL_TOKENIZER):
        config.tokenizer_name_or_path = tokenizer_folder
    if init_scale is None and values["peft_type"] == PREFIX and not values["prefix_projection"]:
        init_scale = PREFIX_SCALE
    if next(model.parameters()).is_meta and isinstance(values.get("init_lora_weights"), str):
        config.init_lora_weights = True  # a decomposition needs numbers; the shapes are LoRA's
    with _refused(), peft_warnings():
        adapted = peft.get_peft_model(model, config)
    check_patterns(typed, adapted.get_base_model())
    if init_scale is not None:
        _scale_virtual(adapted.prompt_encoder[adapted.active_adapter], init_scale)
    return adapted


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Turn PEFT's errors about a configuration into UserErrors."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, re.error) as error:
        cure = "Correct adapter in the configuration."
        if "ParamWrapper" in str(error) and "dropout" in str(error):  # all-linear on a mixture of experts
            cure = "Set lora_dropout: 0.0, or name target_modules and target_parameters without the experts."
        raise UserError(
            f"the adapter does not fit the model ({' '.join(str(error).split())[:300]}); expected a configuration "
            f"that PEFT accepts for it. {cure}"
        ) from error


def _scale_virtual(encoder: nn.Module, factor: float) -> None:
    """Multiply the output of PEFT's prompt encoder by `factor`: in the last layer, if there is a projection."""
    layers = [m for m in encoder.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    for parameter in layers[-1].parameters():
        parameter.data.mul_(factor)


def inject(model: nn.Module, config: peft.PeftConfig, trained: tuple[str, ...] = ()) -> None:
    """Put LoRA layers into an encoder, in place, and freeze all else; the model keeps its class.

    Args:
        model: a transformers encoder or classifier.
        config: peft.LoraConfig.
        trained: beginnings of names of parameters that are trained whole, as a new head is.

    Raises:
        UserError: `check`; or another method than LoRA, whose virtual tokens would be pooled with the text.
    """
    check_fields(config, (str(getattr(model, "name_or_path", "")),))
    if plain(config)["peft_type"] != LORA:
        raise UserError(
            f"adapter of type {plain(config)['peft_type']} on an encoder; expected {LORA}: virtual tokens would be "
            "pooled with the text. Use peft.LoraConfig."
        )
    for name in ("modules_to_save", "trainable_token_indices", "layer_replication", "target_parameters"):
        if getattr(config, name):
            raise UserError(
                f"adapter.{name}={getattr(config, name)} on an encoder, where LoRA's matrices are trained, "
                "and a new head beside them; expected null. Leave it out."
            )
    if config.bias != "none":
        raise UserError(
            f"adapter.bias={config.bias!r} on an encoder, whose biases stay as they are; expected none. Leave it out."
        )
    typed, config = config, check_names(config, model)
    check(plain(config), layers=layer_count(model), modules=linear_names(model))
    with _refused(), peft_warnings():
        peft.inject_adapter_in_model(config, model)
    check_patterns(typed, model)
    for name, parameter in model.named_parameters():
        # of the adapter what PEFT trains: some initialisations keep a matrix as it is
        parameter.requires_grad = ("lora_" in name and parameter.requires_grad) or name.startswith(trained)


def keep_trained(checkpoint: dict, module: nn.Module) -> None:
    """Leave frozen weights out of a Lightning checkpoint if an adapter is trained: they are the base's."""
    names = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    if any("lora_" in name for name in names):
        checkpoint["state_dict"] = {n: v for n, v in checkpoint["state_dict"].items() if n in names or "temperature" in n}


def merged(model: nn.Module) -> nn.Module:
    """Return a copy of the model with its injected adapter merged into the weights; the model itself if it has none."""
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge(safe_merge=True)
                setattr(parent, name, child.get_base_layer())
    for name in ("peft_config", "_hf_peft_config_loaded"):
        if name in vars(model):
            delattr(model, name)
    return model


def parts(model: nn.Module) -> Parts:
    """Count the trained parameters by kind."""
    counts = {"adapter": 0, "saved_modules": 0, "base": 0}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[kind_of(name)] += parameter.numel()
    return Parts(**counts, total=sum(p.numel() for p in model.parameters()))


def kind_of(parameter: str) -> str:
    """Tell from a parameter's name in PEFT what it belongs to: "adapter", "saved_modules" or "base"."""
    if "modules_to_save." in parameter:
        return "saved_modules"
    return "adapter" if any(part in parameter for part in ADAPTER_PARTS) else "base"


def effective_scale(config: peft.PeftConfig | dict) -> float | None:
    """Return the factor of LoRA's update: lora_alpha / r, or lora_alpha / √r for rsLoRA. None for other methods.

    Args:
        config: peft.PeftConfig, or its `plain` values.
    """
    values = config if isinstance(config, dict) else plain(config)
    if values.get("peft_type") != LORA:
        return None
    return values["lora_alpha"] / (math.sqrt(values["r"]) if values.get("use_rslora") else values["r"])


def linear_names(model: nn.Module) -> list[str]:
    """List the modules that LoRA can target (Conv1D is GPT-2's linear layer)."""
    return [
        name for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding) or type(m).__name__ == "Conv1D"
    ]


def layer_count(model: nn.Module) -> int:
    """Count the blocks of a transformer."""
    return len(blocks_of(model))


def context_of(model: nn.Module) -> int | None:
    """Return how many tokens a model's positions hold; None if its configuration gives no number."""
    return getattr(model.config, "max_position_embeddings", None)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Return the transformer's blocks: the longest list of modules."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())
