"""The whole road on the embedded data and model: retrieve, train a dual encoder, mine, train a cross-encoder, rerank.

No network, no account. Every step is a command that you can type yourself; it is printed before it runs. Run it again to
go on where it stopped.
"""

import argparse
import shlex
import time
from pathlib import Path

from research.progress import say

DATA = "builtin:stdlib"
CONFIGS = Path(__file__).parents[2] / "configs"
STEPS = (
    (
        "Retrieve with words (BM25), with vectors (exact search), and fuse the two. The task: find the function of "
        "Python's standard library that a docstring describes. Encoding the 3,000 functions takes a minute or two.",
        "retrieve --data {data} --split test --retriever bm25 --retriever {model} --out {out}/exact",
    ),
    (
        "The same vectors through HNSW, the graph that makes millions of documents searchable. Its recall against "
        "exact search is measured beside every number.",
        "retrieve --data {data} --split test --retriever {model} --index hnsw --out {out}/hnsw",
    ),
    (
        "Train the dual encoder on 1,800 pairs of other modules: every other document of a batch is a negative. Its "
        "validation is the search itself, on a split of its own; the best weights become the run's model.",
        "fit -c {configs}/dual_encoder.yaml {overlay} --out {out}/dual_encoder --trainer.precision {mixed}",
    ),
    (
        "The trained retriever's ranking of the dev queries: on it the cross-encoder will be validated.",
        "retrieve --data {data} --split dev --retriever {out}/dual_encoder --precision {precision} --out {out}/dev",
    ),
    (
        "Mine what ranks high and is not relevant, for a reranker to learn on: by the untrained model, since a retriever's "
        "lists for queries that it was trained on are unlike those of a test.",
        "mine --data {data} --split train --retriever {model} --precision {precision} --ranks 1-30 "
        "--out {out}/candidates.jsonl",
    ),
    (
        "Train the cross-encoder, which reads query and document together, to tell the relevant one from those.",
        "fit -c {configs}/cross_encoder.yaml {overlay} --data.train {out}/candidates.jsonl --data.val_run {out}/dev/dense.trec "
        "--out {out}/cross_encoder --trainer.precision {mixed}",
    ),
    (
        "The two in tandem: the trained dual encoder retrieves, the cross-encoder re-orders the first {depth}; what share of "
        "its say the retriever keeps is chosen on dev.",
        "retrieve --data {data} --split test --retriever {out}/dual_encoder --reranker {out}/cross_encoder --depth {depth} "
        "--mix-split dev --precision {precision} --out {out}/tandem",
    ),
    (
        "One page to browse: who is better, by how much, is it chance, what does it cost, how did training go.",
        "report {out}/exact {out}/hnsw {out}/tandem {out}/dual_encoder {out}/cross_encoder --out {out}/report",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/quickstart"),
        metavar="DIR",
        help="where the run folders and the page go (runs/quickstart)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="train on 512 queries and rerank 5 documents: the road, not its end"
    )


def run(args: argparse.Namespace) -> int:
    from research.cli import main
    from research.models.inference import has_fast_bf16
    from research.models.sources import MINILM, resolve

    resolve(MINILM)  # a missing or altered package is said now, not after the first minute
    precision, mixed = ("bf16", "bf16-mixed") if has_fast_bf16() else ("fp32", "32-true")
    names = {
        "data": DATA,
        "model": MINILM,
        "out": args.out,
        "configs": CONFIGS,
        "precision": precision,
        "mixed": mixed,
        "depth": 5 if args.quick else 20,
    }
    overlay = ["-c", f"{CONFIGS}/trainer/quick.yaml"] if args.quick else []
    started = time.perf_counter()
    for number, (why, step) in enumerate(STEPS, 1):
        argv = []
        for part in step.split():  # before the names are filled in: a path may hold blanks
            argv += overlay if part == "{overlay}" else [part.format(**names)]
        say(f"\n[{number}/{len(STEPS)}] {why.format(**names)}\n$ research {shlex.join(argv)}")
        code = main(argv)
        if code:
            return code
    say("\nthe commands above work as they stand after `source .venv/bin/activate`")
    say(f"done in {time.perf_counter() - started:.0f} s; open {args.out / 'report' / 'index.html'} in a browser")
    return 0
