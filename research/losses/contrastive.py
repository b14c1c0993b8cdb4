"""Contrastive losses of a dual encoder. Pure functions: embeddings and ids in, per-example losses out.

A loss is a function of `info_nce`'s signature with a row in LOSSES; a configuration names it (`model.loss`).
"""

from collections.abc import Callable

import torch
from torch import Tensor


def known_positives(doc_ids: Tensor, positive_ids: Tensor, positives: Tensor) -> Tensor:
    """Mark the columns that must not count as negatives of a query, because their documents are relevant to it too.

    A duplicate of the positive left among the negatives costs a perfect encoder ln 2 a query.

    Args:
        doc_ids: (M,) ids of all documents scored, gathered ones too; equal documents have equal ids.
        positive_ids: (B, P) ids of every document judged relevant to each query, padded with types.NO_ID.
        positives: (B,) column of each query's positive.

    Returns:
        (B, M) bool, True where the column is to be left out of the softmax. The positive's column is never True.
    """
    mask = (doc_ids[None, :, None] == positive_ids[:, None, :]).any(-1)  # (B, M)
    return mask.scatter(1, positives[:, None], False)


def info_nce(
    query: Tensor, docs: Tensor, positives: Tensor, temperature: Tensor | float, masked: Tensor | None = None
) -> Tensor:
    """Softmax cross-entropy of each query's positive against every other document that is not masked.

    L_i = −log( exp(s_i,pos / τ) / Σ_{j not masked} exp(s_ij / τ) ),  s = q dᵀ

    Args:
        query: (B, D) query embeddings, L2-normalised for cosine similarity.
        docs: (M, D) document embeddings: positives, hard negatives and those gathered from other processes, in any order.
        positives: (B,) column of each query's positive in `docs`.
        temperature: τ > 0, usually 0.01 to 0.1; a tensor receives its gradient.
        masked: (B, M) bool, as `known_positives` gives it; None masks nothing.

    Returns:
        (B,) float32 (float64 for float64 embeddings) losses: bf16 scores would tie, and their softmax lose 1e-2.

    Source: InfoNCE, van den Oord et al. 2018, Eq. 4; in-batch negatives as Karpukhin et al. 2020, Eq. 2.
    """
    logits = _scores(query, docs) / temperature  # (B, M)
    if masked is not None:
        logits = logits.masked_fill(masked, -torch.inf)
    return torch.logsumexp(logits, 1) - logits.gather(1, positives[:, None]).squeeze(1)


Loss = Callable[[Tensor, Tensor, Tensor, Tensor | float, Tensor | None], Tensor]
LOSSES: dict[str, Loss] = {"info_nce": info_nce}
"""Name → loss."""


def both_directions(
    loss: Loss,
    query: Tensor,
    docs: Tensor,
    positives: Tensor,
    temperature: Tensor | float,
    masked: Tensor | None = None,
    all_queries: Tensor | None = None,
    query_rows: Tensor | None = None,
    masked_queries: Tensor | None = None,
) -> Tensor:
    """Average a loss over both directions: each query against all documents, and each positive document against all queries.

    Only the queries' positives are matched against queries; hard negatives have no query of their own.

    Args:
        loss: of one direction.
        query, docs, positives, temperature, masked: as for `info_nce`.
        all_queries: (N, D) the queries that documents are matched against, gathered ones too; None takes `query`.
        query_rows: (B,) row of each query in `all_queries`; None takes 0 … B−1.
        masked_queries: (B, N) bool, queries to which the positive is relevant as well (`known_positives` with the roles
            changed); None masks nothing.

    Returns:
        (B,) losses.

    Source: CLIP, Radford et al. 2021, Fig. 3.
    """
    if all_queries is None:
        all_queries = query
    if query_rows is None:
        query_rows = torch.arange(len(query), device=query.device)
    forward = loss(query, docs, positives, temperature, masked)
    backward = loss(docs[positives], all_queries, query_rows, temperature, masked_queries)
    return (forward + backward) / 2


def _scores(query: Tensor, docs: Tensor) -> Tensor:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    with torch.autocast(query.device.type, enabled=False):  # it would make the product of float32 embeddings bf16
        return query.to(dtype) @ docs.to(dtype).T
