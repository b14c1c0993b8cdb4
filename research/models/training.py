"""Preparing a model for training: dropout is set, what never gets a gradient is frozen, and on a CPU the same loss and the
same gradients come from cheaper parts.

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

from research.errors import UserError
from research.models import attention
from research.models.dropout import DropoutBits, FastDropout

RATES = ("attention_dropout", "dropout_prob", "dropout_p", "dropout", "hidden_dropout", "activation_dropout")
"""Attributes of modules that call functional dropout."""


def set_dropout(model: nn.Module, p: float | None) -> None:
    """Give every dropout layer, and attention, the probability `p`; None leaves the model's own.

    Raises:
        UserError: p is not in [0, 1).
    """
    if p is None:
        return
    if not 0 <= p < 1:
        raise UserError(f"dropout={p}; expected 0 to below 1, or null for the model's own. Correct it in the configuration.")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        for name in RATES:
            rate = getattr(module, name, None)  # an int where config.json says 0
            if isinstance(rate, int | float) and not isinstance(rate, bool):
                setattr(module, name, p)


def freeze_pooler(model: nn.Module) -> None:
    """No gradient for an encoder's pooler: it stands beside the hidden states that are pooled here, so it gets none anyway,
    and DDP would wait for it for ever."""
    if any("pooler_output" in str(getattr(module, "modality_config", "")) for module in model.modules()):
        return  # a stack of sentence-transformers that reads it
    for name, parameter in model.named_parameters():
        if ".pooler." in f".{name}":
            parameter.requires_grad = False


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
    """Tensors from 16 MiB on go back to the system when they are freed, smaller ones stay with the process, and oneDNN keeps
    128 kernels.

    Batches of ever new shapes otherwise leave holes, and a kernel each: 3.9 GB after 17 steps of a cross-encoder against
    3.0, at the same speed; with 4 MiB 2.9 GB, but 1.25 times as slow, since fresh memory is zeroed page by page (LOG.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 16 * 2**20)  # M_MMAP_THRESHOLD
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")  # read when oneDNN is first used
