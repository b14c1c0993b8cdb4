"""What `research mine` does: rankings → candidates → margins → triplets and the facts beside them."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from research.data.triplets import write_triplets
from research.progress import say
from research.retrieval.ancestry import trained_on
from research.retrieval.candidates import (
    LATER,
    REASONS,
    CandidateLists,
    find_candidates,
    keep_below,
    keep_first,
    rescored,
    say_left_out,
    shortfall,
    to_triplets,
)
from research.retrieval.mined_file import sidecar
from research.retrieval.mining import Mining
from research.retrieval.pipeline import Pipeline, Stage, logits
from research.retrieval.rerank import Scorer
from research.runs.files import write_json
from research.runs.hashes import hash_file, hash_json, hash_strings
from research.runs.provenance import provenance
from research.types import Ranking, Triplets

FORMAT = 1  # to be raised when code changes what is mined: older files are then made again


def mine(mining: Mining, earlier: dict) -> dict:
    """Mine and write, unless the file is already up to date; return the facts beside it.

    Args:
        mining: see there.
        earlier: the facts of the file that is there; {} without one.

    Raises:
        UserError: a model that cannot be read, or a full disk.
    """
    miner = Miner(mining)
    if earlier.get("key") == miner.key and earlier.get("sha256") and mining.out.exists():
        say(f"{mining.out}: unchanged since it was mined; it is kept")
        return earlier
    return miner.write()


class Mined(NamedTuple):
    """The negatives of each query, and how they were chosen.

    Attributes:
        candidates: the negatives.
        positive_scores: {query: {doc: score}} by what scored them; {} where nothing asked for it.
        stages: the rankings that they come from.
        excluded: documents left out, by reason.
        counts: as `shortfall` gives them.
        warnings: what a reader of the facts must know.
    """

    candidates: CandidateLists
    positive_scores: Ranking
    stages: list[Stage]
    excluded: Counter[str]
    counts: dict
    warnings: list[str]


class Miner:
    """Retrievers and reranker, loaded: one that cannot be read is refused before anything is computed.

    Raises:
        UserError: a model that cannot be read.
    """

    def __init__(self, mining: Mining):
        self.mining, options = mining, mining.options
        self.scorer = None
        if mining.reranker is not None:
            self.scorer = Scorer(mining.reranker, options.precision, options.reranker_max_length, options.token_budget)
        parts = [(mining.retrievers, mining.data)]
        if mining.folds is not None:
            parts = [([name], part) for name, part in zip(mining.retrievers, mining.folds, strict=True)]
        self.pipelines: list[Pipeline] = []
        for names, collection in parts:
            self.pipelines.append(Pipeline(collection, names, mining.cache, options))
            options = self.pipelines[-1].options  # what depends on the corpus is filled in, and said, once
        judged = hash_strings(  # documents with the query's text count only where there are some: earlier keys stay
            repr([query, sorted(of_query), sorted(shared), *([sorted(same)] if same else [])])
            for query, (of_query, shared, same) in mining.known.items()
        )
        self.key = hash_json(
            [
                FORMAT,
                mining.data.fingerprint,
                judged,
                [pipeline.key for pipeline in self.pipelines],
                mining.folds is not None,
                mining.rules,
                self.scorer and self.scorer.identity,
                *(["blank documents are no positives"] if mining.data.notes.get("blank_positives") else []),
            ]
        )

    def mine(self) -> Mined:
        """Rank, and choose the negatives."""
        mining, rules, data = self.mining, self.mining.rules, self.mining.data
        stages = [pipeline.rank(mining.cache) for pipeline in self.pipelines]
        ranked = {query: docs for stage in stages for query, docs in stage.run.items()}
        candidates, excluded = find_candidates(ranked, mining.known, data.corpus, rules.first, rules.last)
        excluded["own_id"] += sum(stage.facts.get("dropped_self", 0) for stage in stages)
        candidates, positive_scores = self._score(candidates, ranked)
        warnings = [*mining.warnings]
        if rules.margins:
            best = {query: max(scores.values()) for query, scores in positive_scores.items()}
            candidates, excluded["margin"] = keep_below(candidates, best, rules.margin, rules.relative_margin)
            warnings += _shareless(best) if rules.relative_margin is not None else []
        candidates = keep_first(candidates, rules.negatives)
        counts = shortfall(candidates, rules.negatives or rules.last - rules.first + 1)
        say_left_out(excluded, counts, rules.negatives)
        return Mined(candidates, positive_scores, stages, excluded, counts, warnings)

    def triplets(self, mined: Mined) -> Iterator[Triplets]:
        """Yield one row for each query, as in the file."""
        data = self.mining.data
        return to_triplets(mined.candidates, data.queries, self.mining.positives, data.corpus, mined.positive_scores)

    def write(self) -> dict:
        """Mine, and write the triplets and the facts beside them; return the facts."""
        started, mining, rules, data = time.perf_counter(), self.mining, self.mining.rules, self.mining.data
        mined = self.mine()
        _, _, stages, excluded, counts, warnings = mined
        facts = {
            "verb": "mine",
            "source": data.source,
            "split": data.split,
            "data": data.fingerprint,
            "key": self.key,
            **rules._asdict(),
            "folds": len(stages) if mining.folds is not None else None,
            "retrievers": self._retrievers(stages),
            "reranker": self.scorer
            and {
                "model": mining.reranker,
                "model_hash": self.scorer.model_hash,
                "max_length": self.scorer.model.max_length,
                "precision": mining.options.precision,
            },
            "score": self._score_name(),
            "notes": data.notes,
            "splits": [*mining.splits],
            "warnings": warnings,
            "counts": counts | {"excluded": {why: excluded[why] for why in REASONS if why not in LATER or excluded[why]}},
        }
        # without the sha256 until the triplets are complete: those of a killed command are made again, not taken for finished
        write_json(sidecar(mining.out), facts | {"sha256": None})
        write_triplets(mining.out, self.triplets(mined))
        facts["sha256"] = hash_file(mining.out)
        seconds = round(time.perf_counter() - started, 3)
        write_json(sidecar(mining.out), facts | {"provenance": provenance([*mining.command], seconds=seconds)})
        return facts

    def _score(self, candidates: CandidateLists, ranked: Ranking) -> tuple[CandidateLists, Ranking]:
        """Give candidates the scores that decide; return also the positives' scores, {} if no option needs them."""
        positives = self.mining.positives
        if self.scorer is not None:
            pairs = [(q, doc) for q, row in candidates.items() for doc in (*positives[q], *(c.doc for c in row))]
            scores = logits(self.scorer, self.mining.data, pairs, self.mining.cache)
            return rescored(candidates, scores), {q: {doc: scores[q][doc] for doc in positives[q]} for q in candidates}
        scores: Ranking = {}
        for pipeline in self.pipelines if self.mining.rules.margins else ():
            (part,) = pipeline.parts.values()  # a fused ranking has no scores: mine refuses margins on it
            queries = part.texts.queries
            absent = [(q, doc) for q in queries for doc in positives[q] if doc not in ranked.get(q, {})]
            if absent:
                say(f"margins: {len(absent):,} positives are not among those retrieved, and are scored by themselves")
            computed = dict(zip(absent, part.score(absent), strict=True))
            for q in queries:
                retrieved = ranked.get(q, {})
                scores[q] = {doc: retrieved[doc] if doc in retrieved else computed[q, doc] for doc in positives[q]}
        return candidates, scores

    def _retrievers(self, stages: list[Stage]) -> list[dict]:
        """Describe each retriever: what it is, what it was trained on, and for which queries it mined."""
        lines = []
        names = iter(self.mining.retrievers)
        for fold, (pipeline, stage) in enumerate(zip(self.pipelines, stages, strict=True)):
            for name, part in pipeline.parts.items():
                retriever = next(names)
                trained = trained_on(retriever)
                lines.append(
                    {
                        "retriever": retriever,
                        "model_hash": getattr(part, "model_hash", None),
                        "key": part.key,
                        "settings": pipeline.encoders().get(name),
                        "queries": len(part.texts.queries),
                        "fold": f"{fold}/{len(stages)}" if self.mining.folds is not None else None,
                        "trained_on": trained and trained._asdict(),
                        "ranking": stage.facts,
                    }
                )
        return lines

    def _score_name(self) -> str:
        if self.scorer is not None:
            return f"logit of {self.mining.reranker}"
        fused = any(pipeline.fused for pipeline in self.pipelines)
        return "reciprocal rank fusion" if fused else "score of the retriever"


def _shareless(best: dict[str, float]) -> list[str]:
    if not (none := sum(score <= 0 for score in best.values())):
        return []
    warning = (
        f"the best positive of {none} of {len(best)} queries scores 0 or less, of which --relative-margin can take no "
        "share: they get no negative"
    )
    say(f"warning: {warning}")
    return [warning]
