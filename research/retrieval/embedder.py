"""A dual encoder by name, as retrieval uses it: loaded, on its device, with the stores of what it encodes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from research.errors import UserError
from research.models.cut import CutCount
from research.models.dual_encoder import DualEncoder
from research.models.inference import best_device, for_inference
from research.models.sources import hash_with_base, resolve
from research.retrieval.earlier import Known
from research.retrieval.encode import encode_texts, say_cut
from research.retrieval.named import EncoderOptions, check_choices, check_encoder, check_known, encoder_settings
from research.retrieval.store import Store, build_store, made_with, store_key
from research.retrieval.used import check_lengths


class Embedder:
    """A dual encoder, loaded: one that cannot be read is refused before anything is computed.

    Args:
        name: run folder, model folder, hub id or pkg:PACKAGE/PATH.
        precision: "fp32" | "bf16".
        settings: changes to the model's own EncoderSettings; None keeps a value.
    """

    def __init__(self, name: str, precision: str, settings: dict):
        folder = resolve(name, "encoder")
        self.name, self.precision = name, precision
        self.model_hash = hash_with_base(folder)
        self.model = DualEncoder.load(folder, precision, **settings)
        self.device = best_device()
        for_inference(self.model, self.device)
        self.told: set[str] = set()

    def key(self, role: str, texts_hash: str) -> str:
        """Hash what a store of these texts depends on."""
        return store_key(self.model_hash, self.model.tower(role), role, self.precision, texts_hash)

    def made_with(self, role: str) -> str:
        """Hash what an embedding depends on besides its text."""
        return made_with(self.model_hash, self.model.tower(role), role, self.precision)

    def encode(self, texts: Sequence[str], role: str, token_budget: int | None = None) -> tuple[np.ndarray, int]:
        """Compute embeddings in memory, and say (once a role) how many texts are longer than what the model reads.

        Args:
            texts: one a row.
            role: "query" or "doc", the tower.
            token_budget: tokens of one batch; None takes the device's default.

        Returns:
            (N, D) float32, and how many of the texts were cut.
        """
        tower, cut = self.model.tower(role), CutCount()
        embeddings = encode_texts(tower, texts, role, token_budget, cut)
        if cut.cut and role not in self.told:
            self.told.add(role)
            say_cut(cut, tower, role, self.name)
        return embeddings, cut.cut

    def store(
        self,
        folder: Path,
        ids: Sequence[str],
        texts: Sequence[str],
        role: str,
        texts_hash: str,
        token_budget: int | None,
        facts: dict | None = None,
        known: Sequence[Known] = (),
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
            known: embeddings that need not be computed again.
        """
        tower = self.model.tower(role)
        facts = {"model": self.name, "model_hash": self.model_hash, **(facts or {}), **dataclasses.asdict(tower.settings)}
        facts["made_with"] = self.made_with(role)
        return build_store(folder, tower, ids, texts, role, self.key(role, texts_hash), facts, token_budget, known)


def load_encoder(model: str, precision: str = "fp32", **options: Unpack[EncoderOptions]) -> Embedder:
    """Load a dual encoder, on the GPU where there is one.

    Args:
        model: run folder, model folder (Hugging Face's or sentence-transformers'), hub id or pkg:PACKAGE/PATH.
        precision: "fp32" (for reported numbers) or "bf16" (faster where the hardware has it).
        options: of the verbs, by name: max_length, query_max_length, doc_max_length, query_prompt, doc_prompt, pooling,
            normalize, similarity; what is not given is the model's own.

    Returns:
        The encoder, which `encode` and `search` take.

    Raises:
        UserError: a model that cannot be read, or an option that it does not take.

    Example:
        >>> from research import encode, load_encoder
        >>> encoder = load_encoder("my-encoder", max_length=32)
        >>> encode(encoder, ["bees make honey", "flour is ground"]).shape
        (2, 32)
    """
    check_known(options, EncoderOptions)
    check_choices(options | {"precision": precision})
    check_encoder(options)
    check_lengths(options)
    return Embedder(model, precision, encoder_settings(options))


def encode(
    model: str | Embedder, texts: str | Sequence[str], tower: str = "doc", token_budget: int | None = None
) -> np.ndarray:
    """Compute the embeddings of texts, in their order.

    Args:
        model: as `load_encoder` gives it, or by name.
        texts: documents or queries.
        tower: "doc" | "query": which tower, prompt and length.
        token_budget: tokens of one batch, padding included; None takes the device's default.

    Returns:
        (N, D) float32; of length 1 where the model normalises. A score is their inner product, or cosine, as the model has it.

    Raises:
        UserError: no text, an unknown tower, or a model that cannot be read.

    Example:
        >>> from research import encode, load_encoder
        >>> encoder = load_encoder("my-encoder")
        >>> queries = encode(encoder, "who makes honey?", tower="query")
        >>> docs = encode(encoder, ["bees make honey", "flour is ground"])
        >>> (queries @ docs.T).shape
        (1, 2)
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if tower not in ("doc", "query"):
        raise UserError(f"--tower {tower!r} is not known; expected doc or query. Correct it.")
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"texts are {repr(texts)[:60]}; expected one text or more. Correct it.")
    check_encoder({"token_budget": token_budget})
    embedder = model if isinstance(model, Embedder) else load_encoder(model)
    return embedder.encode(texts, tower, token_budget)[0]
