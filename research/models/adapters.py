"""PEFT's adapters on a model, what else is trained, and the combinations that would give wrong numbers: they are refused.

The guard works on plain values, so that a sweep can check every point of a grid before any compute is spent.
"""

import contextlib
import copy
import difflib
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import nn

from research.errors import UserError
from research.models.adapter_fields import check_fields, check_names, check_patterns, heard

# PEFT reads it of every model that it wraps; nothing here or in a user's hands can change that
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

LORA, PROMPT, PREFIX, P_TUNING = "LORA", "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"
VIRTUAL = (PROMPT, PREFIX, P_TUNING)  # methods that put virtual tokens before the text
PREFIX_SCALE = (
    0.1  # of PEFT's N(0, 1) keys and values; at 1 the loss of SmolLM2-135M starts at 8.9 instead of 3.7, at .1 at 3.9
)
ADAPTER_PARTS = ("lora_", "prompt_encoder.", "trainable_tokens_")  # of PEFT's names of parameters
OWN = "model"  # as tokenizer_name_or_path: the tokenizer of the model that the adapter is put on
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")  # LoRA inits that move part of the base into the adapter


class Parts(NamedTuple):
    """How many parameters a training has, apart.

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
        return self.adapter + self.saved_modules + self.base


def plain(config: Any) -> dict:
    """A peft.PeftConfig as plain values; {} for None."""
    if config is None:
        return {}
    values = config.to_dict()
    values["peft_type"] = str(getattr(values["peft_type"], "value", values["peft_type"]))
    return values


# ---- the guard ------------------------------------------------------------------------------------------------------


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
    """Refuse what PEFT would do wrongly, or only complain of after the model is loaded and the compute is spent.

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


def _check_targets(targets: Any, modules: set[str]) -> None:
    if isinstance(targets, str):
        try:
            found = any(re.fullmatch(targets, name) for name in modules)
        except re.error as error:
            raise UserError(
                f"adapter.target_modules={targets!r} is no regular expression ({error}); expected one that "
                "matches whole module names, a list of names, or all-linear. Correct it."
            ) from None
        unknown = [] if found else [targets]
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


def _moves_base(init: Any) -> bool:
    return isinstance(init, str) and init.lower().startswith(BASE_CHANGING)


# ---- on a model -----------------------------------------------------------------------------------------------------


def attach(model: nn.Module, config: Any, tokenizer_folder: str | None = None, init_scale: float | None = None) -> nn.Module:
    """`model` with the adapter, in training mode's state: everything else is frozen.

    Args:
        model: a transformers model.
        config: peft.PeftConfig.
        tokenizer_folder: where PromptTuningInit.TEXT reads the tokenizer from, which is by path.
        init_scale: factor on the virtual tokens as PEFT draws them; None: PREFIX_SCALE for prefix tuning without projection,
            else 1.

    Raises:
        UserError: `check`, with what the model is.
    """
    import peft

    given, config = config, check_names(config, model)  # a copy: PEFT writes into it
    values = plain(config)
    check(values, layers=layer_count(model), context=context_of(model), modules=linear_names(model), init_scale=init_scale)
    if values.get("prompt_tuning_init") == "TEXT" and config.tokenizer_name_or_path in (None, OWN):
        config.tokenizer_name_or_path = tokenizer_folder
    if init_scale is None and values["peft_type"] == PREFIX and not values["prefix_projection"]:
        init_scale = PREFIX_SCALE
    if next(model.parameters()).is_meta and isinstance(values.get("init_lora_weights"), str):
        config.init_lora_weights = True  # a decomposition needs numbers; the shapes are LoRA's
    with _refused(), heard():
        adapted = peft.get_peft_model(model, config)
    check_patterns(given, adapted.get_base_model())
    if init_scale is not None:
        _scale_virtual(adapted.prompt_encoder[adapted.active_adapter], init_scale)
    return adapted


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """PEFT's errors of a configuration become UserErrors."""
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
    """What PEFT's prompt encoder gives, by `factor`: through the last layer, where there is a projection."""
    layers = [m for m in encoder.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    for parameter in layers[-1].parameters():
        parameter.data.mul_(factor)


def inject(model: nn.Module, config: Any, trained: tuple[str, ...] = ()) -> None:
    """LoRA inside an encoder, in place, all else frozen; the model stays of its class.

    Args:
        model: a transformers encoder or classifier.
        config: peft.LoraConfig.
        trained: beginnings of names of parameters that are trained whole, as a new head is.

    Raises:
        UserError: `check`; or another method than LoRA, whose virtual tokens would be pooled with the text.
    """
    import peft

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
    given, config = config, check_names(config, model)
    check(plain(config), layers=layer_count(model), modules=linear_names(model))
    with _refused(), heard():
        peft.inject_adapter_in_model(config, model)
    check_patterns(given, model)
    for name, parameter in model.named_parameters():
        # of the adapter what PEFT trains: some initialisations keep a matrix as it is
        parameter.requires_grad = ("lora_" in name and parameter.requires_grad) or name.startswith(trained)


def keep_trained(checkpoint: dict, module: nn.Module) -> None:
    """Leave frozen weights out of a Lightning checkpoint where an adapter is trained: they are the base's."""
    names = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    if any("lora_" in name for name in names):
        checkpoint["state_dict"] = {n: v for n, v in checkpoint["state_dict"].items() if n in names or "temperature" in n}


def merged(model: nn.Module) -> nn.Module:
    """A copy of the model with its injected adapter as part of the weights; the model itself where it has none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

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


def freeze(model: nn.Module, train_layers: int | None, train_pattern: str | None) -> None:
    """Partial fine-tuning: only the last layers, or the parameters that a regular expression finds, keep a gradient.

    Args:
        model: a transformers model without an adapter.
        train_layers: the last so many blocks, and the norm after them; embeddings and output layer stay frozen.
        train_pattern: searched in parameter names.

    Raises:
        UserError: nothing would be trained.
    """
    if train_layers is None and train_pattern is None:
        return
    check({}, layers=layer_count(model), train_layers=train_layers, train_pattern=train_pattern)
    if train_pattern is not None:
        try:
            wanted = re.compile(train_pattern)
        except re.error as error:
            raise UserError(
                f"train_pattern={train_pattern!r} is no regular expression ({error}); expected one that is "
                "searched in parameter names. Correct it."
            ) from None
        chosen = {name for name, _ in model.named_parameters() if wanted.search(name)}
    else:
        blocks = _blocks(model)
        last = {id(p) for block in blocks[len(blocks) - train_layers :] for p in block.parameters()}
        last |= {id(p) for p in _final_norm(model)}
        chosen = {name for name, p in model.named_parameters() if id(p) in last}
    if not chosen:
        names = [name for name, _ in model.named_parameters()]
        raise UserError(
            f"train_pattern={train_pattern!r} finds none of the model's parameters; expected some to train, of "
            f"names like {names[len(names) // 2]}. Correct it."
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in chosen


def parts(model: nn.Module) -> Parts:
    """Trained parameters by kind."""
    counts = {"adapter": 0, "saved_modules": 0, "base": 0}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[kind_of(name)] += parameter.numel()
    return Parts(**counts, total=sum(p.numel() for p in model.parameters()))


def kind_of(parameter: str) -> str:
    """What a parameter of PEFT's naming belongs to: "adapter", "saved_modules" or "base"."""
    if "modules_to_save." in parameter:
        return "saved_modules"
    return "adapter" if any(part in parameter for part in ADAPTER_PARTS) else "base"


def effective_scale(config: Any) -> float | None:
    """What LoRA's update is multiplied by: lora_alpha / r, or lora_alpha / √r for rsLoRA. None for other methods.

    Args:
        config: peft.PeftConfig, or its `plain` values.
    """
    values = config if isinstance(config, dict) else plain(config)
    if values.get("peft_type") != LORA:
        return None
    return values["lora_alpha"] / (math.sqrt(values["r"]) if values.get("use_rslora") else values["r"])


def linear_names(model: nn.Module) -> list[str]:
    """Modules that LoRA can target (Conv1D is GPT-2's linear layer)."""
    return [
        name for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding) or type(m).__name__ == "Conv1D"
    ]


def layer_count(model: nn.Module) -> int:
    return len(_blocks(model))


def context_of(model: nn.Module) -> int | None:
    return getattr(model.config, "max_position_embeddings", None)


def _blocks(model: nn.Module) -> nn.ModuleList:
    """The transformer's blocks: the longest list of modules."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


def _final_norm(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of the norm after the last block: the body's own children that are norms."""
    body = model.base_model if hasattr(model, "base_model") else model
    norms = [m for name, m in body.named_children() if "norm" in type(m).__name__.lower() or name in ("norm", "ln_f")]
    return [p for norm in norms for p in norm.parameters()]
