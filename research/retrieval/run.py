"""What `research retrieve` does: every stage of a pipeline computed, measured, and written into one run folder."""

import dataclasses
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from research.progress import say
from research.retrieval.index import HNSW_SEED
from research.retrieval.mix import Mix, choose
from research.retrieval.options import Options
from research.retrieval.pipeline import Pipeline
from research.runs.files import write_json
from research.runs.layout import EXAMPLES
from research.runs.locks import exclusive
from research.runs.stages import Stages
from research.runs.tracking import Tracker
from research.runs.writers import write_config, write_metrics, write_provenance
from research.types import Collection, Qrels, Ranking, Scores

QUERIES_SHOWN = 50  # queries whose texts go into the run folder for the report
DOCS_SHOWN = 3
SNIPPET = 400  # characters


class Measure(NamedTuple):
    """How rankings become numbers. The functions come from the caller: this room knows no metrics.

    Attributes:
        metric: name@k, the first that is reported: stages are compared and λ is chosen by it.
        score: (what is measured, judgements, ranking) → its numbers.
        compare: {stage: numbers} → the paired tests between stages.
        value: (judgements, ranking) → the mean of `metric`.
        unscorable: queries that no metric is defined on.
    """

    metric: str
    score: Callable[[str, Qrels, Ranking], Scores]
    compare: Callable[[dict[str, Scores]], list[dict]]
    value: Callable[[Qrels, Ranking], float]
    unscorable: list[str]


class Retrieval(NamedTuple):
    """One run of retrieval.

    Attributes:
        data: the queries to report on.
        retrievers: "bm25" or models, in order.
        reranker: a cross-encoder; None leaves it out.
        options: how to retrieve.
        cache: of embeddings and indexes.
        tuning: queries to choose λ on; None takes the options' λ.
        out: the run folder.
        given: the command's options, for config.yaml.
        facts: what is measured on which data, for provenance.json and metrics.json.
        command: as the user typed it.
        wandb: auto | online | offline | disabled.
    """

    data: Collection
    retrievers: list[str]
    reranker: str | None
    options: Options
    cache: Path
    tuning: Collection | None
    out: Path
    given: dict[str, object]
    facts: dict[str, object]
    command: list[str]
    wandb: str

    def pipeline(self, collection: Collection, mix: float) -> Pipeline:
        """Load the models, over these queries and with this λ."""
        options = dataclasses.replace(self.options, mix=mix)
        return Pipeline(collection, self.retrievers, self.cache, options, self.reranker)


def retrieve(retrieval: Retrieval, measure: Measure) -> dict[str, Scores]:
    """Compute, measure and write every stage.

    Returns:
        {stage: its numbers and facts}, in order.

    Raises:
        UserError: a model that does not fit, a folder in use, or a full disk.
    """
    pipeline = retrieval.pipeline(retrieval.data, retrieval.options.mix)
    # the command is checked and its models are loaded: from here on no other process may write into the folder
    with exclusive(retrieval.out, wait=False):
        mix = None
        if (tuning := retrieval.tuning) is not None:
            mix = choose(
                tuning,
                retrieval.pipeline(tuning, 0.0),
                retrieval.out / "mix",
                measure.metric,
                lambda run: measure.value(tuning.qrels, run),
            )
            pipeline = retrieval.pipeline(retrieval.data, mix["mix"])
        return _run(retrieval, pipeline, measure, mix)


def _run(retrieval: Retrieval, pipeline: Pipeline, measure: Measure, mix: Mix | None) -> dict[str, Scores]:
    data, out, facts, started = retrieval.data, retrieval.out, retrieval.facts, time.perf_counter()
    write_provenance(out, retrieval.command, **facts)
    config = _resolved(retrieval.given, pipeline)
    write_config(out, config)
    tracker = Tracker(retrieval.wandb, out, job="retrieve", config=config)
    scored: dict[str, Scores] = {}
    runs: dict[str, Ranking] = {}
    for stage in pipeline.run(out):
        scored[stage.name] = measure.score(stage.name, data.qrels, stage.run) | {"facts": stage.facts}
        runs[stage.name] = stage.run
        means = scored[stage.name]["metrics"]
        _say_stage(stage.name, measure.metric, means, stage.facts)
        tracker.log({f"{data.split}/{stage.name}/{name}": value for name, value in means.items()})
    tracker.summary({f"{data.split}/{name}": value for name, value in means.items()})
    tracker.finish()

    write_json(out / EXAMPLES, _examples(data, runs))
    comparisons = measure.compare(scored)
    origin = _origin(scored) | {"stages": Stages(out).origins(), "seconds": round(time.perf_counter() - started, 3)}
    write_provenance(out, retrieval.command, **facts, **origin)
    # last: a disk that fills up leaves no folder that looks finished
    write_metrics(
        out,
        {
            **facts,
            "mix": mix,
            "queries": len(data.queries),
            "documents": len(data.corpus),
            "unscorable": measure.unscorable,
            "notes": data.notes,
            "metrics": means,
            "stages": scored,
            "comparisons": comparisons,
        },
    )
    return scored


def _say_stage(name: str, metric: str, means: dict[str, float], facts: dict) -> None:
    recalls = {fact: value for fact, value in facts.items() if fact.startswith("ann_recall@")}
    recall = "".join(f", {fact.replace('ann_recall', 'ANN recall')} {value:.4f}" for fact, value in recalls.items())
    say(f"{name}: {metric} {means[metric]:.4f}, {facts['ms_per_query']:.2f} ms a query{recall}")


def _resolved(given: dict[str, object], pipeline: Pipeline) -> dict[str, object]:
    """Return the command's options with every default filled in, also those that depend on model and corpus."""
    filled = dataclasses.asdict(pipeline.options)
    given = given | {name: filled[name] for name in ("top_k", "index", "depth", "mix")} | {"encoders": pipeline.encoders()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


def _origin(scored: dict[str, Scores]) -> dict[str, object]:
    """Collect what the stages report about their models and device."""
    facts = {name: stage["facts"] for name, stage in scored.items()}
    return {
        "models": {name: stage["model_hash"] for name, stage in facts.items() if "model_hash" in stage},
        "seeds": {"hnsw": HNSW_SEED, "resampling": 0},
        "device": next((stage["device"] for stage in facts.values() if "device" in stage), None),
    }


def _examples(data: Collection, runs: dict[str, Ranking]) -> dict[str, dict]:
    """Collect the texts of some queries and of each stage's first documents, for the report.

    The choice hashes the query id, so that runs on the same split show the same queries.
    """

    def order(query: str) -> str:
        return hashlib.sha1(query.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()

    chosen = sorted(data.queries, key=order)[:QUERIES_SHOWN]
    top = {name: {query: list(run.get(query, {}))[:DOCS_SHOWN] for query in chosen} for name, run in runs.items()}
    relevant = {
        query: [doc for doc, grade in data.qrels[query].items() if grade > 0 and doc in data.corpus] for query in chosen
    }
    shown = {doc for rankings in top.values() for docs in rankings.values() for doc in docs}
    shown |= {doc for docs in relevant.values() for doc in docs[:DOCS_SHOWN]}
    docs = {doc: {"title": data.corpus[doc].title, "text": data.corpus[doc].text[:SNIPPET]} for doc in sorted(shown)}
    return {"queries": {query: data.queries[query] for query in chosen}, "top": top, "relevant": relevant, "docs": docs}
