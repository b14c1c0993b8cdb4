"""Stages of retrieval over one collection, each a TREC run in the run folder: encode → index → search → fuse → rerank.

A stage whose inputs hash to what they were is not computed again. Embeddings and HNSW graphs live in a cache that is
addressed by content, so that every run with the same weights, texts and settings shares them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from research.data.rankings import read_run, write_run
from research.progress import say
from research.retrieval.embedder import Embedder
from research.retrieval.options import EXACT_UP_TO, Options
from research.retrieval.rerank import Scorer
from research.retrieval.stages import Dense, Fused, Lexical, Reranked, Texts
from research.runs.hashes import hash_json, hash_strings
from research.runs.locks import exclusive
from research.runs.stages import Stages
from research.types import Collection, Ranking

Part = Lexical | Dense | Fused | Reranked
Compute = Callable[[], tuple[Ranking, dict]]
"""Computes a stage: its ranking and its facts."""


class Stage(NamedTuple):
    """One finished stage.

    Attributes:
        name: bm25 | dense | dense2 … | fused | reranked; its file is `<name>.trec`.
        run: the ranking.
        facts: label, seconds, ms_per_query and what else its numbers depend on.
    """

    name: str
    run: Ranking
    facts: dict


class Pipeline:
    """Every stage of one command, checked: models are loaded and fit before anything is computed or written.

    Args:
        collection: corpus and queries (the judgements are not used).
        retrievers: "bm25" or models, by name or loaded, in order; several are fused.
        cache: of embeddings and indexes.
        options: see there.
        reranker: a cross-encoder, by name or loaded, which re-orders the top of the last stage; None leaves it out.

    Raises:
        UserError: a model that cannot be read, or does not fit the options.
    """

    def __init__(
        self,
        collection: Collection,
        retrievers: Sequence[str | Embedder],
        cache: Path,
        options: Options,
        reranker: str | Scorer | None = None,
    ):
        texts = Texts(collection)
        dense = any(retriever != "bm25" for retriever in retrievers)
        options = self.options = _fit(options, collection, dense)
        if isinstance(reranker, str):  # first: it is the one that users get wrong, and is quicker to read than to encode for
            reranker = Scorer(reranker, options.precision, options.reranker_max_length, options.token_budget)
        self.parts = {
            name: Lexical(texts, options) if retriever == "bm25" else Dense(texts, options, cache, retriever)
            for name, retriever in zip(_names(retrievers), retrievers, strict=True)
        }
        self.fused = Fused(texts, options, list(self.parts.values())) if len(self.parts) > 1 else None
        last = self.fused or list(self.parts.values())[-1]
        self.reranked = Reranked(texts, options, reranker, last) if reranker else None

    @property
    def key(self) -> str:
        """Hash what the last ranking before a reranker depends on."""
        last = self.fused or list(self.parts.values())[-1]
        return hash_json([last.key, self.options.drop_self])

    def encoders(self) -> dict[str, dict]:
        """Name the settings that each dense retriever encodes with."""
        dense = {name: part for name, part in self.parts.items() if isinstance(part, Dense)}
        return {name: dataclasses.asdict(part.model.doc.settings) for name, part in dense.items()}

    def run(self, out: Path) -> Iterator[Stage]:
        """Compute every stage that is not finished in the run folder `out`; yield each as soon as it is finished.

        Raises:
            UserError: an index or store that does not match, or a full disk.
        """
        stages = Stages(out)
        stages.keep_only([*self.parts, *(["fused"] if self.fused else []), *(["reranked"] if self.reranked else [])])
        return self._each(functools.partial(self._stage, stages, out))

    def compute(self) -> Iterator[Stage]:
        """Compute every stage in memory, and yield each when it is finished; only embeddings and indexes stay in the cache.

        Raises:
            UserError: as `run`.
        """
        return self._each(self._computed)

    def _each(self, stage: Callable[[str, Part, Compute], Stage]) -> Iterator[Stage]:
        """Compute every stage in order, each from those before it."""
        finished: list[Stage] = []
        for name, part in self.parts.items():
            finished.append(stage(name, part, part.compute))
            yield finished[-1]
        if self.fused:
            runs, facts = [part.run for part in finished], [part.facts for part in finished]
            finished.append(stage("fused", self.fused, lambda: self.fused.compute(runs, facts)))
            yield finished[-1]
        if self.reranked:
            last = finished[-1]
            yield stage("reranked", self.reranked, lambda: self.reranked.compute(last.run, last.facts))

    def rank(self, cache: Path) -> Stage:
        """Compute the last ranking; it is cached by what it depends on, so that other margins need no new retrieval.

        Raises:
            UserError: as `run`.
        """
        folder = cache / "rankings" / self.key[:32]
        with exclusive(folder):
            *_, last = self.run(folder)
            return last._replace(run=read_run(folder / f"{last.name}.trec"))  # the same to the bit when it is kept

    def _stage(self, stages: Stages, out: Path, name: str, part: Part, compute: Compute) -> Stage:
        key = hash_json([part.key, self.options.drop_self])
        facts = stages.finished(name, key)
        file = f"{name}.trec"
        if facts is not None:
            say(f"{name}: unchanged since it was computed; {file} is kept")
            return Stage(name, read_run(out / file), facts)
        stage = self._computed(name, part, compute)
        write_run(out / file, stage.run, tag=name)
        stages.finish(name, key, file, stage.facts)
        return stage

    def _computed(self, name: str, part: Part, compute: Compute) -> Stage:
        say(f"{name}: {part.why}")
        run, facts = compute()
        if self.options.drop_self:  # before the cut: each retriever returned one more
            facts.setdefault("dropped_self", sum(query in docs for query, docs in run.items()))
            run = {query: without(docs, query, self.options.top_k) for query, docs in run.items()}
        return Stage(name, run, facts)


def logits(scorer: Scorer, collection: Collection, pairs: list[tuple[str, str]], cache: Path) -> Ranking:
    """Score (query id, doc id) pairs by a cross-encoder; the scores stay in the cache under what they depend on.

    Raises:
        UserError: as `score_pairs`, or a full disk.
    """
    queries = [collection.queries[query] for query, _ in pairs]
    docs = [collection.corpus[doc].content for _, doc in pairs]
    texts = hash_strings(part for pair, *both in zip(pairs, queries, docs, strict=True) for part in (*pair, *both))
    key = hash_json(["logits", *scorer.identity, texts])
    folder = cache / "rankings" / key[:32]
    with exclusive(folder):
        stages = Stages(folder)
        if stages.finished("logits", key) is not None:
            say("logits: unchanged since they were computed")
        else:
            say(f"logits: {len(pairs):,} pairs of query and document, read by the cross-encoder")
            run: Ranking = {}
            for (query, doc), logit in zip(pairs, scorer.score(queries, docs).tolist(), strict=True):
                run.setdefault(query, {})[doc] = logit
            write_run(folder / "logits.trec", run, tag="logits")
            stages.finish("logits", key, "logits.trec", {})
        return read_run(folder / "logits.trec")


def without(docs: dict[str, float], left_out: str, top_k: int) -> dict[str, float]:
    """Take the top_k of a ranking without one document."""
    return dict(itertools.islice(((doc, score) for doc, score in docs.items() if doc != left_out), top_k))


def _names(retrievers: Sequence[str | Embedder]) -> list[str]:
    """Name the stages: bm25, and dense, dense2, … in the given order."""
    names: list[str] = []
    for retriever in retrievers:
        dense = sum(name.startswith("dense") for name in names)
        names.append("bm25" if retriever == "bm25" else f"dense{dense + 1 if dense else ''}")
    return names


def _fit(options: Options, collection: Collection, dense: bool) -> Options:
    """Fill in the options that depend on the corpus, and report them."""
    documents = len(collection.corpus)
    if options.top_k > documents:
        say(f"top_k={options.top_k} exceeds the {documents} documents; every document is ranked")
        options = dataclasses.replace(options, top_k=documents)
    dropped = options.drop_self and any(query in collection.corpus for query in collection.queries)
    options = dataclasses.replace(
        options, depth=min(options.depth, options.top_k), spare=int(dropped and options.top_k < documents)
    )
    if options.index is None:
        index = "exact" if documents <= EXACT_UP_TO else "hnsw"
        if dense:
            say(f"index: {index}, the default for {documents:,} documents (exact up to {EXACT_UP_TO:,})")
        options = dataclasses.replace(options, index=index)
    return options
