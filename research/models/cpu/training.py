"""Training on a CPU: the same loss and the same gradients from cheaper parts.

Where the time of a plain step goes there (MiniLM, bf16 autocast, 64 question-passage pairs): padding, random masks drawn one
number at a time, the backward of the fused attention kernel, and casts of one tensor again for each of its readers. What
changes that stands here, in `attention` and in `dropout`, through transformers' attention registry, forward hooks and the
exact type nn.Dropout; where it does not apply the plain path is taken.
"""

import ctypes
import os
import weakref

import torch
from torch import Tensor, nn

from research.models.cpu import attention
from research.models.cpu.dropout import DropoutBits, FastDropout


def for_training(model: nn.Module) -> DropoutBits:
    """Make `model` train faster on this CPU, in place; weights, names and state_dict stay as they are.

    Args:
        model: any Hugging Face model, or a module that holds some.

    Returns:
        The generator of all its masks, to be seeded at every step.
    """
    bound_memory()
    bits = DropoutBits()
    cast = SharedCast()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p, bits).train(child.training))
        if type(module) is nn.Linear:
            module.register_forward_pre_hook(cast)
        if hasattr(module, "set_attn_implementation") and module.config._attn_implementation == "sdpa":
            module.set_attn_implementation(attention.NAME)
        module.dropout_bits = bits  # attention functions get the module and a rate, not the generator
    return bits


class SharedCast:
    """A forward pre-hook that casts an input for autocast once, for all layers that read it (query, key and value).

    Their gradients are then summed before one cast back.
    """

    def __init__(self):
        self.source, self.version, self.result = None, -1, None

    def __call__(self, module: nn.Module, inputs: tuple) -> tuple | None:
        x = inputs[0] if inputs and torch.is_grad_enabled() else None
        if not isinstance(x, Tensor) or x.dtype != torch.float32 or not torch.is_autocast_enabled(x.device.type):
            return None
        if self.source is None or self.source() is not x or self.version != x._version or self.result() is None:
            cast = x.to(torch.get_autocast_dtype(x.device.type))
            self.source, self.version, self.result = weakref.ref(x), x._version, weakref.ref(cast)
            return (cast, *inputs[1:])
        return (self.result(), *inputs[1:])


def bound_memory() -> None:
    """Bound the memory of a training: how much the allocator and oneDNN keep.

    Tensors from 16 MiB on go back to the system when they are freed, smaller ones stay with the process, and oneDNN keeps 128
    kernels.

    Batches of ever new shapes otherwise leave holes, and a kernel each: 3.9 GB after 17 steps of a cross-encoder against
    3.0, at the same speed; with 4 MiB 2.9 GB, but 1.25 times as slow, since fresh memory is zeroed page by page (LOG.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 16 * 2**20)  # M_MMAP_THRESHOLD
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")  # read when oneDNN is first used
