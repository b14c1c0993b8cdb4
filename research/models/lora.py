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
    factors = Factors(layers)
    for layer in layers:
        layer.forward = functools.partial(_forward, layer, factors)
    return len(layers)


class Factors:
    """The factors of all LoRA layers of a model in a narrower type: on a GPU one kernel casts all of them once a step.

    Args:
        layers: of the model.
    """

    def __init__(self, layers: list[Linear]):
        self.layers = layers
        self.casts: dict[int, tuple[tuple[int, int], Tensor]] = {}  # id of a parameter → what it was, its cast

    def cast(self, parameter: nn.Parameter, dtype: torch.dtype) -> Tensor:
        """Return the parameter in that type."""
        if parameter.dtype == dtype or not is_joined(parameter):
            return parameter.to(dtype)
        state, cast = self.casts.get(id(parameter), (None, None))
        if cast is None or state != _state(parameter) or cast.dtype != dtype or cast.device != parameter.device:
            self._refresh(dtype)
            cast = self.casts[id(parameter)][1]
        return cast

    @torch.no_grad()
    def _refresh(self, dtype: torch.dtype) -> None:
        parameters = [p for layer in self.layers for side in (layer.lora_A, layer.lora_B) for p in side.parameters()]
        parameters = [p for p in parameters if p.dtype != dtype]
        # new ones, since a graph that is not yet differentiated may hold those of before
        casts = [torch.empty_like(p, dtype=dtype) for p in parameters]
        torch._foreach_copy_(casts, parameters)
        self.casts = {id(p): (_state(p), cast) for p, cast in zip(parameters, casts, strict=True)}


def _state(parameter: nn.Parameter) -> tuple[int, int]:
    """Return what changes when the parameter's numbers do: its version, and where they lie."""
    return parameter._version, parameter.data_ptr()


def _forward(layer: Linear, factors: Factors, x: Tensor, *args, **kwargs) -> Tensor:
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
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.weight.dtype
    casts = factors.cast(down, dtype).detach(), factors.cast(up, dtype).detach()
    return _Lora.apply(x, base.weight, base.bias, down, up, layer.scaling[name], *casts)


class _Lora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
        down_cast: Tensor,
        up_cast: Tensor,
    ) -> Tensor:
        kind, dtype = x.device.type, down_cast.dtype
        ctx.dtypes, ctx.shape = (x.dtype, down.dtype, up.dtype), x.shape
        flat = x.reshape(-1, x.shape[-1]).to(dtype)  # (N, in)
        weight, down, up = weight.to(dtype), down_cast, up_cast
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
            grad_inner = _scaled_product(grad, up, ctx.scaling)  # (N, r)
            grad_down = grad_inner.T @ flat
            grad_up = _scaled_product(grad.T, inner, ctx.scaling)
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = (grad @ weight).addmm_(grad_inner, down).view(ctx.shape).to(ctx.dtypes[0])
        return grad_x, None, None, grad_down.to(ctx.dtypes[1]), grad_up.to(ctx.dtypes[2]), None, None, None


def _scaled_product(a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """Return scaling · a b: on a GPU in one kernel, on a CPU rounded before it is scaled, as it always was."""
    if not is_joined(a):
        return (a @ b).mul_(scaling)
    return torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scaling)  # beta = 0: what is added is not read


def is_joined(x: Tensor) -> bool:
    """Return whether kernels are joined where a launch costs more than what it computes: everywhere but on a CPU."""
    return x.device.type != "cpu"
