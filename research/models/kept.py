"""The base model that this process loaded last, kept for its next training: points of a sweep mostly share one.

A training gets modules of its own around the kept weights, which nobody may change. Whoever is about to (full fine-tuning, a
merge) takes them over by `own`, and the next training loads anew; a checksum guards against changes that nobody announced.
"""

import copy
import os
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor, nn

SHARE = 8  # a base is kept where it is no more than that part of the machine's memory


class Kept(NamedTuple):
    """A model as it was loaded.

    Attributes:
        key: what it was loaded from, and how.
        model: never trained, never changed.
        sums: of the bits of each of its weights.
    """

    key: Hashable
    model: nn.Module
    sums: list[int]


_state: dict[str, Kept | None] = {}


def keep_bases() -> None:
    """From here on this process keeps the base that it loads: it is a worker, which trains one point after the other."""
    _state.setdefault("last", None)


def load_kept(key: Hashable, load: Callable[[], nn.Module]) -> nn.Module:
    """The model of `load`, or another one around the weights that were kept of it.

    Args:
        key: of the weights: folder, content, precision.
        load: loads it.
    """
    if "last" not in _state:
        return load()
    last = _state["last"]
    if last is None or last.key != key or last.sums != _sums(last.model):
        _state["last"] = last = None  # before the next one is loaded: two would not fit
        model = load()
        if SHARE * _bytes(model) > _memory():
            return model
        last = _state["last"] = Kept(key, model, _sums(model))
    return _around(last.model)


def own(model: nn.Module, changed: bool = True) -> None:
    """Forget the kept weights that `model` is made of, if it is about to change them.

    Args:
        model: a model that is to be merged into, or trained.
        changed: whatever is trained of it or not; False: only if some weight of the base is trained.
    """
    last = _state.get("last")
    if last is None:
        return
    kept = {p.data_ptr() for p in last.model.parameters()}
    if any(p.data_ptr() in kept for p in model.parameters() if changed or p.requires_grad):
        _state["last"] = None


def _around(model: nn.Module) -> nn.Module:
    """A deep copy whose weights are the same memory; buffers, settings and hooks are its own."""
    memo = {id(p): nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo)


def _sums(model: nn.Module) -> list[int]:
    return [int(_bits(p.data).sum(dtype=torch.int64)) for p in model.parameters()]


def _bits(weight: Tensor) -> Tensor:
    return weight.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()])


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
