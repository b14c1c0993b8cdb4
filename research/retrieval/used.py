"""Refuses options that the rest of a command does not use, so that none is ignored silently."""

from collections.abc import Iterable, Mapping, Sequence

from research.errors import UserError
from research.retrieval.named import BOUNDS, LENGTHS, TERMS, EncoderOptions
from research.retrieval.options import EXACT_UP_TO

ENCODING = tuple(EncoderOptions.__annotations__)
BM25 = ("bm25_k1", "bm25_b", *TERMS)
HNSW = tuple(BOUNDS)
ALL = ("device", "precision", "token_budget")


def check_used(given: Mapping[str, object], retrievers: Sequence[object], reranker: object = None) -> None:
    """Refuse options of what a command does not have: an encoder, BM25, HNSW, or a model that is loaded here.

    Args:
        given: options by the users' names; one that is None was not given.
        retrievers: "bm25" or models, by name or loaded.
        reranker: a cross-encoder, by name or loaded; None without one.

    Raises:
        UserError: an option that would change nothing.
    """
    dense = [retriever for retriever in retrievers if retriever != "bm25"]
    models = [*dense, *([] if reranker is None else [reranker])]
    named = [model for model in models if isinstance(model, str)]
    loaded = "a model that is loaded here, and this one is loaded already; expected it where it is loaded. Pass it to load_"
    if not dense:
        _refuse(given, ("index", *HNSW), "an index of embeddings, and bm25 has none; expected a model as --retriever. Name one")
        own = " (a reranker has --reranker-max-length)" if reranker is not None else ""
        _refuse(given, ENCODING, f"an encoder, and bm25 is none{own}; expected a model as --retriever. Name one")
    if not models:
        _refuse(given, ALL, "a model, and there is bm25 alone; expected a model as --retriever. Name one")
    if dense and not any(isinstance(retriever, str) for retriever in dense):
        _refuse(given, ENCODING, f"{loaded}encoder")
    if not named:
        _refuse(given, ("precision",), f"{loaded}{'encoder' if dense else 'reranker'}")
    if not dense and not named:  # a loaded reranker has its own
        _refuse(given, ("token_budget",), f"{loaded}reranker")
    if reranker is not None and not isinstance(reranker, str):
        _refuse(given, ("reranker_max_length",), f"{loaded}reranker")
    if "bm25" not in retrievers:
        _refuse(given, BM25, "bm25, which is not among the retrievers; expected --retriever bm25. Name it")
    if given.get("index") == "exact":
        _refuse(given, HNSW, "HNSW, and --index is exact; expected --index hnsw. Pass that")
    check_lengths(given)


def check_tower_used(given: Mapping[str, object], tower: str) -> None:
    """Refuse options of the tower that encodes nothing.

    Args:
        given: options of an encoder, by name.
        tower: "doc" | "query", which encodes.

    Raises:
        UserError: as said.
    """
    other = "query" if tower == "doc" else "doc"
    names = [name for name in ENCODING if name.startswith(f"{other}_")]
    _refuse(given, names, f"--tower {other}, and --tower {tower} encodes; expected --tower {other} with it. Pass that")
    check_lengths(given, (tower,))


def check_lengths(given: Mapping[str, object], towers: Sequence[str] = ("query", "doc")) -> None:
    """Refuse --max-length where every tower has a length of its own."""
    if all(given.get(f"{tower}_max_length") is not None for tower in towers):
        own = " and ".join(f"--{tower}-max-length" for tower in towers)
        _refuse(given, LENGTHS[:1], f"a tower without its own length, and {own} say it; expected one a tower. Name one")


def check_default_index(given: Mapping[str, object], documents: int) -> None:
    """Refuse options of HNSW where no index is named and so few documents are searched exactly.

    Args:
        given: options by the users' names; one that is None was not given.
        documents: in the corpus.

    Raises:
        UserError: as said.
    """
    if given.get("index") is None and documents <= EXACT_UP_TO:
        _refuse(
            given,
            HNSW,
            f"HNSW, and {documents:,} documents are searched exactly (up to {EXACT_UP_TO:,} are, where --index is not given); "
            "expected --index hnsw. Pass that",
        )


def _refuse(given: Mapping[str, object], names: Iterable[str], why: str) -> None:
    for name in names:
        value = given.get(name)
        if value is None or (name == "device" and value == "auto"):
            continue
        option = f"--{name.replace('_', '-')}" if value is not False else f"--no-{name}"
        shown = option if isinstance(value, bool) else f"{option} {value if value != '' else repr(value)}"
        raise UserError(f"{shown} is for {why}, or leave {option} out.")
