"""A cache of one base model in this process, for workers: points of a sweep mostly share their base.

A training gets modules of its own around the cached weights, which nobody may change. Whoever is about to change them (full
fine-tuning, a merge) calls `release_cached_base`, and the next training loads anew. Checksums guard against changes that
nobody announced.
"""

import copy
import os
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor, nn

SHARE = 8  # a base is cached where it takes at most this part of the machine's memory


class CachedBase(NamedTuple):
    """A model as it was loaded.

    Attributes:
        key: what it was loaded from, and how.
        model: never trained, never changed.
        checksums: of the bits of each of its weights.
    """

    key: Hashable
    model: nn.Module
    checksums: list[int]


_state: dict[str, CachedBase | None] = {}  # empty: this process caches nothing


def cache_bases() -> None:
    """Let this process cache the base that it loads: it is a worker, which trains one point after the other."""
    _state.setdefault("base", None)


def load_cached(key: Hashable, load: Callable[[], nn.Module]) -> nn.Module:
    """Return the model that `load` gives, or a new one around its cached weights.

    Args:
        key: of the weights: folder, content, precision.
        load: loads it.
    """
    if "base" not in _state:
        return load()
    cached = _state["base"]
    if cached is None or cached.key != key or cached.checksums != _checksums(cached.model):
        _state["base"] = cached = None  # before the next one is loaded: two would not fit
        model = load()
        if SHARE * _bytes(model) > _memory():
            return model
        cached = _state["base"] = CachedBase(key, model, _checksums(model))
    return _around(cached.model)


def release_cached_base(model: nn.Module, changed: bool = True) -> None:
    """Drop the cached weights that `model` is made of, if it is about to change them.

    Args:
        model: a model that is to be merged into, or trained.
        changed: True: every weight may change. False: only those that are trained.
    """
    cached = _state.get("base")
    if cached is None:
        return
    addresses = {p.data_ptr() for p in cached.model.parameters()}
    if any(p.data_ptr() in addresses for p in model.parameters() if changed or p.requires_grad):
        _state["base"] = None


def _around(model: nn.Module) -> nn.Module:
    """Make a deep copy that shares the memory of the weights; buffers, settings and hooks are copied."""
    memo = {id(p): nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo)


def _checksums(model: nn.Module) -> list[int]:
    return [int(_bits(p.data).sum(dtype=torch.int64)) for p in model.parameters()]


def _bits(weight: Tensor) -> Tensor:
    return weight.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()])


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
