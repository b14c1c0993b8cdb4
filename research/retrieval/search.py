"""What `research search` does: ranks a corpus for queries, without judgements, and shows the results as lines."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from research.errors import UserError
from research.models.sources import MINILM
from research.retrieval.embedder import Embedder
from research.retrieval.named import RetrievalOptions, check_choices, check_reranking, check_retrieval, named_options
from research.retrieval.options import Options
from research.retrieval.pipeline import Pipeline
from research.retrieval.rerank import Scorer, rerank_top
from research.retrieval.used import check_default_index, check_used
from research.runs.layout import cache_folder
from research.types import Collection, Corpus, Document, Queries, Ranking

LINES = 3  # of a text that `readable` shows
DEPTH = 100  # documents a query that a reranker reads
FUSED = 100  # documents a query of each retriever that are fused, as in `retrieve`


def search(
    queries: str | Sequence[str] | Queries,
    corpus: Sequence[str] | Mapping[str, str | Document],
    retriever: str | Embedder | Sequence[str | Embedder] = MINILM,
    *,
    reranker: str | Scorer | None = None,
    depth: int | None = None,
    mix: float | None = None,
    reranker_max_length: int | None = None,
    top_k: int = 10,
    store: str | Path | None = None,
    cache: str | Path | None = None,
    **options: Unpack[RetrievalOptions],
) -> Ranking:
    """Search a corpus for each query; no judgement is needed.

    Args:
        queries: {id: text}, texts (known as q1, q2, …), or one text.
        corpus: {id: text or Document}, or texts (known as d1, d2, …).
        retriever: "bm25", a model by name (run folder, model folder, hub id or pkg:PACKAGE/PATH) or as `load_encoder` gives it;
            several are fused by reciprocal ranks.
        reranker: a cross-encoder that reads the first `depth` documents of a query and re-orders them, by name or as
            `load_reranker` gives it; None leaves it out.
        depth: documents a query that the reranker reads (100); as many are retrieved, if more than top_k.
        mix: λ, the retriever's share beside the reranker's score, 0 to 1 (0).
        reranker_max_length: tokens of a query-document pair; None takes the model's own.
        top_k: documents returned a query; all where the corpus has fewer. BM25 returns none that shares no term with the query.
        store: folder that keeps the documents' embeddings, for one dense retriever; else they are in the cache. In both, texts
            that were encoded before are not encoded again: a corpus that changed in part costs what is new.
        cache: of embeddings and indexes, addressed by content; None takes TANDEM_CACHE, else ~/.cache/tandem.
        options: of the verb, by name: index, ef, hnsw_m, bm25_k1, precision, max_length, query_prompt, …; see RetrievalOptions.

    Returns:
        {query id: {document id: score}}, best first; a higher score is better, and scores of other retrievers do not compare.

    Raises:
        UserError: no query, no document, an option out of its range, or a model that cannot be read or does not fit.

    Example:
        >>> from research import search
        >>> corpus = {"bees": "bees make honey", "cloth": "a weaver makes cloth"}
        >>> search("who makes cloth?", corpus, "bm25", top_k=1)
        {'q1': {'cloth': 0.630...}}
    """
    queries, corpus = as_queries(queries), as_corpus(corpus)
    retrievers = [retriever] if isinstance(retriever, str | Embedder) else list(retriever)
    check_retrieval(
        retrievers, store=store, reranker=reranker, depth=depth, mix=mix, reranker_max_length=reranker_max_length, top_k=top_k
    )
    named = named_options(**options)
    check_used(options | {"reranker_max_length": reranker_max_length}, retrievers, reranker)
    check_default_index(options, len(corpus))
    candidates = max(
        top_k,
        FUSED if len(retrievers) > 1 else 0,  # what each retriever ranks low may still move the fused ranking's top
        (depth or DEPTH) if reranker is not None else 0,
    )
    collection = Collection("", "", corpus, queries, {}, "", {})
    settings = Options(
        top_k=min(candidates, len(corpus)),
        store=Path(store) if store is not None else None,
        reuse=True,
        depth=depth or DEPTH,
        mix=mix or 0.0,
        reranker_max_length=reranker_max_length,
        **named,
    )
    pipeline = Pipeline(collection, retrievers, cache_folder(cache and Path(cache)), settings, reranker)
    *_, last = pipeline.compute()
    return {query: dict(list(last.run.get(query, {}).items())[:top_k]) for query in queries}


def rerank(
    queries: str | Sequence[str] | Queries,
    corpus: Sequence[str] | Mapping[str, str | Document],
    ranking: Ranking,
    reranker: str | Scorer,
    *,
    depth: int = DEPTH,
    mix: float = 0.0,
    precision: str | None = None,
    reranker_max_length: int | None = None,
) -> Ranking:
    """Re-order the top of a ranking by a cross-encoder, which reads query and document together.

    Args:
        queries, corpus: texts, as `search` takes them.
        ranking: {query id: {document id: score}}, as `search` or `read_run` gives it.
        reranker: by name, or as `load_reranker` gives it.
        depth: documents a query that it reads, the highest scores; those below keep their order.
        mix: λ, the share of the score in `ranking`, 0 to 1.
        precision: "fp32" (where it is None) | "bf16", of a reranker that is loaded here.
        reranker_max_length: tokens of a pair, of a reranker that is loaded here; None takes the model's own.

    Returns:
        {query id: {document id: score}}, best first, with the documents that `ranking` has.

    Raises:
        UserError: an id without a text, an option out of its range, or a model that cannot be read.

    Example:
        >>> from research import rerank, search
        >>> corpus = {"bees": "bees make honey", "cloth": "a weaver makes cloth"}
        >>> found = search("who makes cloth?", corpus, "bm25")
        >>> list(rerank("who makes cloth?", corpus, found, "my-reranker")["q1"])
        ['cloth']
    """
    queries, corpus = as_queries(queries), as_corpus(corpus)
    check_reranking({"reranker": reranker, "depth": depth, "mix": mix})
    loading = {"precision": precision, "reranker_max_length": reranker_max_length}
    check_choices(loading)
    check_used(loading, [], reranker)
    for query, docs in ranking.items():
        lacking = next((doc for doc in docs if doc not in corpus), None)
        if query not in queries or lacking is not None:
            kind, name = ("query", query) if query not in queries else ("document", lacking)
            raise UserError(f"{kind} {name!r} of the ranking has no text; expected it among those given. Add it.")
    scorer = (
        reranker
        if isinstance(reranker, Scorer)
        else Scorer(reranker, precision or Options.precision, reranker_max_length, None)
    )
    best_first = {
        query: dict(sorted(docs.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)) for query, docs in ranking.items()
    }
    return rerank_top(queries, corpus, best_first, scorer, depth, mix)


def as_queries(queries: str | Sequence[str] | Queries) -> Queries:
    """Give each query an id, where it has none.

    Raises:
        UserError: none, or a blank one.
    """
    if isinstance(queries, str):
        queries = [queries]
    if not isinstance(queries, Mapping):
        queries = {f"q{number}": text for number, text in enumerate(queries, 1)}
    if not queries:
        raise UserError("there is no query; expected one or more. Name one.")
    for query, text in queries.items():
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"query {query!r} is {text!r}; expected a text. Correct it, or leave it out.")
    return dict(queries)


def as_corpus(corpus: Sequence[str] | Mapping[str, str | Document]) -> Corpus:
    """Make documents of texts, with an id each.

    Raises:
        UserError: none, all blank, or something else than texts.
    """
    if isinstance(corpus, str):
        raise UserError(
            f"the corpus is the text {corpus[:60]!r}; expected several texts, or what read_corpus gives of a file. Read it "
            "first: corpus=read_corpus(…)."
        )
    if not isinstance(corpus, Mapping):
        corpus = {f"d{number}": text for number, text in enumerate(corpus, 1)}
    documents = {name: Document("", text) if isinstance(text, str) else text for name, text in corpus.items()}
    if wrong := next((name for name, doc in documents.items() if not isinstance(doc, Document)), None):
        raise UserError(
            f"document {wrong!r} is a {type(documents[wrong]).__name__}; expected a text or a Document. Correct it."
        )
    if not any(doc.content.strip() for doc in documents.values()):
        raise UserError(f"the corpus has {len(documents)} documents with a text; expected one or more. Add some.")
    return documents


def result_lines(
    ranking: Ranking, queries: Queries, corpus: Corpus, texts: bool = False, files: Mapping[str, str] | None = None
) -> Iterator[dict]:
    """Yield a mapping for each query: id, text, and hits with rank (from 1), id, score, title and, on request, text.

    Args:
        ranking: as `search` gives it.
        queries, corpus: what was searched.
        texts: put each document's text into its hit.
        files: document → its file, which goes into its hit.
    """
    for query, docs in ranking.items():
        hits = [
            {"rank": rank, "id": doc, "score": score, "title": corpus[doc].title}
            | ({"file": files[doc]} if files else {})
            | ({"text": corpus[doc].text} if texts else {})
            for rank, (doc, score) in enumerate(docs.items(), 1)
        ]
        yield {"query_id": query, "query": queries[query], "hits": hits}


def readable(lines: Iterator[dict], width: int, whole: bool = False) -> Iterator[str]:
    """Lay out results for people: a query, and below it its hits, each with the first lines of its text, or all of it."""
    for line in lines:
        yield f"{line['query_id']}: {line['query']}"
        for hit in line["hits"]:
            yield f"  {hit['rank']:>2}. {hit['score']:.4f}  {hit['id']}" + (f"  {hit['title']}" if hit["title"] else "")
            text = hit["text"] if whole else hit["text"][: LINES * width]  # a document may be a book
            rows = textwrap.wrap(text, width - 6, max_lines=None if whole else LINES, placeholder=" …")
            yield from (f"      {row}" for row in rows)
        yield "" if line["hits"] else "  (nothing found)\n"
