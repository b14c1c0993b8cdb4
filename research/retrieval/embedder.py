"""A dual encoder by name, as retrieval uses it: loaded, on its device, with the stores of what it encodes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from research.models.dual_encoder import DualEncoder
from research.models.inference import best_device, for_inference
from research.models.sources import hash_with_base, resolve
from research.retrieval.store import Store, build_store, store_key


class Embedder:
    """A dual encoder, loaded: one that cannot be read is refused before anything is computed.

    Args:
        name: run folder, model folder, hub id or pkg:PACKAGE/PATH.
        precision: "fp32" | "bf16".
        settings: changes to the model's own EncoderSettings; None keeps a value.
    """

    def __init__(self, name: str, precision: str, settings: dict):
        folder = resolve(name)
        self.name, self.precision = name, precision
        self.model_hash = hash_with_base(folder)
        self.model = DualEncoder.load(folder, precision, **settings)
        self.device = best_device()
        for_inference(self.model, self.device)

    def key(self, role: str, texts_hash: str) -> str:
        """Hash what a store of these texts depends on."""
        return store_key(self.model_hash, self.model.tower(role), role, self.precision, texts_hash)

    def store(
        self,
        folder: Path,
        ids: Sequence[str],
        texts: Sequence[str],
        role: str,
        texts_hash: str,
        token_budget: int | None,
        facts: dict | None = None,
    ) -> Store:
        """Encode texts into a folder, or open what is there; see `build_store`.

        Args:
            folder: made if absent.
            ids: of the texts.
            texts: one a row.
            role: "query" or "doc", the tower.
            texts_hash: of ids and texts.
            token_budget: tokens of one batch; None takes the device's default.
            facts: further lines for store.json.
        """
        tower = self.model.tower(role)
        facts = {"model": self.name, "model_hash": self.model_hash, **(facts or {}), **dataclasses.asdict(tower.settings)}
        return build_store(folder, tower, ids, texts, role, self.key(role, texts_hash), facts, token_budget)
