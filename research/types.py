"""The nouns that rooms hand to each other. Plain dicts: any stage can be replaced, diffed or rerun alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, NotRequired, TypedDict

if TYPE_CHECKING:  # the nouns of retrieval are read without torch
    from torch import Tensor

IGNORE = -100  # a label of a token that is not learned, as transformers has it
NO_ID = -1  # pads rows of positive ids; never the id of a document


Direction = Literal["lower", "higher"]
"""The better side of a metric."""


Json = dict[str, object] | list[object] | str | int | float | bool | None
"""A value of a JSON or YAML file; who reads a nested one looks at what it is."""


class Document(NamedTuple):
    """One document of a corpus. Its searchable text is the title, a space, and the text."""

    title: str
    text: str

    @property
    def content(self) -> str:
        """Return the title and the text, as they are encoded."""
        return f"{self.title} {self.text}" if self.title else self.text


Corpus = dict[str, Document]
Queries = dict[str, str]
Qrels = dict[str, dict[str, int]]
"""query id → doc id → judged relevance (> 0 is relevant, ≤ 0 is not)."""
Ranking = dict[str, dict[str, float]]
"""query id → doc id → score (higher is better)."""


class Collection(NamedTuple):
    """A corpus, the queries of one split, and that split's judgements.

    Attributes:
        source: the name the user gave (`builtin:stdlib`, `beir:PATH`, `hf:NAME`).
        split: the name of the qrels file.
        corpus: every document.
        queries: the queries judged in this split, in the order of the source.
        qrels: the judgements of this split.
        fingerprint: sha256 of corpus, queries and qrels as read.
        notes: what a reader of the numbers must know: skipped rows, leaks between splits.
        unjudged: ids of the source's other queries, which this split does not judge.
    """

    source: str
    split: str
    corpus: Corpus
    queries: Queries
    qrels: Qrels
    fingerprint: str
    notes: dict
    unjudged: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{len(self.queries):,} queries and {len(self.corpus):,} documents"


class Scores(TypedDict):
    """What one ranking, or one model, measured, as metrics.json holds it.

    Attributes:
        metrics: {metric: mean}.
        per_query: {metric: {query: value}}.
        facts: what the numbers depend on.
    """

    metrics: dict[str, float]
    per_query: dict[str, dict[str, float]]
    facts: NotRequired[dict[str, object]]


class Triplets(NamedTuple):
    """One training query with its judged passages, as tevatron's JSONL holds them (doc id → document).

    Attributes:
        query_id, query: id and text.
        positives, negatives: passages; negatives best first.
        scores: of the passages that have one, all by one scorer; None without any.
        positions: of the negatives in the ranking they were mined from, from 1; None without any.
    """

    query_id: str
    query: str
    positives: dict[str, Document]
    negatives: dict[str, Document]
    scores: dict[str, float] | None = None
    positions: dict[str, int] | None = None


class Pair(NamedTuple):
    """One training example of a dual encoder: a query, one document relevant to it, and hard negatives.

    Documents are known by numbers; documents of equal text have the same one, so that none is ever the other's negative.
    """

    query: str
    positive: int
    negatives: list[int]
    known: list[int]
    """Every document known to be relevant to the query, `positive` among them."""


class Candidates(NamedTuple):
    """One training example of a cross-encoder: a query and a group of its candidates with their labels in [0, 1]."""

    query: str
    docs: list[str]
    labels: list[float]


class TokenBatch(NamedTuple):
    """Texts as tensors, in chunks of similar length: the padding of one long text then costs its own chunk only.

    Attributes:
        chunks: model inputs, each of (b, T) tensors: input_ids, attention_mask, token_type_ids where the model has them.
        rows: (B,) where text i stands in the chunks laid end to end.
    """

    chunks: "tuple[dict[str, Tensor], ...]"
    rows: "Tensor"


class PairBatch(NamedTuple):
    """B queries and M ≥ B documents: the first B are the queries' own positives, the rest hard negatives.

    Attributes:
        queries: B texts.
        docs: M texts.
        doc_ids: (M,) numbers of the documents.
        positive_ids: (B, P) numbers of all documents known to be relevant to each query, padded with −1.
    """

    queries: TokenBatch
    docs: TokenBatch
    doc_ids: "Tensor"
    positive_ids: "Tensor"


class CandidateBatch(NamedTuple):
    """B queries with up to N candidates each.

    Attributes:
        pairs: B·N query-document pairs, those present only, query after query.
        labels: (B, N), 0 where absent.
        present: (B, N) bool.
    """

    pairs: TokenBatch
    labels: "Tensor"
    present: "Tensor"


class Examples(NamedTuple):
    """Rows of one split.

    Attributes:
        source, split: as the user named them.
        rows: TRL's forms: {"prompt", "completion"} (texts, or lists of messages), {"messages"} or {"text"}; of preferences
            {"prompt", "chosen", "rejected"}, or without prompt; conversations may have {"tools", "chat_template_kwargs"} too.
        fingerprint: sha256 of the rows.
        places: where each row stands (file:line), for messages; () where that is not known.
    """

    source: str
    split: str | None
    rows: list[dict]
    fingerprint: str
    places: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{len(self.rows):,} examples"


class InstructionBatch(NamedTuple):
    """B token rows of a causal language model, in chunks of similar length.

    Attributes:
        chunks: each of (b, T) tensors: input_ids, labels (IGNORE where nothing is learned), and attention_mask, or
            position_ids where a row holds several texts; and at (N,), the flat positions that predict a label.
    """

    chunks: "tuple[dict[str, Tensor], ...]"


class PreferenceBatch(NamedTuple):
    """B preference pairs, in chunks of similar length.

    Attributes:
        chunks: each of b pairs: input_ids (R, T), attention_mask (R, T) or (R, 1, T, T), position_ids (R, T) where a row
            holds both completions; row, place, label, sequence (N,): where the hidden state stands that predicts each
            completion token, the token, and its completion (2i chosen and 2i + 1 rejected of pair i); number (b,) of the
            pair in the batch; reference_chosen, reference_rejected (b,) float64 where they are cached.
    """

    chunks: "tuple[dict[str, Tensor], ...]"
