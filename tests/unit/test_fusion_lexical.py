"""Fusion and BM25 by hand."""

import math

import numpy as np
import pytest

from research.errors import UserError
from research.retrieval.fusion import reciprocal_rank_fusion
from research.retrieval.lexical import Bm25


def test_reciprocal_rank_fusion_by_hand():
    fused = reciprocal_rank_fusion([{"q": {"a": 9.0, "b": 8.0}}, {"q": {"b": 0.5, "c": 0.4}}], top_k=10)
    assert fused["q"] == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "c": 1 / 62}, rel=1e-7)
    assert list(fused["q"]) == ["b", "a", "c"]


def test_query_that_one_run_lacks_keeps_the_other_runs_ranking():
    fused = reciprocal_rank_fusion([{"q": {"a": 1.0}}, {"r": {"b": 1.0}}], top_k=1)
    assert {query: list(docs) for query, docs in fused.items()} == {"q": ["a"], "r": ["b"]}
    assert fused["q"]["a"] == fused["r"]["b"] == pytest.approx(1 / 61)


def test_scores_are_the_float32_that_the_run_file_holds():
    """Else a run that was read back could rank sums in another order than the run in memory did."""
    lists = [
        {"q": {f"d{(7 * i) % 50}": float(-i) for i in range(50)}},
        {"q": {f"d{(11 * i) % 50}": float(-i) for i in range(50)}},
    ]
    for score in reciprocal_rank_fusion(lists, top_k=50)["q"].values():
        assert np.float32(float(f"{score:.9g}")) == np.float32(score)
        assert float(np.float32(score)) == score


def test_ties_at_the_cut_go_to_the_larger_id():
    assert list(reciprocal_rank_fusion([{"q": {"a": 1.0}}, {"q": {"b": 1.0}}], top_k=1)["q"]) == ["b"]


def test_bm25_score_by_hand():
    docs = {"d1": "apple banana apple", "d2": "banana cherry", "d3": "durian"}
    run = Bm25.build(list(docs), list(docs.values())).search({"q": "apple"}, top_k=3)
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    length = 3 / 2  # of d1, over the mean of 3, 2 and 1
    expected = idf * 2 / (2 + 1.2 * (1 - 0.75 + 0.75 * length))  # Lucene leaves out the constant factor k1 + 1
    assert run == {"q": {"d1": pytest.approx(expected, rel=1e-6)}}


def test_bm25_ties_go_to_the_larger_id_also_at_the_cut():
    docs = {f"d{i}": "same words" for i in (3, 1, 2, 4)}
    assert list(Bm25.build(list(docs), list(docs.values())).search({"q": "same"}, top_k=2)["q"]) == ["d4", "d3"]


def test_bm25_query_of_unknown_and_stop_words_finds_nothing():
    run = Bm25.build(["d"], ["apple"]).search({"q": "zebra", "s": "the of", "e": "?"}, top_k=1)
    assert run == {"q": {}, "s": {}, "e": {}}


@pytest.mark.parametrize(("k1", "b"), [(-1, 0.5), (1, 1.5), (1, -0.1)])
def test_bm25_parameters_out_of_range_are_refused(k1, b):
    with pytest.raises(UserError, match="expected k1"):
        Bm25.build(["d"], ["apple"], k1, b)


def test_bm25_corpus_without_words_is_refused():
    with pytest.raises(UserError, match="none of the 2 documents"):
        Bm25.build(["d", "e"], ["?", "a"])
