"""The nouns that rooms hand to each other. Plain dicts: any stage can be replaced, diffed or rerun alone."""

from typing import NamedTuple


class Document(NamedTuple):
    """One document of a corpus. Its searchable text is the title, a space, and the text."""

    title: str
    text: str

    @property
    def content(self) -> str:
        return f"{self.title} {self.text}" if self.title else self.text


Corpus = dict[str, Document]
Queries = dict[str, str]
Qrels = dict[str, dict[str, int]]
"""query id → doc id → judged relevance (> 0 is relevant, ≤ 0 is not)."""
Run = dict[str, dict[str, float]]
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


class Triplets(NamedTuple):
    """One training query with its judged passages, as tevatron's JSONL holds them (doc id → document)."""

    query_id: str
    query: str
    positives: dict[str, Document]
    negatives: dict[str, Document]
