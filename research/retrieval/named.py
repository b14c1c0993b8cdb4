"""Options of retrieval by the users' names, on the command line and in Python, checked before a model is loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from research.errors import UserError, suggest
from research.retrieval.options import Options
from research.retrieval.terms import DEFAULT, Terms
from research.runs.layout import check_store_folder


class EncoderOptions(TypedDict, total=False):
    """How a dual encoder encodes; what is not given, or None, is the model's own.

    Attributes:
        max_length: tokens of a query and of a document.
        query_max_length, doc_max_length: tokens of one of them.
        query_prompt, doc_prompt: text put before every query, or document.
        pooling: "mean" | "cls" | "last".
        normalize: divide embeddings by their norm.
        similarity: "cosine" | "dot".
    """

    max_length: int | None
    query_max_length: int | None
    doc_max_length: int | None
    query_prompt: str | None
    doc_prompt: str | None
    pooling: str | None
    normalize: bool | None
    similarity: str | None


class RetrievalOptions(EncoderOptions, total=False):
    """How retrievers search, by the names of the verbs' options; the defaults are those of Options.

    Attributes:
        index: "exact" | "hnsw"; exact up to 100,000 documents where it is None.
        ef: width of HNSW's search, ≥ the documents asked for.
        hnsw_m: links a node of HNSW.
        ef_construction: width of HNSW's search while building.
        index_threads: threads that build HNSW; only 1 gives the same index twice.
        bm25_k1, bm25_b: saturation of the term frequency, and normalisation by document length.
        bm25_tokenizer: words | characters | bigrams | regex:PATTERN.
        bm25_stemmer: language of a Snowball stemmer.
        bm25_stopwords: language whose stop words are left out, or none.
        precision: "fp32" | "bf16".
        token_budget: tokens of one batch, padding included.
    """

    index: str | None
    ef: int
    hnsw_m: int
    ef_construction: int
    index_threads: int
    bm25_k1: float
    bm25_b: float
    bm25_tokenizer: str
    bm25_stemmer: str | None
    bm25_stopwords: str | None
    precision: str
    token_budget: int | None


FIELDS = {"hnsw_m": "M", "bm25_k1": "k1", "bm25_b": "b"}
"""The user's name → the field of Options, where they differ."""
TERMS = ("bm25_tokenizer", "bm25_stemmer", "bm25_stopwords")
LENGTHS = ("max_length", "query_max_length", "doc_max_length")
MIN_LENGTH = 4  # tokens: less leaves no room for a text between the special tokens
BOUNDS = {
    "ef": (1, 10**9),
    "hnsw_m": (2, 10_000),  # hnswlib's own limit
    "ef_construction": (1, 10**9),
    "index_threads": (1, 1024),
}
DEFAULTS = {name: getattr(Options, FIELDS.get(name, name)) for name in (*BOUNDS, "bm25_k1", "bm25_b", "precision")} | {
    "bm25_tokenizer": DEFAULT.tokenizer
}
"""What an option is where it is not given; None in a command line and in Python alike, so that one without a use is refused."""
CHOICES = {
    "index": ("exact", "hnsw"),
    "precision": ("fp32", "bf16"),
    "pooling": ("mean", "cls", "last"),
    "similarity": ("cosine", "dot"),
}


def with_defaults(given: Mapping[str, object]) -> dict[str, object]:
    """Fill in the options that were not given."""
    return {name: DEFAULTS.get(name) if value is None else value for name, value in given.items()}


def named_options(**given: Unpack[RetrievalOptions]) -> dict[str, object]:
    """Turn the users' names into fields of Options.

    Raises:
        UserError: an unknown name, or a value out of its range.
    """
    given = {name: value for name, value in given.items() if value is not None}
    check_known(given, RetrievalOptions)
    check_choices(given)
    check_range(given, BOUNDS)
    check_encoder(given)
    check_bm25(given)
    terms = [given.pop(name, default) for name, default in zip(TERMS, DEFAULT, strict=True)]
    settings = {name: given.pop(name) for name in EncoderOptions.__annotations__ if name in given}
    fields = {FIELDS.get(name, name): value for name, value in given.items()}
    return fields | {"terms": Terms(*terms), "settings": encoder_settings(settings)}


def check_known(given: Mapping[str, object], known: type[EncoderOptions]) -> None:
    """Refuse an option that a TypedDict does not name."""
    if unknown := [name for name in given if name not in known.__annotations__]:
        raise UserError(f"option {unknown[0]!r} is not known; {suggest(unknown[0], known.__annotations__)}. Correct it.")


def check_choices(given: Mapping[str, object]) -> None:
    """Refuse a value that is none of an option's; one that was not given passes."""
    for name, known in CHOICES.items():
        if (value := given.get(name)) is not None and value not in known:
            raise UserError(f"--{name} {value!r} is not known; {suggest(str(value), known)}. Correct it.")


def encoder_settings(given: Mapping[str, object]) -> dict[str, object]:
    """Collect the EncoderSettings that the users' options change; None keeps the model's own."""
    return {
        "query_max_length": given.get("query_max_length") or given.get("max_length"),
        "doc_max_length": given.get("doc_max_length") or given.get("max_length"),
        **{name: given.get(name) for name in EncoderOptions.__annotations__ if name not in LENGTHS},
    }


def check_range(given: Mapping[str, object], bounds: Mapping[str, tuple[int, int]]) -> None:
    """Refuse a number outside {option: (least, most)}; an option that was not given passes."""
    for name, (least, most) in bounds.items():
        if (value := given.get(name)) is not None and not least <= value <= most:
            raise UserError(
                f"--{name.replace('_', '-')} {value}; expected {least} to {most:,}. Leave it out to take the default."
            )


def check_encoder(given: Mapping[str, object]) -> None:
    """Refuse an encoder's options that are wrong whatever the model is; the model sets the upper limit of a length."""
    if (budget := given.get("token_budget")) is not None and budget < 1:
        raise UserError(f"--token-budget {budget}; expected 1 or more tokens. Leave it out to take the default.")
    for name in LENGTHS:
        if (value := given.get(name)) is not None and value < MIN_LENGTH:
            raise UserError(
                f"--{name.replace('_', '-')} {value}; expected {MIN_LENGTH} tokens or more. Leave it out to "
                "take the model's own."
            )


def check_bm25(given: Mapping[str, object]) -> None:
    """Refuse BM25's options out of their range."""
    given = DEFAULTS | {name: value for name, value in given.items() if value is not None}
    k1, b = given["bm25_k1"], given["bm25_b"]
    if not 0 <= k1 <= 1000 or not 0 <= b <= 1:  # NaN is in neither range
        raise UserError(
            f"--bm25-k1 {k1} --bm25-b {b}; expected k1 from 0 to 1,000 and b from 0 to 1. Leave them out to take the defaults."
        )
    Terms(*(given.get(name, default) for name, default in zip(TERMS, DEFAULT, strict=True))).check()


def check_retrievers(names: Sequence[str]) -> None:
    """Refuse a misspelt bm25, and a retriever that is given twice, however its path is written."""
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


def check_one_dense(option: str, retrievers: Sequence[object]) -> None:
    """Refuse a store of embeddings unless there is exactly one embedding model.

    Args:
        option: with its value, for the message.
        retrievers: "bm25" or models.
    """
    if (dense := sum(name != "bm25" for name in retrievers)) != 1:
        given = f"{dense} are named" if dense else "bm25 alone is named, which has no embeddings"
        raise UserError(
            f"{option} keeps the embeddings of one model, and {given}; expected exactly one dense --retriever. Name "
            f"one, or leave {option.partition(' ')[0]} out."
        )


def check_reranking(given: Mapping[str, object], names: Sequence[str] = ("depth", "mix", "reranker_max_length")) -> None:
    """Refuse options of a reranker without one, and λ outside of 0 to 1.

    Args:
        given: options by name.
        names: those that a reranker alone has a use for.
    """
    for name in names:
        if given.get(name) is not None and given.get("reranker") is None:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option} {given[name]} is for a reranker, and there is none; expected --reranker MODEL with it. Name one, or "
                f"leave {option} out."
            )
    check_range(given, {"depth": (1, 10**9)})
    if (mix := given.get("mix")) is not None and not 0 <= mix <= 1:
        raise UserError(f"--mix {mix}; expected 0 (reranker alone) to 1 (retriever alone). Pass --mix 0.2, say.")


def check_retrieval(retrievers: Sequence[object], **given: object) -> None:
    """Refuse options of retrieval that are wrong whatever the model is.

    Args:
        retrievers: "bm25" or models.
        given: store, reranker, depth, mix, reranker_max_length, top_k.

    Raises:
        UserError: as said.
    """
    if not retrievers:
        raise UserError("no retriever is named; expected bm25 or a model, once or more. Name one.")
    check_retrievers([name for name in retrievers if isinstance(name, str)])
    check_reranking(given)
    if (top_k := given["top_k"]) < 1:
        raise UserError(f"--top-k {top_k}; expected 1 or more. Pass --top-k 10, say.")
    store = given.get("store")
    if store is not None:
        check_one_dense(f"--store {store}", retrievers)
    if store is not None:
        check_store_folder(Path(store), option="--store")
