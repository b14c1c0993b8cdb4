"""BM25 by bm25s: Lucene's variant, k1 1.2, b 0.75; by default words without English stop words, no stemming."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import bm25s
import numpy as np

from research.errors import UserError
from research.progress import bar, say
from research.retrieval.terms import DEFAULT, Terms, with_marks, without_blanks
from research.types import Queries, Ranking


class Bm25(NamedTuple):
    """A BM25 index in memory.

    Source: Robertson & Zaragoza 2009; Kamphuis et al. 2020 for Lucene's variant.
    """

    scorer: bm25s.BM25
    tokenizer: bm25s.tokenization.Tokenizer
    doc_ids: list[str]  # in descending order: a stable sort by score then breaks ties as trec_eval does

    @classmethod
    def build(
        cls, doc_ids: Sequence[str], docs: Sequence[str], k1: float = 1.2, b: float = 0.75, terms: Terms = DEFAULT
    ) -> "Bm25":
        """Index the documents.

        Args:
            doc_ids: (N,) ids.
            docs: (N,) texts.
            k1: ≥ 0, saturation of the term frequency.
            b: 0 to 1, normalisation by document length.
            terms: what is counted.

        Raises:
            UserError: k1 or b out of range, or no document has a term.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise UserError(f"BM25 with k1={k1}, b={b}: expected k1 ≥ 0 and 0 ≤ b ≤ 1.")
        order = sorted(range(len(doc_ids)), key=doc_ids.__getitem__, reverse=True)
        # bm25s's own stemming finds no form of a word that the documents lack: ours is part of splitting
        splitter = {"splitter": terms.splitter(), "stopwords": None} if terms != DEFAULT else {"stopwords": "english"}
        tokenizer = bm25s.tokenization.Tokenizer(lower=True, **splitter)
        tokens = tokenizer.tokenize([docs[i] for i in order], return_as="ids", show_progress=False, allow_empty=False)
        if not any(tokens):
            raise UserError(
                f"none of the {len(docs)} documents has a word that BM25 could index; expected words of two "
                "letters or more that are not stop words, or what --bm25-tokenizer finds in lower case. Pass "
                r"--bm25-tokenizer regex:\w+ --bm25-stopwords none to take every word."
            )
        scorer = bm25s.BM25(method="lucene", k1=k1, b=b)
        scorer.index((tokens, tokenizer.get_vocab_dict()), create_empty_token=False, show_progress=False)
        return cls(scorer, tokenizer, [doc_ids[i] for i in order])

    def search(self, queries: Queries, top_k: int) -> Ranking:
        """Find the top_k documents of each query; documents that share no term with it are not returned."""
        with bar(len(queries), "bm25", "query") as progress:
            run: Ranking = {}
            for query_id, text in queries.items():
                terms = self._terms(text)
                run[query_id] = self._top(terms, top_k) if len(terms) else {}
                progress.update(1)
        return run

    @staticmethod
    def say_unmatched(queries: Queries, run: Ranking, terms: Terms) -> int:
        """Report how many queries found nothing, and how to correct it."""
        unmatched = [text for query, text in queries.items() if not run.get(query)]
        if unmatched:
            cure = "another --bm25-tokenizer, or a --bm25-stemmer, may find more"
            if terms.tokenizer not in ("characters", "bigrams") and any(map(without_blanks, unmatched)):
                cure = "their script writes no blanks between words: pass --bm25-tokenizer bigrams, or characters"
            elif terms.tokenizer == "words" and any(map(with_marks, unmatched)):
                cure = "they have vowels as marks, at which words end: pass --bm25-tokenizer bigrams, which keeps them"
            say(
                f"bm25: {len(unmatched):,} of {len(queries):,} queries share no term with any document and find nothing, "
                f"{unmatched[0][:60]!r} for example; {cure}"
            )
        return len(unmatched)

    def score_pairs(self, queries: Queries, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Score (query id, doc id) pairs, grouped by query; 0 without a common term."""
        rows = {doc: row for row, doc in enumerate(self.doc_ids)}
        pair_scores: list[float] = []
        for query, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
            terms = self._terms(queries[query])
            scores = self.scorer.get_scores_from_ids(terms) if len(terms) else np.zeros(len(rows))  # (N,)
            pair_scores += [float(scores[rows[doc]]) for _, doc in group]
        return pair_scores

    def _terms(self, text: str) -> list[int]:
        return self.tokenizer.tokenize([text], return_as="ids", update_vocab="never", show_progress=False, allow_empty=False)[0]

    def _top(self, terms: list[int], top_k: int) -> dict[str, float]:
        scores = self.scorer.get_scores_from_ids(terms)  # (N,) float32
        matched = scores > 0
        if top_k < len(scores):
            matched &= scores >= np.partition(scores, -top_k)[-top_k]
        candidates = np.flatnonzero(matched)
        best = candidates[np.argsort(-scores[candidates], kind="stable")][:top_k]
        return {self.doc_ids[i]: float(scores[i]) for i in best}
