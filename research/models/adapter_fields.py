"""Makes every field of an adapter's configuration have its effect, or refuses it by name; PEFT alone ignores some fields.

PEFT's warnings while a configuration or an adapter is made are read: what PEFT ignored is refused, the rest is printed.
"""

import contextlib
import dataclasses
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator

import peft

from research.errors import UserError
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
the patterns and unexpected arguments see check_loftq, check_patterns and adapter_folder.check_saved."""
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
def peft_warnings(of: str = "the adapter's configuration") -> Iterator[None]:
    """Turn PEFT's warnings into refusals where PEFT drops a requested setting; pass the other warnings on.

    Args:
        of: what a part may be dropped of.

    Raises:
        UserError: PEFT dropped a part.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    of_peft = [warning for warning in caught if f"{os.sep}peft{os.sep}" in warning.filename]
    for text in dict.fromkeys(" ".join(str(warning.message).split()) for warning in of_peft):
        if any(word in text for word in CORRECTED):
            continue
        if any(word in text for word in DROPPED):
            raise UserError(
                f"PEFT does not take the whole of {of} ({text[:300]}); expected that nothing of it is dropped. "
                "Correct what is named, or leave it out."
            )
        say(f"PEFT: {text[:300]}")
    for warning in caught:
        if warning not in of_peft:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def check_loftq(arguments: object) -> None:
    """Check loftq_config as it was written: PEFT empties it later, and a parser fills it with the defaults of its class.

    Args:
        arguments: of an adapter's class, as they were parsed; None for no adapter.

    Raises:
        UserError: something else than the defaults.
    """
    value = arguments.get("loftq_config") if arguments else None
    if value and dict(vars(value) if not isinstance(value, dict) else value) != dataclasses.asdict(peft.LoftQConfig()):
        raise UserError(f"adapter.loftq_config={value}: LoftQ {WHY['loftq']}; expected it at PEFT's default. Leave it out.")


def check_fields(config: peft.PeftConfig, base: Iterable[str] = ()) -> None:
    """Check what can be checked of the fields without a model.

    Args:
        config: peft.PeftConfig as the user gave it.
        base: names that the model to be adapted goes by.

    Raises:
        UserError: a field that would change nothing, or is not computed here.
    """
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind not in HONOURED:
        return  # `adapter_rules.check` names the methods
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


def _check_about(config: peft.PeftConfig, base: set[str]) -> None:
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


def _check_lora_fields(config: peft.PeftConfig) -> None:
    init = config.init_lora_weights
    if init not in INITS:
        why = next((text for name, text in WHY.items() if name in str(init)), "is not known here")
        raise UserError(
            f"adapter.init_lora_weights={init!r} {why}; expected "
            f"{', '.join(str(known).lower() for known in INITS)}. Choose one; true is LoRA's own."
        )
    for name, least in (("rank_pattern", 1), ("alpha_pattern", 0)):
        for key, value in (getattr(config, name) or {}).items():
            whole = isinstance(value, int) or (least == 0 and isinstance(value, float))
            if isinstance(value, bool) or not whole or not least <= value < math.inf or value == 0:
                raise UserError(
                    f"adapter.{name} has {value!r} for {key!r}; expected "
                    f"{'1 or more, a rank' if least else 'a number above 0'}. Correct it."
                )
            compiled(key, f"adapter.{name}")
    tokens = config.trainable_token_indices or []
    for token in tokens if isinstance(tokens, list) else [t for some in tokens.values() for t in some]:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise UserError(f"adapter.trainable_token_indices has {token!r}; expected token ids, 0 or more. Correct it.")


def _same(value: object, default: object) -> bool:
    if dataclasses.is_dataclass(value) and type(value) is type(default):
        return dataclasses.asdict(value) == dataclasses.asdict(default)
    return value == default or (value in (None, {}, []) and default in (None, {}, []))


def compiled(text: str, where: str) -> re.Pattern:
    """Compile a regular expression of a configuration.

    Raises:
        UserError: it is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(
            f"{where}={text!r} is no regular expression ({error}); expected one that matches module names, or a "
            "list of names. Correct it."
        ) from None
