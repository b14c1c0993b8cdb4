"""Hard negatives in Python: texts and judgements in, triplets out, by the rules of `research mine`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from research.errors import UserError
from research.models.sources import MINILM
from research.retrieval.candidates import known_relevant
from research.retrieval.mine import Miner
from research.retrieval.mining import check_mining, mining_of
from research.retrieval.named import RetrievalOptions, check_known
from research.retrieval.search import as_corpus, as_queries
from research.runs.hashes import hash_strings
from research.runs.layout import cache_folder
from research.types import Collection, Document, Qrels, Queries, Triplets


def mine_negatives(
    queries: Queries,
    corpus: Mapping[str, str | Document],
    qrels: Qrels,
    retriever: str | Sequence[str] = MINILM,
    *,
    ranks: str = "1-30",
    negatives: int | None = None,
    margin: float | None = None,
    relative_margin: float | None = None,
    reranker: str | None = None,
    reranker_max_length: int | None = None,
    judged: Sequence[Qrels] = (),
    cache: str | Path | None = None,
    **options: Unpack[RetrievalOptions],
) -> list[Triplets]:
    """Mine hard negatives: documents that a retriever ranks high for a query and that nobody judged relevant.

    Left out are what is judged relevant to the query, or to a query of equal text, copies of such texts, and documents whose id
    or text is the query's.

    Args:
        queries: {id: text}; those that `qrels` judges are mined, the others' judgements in `judged` are known.
        corpus: {id: text or Document}.
        qrels: {query id: {document id: relevance}}; above 0 is relevant.
        retriever: "bm25" or a model by name; several are fused.
        ranks: positions of the ranking to take from, "FIRST-LAST", counted from 1.
        negatives: at most so many a query, the highest ranked; None takes all.
        margin: keep what scores at most the best positive − margin.
        relative_margin: keep what scores at most this share of the best positive, 0 to 1; 0.95 is usual.
        reranker: a cross-encoder's name, whose logits replace the retriever's scores.
        reranker_max_length: tokens of a query-document pair; None takes the model's own.
        judged: judgements of other splits, whose relevant documents are left out too.
        cache: of embeddings, indexes and rankings; None takes TANDEM_CACHE, else ~/.cache/tandem.
        options: of the verb, by name: index, ef, bm25_k1, precision, max_length, …; see RetrievalOptions.

    Returns:
        A Triplets(query_id, query, positives, negatives, scores, positions) a query: positives and negatives are
        {document id: Document}, negatives best first; queries that nothing is relevant to have none.

    Raises:
        UserError: a judged query without a text, no relevant document, an option out of its range, or a model that cannot be
            read.

    Example:
        >>> from research import mine
        >>> corpus = {"a": "bees make honey", "b": "weavers make cloth", "c": "flour is ground"}
        >>> rows = mine({"q": "who can make honey?"}, corpus, {"q": {"a": 1}}, "bm25")
        >>> [*rows[0].negatives]
        ['b']
    """
    queries, documents = as_queries(queries), as_corpus(corpus)
    given = {
        "retriever": [retriever] if isinstance(retriever, str) else list(retriever),
        "ranks": ranks,
        "negatives": negatives,
        "margin": margin,
        "relative_margin": relative_margin,
        "reranker": reranker,
        "reranker_max_length": reranker_max_length,
        **options,
    }
    check_known(options, RetrievalOptions)
    check_mining(given)
    if textless := [query for split in (qrels, *judged) for query in split if query not in queries]:
        raise UserError(f"query {textless[0]!r} is judged and has no text; expected it among the queries. Add it.")
    chosen = {query: queries[query] for query in qrels}
    texts = [part for name, doc in documents.items() for part in (name, *doc)] + [repr([chosen, qrels])]
    data = Collection("qrels", "given", documents, chosen, qrels, hash_strings(texts), {})
    known = known_relevant(chosen, queries, [qrels, *judged], documents)
    miner = Miner(mining_of(data, known, given, cache_folder(cache and Path(cache))))
    return [*miner.triplets(miner.mine())]
