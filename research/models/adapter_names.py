"""Checks names in an adapter's configuration against the model: modules, parameters, tokens, layers."""

import copy
import re
from collections.abc import Iterable

import peft
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import _prepare_prompt_learning_config
from torch import nn

from research.errors import UserError, suggest
from research.models.adapter_fields import OF_THE_MODEL, compiled


def check_names(config: peft.PeftConfig, model: nn.Module) -> peft.PeftConfig:
    """Copy the configuration for this model; a single module name becomes a list. Every name must exist in the model.

    Args:
        config: peft.PeftConfig; it is not changed.
        model: without the adapter.

    Raises:
        UserError: a name that finds nothing.
    """
    config = copy.deepcopy(config)
    modules = [name for name, _ in model.named_modules() if name]
    for name in config.modules_to_save or []:
        if not _ends(name, modules):
            _refuse("modules_to_save", name, modules)
    if getattr(config.peft_type, "value", config.peft_type) != "LORA":
        _check_facts(config, model)
        return config
    for field in ("target_modules", "exclude_modules"):
        value = getattr(config, field)
        if not isinstance(value, str) or (field == "target_modules" and value.lower() == "all-linear"):
            continue
        pattern = compiled(value, f"adapter.{field}")
        if not any(pattern.fullmatch(name) for name in modules) and _ends(value, modules):
            setattr(config, field, {value})  # PEFT takes a text as an expression of the whole name: one name finds nothing
    excluded = config.exclude_modules
    if isinstance(excluded, str) and not any(re.fullmatch(excluded, name) for name in modules):
        _refuse("exclude_modules", excluded, modules)
    for name in excluded if isinstance(excluded, list | set | tuple) else []:
        if not _ends(name, modules):
            _refuse("exclude_modules", name, modules)
    parameters = [name for name, _ in model.named_parameters()]
    for name in config.target_parameters or []:
        if not _ends(name, parameters):
            _refuse("target_parameters", name, parameters)
    tokens = config.trainable_token_indices or []
    if isinstance(tokens, dict):
        for name in tokens:
            if not _ends(name, modules):
                _refuse("trainable_token_indices", name, modules)
        tokens = [token for some in tokens.values() for token in some]
    rows = max(model.get_input_embeddings().parameters(), key=lambda p: p.numel()).shape[0] if tokens else 0
    if tokens and max(tokens) >= rows:
        raise UserError(
            f"adapter.trainable_token_indices has {max(tokens)}; expected 0 to {rows - 1}, the rows of the model's "
            "embeddings. Correct it."
        )
    return config


def _check_facts(config: peft.PeftConfig, model: nn.Module) -> None:
    """Refuse facts of the model that are given otherwise than PEFT reads them from the model.

    Raises:
        UserError: a number of the model's, given otherwise than PEFT reads it from the model.
    """
    typed = {name: value for name in OF_THE_MODEL if (value := getattr(config, name)) is not None}
    plain = copy.deepcopy(config)
    for name in typed:
        setattr(plain, name, None)
    try:
        _prepare_prompt_learning_config(plain, BaseTuner.get_model_config(model))
    except ValueError:
        return  # PEFT does not find it there: it must be given
    for name, value in typed.items():
        if getattr(plain, name) not in (None, value):
            raise UserError(f"adapter.{name}={value}; expected {getattr(plain, name)}, the model's own. Leave it out.")


def check_patterns(config: peft.PeftConfig, model: nn.Module) -> None:
    """Refuse patterns of ranks that match no adapted module.

    Args:
        config: as the user gave it: PEFT adds ranks of its own for experts.
        model: with the adapter.

    Raises:
        UserError: a key of rank_pattern or alpha_pattern that no adapted module has.
    """
    adapted = {
        f"{name}.{getattr(module, 'parameter_name', '')}".rstrip(".").replace(".base_layer", "")
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(config, field, None) or {}:
            if not any(re.match(rf"(.*\.)?({key})$", name) for name in adapted):  # as PEFT looks them up
                near = suggest(key.rpartition(".")[2], {name.rpartition(".")[2] for name in adapted})
                raise UserError(
                    f"adapter.{field} names {key!r}, which no adapted module has; {near}. Correct it, or leave it out."
                )


def _ends(name: str, names: Iterable[str]) -> bool:
    """Return whether a module has that name, compared as PEFT compares the names of a list."""
    return any(candidate == name or candidate.endswith(f".{name}") for candidate in names)


def _refuse(field: str, name: str, names: Iterable[str]) -> None:
    known = sorted({candidate.rpartition(".")[2] for candidate in names} - {str(i) for i in range(1000)})
    near = suggest(name.rpartition(".")[2], known)
    raise UserError(f"adapter.{field} names {name!r}, which this model does not have; {near}. Correct it, or leave it out.")
