"""Combinations of an adapter with a model and a training that would give wrong numbers: they are refused.

The rules work on plain values, so that a sweep can check every point of a grid before any compute is spent.
"""

import difflib
import math
import re
from collections.abc import Iterable

import peft

from research.errors import UserError

LORA, PROMPT, PREFIX, P_TUNING = "LORA", "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"
VIRTUAL = (PROMPT, PREFIX, P_TUNING)  # methods that put virtual tokens before the text
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")  # LoRA inits that move part of the base into the adapter


def plain(config: peft.PeftConfig | None) -> dict:
    """Return a peft.PeftConfig as plain values; {} for None."""
    if config is None:
        return {}
    values = config.to_dict()
    values["peft_type"] = str(getattr(values["peft_type"], "value", values["peft_type"]))
    return values


def check(
    adapter: dict,
    *,
    layers: int | None = None,
    context: int | None = None,
    max_length: int | None = None,
    packing: bool = False,
    gradient_checkpointing: bool = False,
    padding_side: str = "right",
    reference: str | None = None,
    train_layers: int | None = None,
    train_pattern: str | None = None,
    modules: Iterable[str] = (),
    init_scale: float | None = None,
) -> None:
    """Refuse combinations that PEFT would compute wrongly, or would refuse only after the model is loaded and compute is spent.

    Args:
        adapter: `plain(config)`; {} for none.
        layers: of the model.
        context: tokens that the model's positions can hold.
        max_length: tokens of a training text.
        packing: several texts in one row.
        gradient_checkpointing: activations are computed again.
        padding_side: of training batches.
        reference: of DPO: "adapter_off", "copy" or "cached"; None where there is none.
        train_layers: last layers that are trained whole.
        train_pattern: regular expression of the parameters that are trained whole.
        modules: names of the model's modules that an adapter may target.
        init_scale: factor on the initial virtual tokens.

    Raises:
        UserError: value, what is wrong with it, and the cure.
    """
    kind = adapter.get("peft_type")
    if adapter and kind not in (LORA, *VIRTUAL):
        raise UserError(
            f"adapter of type {kind}; expected {LORA}, {PROMPT}, {PREFIX} or {P_TUNING}, the methods that are "
            "tested here. Name peft.LoraConfig, PromptTuningConfig, PrefixTuningConfig or "
            "PromptEncoderConfig."
        )
    if train_layers is not None and train_pattern is not None:
        raise UserError(
            f"train_layers={train_layers} and train_pattern={train_pattern!r}; expected one of them, since both "
            "say which parameters are trained. Leave one out."
        )
    if train_layers is not None and (train_layers < 1 or (layers is not None and train_layers > layers)):
        raise UserError(f"train_layers={train_layers}; expected 1 to {layers or 'the number of layers'}. Correct it.")
    if adapter and (train_layers is not None or train_pattern is not None):
        raise UserError(
            f"an adapter ({kind}) with train_layers or train_pattern; expected either, since the adapter freezes "
            "the rest. For LoRA on some layers set layers_to_transform, for whole modules beside it "
            "modules_to_save."
        )
    if init_scale is not None and (kind not in VIRTUAL or not 0 < init_scale < math.inf):
        raise UserError(
            f"init_scale={init_scale} with {kind or 'no adapter'}; expected a number above 0, with virtual tokens "
            "only: LoRA has init_lora_weights. Correct it, or leave it out."
        )
    if kind == LORA:
        _check_lora(adapter, layers, reference, set(modules))
    if kind in VIRTUAL:
        _check_virtual(adapter, context, max_length, packing, gradient_checkpointing, padding_side)
    if not adapter and reference == "adapter_off":
        raise UserError(
            "reference='adapter_off' without an adapter: the policy would be its own reference, and the loss ln "
            "2 for ever; expected copy or cached. Choose one."
        )


def _check_lora(adapter: dict, layers: int | None, reference: str | None, modules: set[str]) -> None:
    r, alpha, targets = adapter.get("r"), adapter.get("lora_alpha"), adapter.get("target_modules")
    if not isinstance(r, int) or r < 1:
        raise UserError(f"adapter.r={r}; expected 1 or more, the rank of the update. Correct it.")
    if not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise UserError(
            f"adapter.lora_alpha={alpha}; expected a number above 0: the update is scaled by lora_alpha / r. Correct it."
        )
    if adapter.get("alora_invocation_tokens"):
        raise UserError(
            "adapter.alora_invocation_tokens: activated LoRA switches itself on within a text, which is not "
            "computed here; expected LoRA for the whole text. Leave it out."
        )
    if "niter" in str(adapter.get("init_lora_weights")):
        raise UserError(
            f"adapter.init_lora_weights={adapter['init_lora_weights']!r} draws the part of the base that it moves, "
            "and PEFT would draw another one when the adapter is loaded; expected pissa, which decomposes "
            "exactly, or "
            "true. Choose one."
        )
    if adapter.get("bias", "none") != "none" and reference == "adapter_off":
        raise UserError(
            f"adapter.bias={adapter['bias']!r} with reference='adapter_off': the biases of the base are trained, "
            "and "
            "stay trained when the adapter is off; expected copy or cached. Choose one."
        )
    dropout = adapter.get("lora_dropout", 0.0)
    if not 0 <= dropout < 1:
        raise UserError(f"adapter.lora_dropout={dropout}; expected 0 to below 1. Correct it.")
    chosen = adapter.get("layers_to_transform")
    chosen = [chosen] if isinstance(chosen, int) else chosen
    if chosen is not None and isinstance(targets, str):
        raise UserError(
            f"adapter.layers_to_transform={chosen} with target_modules={targets!r}; expected a list of names with "
            "it, since PEFT ignores or refuses the layers otherwise. List the modules (q_proj, v_proj, "
            "…)."
        )
    if chosen is not None and layers is not None and not all(0 <= layer < layers for layer in chosen):
        raise UserError(f"adapter.layers_to_transform={chosen}; expected layers 0 to {layers - 1} of this model. Correct it.")
    init = adapter.get("init_lora_weights", True)
    if reference == "adapter_off" and _moves_base(init):
        raise UserError(
            f"adapter.init_lora_weights={init!r} with reference='adapter_off'; expected an init that leaves the "
            "base alone: this one moves part of it into the adapter, so the model without the adapter is not the "
            "base, and step 0 is not ln 2. Choose reference: copy (or cached), or init_lora_weights: "
            "true."
        )
    if reference in ("adapter_off", "cached") and adapter.get("layer_replication"):
        raise UserError(
            f"adapter.layer_replication={adapter['layer_replication']} with reference={reference!r}: neither with "
            "nor without the adapter is the model its base; expected copy, the model as the training finds it. "
            "Choose reference: copy, or leave layer_replication out."
        )
    if modules and targets is not None and targets != "all-linear":
        _check_targets(targets, modules)


def _check_targets(targets: str | list[str] | set[str], modules: set[str]) -> None:
    if isinstance(targets, str):
        try:
            matches = any(re.fullmatch(targets, name) for name in modules)
        except re.error as error:
            raise UserError(
                f"adapter.target_modules={targets!r} is no regular expression ({error}); expected one that "
                "matches whole module names, a list of names, or all-linear. Correct it."
            ) from None
        unknown = [] if matches else [targets]
    else:
        unknown = [name for name in targets if not any(m == name or m.endswith(f".{name}") for m in modules)]
    if unknown:
        known = sorted({name.rpartition(".")[2] for name in modules})
        near = difflib.get_close_matches(unknown[0], known, 3, 0.4)
        raise UserError(
            f"adapter.target_modules names {unknown[0]!r}, which this model does not have; expected of its linear "
            f"modules {', '.join(known)}"
            + (f" (nearest: {', '.join(near)})" if near else "")
            + ". Correct it, or use all-linear."
        )


def _check_virtual(
    adapter: dict, context: int | None, max_length: int | None, packing: bool, gradient_checkpointing: bool, padding_side: str
) -> None:
    kind, count = adapter["peft_type"], adapter.get("num_virtual_tokens")
    if not isinstance(count, int) or count < 1:
        raise UserError(f"adapter.num_virtual_tokens={count}; expected 1 or more. Correct it.")
    if context is not None and count >= context:
        raise UserError(
            f"adapter.num_virtual_tokens={count} does not fit the model's context of {context} tokens; expected "
            "less, with room for the text. Lower it."
        )
    if context is not None and max_length is not None and count + max_length > context:
        raise UserError(
            f"adapter.num_virtual_tokens={count} and max_length={max_length} make {count + max_length} tokens; "
            f"expected {context} or fewer, the model's context. Lower one."
        )
    if packing:
        raise UserError(
            f"packing with {kind}: only the first text of a row would see the virtual tokens, and logits would be "
            "off by .3 and more; expected packing: false. Batches are sorted by length, so little is "
            "lost."
        )
    if gradient_checkpointing and kind == PREFIX:
        raise UserError(
            "gradient checkpointing with PREFIX_TUNING: the prefix is a cache, which a second forward does not "
            "get; expected gradient_checkpointing: false. Lower batch_size instead."
        )
    if padding_side != "right":
        raise UserError(
            f"padding_side={padding_side!r} with {kind}: padding would stand between the virtual tokens and the "
            "text; expected right. Pad on the right."
        )
    text = (adapter.get("prompt_tuning_init_text") or "").strip()
    if kind == PROMPT and adapter.get("prompt_tuning_init") == "TEXT" and not text:
        raise UserError(
            "adapter.prompt_tuning_init=TEXT without prompt_tuning_init_text; expected the text that the virtual "
            "tokens start from. Set it, or choose RANDOM or SAMPLE_VOCAB."
        )


def _moves_base(init: bool | str) -> bool:
    return isinstance(init, str) and init.lower().startswith(BASE_CHANGING)
