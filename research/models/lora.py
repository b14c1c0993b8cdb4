"""LoRA's forward and backward as few matrix products: y = x Wᵀ + b + s · (x Aᵀ) Bᵀ.

PEFT casts the input to the adapter's float32 and back, multiplies the whole update by the scale and adds it in passes of its
own. Here scale and sum are part of the products; everything else, names and state_dict included, stays PEFT's.
"""

import functools

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn


def faster_lora(model: nn.Module) -> int:
    """Give plain LoRA layers this forward, in place; return how many.

    Left alone: DoRA and other variants, a bias of the update, several active adapters, merged or disabled adapters, and
    dropout while training; these are looked at again at every call.
    """
    layers = [module for module in model.modules() if type(module) is Linear]
    for layer in layers:
        layer.forward = functools.partial(_forward, layer)
    return len(layers)


def _forward(layer: Linear, x: Tensor, *args, **kwargs) -> Tensor:
    name = layer.active_adapters[0] if len(layer.active_adapters) == 1 else None
    base = layer.base_layer
    if (
        name not in layer.lora_A
        or args
        or kwargs
        or layer.disable_adapters
        or layer.merged
        or type(base) is not nn.Linear
        or name in layer.lora_variant
        or layer.lora_bias[name]
        or base.weight.requires_grad
        or (base.bias is not None and base.bias.requires_grad)
        or (layer.training and getattr(layer.lora_dropout[name], "p", 0))
    ):
        return Linear.forward(layer, x, *args, **kwargs)
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight  # (r, in), (out, r)
    return _Lora.apply(x, base.weight, base.bias, down, up, layer.scaling[name])


class _Lora(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        ctx.dtypes, ctx.shape = (x.dtype, down.dtype, up.dtype), x.shape
        flat = x.reshape(-1, x.shape[-1]).to(dtype)  # (N, in)
        weight, down, up = weight.to(dtype), down.to(dtype), up.to(dtype)
        with torch.autocast(kind, enabled=False):
            inner = flat @ down.T  # (N, r)
            out = flat @ weight.T if bias is None else torch.addmm(bias.to(dtype), flat, weight.T)
            out.addmm_(inner, up.T, alpha=scaling)
        ctx.save_for_backward(flat, weight, down, up, inner)
        ctx.scaling = scaling
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        flat, weight, down, up, inner = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1]).to(flat.dtype)  # (N, out)
        with torch.autocast(grad.device.type, enabled=False):
            grad_inner = (grad @ up).mul_(ctx.scaling)  # (N, r)
            grad_down = grad_inner.T @ flat
            grad_up = (grad.T @ inner).mul_(ctx.scaling)
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = (grad @ weight).addmm_(grad_inner, down).view(ctx.shape).to(ctx.dtypes[0])
        return grad_x, None, None, grad_down.to(ctx.dtypes[1]), grad_up.to(ctx.dtypes[2]), None
