"""Validation of the retrieval trainers: exact search and our own metrics, with the present weights."""

import hashlib
from typing import NamedTuple

import lightning as L
import numpy as np
import torch

from research.metrics.retrieval import evaluate, mean, parse_metric, rank_documents
from research.models.cut import CutCount
from research.models.dual_encoder import Encoder
from research.progress import bar, say
from research.retrieval.encode import encode_batches, say_cut
from research.retrieval.exact import exact_search, to_run
from research.retrieval.rerank import reorder, say_cut_pairs, score_pairs, top_pairs
from research.training.ranks import all_gather_rows
from research.types import Collection, Ranking

TOP_K = 100  # documents ranked a query, at least
SHOWN = 32  # queries of which a run keeps what it ranked first
SNIPPET = 240  # characters of a document
MEASURED = " that are measured on"


class Retrieved(NamedTuple):
    """A validation.

    Attributes:
        per_query: {metric: {query: value}}.
        answers: query → {"prompt", "reference", "answer"}: the query, a relevant document, the one ranked first.
    """

    per_query: dict[str, dict[str, float]]
    answers: dict[str, dict[str, str]]


def evaluate_retrieval(module: L.LightningModule, data: Collection, metrics: list[str]) -> Retrieved:
    """Compute a dual encoder's metrics per query over all documents of a collection; encoding is divided among the ranks."""
    docs = _encode(module, module.model.doc, [doc.content for doc in data.corpus.values()], "doc")
    queries = _encode(module, module.model.query, list(data.queries.values()), "query")
    settings, doc_ids = module.model.doc.settings, list(data.corpus)
    top_k = max(TOP_K, *(parse_metric(name)[1] for name in metrics))
    nearest = exact_search(queries, docs, min(top_k, len(doc_ids)), settings.normalize_outside, doc_ids, module.device)
    run = to_run(list(data.queries), doc_ids, *nearest)
    return Retrieved(evaluate(data.qrels, run, metrics), first_documents(data, run))


def evaluate_reranking(module: L.LightningModule, data: Collection, run: Ranking, depth: int, metrics: list[str]) -> Retrieved:
    """Compute metrics per query of a run whose top `depth` the cross-encoder re-orders; pairs are divided among the ranks."""
    pairs = top_pairs(run, depth)
    mine = pairs[module.trainer.global_rank :: module.trainer.world_size]
    texts = [data.queries[query] for query, _ in mine], [data.corpus[doc].content for _, doc in mine]
    cut = CutCount()
    logits = all_gather_rows(module, score_pairs(module.model, *texts, cut=cut), len(pairs))
    if _is_first(module, cut, "pairs"):
        say_cut_pairs(cut, module.model, "the model", MEASURED, "--model.max_length")
    scores: dict[str, dict[str, float]] = {}
    for (query, doc), logit in zip(pairs, logits.tolist(), strict=True):
        scores.setdefault(query, {})[doc] = logit
    reranked = reorder(run, scores)
    return Retrieved(evaluate(data.qrels, reranked, metrics), first_documents(data, reranked))


def say_before(module: L.LightningModule, data: Collection, run: Ranking, metrics: list[str]) -> None:
    """Report, once a training, the metrics of the run that the cross-encoder re-orders: what it must beat."""
    if _is_untold(module, "before reranking"):
        means = {name: mean(values) for name, values in evaluate(data.qrels, run, metrics).items()}
        say("before reranking: " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))


def first_documents(data: Collection, run: Ranking) -> dict[str, dict[str, str]]:
    """List the first documents of some queries, for reports; a hash of the ids chooses the same queries in every run."""
    chosen = sorted(data.qrels, key=lambda query: hashlib.sha256(query.encode("utf-8", "surrogatepass")).digest())[:SHOWN]
    texts = {}
    for query in chosen:
        relevant = [doc for doc, grade in data.qrels[query].items() if grade > 0]
        first = next(iter(rank_documents(run.get(query) or {})), None)  # of ties the one that the metrics rank first
        verdict = "found no document" if first is None else "✓ relevant: " if first in relevant else "✗ not relevant: "
        texts[query] = {
            "prompt": data.queries[query],
            "reference": _snippet(data, next(iter(relevant), None)),
            "answer": verdict + _snippet(data, first),
        }
    return texts


def _snippet(data: Collection, doc: str | None) -> str:
    if doc is None or doc not in data.corpus:
        return doc or ""
    content = data.corpus[doc].content
    return content if len(content) <= SNIPPET else content[:SNIPPET] + "…"


def _is_first(module: L.LightningModule, cut: CutCount, kind: str) -> bool:
    """Add up what the ranks cut; return whether this process is to report it: the first, once a training and kind."""
    if module.trainer.world_size > 1:
        counts = module.all_gather(torch.tensor([cut.texts, cut.cut], device=module.device)).sum(0).tolist()
        cut.texts, cut.cut = counts
    return _is_untold(module, kind) and cut.cut > 0


def _is_untold(module: L.LightningModule, kind: str) -> bool:
    """Return whether this is the first process, asked for the first time in a training about this kind of report."""
    told = module.__dict__.setdefault("told", set())
    first = module.trainer.is_global_zero and kind not in told
    told.add(kind)
    return first


def _encode(module: L.LightningModule, encoder: Encoder, texts: list[str], role: str) -> np.ndarray:
    """Compute (N, D) embeddings; each rank encodes every world_size-th text."""
    mine = texts[module.trainer.global_rank :: module.trainer.world_size]
    out = np.empty((len(mine), encoder.dim), np.float32)
    with bar(len(mine), f"validate: encode {role}", "text", quiet=not module.trainer.is_global_zero) as progress:
        cut = CutCount()
        for batch in encode_batches(encoder, mine, role, cut=cut):
            out[batch.positions] = batch.embeddings
            progress.update(len(batch.positions))
    if _is_first(module, cut, role):
        say_cut(cut, encoder, role, "the model", MEASURED, "--model.{}_max_length")
    return all_gather_rows(module, out, len(texts))
