"""Validation of the retrieval trainers: exact search and the house's metrics, on the weights as they are now."""

import lightning as L
import numpy as np
import torch

from research.metrics.retrieval import evaluate, parse_metric
from research.models.dual_encoder import TextEncoder
from research.retrieval.encode import encode_batches
from research.retrieval.index import exact_search, to_run
from research.retrieval.rerank import rerank, score_pairs, top_pairs
from research.types import Collection, Run

TOP_K = 100  # documents ranked a query, at least


def evaluate_retrieval(module: L.LightningModule, data: Collection, metrics: list[str]) -> dict[str, dict[str, float]]:
    """Metrics per query of a dual encoder over all documents of a collection; ranks share the encoding."""
    docs = _encode(module, module.model.doc, [doc.content for doc in data.corpus.values()], "doc")
    queries = _encode(module, module.model.query, list(data.queries.values()), "query")
    settings, doc_ids = module.model.doc.settings, list(data.corpus)
    top_k = max(TOP_K, *(parse_metric(name)[1] for name in metrics))
    found = exact_search(queries, docs, min(top_k, len(doc_ids)), settings.normalize_outside, doc_ids)
    return evaluate(data.qrels, to_run(list(data.queries), doc_ids, *found), metrics)


def evaluate_reranking(
    module: L.LightningModule, data: Collection, run: Run, depth: int, metrics: list[str]
) -> dict[str, dict[str, float]]:
    """Metrics per query of a run whose top `depth` the cross-encoder re-orders; ranks share the pairs."""
    pairs = top_pairs(run, depth)
    mine = pairs[module.trainer.global_rank :: module.trainer.world_size]
    texts = [data.queries[query] for query, _ in mine], [data.corpus[doc].content for _, doc in mine]
    logits = together(module, score_pairs(module.model, *texts), len(pairs))
    scores: dict[str, dict[str, float]] = {}
    for (query, doc), logit in zip(pairs, logits.tolist(), strict=True):
        scores.setdefault(query, {})[doc] = logit
    return evaluate(data.qrels, rerank(run, scores), metrics)


def _encode(module: L.LightningModule, encoder: TextEncoder, texts: list[str], role: str) -> np.ndarray:
    """(N, D) embeddings, each rank encoding every world_size-th text."""
    mine = texts[module.trainer.global_rank :: module.trainer.world_size]
    out = np.empty((len(mine), encoder.dim), np.float32)
    for batch in encode_batches(encoder, mine, role):
        out[batch.positions] = batch.embeddings
    return together(module, out, len(texts))


def together(module: L.LightningModule, mine: np.ndarray, count: int) -> np.ndarray:
    """All ranks' rows in their common order."""
    world = module.trainer.world_size
    if world == 1:
        return mine
    parts: list = [None] * world
    torch.distributed.all_gather_object(parts, mine)
    out = np.empty((count, *mine.shape[1:]), mine.dtype)
    for global_rank, part in enumerate(parts):
        out[global_rank::world] = part
    return out
