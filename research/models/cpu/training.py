"""Training on a CPU: the same loss and the same gradients from cheaper parts.

Where the time of a plain step goes there (MiniLM, bf16 autocast, 64 question-passage pairs): padding, random masks drawn one
number at a time, the backward of the fused attention kernel, and casts of one tensor again for each of its readers. What
changes that stands here, in `attention` and in `dropout`, through transformers' attention registry, forward hooks and the
exact type nn.Dropout; where it does not apply the plain path is taken.
"""

import ctypes
import os

from torch import nn

from research.models.casts import share_casts
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
    share_casts(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p, bits).train(child.training))
        if hasattr(module, "set_attn_implementation") and module.config._attn_implementation == "sdpa":
            module.set_attn_implementation(attention.NAME)
        module.dropout_bits = bits  # attention functions get the module and a rate, not the generator
    return bits


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
