"""The whole road on the embedded data and model: retrieve with BM25, with vectors, with both, and look at the result.

No network, no account. Every step is a command that you can type yourself; it is printed before it runs.
"""

import argparse
import shlex
import time
from pathlib import Path

from research.progress import say

DATA = "builtin:stdlib"
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
        "One page to browse: who is better, by how much, is it chance, what does it cost.",
        "report {out}/exact {out}/hnsw --out {out}/report",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), metavar="DIR",
                        help="where the run folders and the page go (runs/quickstart)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from research.cli import main
    from research.models.sources import MINILM, resolve

    resolve(MINILM)  # a missing or altered package is said now, not after the first minute
    started = time.perf_counter()
    for number, (why, step) in enumerate(STEPS, 1):
        argv = [part.format(data=DATA, model=MINILM, out=args.out) for part in step.split()]
        say(f"\n[{number}/{len(STEPS)}] {why}\n$ research {shlex.join(argv)}")
        code = main(argv)
        if code:
            return code
    say("\nthe commands above work as they stand after `source .venv/bin/activate`")
    say(f"done in {time.perf_counter() - started:.0f} s; open {args.out / 'report' / 'index.html'} in a browser")
    return 0
