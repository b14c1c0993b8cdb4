"""What one optimizer step asks of a device: kernels that it launches, and waits of the host for a value; counted on a CPU.

An ATen operation that returns a view, or changes no memory, launches nothing; any other counts as one launch, a foreach one
too. So do the forward and the backward of functions that are FUSED on a GPU, and computed in parts on a CPU. A wait is
a value that Python reads from a tensor, or a shape that depends on values.
"""

from collections import Counter

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

FUSED = ("scaled_dot_product_attention", "rms_norm")
READS = ("tolist", "cpu", "numpy")  # that a CPU tensor answers without an operation
SHAPED_BY_VALUES = ("nonzero", "masked_select", "unique", "_unique2", "_local_scalar_dense", "is_nonzero", "equal")
NO_KERNEL = (
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_to_copy.noop",
    "lift_fresh",
    "_unsafe_view",
    "set_",
)


class Counts(TorchDispatchMode):
    """Counts operations while it is entered.

    Attributes:
        launches: operation → times.
        waits: where (file:line of the package) → times.
    """

    def __init__(self):
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.paused = False

    def __enter__(self):
        self.functions = {name: self._fused(name) for name in FUSED}
        for name, (_, fused) in self.functions.items():
            setattr(nn.functional, name, fused)
        self.plain = {name: getattr(Tensor, name) for name in READS}
        for name, plain in self.plain.items():
            setattr(Tensor, name, self._read(name, plain))
        return super().__enter__()

    def __exit__(self, *error):
        for name, (plain, _) in self.functions.items():
            setattr(nn.functional, name, plain)
        for name, plain in self.plain.items():
            setattr(Tensor, name, plain)
        return super().__exit__(*error)

    def _fused(self, name):
        plain = getattr(nn.functional, name)

        def fused(*args, **options):
            return _Fused.apply(self, name, plain, options, *args)

        return plain, fused

    def _read(self, name, plain):
        def read(tensor, *args, **options):
            self.waits[_place(name)] += 1
            return plain(tensor, *args, **options)

        return read

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        out = func(*args, **(kwargs or {}))
        if self.paused:
            return out
        if name in SHAPED_BY_VALUES or (name in ("index", "index_put", "index_put_") and _has_bool(args[1])):
            self.waits[_place(name)] += 1
        is_view = any(ret.alias_info is not None and not ret.alias_info.is_write for ret in func._schema.returns)
        if not is_view and name not in NO_KERNEL and name != "_local_scalar_dense":
            self.launches[name] += 1
        return out


class _Fused(torch.autograd.Function):
    """A function that is one kernel forward and one backward on a GPU."""

    @staticmethod
    def forward(ctx, counts, name, plain, options, *args):
        counts.launches[name] += 1
        counts.paused, ctx.counts, ctx.name = True, counts, name
        with torch.enable_grad():
            ctx.args = [x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in args]
            ctx.out = plain(*ctx.args, **options)
        counts.paused = False
        return ctx.out.detach()

    @staticmethod
    def backward(ctx, grad):
        ctx.counts.launches[f"{ctx.name} backward"] += 1
        ctx.counts.paused = True
        wanted = [x for x in ctx.args if isinstance(x, Tensor) and x.requires_grad]
        grads = iter(torch.autograd.grad(ctx.out, wanted, grad))
        ctx.counts.paused = False
        of_args = (next(grads) if isinstance(x, Tensor) and x.requires_grad else None for x in ctx.args)
        return None, None, None, None, *of_args


def _has_bool(indices) -> bool:
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _place(name: str) -> str:
    import traceback

    frames = [f for f in traceback.extract_stack() if "/research/" in f.filename or "/transformers/" in f.filename]
    frame = frames[-1] if frames else traceback.extract_stack()[-4]
    return f"{name} {'/'.join(frame.filename.rsplit('/', 2)[-2:])}:{frame.lineno}"


class CountStep(L.Callback):
    """Counts one optimizer step of a training: its `number`, from 0."""

    def __init__(self, number: int):
        self.number, self.counts = number, Counts()

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if trainer.global_step == self.number:
            self.counts.__enter__()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.number + 1 and batch_idx >= 0 and self.counts is not None:
            self.counts.__exit__(None, None, None)
