"""Every field of an adapter's configuration is honoured, or refused by name, where PEFT alone would pass over some of them.

What PEFT warns of while a configuration or an adapter is made is listened to: what it says to have ignored is refused, the rest
is said.
"""

import contextlib
import copy
import dataclasses
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from research.errors import UserError, suggest
from research.progress import say

ABOUT = {"peft_type", "task_type", "auto_mapping", "peft_version", "inference_mode", "base_model_name_or_path", "revision"}
HONOURED = {
    "LORA": {
        "r",
        "target_modules",
        "exclude_modules",
        "lora_alpha",
        "lora_dropout",
        "fan_in_fan_out",
        "bias",
        "use_rslora",
        "modules_to_save",
        "init_lora_weights",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "trainable_token_indices",
        "use_dora",
        "layer_replication",
        "lora_bias",
        "target_parameters",
        "ensure_weight_tying",
        "alora_invocation_tokens",
    },
    "PROMPT_TUNING": {
        "num_virtual_tokens",
        "modules_to_save",
        "prompt_tuning_init",
        "prompt_tuning_init_text",
        "tokenizer_name_or_path",
        "tokenizer_kwargs",
    },
    "PREFIX_TUNING": {"num_virtual_tokens", "modules_to_save", "init_weights", "encoder_hidden_size", "prefix_projection"},
    "P_TUNING": {
        "num_virtual_tokens",
        "modules_to_save",
        "encoder_reparameterization_type",
        "encoder_hidden_size",
        "encoder_num_layers",
        "encoder_dropout",
    },
}
"""Fields of PEFT's configurations, by method, that do here what PEFT says they do. What a later PEFT adds is refused."""
OF_THE_MODEL = {"token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"}
INITS = (True, False, "gaussian", "olora", "pissa", "orthogonal", "mica")
WHY = {
    "eva": "is drawn from the inputs of every layer over the training data, which is not computed here",
    "corda": "needs a pass over data before the adapter is made, which is not done here",
    "lora_ga": "needs gradients over data before the adapter is made, which are not computed here",
    "loftq": "quantises the base, which stays in its own precision here",
    "niter": "draws the part of the base that it moves, and PEFT would draw another one when the adapter is loaded",
}
CORRECTED = (
    "fan_in_fan_out is set to False",
    "is_gradient_checkpointing",
    "`loftq_config` specified but",
    "keys did not match any targeted module",
    "Unexpected keyword arguments",
    "`runtime_config` key",
)
"""PEFT's warnings of what it sets right or has set itself, or that means nothing in a file (runtime_config); of loftq_config,
the patterns and unexpected arguments see check_loftq, check_patterns and check_saved."""
DROPPED = (
    "ignor",
    "no module was matched",
    "no parameter was matched",
    "no modules were excluded",
    "missing adapter keys",
    "Setting fan_in_fan_out to False",
    "no tied modules",
    "not have tied weights",
    "at your own risk",
)
"""Words of PEFT's warnings that something asked for is not done."""


@contextlib.contextmanager
def heard(of: str = "the adapter's configuration") -> Iterator[None]:
    """PEFT's warnings, refused where it drops what was asked for and said otherwise.

    Args:
        of: what a part may be dropped of.

    Raises:
        UserError: PEFT dropped a part.
    """
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    own = [one for one in found if f"{os.sep}peft{os.sep}" in one.filename]
    for text in dict.fromkeys(" ".join(str(one.message).split()) for one in own):
        if any(word in text for word in CORRECTED):
            continue
        if any(word in text for word in DROPPED):
            raise UserError(
                f"PEFT does not take the whole of {of} ({text[:300]}); expected that nothing of it is dropped. "
                "Correct what is named, or leave it out."
            )
        say(f"PEFT: {text[:300]}")
    for one in found:
        if one not in own:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def check_loftq(arguments: Any) -> None:
    """PEFT empties loftq_config before anyone sees what was written there; a parser fills it with the defaults of its class.

    Args:
        arguments: of an adapter's class, as they were parsed; None for no adapter.

    Raises:
        UserError: something else than the defaults.
    """
    import peft

    value = arguments.get("loftq_config") if arguments else None
    if value and dict(vars(value) if not isinstance(value, dict) else value) != dataclasses.asdict(peft.LoftQConfig()):
        raise UserError(f"adapter.loftq_config={value}: LoftQ {WHY['loftq']}; expected it at PEFT's default. Leave it out.")


def check_saved(values: dict, folder: Any) -> None:
    """What a saved configuration says and this PEFT would not do, or would do otherwise than when it was saved.

    Args:
        values: of adapter_config.json.
        folder: for messages.

    Raises:
        UserError: a field that this PEFT does not have, with more than nothing in it; an initialisation that is drawn.
    """
    import peft

    known = peft.PEFT_TYPE_TO_CONFIG_MAPPING.get(str(values.get("peft_type")))
    if known is None:
        raise UserError(
            f"the adapter in {folder} is of type {values.get('peft_type')!r}; expected one of PEFT "
            f"{peft.__version__}. Copy it again, or name another."
        )
    fields = {field.name for field in dataclasses.fields(known)} | {"runtime_config"}
    for name, value in values.items():
        if name not in fields and value not in (None, False, "", [], {}):
            raise UserError(
                f"{folder}/adapter_config.json has {name}={str(value)[:100]}, which PEFT {peft.__version__} does "
                "not know; expected fields that it has, or nothing in them. Leave it out of the file if it changes "
                "nothing, or merge the adapter with the PEFT that saved it."
            )
    if "niter" in str(values.get("init_lora_weights")):
        raise UserError(
            f"the adapter in {folder} has init_lora_weights={values['init_lora_weights']!r}, which {WHY['niter']}; "
            "expected an adapter that does not depend on draws. Save it as plain LoRA (PEFT's "
            "path_initial_model_for_weight_conversion), or merged, where it was trained."
        )


def check_fields(config: Any, base: Iterable[str] = ()) -> None:
    """What can be said of the fields before a model is there.

    Args:
        config: peft.PeftConfig as the user gave it.
        base: names that the model to be adapted goes by.

    Raises:
        UserError: a field that would change nothing, or is not computed here.
    """
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind not in HONOURED:
        return  # `adapters.check` names the methods
    if kind == "LORA":
        _check_lora_fields(config)
    plain = type(config)()
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if name in ABOUT | HONOURED[kind] or name == "init_lora_weights" or _same(value, getattr(plain, name)):
            continue
        if name in OF_THE_MODEL and kind != "LORA":
            continue  # see _check_facts
        raise UserError(
            f"adapter.{name}={str(value)[:100]} of {type(config).__name__}, which has no part in what is computed "
            "here; expected it at PEFT's default. Leave it out."
        )
    _check_about(config, set(base))
    if kind == "PROMPT_TUNING":
        text = str(getattr(config.prompt_tuning_init, "value", config.prompt_tuning_init)) == "TEXT"
        if config.prompt_tuning_init_text and not text:
            raise UserError(
                "adapter.prompt_tuning_init_text without prompt_tuning_init=TEXT: the text would change nothing; "
                "expected both. Set prompt_tuning_init: TEXT, or leave the text out."
            )
    elif kind == "PREFIX_TUNING" and config.encoder_hidden_size is not None and not config.prefix_projection:
        raise UserError(
            f"adapter.encoder_hidden_size={config.encoder_hidden_size} without prefix_projection: it would change "
            "nothing; expected both. Set prefix_projection: true, or leave it out."
        )
    elif kind == "P_TUNING" and "MLP" in str(config.encoder_reparameterization_type) and config.encoder_dropout:
        raise UserError(
            f"adapter.encoder_dropout={config.encoder_dropout} with an MLP, which has no dropout in PEFT; expected "
            "encoder_reparameterization_type: LSTM with it. Choose it, or leave the dropout out."
        )


def _check_about(config: Any, base: set[str]) -> None:
    if config.inference_mode:
        raise UserError("adapter.inference_mode=true: nothing of the adapter would be trained; expected false. Leave it out.")
    if config.revision is not None:
        raise UserError(
            f"adapter.revision={config.revision!r}; expected null: the base is what model.model names. Write it "
            "there: model.model: ORG/NAME@REVISION."
        )
    if config.base_model_name_or_path is not None and config.base_model_name_or_path not in base:
        raise UserError(
            f"adapter.base_model_name_or_path={config.base_model_name_or_path!r}; expected null: the base is what "
            "model.model names. Leave it out."
        )


def _check_lora_fields(config: Any) -> None:
    init = config.init_lora_weights
    if init not in INITS:
        why = next((text for name, text in WHY.items() if name in str(init)), "is not known here")
        raise UserError(
            f"adapter.init_lora_weights={init!r} {why}; expected "
            f"{', '.join(str(one).lower() for one in INITS)}. Choose one; true is LoRA's own."
        )
    for name, least in (("rank_pattern", 1), ("alpha_pattern", 0)):
        for key, value in (getattr(config, name) or {}).items():
            whole = isinstance(value, int) or (least == 0 and isinstance(value, float))
            if isinstance(value, bool) or not whole or not least <= value < math.inf or value == 0:
                raise UserError(
                    f"adapter.{name} has {value!r} for {key!r}; expected "
                    f"{'1 or more, a rank' if least else 'a number above 0'}. Correct it."
                )
            _compiled(key, f"adapter.{name}")
    tokens = config.trainable_token_indices or []
    for token in tokens if isinstance(tokens, list) else [t for some in tokens.values() for t in some]:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise UserError(f"adapter.trainable_token_indices has {token!r}; expected token ids, 0 or more. Correct it.")


def _same(value: Any, default: Any) -> bool:
    if dataclasses.is_dataclass(value) and type(value) is type(default):
        return dataclasses.asdict(value) == dataclasses.asdict(default)
    return value == default or (value in (None, {}, []) and default in (None, {}, []))


def check_names(config: Any, model: nn.Module) -> Any:
    """A copy of the configuration for this model, a single module's name as a list of it; every name in it is one of the model.

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
        pattern = _compiled(value, f"adapter.{field}")
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


def _check_facts(config: Any, model: nn.Module) -> None:
    """
    Raises:
        UserError: a number of the model's, given otherwise than PEFT reads it from the model.
    """
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils.other import _prepare_prompt_learning_config

    given = {name: value for name in OF_THE_MODEL if (value := getattr(config, name)) is not None}
    own = copy.deepcopy(config)
    for name in given:
        setattr(own, name, None)
    try:
        _prepare_prompt_learning_config(own, BaseTuner.get_model_config(model))
    except ValueError:
        return  # PEFT does not find it there: it must be given
    for name, value in given.items():
        if getattr(own, name) not in (None, value):
            raise UserError(f"adapter.{name}={value}; expected {getattr(own, name)}, the model's own. Leave it out.")


def check_patterns(config: Any, model: nn.Module) -> None:
    """
    Args:
        config: as the user gave it: PEFT adds ranks of its own for experts.
        model: with the adapter.

    Raises:
        UserError: a key of rank_pattern or alpha_pattern that no adapted module has.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

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
    """Whether a module is called that, as PEFT compares names in a list."""
    return any(one == name or one.endswith(f".{name}") for one in names)


def _compiled(text: str, where: str) -> re.Pattern:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(
            f"{where}={text!r} is no regular expression ({error}); expected one that matches module names, or a "
            "list of names. Correct it."
        ) from None


def _refuse(field: str, name: str, names: Iterable[str]) -> None:
    known = sorted({one.rpartition(".")[2] for one in names} - {str(i) for i in range(1000)})
    near = suggest(name.rpartition(".")[2], known)
    raise UserError(f"adapter.{field} names {name!r}, which this model does not have; {near}. Correct it, or leave it out.")
