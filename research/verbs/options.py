"""Options that several verbs share, and the one order in which every verb lists its options.

What it works on, where the result goes, choices, how it computes, W&B, and the rest. A verb with many options lists them under
these titles.
"""

import argparse
import json
from pathlib import Path

from research.errors import UserError
from research.models.device import add_device
from research.retrieval.named import RetrievalOptions, named_options

INPUT, OUTPUT, CHOICES, COMPUTATION, WANDB, OTHER = "input", "output", "choices", "computation", "W&B", "other"
"""Titles of options, in their order; titles of a verb's own stand after CHOICES."""


def add_data(parser: argparse.ArgumentParser, split: bool = True) -> argparse._ArgumentGroup:
    """Declare the options of a data source; a verb may add to the group what else it works on."""
    group = parser.add_argument_group(INPUT)
    add_source(group)
    group.add_argument("--split", required=split, help="name of a qrels file of the source: train, dev, test, …")
    add_skipping(group)
    return group


def add_source(group: argparse._ArgumentGroup, required: bool = True) -> None:
    """Declare --data."""
    kinds = "builtin:stdlib | builtin:stdlib-small | builtin:packages | beir:PATH | rows:FILE | hf:NAME[@REVISION]"
    group.add_argument("--data", required=required, metavar="SOURCE", help=kinds)


def add_skipping(group: argparse._ArgumentGroup) -> None:
    """Declare --skip-bad-rows."""
    group.add_argument(
        "--skip-bad-rows", action="store_true", help="leave malformed rows out, counted, instead of refusing them"
    )


def add_retriever(group: argparse._ArgumentGroup, several: str, default: str | None = None) -> None:
    """Declare --retriever.

    Args:
        group: of what the verb works on.
        several: what more than one are for.
        default: what the verb takes where none is named; None: one must be.
    """
    kinds = f"bm25, run folder, model folder, hub id or pkg:PACKAGE/PATH; {several}{f' ({default})' if default else ''}"
    group.add_argument("--retriever", action="append", required=default is None, metavar="MODEL|bm25", help=kinds)


def add_reranker(group: argparse._ArgumentGroup | argparse.ArgumentParser, purpose: str) -> None:
    """Declare --reranker, a cross-encoder, and how much of a pair it reads."""
    group.add_argument("--reranker", metavar="MODEL", help=f"a cross-encoder {purpose}")
    group.add_argument("--reranker-max-length", type=int, help="tokens of a query-document pair (the model's own)")


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Declare the options of an encoder."""
    group = parser.add_argument_group("encoder", "what is not given is the model's own")
    group.add_argument("--max-length", type=int, help="tokens of a query and of a document (256 for MiniLM)")
    group.add_argument("--query-max-length", type=int, help="tokens of a query")
    group.add_argument("--doc-max-length", type=int, help="tokens of a document")
    group.add_argument("--query-prompt", help="text put before every query")
    group.add_argument("--doc-prompt", help="text put before every document")
    group.add_argument("--pooling", choices=["mean", "cls", "last"])
    group.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, default=None, help="divide embeddings by their norm, or do not"
    )
    group.add_argument("--similarity", choices=["cosine", "dot"])


def add_computation(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare how an encoder computes, and where; a verb may add options of its own to the group."""
    group = parser.add_argument_group(COMPUTATION)
    group.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        help="fp32 (default, for reported numbers) or bf16 (faster where the hardware has it)",
    )
    group.add_argument("--token-budget", type=int, help="tokens of one batch, padding included (4096 on a CPU, 65536 on a GPU)")
    add_device(group)
    return group


def add_index(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare how retrievers search; a verb may add options of its own to the group."""
    group = parser.add_argument_group("index")
    group.add_argument("--index", choices=["exact", "hnsw"], help="default: exact up to 100,000 documents, else hnsw")
    group.add_argument("--ef", type=int, help="width of HNSW's search, ≥ the documents asked for (200)")
    group.add_argument("--hnsw-m", type=int, help="links a node (16)")
    group.add_argument("--ef-construction", type=int, help="width of HNSW's search while building (200)")
    group.add_argument("--index-threads", type=int, help="threads that build HNSW; only 1 (default) gives the same index twice")
    group.add_argument("--bm25-k1", type=float, help="saturation of the term frequency (1.2)")
    group.add_argument("--bm25-b", type=float, help="normalisation by document length (0.75)")
    group.add_argument(
        "--bm25-tokenizer",
        metavar="NAME",
        help="terms: words (default), characters or bigrams (in scripts without blanks, elsewhere words) "
        "or regex:PATTERN (each match)",
    )
    group.add_argument("--bm25-stemmer", metavar="LANGUAGE", help="cut words to Snowball's stems: english, german, … (none)")
    group.add_argument("--bm25-stopwords", metavar="LANGUAGE|none", help="words left out (the stemmer's language, or english)")
    return group


def add_reranking(parser: argparse.ArgumentParser, depth: str) -> argparse._ArgumentGroup:
    """Declare the options of a reranker; a verb may add options of its own to the group.

    Args:
        parser: of the verb.
        depth: the default of --depth, in words.
    """
    group = parser.add_argument_group("reranking")
    add_reranker(group, "that re-orders the top of the last ranking")
    group.add_argument("--depth", type=int, help=f"documents a query that it reads ({depth})")
    group.add_argument("--mix", type=float, help="λ: the retriever's share beside the reranker's score, 0 to 1 (0)")
    return group


def retrieval_options(args: argparse.Namespace) -> RetrievalOptions:
    """Take the options of `add_index` and `add_encoder` from a command line, by name."""
    return {name: getattr(args, name) for name in RetrievalOptions.__annotations__}


def retrieval_settings(args: argparse.Namespace) -> dict:
    """Collect the retrieval Options that the shared options of the command line give."""
    return named_options(**retrieval_options(args))


def add_cache(group: argparse._ArgumentGroup) -> None:
    """Declare --cache."""
    group.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="embeddings and indexes, addressed by content (TANDEM_CACHE, else ~/.cache/tandem)",
    )


def add_metrics(group: argparse._ArgumentGroup) -> None:
    """Declare metrics and their mean."""
    group.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME@K",
        help="ndcg, mrr, map, recall, precision at any K; the first one is tested for significance "
        "(default: ndcg@10 mrr@10 map@100 recall@10 recall@100 precision@10)",
    )
    group.add_argument(
        "--mean",
        choices=["scorable", "trec_eval", "trec_eval-c"],
        default="scorable",
        help="over which queries: those with a relevant document, where one without a ranking counts 0 "
        "(default); those that the run has, as trec_eval and BEIR; every judged one, as trec_eval -c. In the "
        "last two one without a relevant document counts 0",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare --json, the last option of a verb that has titles."""
    parser.add_argument_group(OTHER).add_argument("--json", action="store_true", help="one JSON line on stdout")


def named_columns(text: str | None) -> dict[str, str] | None:
    """Read --columns: which column has a role, as JSON; None where it is not given.

    Raises:
        UserError: it is no JSON object.
    """
    if text is None:
        return None
    try:
        columns = json.loads(text)
    except (ValueError, RecursionError):
        columns = None
    if not isinstance(columns, dict):
        raise UserError(
            f"--columns {text!r}; expected a JSON object of roles and columns. Write it so: --columns "
            """'{"question": "ask", "answer": "reply"}'."""
        )
    return columns
