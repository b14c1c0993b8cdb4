"""Options that several verbs share."""

import argparse
import json
from pathlib import Path

from research.errors import UserError
from research.retrieval.terms import Terms

MIN_LENGTH = 4  # tokens: less leaves no room for a text between the special tokens
INDEX_BOUNDS = {
    "ef": (1, 10**9),
    "hnsw_m": (2, 10_000),  # hnswlib's own limit
    "ef_construction": (1, 10**9),
    "index_threads": (1, 1024),
}


def add_data(parser: argparse.ArgumentParser, split: bool = True) -> None:
    """Declare the options of a data source."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        required=True,
        metavar="SOURCE",
        help="builtin:stdlib | builtin:stdlib-small | builtin:packages | beir:PATH | hf:NAME[@REVISION]",
    )
    group.add_argument("--split", required=split, help="name of a qrels file of the source: train, dev, test, …")
    group.add_argument(
        "--skip-bad-rows", action="store_true", help="leave malformed rows out, counted, instead of refusing them"
    )


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
    group.add_argument("--token-budget", type=int, help="tokens of one batch, padding included (4096 on a CPU, 65536 on a GPU)")
    group.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="fp32 (default, for reported numbers) or bf16 (faster where the hardware has it)",
    )


def check_encoder(args: argparse.Namespace) -> None:
    """Refuse what needs no model to be wrong; the upper limit of a length is the model's."""
    if args.token_budget is not None and args.token_budget < 1:
        raise UserError(f"--token-budget {args.token_budget}; expected 1 or more tokens. Leave it out to take the default.")
    for name in ("max_length", "query_max_length", "doc_max_length"):
        value = getattr(args, name)
        if value is not None and value < MIN_LENGTH:
            raise UserError(
                f"--{name.replace('_', '-')} {value}; expected {MIN_LENGTH} tokens or more. Leave it out to "
                "take the model's own."
            )


def encoder_settings(args: argparse.Namespace) -> dict:
    """Collect the EncoderSettings that the command line changes; None keeps the model's own."""
    return {
        "query_max_length": args.query_max_length or args.max_length,
        "doc_max_length": args.doc_max_length or args.max_length,
        "query_prompt": args.query_prompt,
        "doc_prompt": args.doc_prompt,
        "pooling": args.pooling,
        "normalize": args.normalize,
        "similarity": args.similarity,
    }


def add_index(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare how retrievers search; a verb may add options of its own to the group."""
    group = parser.add_argument_group("index")
    group.add_argument("--index", choices=["exact", "hnsw"], help="default: exact up to 100,000 documents, else hnsw")
    group.add_argument("--ef", type=int, default=200, help="width of HNSW's search, ≥ the documents asked for (200)")
    group.add_argument("--hnsw-m", type=int, default=16, help="links a node (16)")
    group.add_argument("--ef-construction", type=int, default=200, help="width of HNSW's search while building (200)")
    group.add_argument(
        "--index-threads", type=int, default=1, help="threads that build HNSW; only 1 (default) gives the same index twice"
    )
    group.add_argument("--bm25-k1", type=float, default=1.2, help="saturation of the term frequency (1.2)")
    group.add_argument("--bm25-b", type=float, default=0.75, help="normalisation by document length (0.75)")
    group.add_argument(
        "--bm25-tokenizer",
        default="words",
        metavar="NAME",
        help="terms: words (default), characters or bigrams (in scripts without blanks, elsewhere words) "
        "or regex:PATTERN (each match)",
    )
    group.add_argument("--bm25-stemmer", metavar="LANGUAGE", help="cut words to Snowball's stems: english, german, … (none)")
    group.add_argument("--bm25-stopwords", metavar="LANGUAGE|none", help="words left out (the stemmer's language, or english)")
    return group


def check_range(args: argparse.Namespace, bounds: dict[str, tuple[int, int]]) -> None:
    """Refuse a number outside {argument: (least, most)}; what was not given is right."""
    for name, (least, most) in bounds.items():
        if getattr(args, name) is not None and not least <= getattr(args, name) <= most:
            raise UserError(
                f"--{name.replace('_', '-')} {getattr(args, name)}; expected {least} to {most:,}. Leave it "
                "out to take the default."
            )


def check_bm25(args: argparse.Namespace) -> None:
    """Refuse BM25's options out of their range."""
    if not 0 <= args.bm25_k1 <= 1000 or not 0 <= args.bm25_b <= 1:  # NaN is in neither range
        raise UserError(
            f"--bm25-k1 {args.bm25_k1} --bm25-b {args.bm25_b}; expected k1 from 0 to 1,000 and b from 0 to 1. "
            "Leave them out to take the defaults."
        )
    bm25_terms(args).check()


def bm25_terms(args: argparse.Namespace) -> Terms:
    """Build what BM25 counts as a term."""
    return Terms(args.bm25_tokenizer, args.bm25_stemmer, args.bm25_stopwords)


def check_retrievers(names: list[str]) -> None:
    """Refuse a misspelt bm25, and a retriever that is given twice, under whatever spelling of its path."""
    seen = set()
    for name in names:
        if name.lower() == "bm25" and name != "bm25":
            raise UserError(f"--retriever {name} is not known; expected bm25, in small letters, or a model. Write bm25.")
        model = Path(name).resolve() if Path(name).exists() else name
        if model in seen:
            raise UserError(
                f"--retriever {name} is given twice; expected different ones, since fusing a run with itself "
                "changes nothing. Remove one."
            )
        seen.add(model)


def retrieval_settings(args: argparse.Namespace) -> dict:
    """Collect the retrieval Options that the shared options of the command line give."""
    return {
        "index": args.index,
        "ef": args.ef,
        "M": args.hnsw_m,
        "ef_construction": args.ef_construction,
        "index_threads": args.index_threads,
        "k1": args.bm25_k1,
        "b": args.bm25_b,
        "terms": bm25_terms(args),
        "precision": args.precision,
        "settings": encoder_settings(args),
        "token_budget": args.token_budget,
    }


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Declare --cache."""
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="embeddings and indexes, addressed by content (TANDEM_CACHE, else ~/.cache/tandem)",
    )


def add_metrics(parser: argparse.ArgumentParser) -> None:
    """Declare metrics, the mean and --json."""
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME@K",
        help="ndcg, mrr, map, recall, precision at any K; the first one is tested for significance "
        "(default: ndcg@10 mrr@10 map@100 recall@10 recall@100 precision@10)",
    )
    parser.add_argument(
        "--mean",
        choices=["scorable", "trec_eval", "trec_eval-c"],
        default="scorable",
        help="over which queries: those with a relevant document, where one without a ranking counts 0 "
        "(default); those that the run has, as trec_eval and BEIR; every judged one, as trec_eval -c. In the "
        "last two one without a relevant document counts 0",
    )
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout instead of a table")


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
