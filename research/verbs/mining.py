"""The work of `research mine`: every model loaded and checked, then rankings → candidates → margins → triplets and facts."""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from research.data.equality import Known
from research.data.folds import assign_folds
from research.data.formats import write_triplets
from research.data.sources import positives_of
from research.errors import UserError
from research.progress import say
from research.retrieval.mine import Found, find_candidates, keep_below, keep_first, rescored, shortfall, to_triplets
from research.retrieval.pipeline import Pipeline, Stage, logits
from research.retrieval.rerank import Scorer
from research.retrieval.stages import Options
from research.runs.files import write_json
from research.runs.hashes import hash_file, hash_json, hash_strings
from research.runs.provenance import provenance
from research.types import Collection, Run
from research.verbs import options
from research.verbs.trained import trained_on
from research.verbs.triplets import sidecar

FORMAT = 1  # to be raised when code changes what is mined: older files are then made again
REASONS = {
    "own_id": "have the query's own id",
    "relevant": "are judged relevant to the query in some split",
    "relevant_to_equal_query": "are judged relevant to another query of the same text",
    "text_of_query": "have the text of the query",
    "text_of_relevant": "have the text of a relevant document",
    "blank": "are blank",
    "margin": "score too close to the best positive, or above it",
}
LATER = {"text_of_query", "blank"}  # reasons that came later: told where they occur, so that other facts stay as they were


class Rules(NamedTuple):
    """Which candidates become negatives.

    Attributes:
        first, last: positions of the ranking, from 1.
        negatives: at most so many a query; None takes all.
        margin, relative_margin: see retrieval.mine.keep_below.
    """

    first: int
    last: int
    negatives: int | None
    margin: float | None
    relative_margin: float | None

    @property
    def wanted(self) -> int:
        return self.negatives or self.last - self.first + 1

    @property
    def margins(self) -> bool:
        return self.margin is not None or self.relative_margin is not None


class Miner:
    """Retrievers and reranker of one command, loaded: one that cannot be read is refused before anything is computed.

    Args:
        args: the command line.
        data: the queries to mine, each with a relevant document.
        known: what is relevant to each of them.
        rules: see there.
        top_k: documents to retrieve a query.
        cache: of embeddings, indexes, rankings and logits.
        drop_self: leave the document whose id is the query's out of each ranking before several are fused.

    Raises:
        UserError: a model that cannot be read, or a fold without a query.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        data: Collection,
        known: dict[str, Known],
        rules: Rules,
        top_k: int,
        cache: Path,
        drop_self: bool = False,
    ):
        self.args, self.data, self.known, self.rules, self.cache = args, data, known, rules, cache
        self.positives = positives_of(data)
        settings = Options(top_k=top_k, drop_self=drop_self, **options.retrieval_settings(args))
        self.pipelines: list[Pipeline] = []
        for names, collection in _plan(args, data):
            self.pipelines.append(Pipeline(collection, names, cache, settings))
            settings = self.pipelines[-1].options  # what depends on the corpus is filled in, and said, once
        self.scorer = None
        if args.reranker is not None:
            self.scorer = Scorer(args.reranker, args.precision, args.reranker_max_length, args.token_budget)
        judged = hash_strings(  # what has the query's text is named only where there is such a document
            repr([query, sorted(own), sorted(shared), *([sorted(same)] if same else [])])
            for query, (own, shared, same) in known.items()
        )
        scored_by = self.scorer and self.scorer.identity
        self.key = hash_json(
            [
                FORMAT,
                data.fingerprint,
                judged,
                [p.key for p in self.pipelines],
                args.folds,
                rules,
                scored_by,
                *(["blank documents are no positives"] if data.notes.get("blank_positives") else []),
            ]
        )

    def write(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Mine, and write the triplets and the facts beside them.

        Args:
            facts: to go with those found here; its list of warnings may grow.

        Returns:
            the facts.
        """
        started, args, rules, data = time.perf_counter(), self.args, self.rules, self.data
        stages = [pipeline.rank(self.cache) for pipeline in self.pipelines]
        ranked = {query: docs for stage in stages for query, docs in stage.run.items()}
        found, excluded = find_candidates(ranked, self.known, data.corpus, rules.first, rules.last)
        excluded["own_id"] += sum(stage.facts.get("dropped_self", 0) for stage in stages)
        found, positive_scores = self._score(found, ranked)
        if rules.margins:
            best = {query: max(scores.values()) for query, scores in positive_scores.items()}
            found, excluded["margin"] = keep_below(found, best, rules.margin, rules.relative_margin)
            facts["warnings"] += _shareless(best) if rules.relative_margin is not None else []
        found = keep_first(found, rules.negatives)
        counts = shortfall(found, rules.wanted)
        _tell(excluded, counts, rules.negatives)
        facts = {
            "verb": "mine",
            "source": args.data,
            "split": args.split,
            "data": data.fingerprint,
            "key": self.key,
            **rules._asdict(),
            "folds": len(stages) if args.folds else None,
            "retrievers": self._retrievers(stages),
            "reranker": self.scorer
            and {
                "model": args.reranker,
                "model_hash": self.scorer.model_hash,
                "max_length": self.scorer.model.max_length,
                "precision": args.precision,
            },
            "score": self._score_name(),
            "notes": data.notes,
            **facts,
            "counts": counts | {"excluded": {why: excluded[why] for why in REASONS if why not in LATER or excluded[why]}},
        }
        # without the sha256 until the triplets are complete: those of a killed command are made again, not taken for finished
        write_json(sidecar(args.out), facts | {"sha256": None})
        write_triplets(args.out, to_triplets(found, data.queries, self.positives, data.corpus, positive_scores))
        facts["sha256"] = hash_file(args.out)
        seconds = round(time.perf_counter() - started, 3)
        write_json(sidecar(args.out), facts | {"provenance": provenance(args.command, seconds=seconds)})
        return facts

    def _score(self, found: Found, ranked: Run) -> tuple[Found, Run]:
        """Candidates with the scores that count, and those of the positives: {} where nothing asks for them."""
        if self.scorer is not None:
            pairs = [(q, doc) for q, row in found.items() for doc in (*self.positives[q], *(c.doc for c in row))]
            scores = logits(self.scorer, self.data, pairs, self.cache)
            return rescored(found, scores), {q: {doc: scores[q][doc] for doc in self.positives[q]} for q in found}
        scores: Run = {}
        for pipeline in self.pipelines if self.rules.margins else ():
            (part,) = pipeline.parts.values()  # a fused ranking has no scores: mine refuses margins on it
            queries = part.texts.queries
            absent = [(q, doc) for q in queries for doc in self.positives[q] if doc not in ranked.get(q, {})]
            if absent:
                say(f"margins: {len(absent):,} positives are not among those retrieved, and are scored by themselves")
            computed = dict(zip(absent, part.score(absent), strict=True))
            for q in queries:
                own = ranked.get(q, {})
                scores[q] = {doc: own[doc] if doc in own else computed[q, doc] for doc in self.positives[q]}
        return found, scores

    def _retrievers(self, stages: list[Stage]) -> list[dict]:
        """A line a retriever: what it is, what it was trained on, which queries it mined."""
        lines = []
        names = iter(self.args.retriever)
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
                        "fold": f"{fold}/{len(stages)}" if self.args.folds else None,
                        "trained_on": trained and trained._asdict(),
                        "ranking": stage.facts,
                    }
                )
        return lines

    def _score_name(self) -> str:
        if self.scorer is not None:
            return f"logit of {self.args.reranker}"
        fused = any(pipeline.fused for pipeline in self.pipelines)
        return "reciprocal rank fusion" if fused else "score of the retriever"


def with_positives(data: Collection) -> Collection:
    """Without the queries that nothing is relevant to: a triplet needs a positive, with a text. How many is said, and noted.

    Raises:
        UserError: no query is left.
    """
    positives = positives_of(data)
    if not positives:
        raise UserError(
            f"{data.source} split {data.split!r} has no relevant document with a text for any of its "
            f"{len(data.qrels)} queries; expected one or more to mine for. Add their texts to the corpus, or name "
            "another split."
        )
    qrels = {
        query: {doc: grade for doc, grade in docs.items() if doc in data.corpus}
        for query, docs in data.qrels.items()
        if query in positives
    }
    if left_out := len(data.qrels) - len(qrels):
        say(f"{left_out} queries of the split have no relevant document in the corpus with a text; they are left out")
    queries = {query: text for query, text in data.queries.items() if query in qrels}
    say(f"{data.source} {data.split}: {len(queries):,} queries, {len(data.corpus):,} documents")
    notes = data.notes | {"queries_without_positive": left_out}
    if blank := sum(grade > 0 for docs in qrels.values() for grade in docs.values()) - sum(map(len, positives.values())):
        say(f"{blank:,} relevant documents are blank; they are no positives")
        notes["blank_positives"] = blank
    return data._replace(queries=queries, qrels=qrels, notes=notes)


def _plan(args: argparse.Namespace, data: Collection) -> list[tuple[list[str], Collection]]:
    """Which retrievers mine which queries: all of them all, or each its fold."""
    if not args.folds:
        return [(args.retriever, data)]
    plan, count = [], len(args.retriever)
    assigned = assign_folds(positives_of(data), data.queries, count)
    for fold, name in enumerate(args.retriever):
        qrels = {query: docs for query, docs in data.qrels.items() if assigned[query] == fold}
        if not qrels:
            raise UserError(
                f"fold {fold} of {count} has none of the {len(data.queries)} queries; expected one or more in "
                "each. Queries that share a relevant document or their text stay together: use fewer retrievers, "
                "or leave --folds out."
            )
        queries = {query: text for query, text in data.queries.items() if query in qrels}
        plan.append(([name], data._replace(queries=queries, qrels=qrels)))
    return plan


def _shareless(best: dict[str, float]) -> list[str]:
    if not (none := sum(score <= 0 for score in best.values())):
        return []
    warning = (
        f"the best positive of {none} of {len(best)} queries scores 0 or less, of which --relative-margin can take no "
        "share: they get no negative"
    )
    say(f"warning: {warning}")
    return [warning]


def _tell(excluded: Counter[str], counts: dict, asked: int | None) -> None:
    for reason, why in REASONS.items():
        if excluded[reason]:
            say(f"left out: {excluded[reason]:,} documents that {why}")
    if asked and counts["queries_with_fewer"]:
        say(
            f"{counts['queries_with_fewer']:,} of {counts['queries']:,} queries have fewer negatives than the {asked} asked for"
        )
    if counts["queries_with_none"]:
        say(
            f"warning: {counts['queries_with_none']:,} of {counts['queries']:,} queries have no negative left; their lists "
            "are empty"
        )
