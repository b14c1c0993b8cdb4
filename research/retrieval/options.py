"""The settings of retrieval that all stages of one command share."""

import dataclasses
from pathlib import Path

from research.errors import UserError
from research.retrieval.terms import DEFAULT, Terms

EXACT_UP_TO = 100_000  # documents; beyond, HNSW is the default


@dataclasses.dataclass(frozen=True)
class Options:
    """How to retrieve.

    Args:
        top_k: documents kept a query in every stage, ≥ 1.
        index: "exact" | "hnsw" | None, which takes exact up to 100,000 documents.
        ef: width of HNSW's search, ≥ top_k.
        M: links a node of HNSW.
        ef_construction: width of HNSW's search while building.
        index_threads: threads of the build; 1 is reproducible.
        precision: "fp32" | "bf16" of the encoder.
        k1, b, terms: of BM25.
        settings: changes to the models' own EncoderSettings; None keeps a value.
        embeddings: folder of document embeddings made by `encode`, instead of the cache.
        store: folder of document embeddings that is made, or used again if they are what it would hold, instead of the cache.
        reuse: take embeddings of equal texts from earlier stores of the cache, and from the one that `store` replaces.
        drop_self: leave out the document whose id is the query's, as tasks such as ArguAna demand.
        spare: documents that retrievers return beyond top_k, so that as many are kept when one is dropped.
        token_budget: tokens of one batch of the encoders; None takes the device's default.
        depth: documents a query that the reranker reads, 1 to top_k.
        mix: λ of the retriever's score beside the reranker's, 0 to 1.
        reranker_max_length: tokens of a pair; None takes the model's own.
    """

    top_k: int = 100
    index: str | None = None
    ef: int = 200
    M: int = 16
    ef_construction: int = 200
    index_threads: int = 1
    precision: str = "fp32"
    k1: float = 1.2
    b: float = 0.75
    terms: Terms = DEFAULT
    settings: dict = dataclasses.field(default_factory=dict)
    embeddings: Path | None = None
    store: Path | None = None
    reuse: bool = False
    drop_self: bool = False
    spare: int = 0
    token_budget: int | None = None
    depth: int = 100
    mix: float = 0.0
    reranker_max_length: int | None = None

    def __post_init__(self):
        if self.top_k < 1:
            raise UserError(f"top_k={self.top_k}; expected 1 or more. Pass --top-k 100, say.")
        if self.index == "hnsw" and self.ef < self.retrieved:
            raise UserError(f"top_k={self.retrieved} exceeds ef={self.ef}; pass --ef {self.retrieved} or more.")

    @property
    def retrieved(self) -> int:
        """Return how many documents a retriever gives for each query, with the one that may be dropped."""
        return self.top_k + self.spare
