"""Search any corpus: nothing need be judged. Passages come as JSON lines on stdout, one a query.

  research search --corpus notes/ --query "how do bees make honey?" --texts
  research search --corpus passages.jsonl --queries questions.txt --retriever bm25 --retriever runs/mine --out hits.jsonl
  research search --data beir:my_folder --query "a" --query "b" --pretty

A line is {"query_id", "query", "hits": [{"rank", "id", "score", "title"}, …]}, best first; --texts adds each hit's text. Where
--corpus is text files, a hit also has "file", its path in that folder. --pretty shows the first lines of each hit, with --texts
all of it.

--corpus takes .jsonl, .json, .csv, .tsv (also .gz) and .parquet with the columns _id (or id), title and text (rows without
an id are known by file#row); .txt, a passage a line (file#line); .md, and a folder of .txt and .md files (with linked
subfolders, without hidden ones), each a document that is cut to passages (file#passage). --queries takes the same tables with
_id and text, or .txt, a query a line.
"""

import argparse
import json
import shutil
from pathlib import Path

from research.data.passages import Cut, Passages
from research.data.sources import check_split, parse_source
from research.data.unjudged import load_unjudged, read_corpus, read_queries
from research.errors import UserError
from research.models.sources import MINILM, check_name
from research.progress import say
from research.retrieval.named import check_retrieval, named_options
from research.retrieval.used import check_default_index, check_used
from research.runs.files import atomic_write
from research.types import Corpus, Queries
from research.verbs import options

NEEDED = {
    "split": "data",
    "columns": "corpus",
    "query_columns": "queries",
    "passage_words": "corpus",
    "passage_overlap": "corpus",
}
"""Option → the one that it belongs to."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group(options.INPUT)
    group.add_argument("--corpus", metavar="FILE", help="a file, or a folder of .txt and .md files")
    options.add_source(group, required=False)
    group.add_argument("--split", help="of --data: its queries, where no others are given (all of them)")
    group.add_argument("--queries", metavar="FILE", help="a file of queries")
    group.add_argument("--query", action="append", metavar="TEXT", help="one query; once or more (q1, q2, …)")
    group.add_argument(
        "--columns", metavar="JSON", help='role → column of --corpus: {"id": "nr", "title": "head", "text": "body"}'
    )
    group.add_argument("--query-columns", metavar="JSON", help='role → column of --queries: {"id": "nr", "text": "ask"}')
    group.add_argument("--passage-words", type=int, help="words of a document's passages (150)")
    group.add_argument("--passage-overlap", type=int, help="words that follow each other share (30)")
    options.add_skipping(group)
    options.add_retriever(group, "several are fused", MINILM)
    group = parser.add_argument_group(options.OUTPUT)
    group.add_argument("--out", type=Path, metavar="FILE", help="write the results there, instead of stdout")
    group = parser.add_argument_group(options.CHOICES)
    group.add_argument("--top-k", type=int, default=10, help="documents a query (10)")
    group.add_argument("--texts", action="store_true", help="documents' texts too, with --pretty whole")
    group.add_argument("--pretty", action="store_true", help="results to be read, instead of JSON lines")
    group = options.add_index(parser)
    group.add_argument("--store", type=Path, metavar="DIR", help="keep embeddings there: only new texts are encoded")
    options.add_reranking(parser, "100")
    options.add_encoder(parser)
    options.add_cache(options.add_computation(parser))


def run(args: argparse.Namespace) -> int:
    """Search and print; the exit code."""
    if (retrievers := args.retriever) is None:
        retrievers = [MINILM]
        say(f"retriever: {MINILM}, since none is named")
    reranking = {name: getattr(args, name) for name in ("reranker", "depth", "mix", "reranker_max_length")}
    check_retrieval(retrievers, top_k=args.top_k, store=args.store, **reranking)
    named_options(**(settings := options.retrieval_options(args)))
    check_used(vars(args), retrievers, args.reranker)
    for name in (*retrievers, args.reranker):
        if name not in ("bm25", None):
            check_name(name)
    if args.out is not None and args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder; expected a file. Name {args.out / 'hits.jsonl'}, say.")
    corpus, queries = _read(args)
    check_default_index(settings, len(corpus))

    # torch takes seconds to import: only once the command and its data are known to be right
    from research.models.inference import use_device
    from research.retrieval.search import readable, result_lines, search

    use_device(args.device)
    ranking = search(queries, corpus, retrievers, top_k=args.top_k, store=args.store, cache=args.cache, **reranking, **settings)
    files = corpus.files if isinstance(corpus, Passages) else None
    lines = result_lines(ranking, queries, corpus, args.texts or args.pretty, files)
    width = shutil.get_terminal_size().columns
    text = readable(lines, width, args.texts) if args.pretty else (json.dumps(line, ensure_ascii=False) for line in lines)
    if args.out is None:
        for line in text:
            print(line)
        return 0
    with atomic_write(args.out) as stream:
        stream.writelines(line + "\n" for line in text)
    print(f"{args.out}: {sum(map(len, ranking.values())):,} hits of {len(queries):,} queries")
    return 0


def _read(args: argparse.Namespace) -> tuple[Corpus, Queries]:
    """Read corpus and queries, after all checks that need neither."""
    _one_of(args, ("corpus", "data"), "the texts to search")
    has_queries = args.queries is not None or args.query is not None
    if has_queries or args.corpus is not None:
        _one_of(args, ("queries", "query"), "what is asked")
    for name, needed in NEEDED.items():
        if getattr(args, name) is not None and (getattr(args, needed) is None or (name == "split" and has_queries)):
            option = f"--{name.replace('_', '-')}"
            alone = ", and without --queries and --query" if name == "split" else ""
            raise UserError(f"{option} {getattr(args, name)}; expected it with --{needed}{alone}. Leave {option} out.")
    columns, query_columns = (options.named_columns(given) for given in (args.columns, args.query_columns))
    lengths = {"words": args.passage_words, "overlap": args.passage_overlap}
    lengths = {name: value for name, value in lengths.items() if value is not None}
    cut = Cut(**lengths).check() if lengths else None
    asked: Queries = {f"q{number}": text for number, text in enumerate(args.query or (), 1)}
    if blank := next((name for name, text in asked.items() if not text.strip()), None):
        raise UserError(f"--query {asked[blank]!r} is blank; expected a text. Correct it, or leave it out.")
    if args.data is not None:
        parse_source(args.data)
        if args.split is not None:
            check_split(args.data, args.split)
    if args.queries is not None:
        asked = read_queries(args.queries, query_columns, args.skip_bad_rows)
    if args.corpus is not None:
        return read_corpus(args.corpus, columns, cut, args.skip_bad_rows), asked
    corpus, judged = load_unjudged(args.data, args.split, args.skip_bad_rows, queries=not has_queries)
    return corpus, asked or judged


def _one_of(args: argparse.Namespace, names: tuple[str, str], what: str) -> None:
    given = [name for name in names if getattr(args, name) is not None]
    first, second = (f"--{name}" for name in names)
    if len(given) != 1:
        wrong = f"both {first} and {second}" if given else f"neither {first} nor {second}"
        raise UserError(f"{wrong}; expected one of them, {what}. Name one.")
