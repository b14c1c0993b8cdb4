"""Decides when two texts count as equal, and which documents are therefore known to be relevant: for mining and training."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

from research.types import Corpus, Document


class Known(NamedTuple):
    """Documents known to be relevant to a query.

    Attributes:
        judged: by judgements of the query itself.
        shared: by judgements of other queries of equal text, where not in `judged`.
        same: whose text is the query's, where in neither.
    """

    judged: frozenset[str]
    shared: frozenset[str]
    same: frozenset[str] = frozenset()


def normalise(text: str) -> str:
    """Fold case and make any white space one blank: texts that are equal after this count as one text."""
    return " ".join(text.casefold().split())


def texts_of(doc: Document) -> frozenset[str]:
    """Return the texts by which a document is recognised: with its title and without it."""
    return frozenset(filter(None, (normalise(doc.content), normalise(doc.text))))


def known_relevant(
    positives: Mapping[Hashable, Iterable[str]], texts: Mapping[Hashable, str], corpus: Corpus
) -> dict[Hashable, Known]:
    """Find what is relevant to each query: by its judgements, by those of queries with equal text, or as a copy of its text.

    Args:
        positives: query id → documents judged relevant to it.
        texts: of these queries.
        corpus: documents, among which those of a query's text are looked for.
    """
    by_text: dict[str, set[str]] = {}
    for query, docs in positives.items():
        by_text.setdefault(normalise(texts[query]), set()).update(docs)
    same: dict[str, set[str]] = {}
    for doc_id, doc in corpus.items():
        for text in texts_of(doc) & by_text.keys():
            same.setdefault(text, set()).add(doc_id)
    known = {}
    for query, docs in positives.items():
        judged, text = frozenset(docs), normalise(texts[query])
        shared = frozenset(by_text[text]) - judged
        known[query] = Known(judged, shared, frozenset(same.get(text, ())) - judged - shared)
    return known


class Copies:
    """Finds documents of a corpus with equal texts; reads each document once."""

    def __init__(self, corpus: Corpus):
        self.forms = {doc_id: [_digest(text) for text in texts_of(doc)] for doc_id, doc in corpus.items()}
        self.by_form: dict[bytes, list[str]] = {}
        for doc_id, forms in self.forms.items():
            for form in forms:
                self.by_form.setdefault(form, []).append(doc_id)

    def of(self, docs: Iterable[str]) -> set[str]:
        """Return those of the documents that the corpus has, and all others with the text of one of them."""
        return {copy for doc in docs for form in self.forms.get(doc, ()) for copy in self.by_form[form]} | {*docs}


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
