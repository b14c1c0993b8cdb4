"""The output layer of a causal language model as a weight, a bias, a scale and a cap, whatever PEFT has put around it.

Where LoRA's update lies on it, W + s B A is not computed, which would round the update away in bf16: hidden states (h, s A h)
and the weight (W, B) give the same logits.
"""

from types import SimpleNamespace

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn

from research.errors import UserError

SCALES = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # what configurations call a factor on the logits


def head_of(model: nn.Module, adapted: bool, off: bool) -> dict:
    """Return what `losses.language.token_losses` needs of the output layer: weight, bias, scale and softcap.

    Args:
        model: a transformers causal language model; PEFT's layers are inside it.
        adapted: whether it has an adapter.
        off: whether that is switched off.

    Raises:
        UserError: an adapter on the output layer that is not plain LoRA.
    """
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    if type(layer) is not nn.Linear:
        layer = _plain(layer, adapted, off)
    scale = next((value for name in SCALES if (value := getattr(config, name, None)) is not None), 1.0)
    if (division := getattr(config, "logits_scaling", None)) is not None:
        scale = division if config.model_type == "hyperclovax" else 1 / division
    softcap = getattr(config, "final_logit_softcapping", None)
    return {"weight": layer.weight, "bias": layer.bias, "scale": scale, "softcap": softcap}


def widened(hidden: Tensor, layer: nn.Module, off: bool) -> Tensor:
    """Widen (…, H) to (…, H + r) if LoRA adapts the output layer; see `head_of`."""
    if type(layer) is nn.Linear or off or not hasattr(layer, "lora_A") or layer.merged:
        return hidden
    _check_lora(layer)
    name = layer.active_adapters[0]
    down = layer.lora_A[name]
    inner = down(layer.lora_dropout[name](hidden.to(down.weight.dtype))) * layer.scaling[name]
    return torch.cat([hidden, inner.to(hidden.dtype)], -1)


def _plain(layer: nn.Module, adapted: bool, off: bool) -> nn.Module | SimpleNamespace:
    """Return the output layer within PEFT's wrapper, with weight and bias.

    Of modules_to_save it is the trained copy, or the base's while the adapter is off; where it is tied to the embeddings, it
    has the trained tokens' rows; under LoRA, the second matrix beside its weight.

    Raises:
        UserError: another adapter on the output layer itself.
    """
    if isinstance(layer, BaseTunerLayer):
        base = layer.get_base_layer()
        if off or layer.merged:
            return base
        _check_lora(layer)
        name = layer.active_adapters[0]
        up = layer.lora_B[name]
        bias = None if up.bias is None else up.bias * layer.scaling[name]
        if base.bias is not None:
            bias = base.bias if bias is None else base.bias + bias
        return SimpleNamespace(weight=torch.cat([base.weight, up.weight.to(base.weight.dtype)], 1), bias=bias)
    if isinstance(layer, TrainableTokensWrapper):
        tokens = layer.token_adapter
        rows = [] if off or tokens.merged else tokens.active_adapters
        return SimpleNamespace(weight=tokens.get_merged_weights(rows), bias=getattr(tokens.base_layer, "bias", None))
    if isinstance(layer, ModulesToSaveWrapper):
        return layer.original_module if off else layer.modules_to_save[layer.active_adapter]
    if adapted and not hasattr(layer, "weight"):
        raise UserError(
            f"the adapter puts {type(layer).__name__} around the output layer, which is read without it here; "
            "expected the output layer itself, or modules_to_save. Leave it out of the adapter."
        )
    return layer


def _check_lora(layer: nn.Module) -> None:
    """Refuse an adapter on the output layer that is not plain LoRA on a linear layer.

    Raises:
        UserError: it is not plain LoRA on a linear layer.
    """
    names = layer.active_adapters
    plain = type(layer) is LoraLinear and type(layer.get_base_layer()) is nn.Linear and len(names) == 1
    if not plain or names[0] in layer.lora_variant:
        raise UserError(
            f"the adapter puts {type(layer).__name__} around the output layer, where plain LoRA alone is "
            "trained here (no DoRA, no target_parameters); expected that, or modules_to_save. Leave the output "
            "layer out of the adapter, or change how it is adapted."
        )
