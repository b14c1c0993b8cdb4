"""Reranking only re-orders; by hand."""

import pytest

from research.metrics.retrieval import rank_documents
from research.retrieval.rerank import choose_mix, reorder, top_pairs

RUN = {"q": {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0}, "none": {}}


def order(run):
    return {query: rank_documents(docs) for query, docs in run.items()}


def test_top_is_reordered_and_the_tail_keeps_its_order_below():
    found = reorder(RUN, {"q": {"a": -3.0, "b": 5.0}})
    assert list(found["q"]) == ["b", "a", "c", "d"]
    assert order(found)["q"] == ["b", "a", "c", "d"]  # the scores say the same as the order
    assert found["q"] == {"b": 5.0, "a": -3.0, "c": -4.0, "d": -5.0}


def test_no_document_is_added_or_lost():
    found = reorder(RUN, {"q": {"a": 0.0, "b": 1.0, "c": 2.0}})
    assert {query: set(docs) for query, docs in found.items()} == {query: set(docs) for query, docs in RUN.items()}


def test_ties_go_to_the_larger_id():
    assert list(reorder(RUN, {"q": {"a": 1.0, "b": 1.0, "c": 1.0}})["q"]) == ["c", "b", "a", "d"]


def test_mix_by_hand():
    # retriever 9 8 7 → 1 ½ 0; reranker 0 4 1 → 0 1 ¼; λ = 0.4 → .4, .8, .15
    found = reorder(RUN, {"q": {"a": 0.0, "b": 4.0, "c": 1.0}}, mix=0.4)["q"]
    assert {doc: found[doc] for doc in "abc"} == pytest.approx({"a": 0.4, "b": 0.4 * 0.5 + 0.6, "c": 0.6 * 0.25})


def test_mix_of_one_keeps_the_retrievers_order():
    assert list(reorder(RUN, {"q": {"a": 0.0, "b": 4.0, "c": 1.0}}, mix=1.0)["q"]) == ["a", "b", "c", "d"]


def test_equal_scores_mix_without_dividing_by_zero():
    assert list(reorder({"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 2.0, "b": 3.0}}, mix=0.5)["q"]) == ["b", "a"]


def test_scores_of_other_documents_are_a_mistake_of_ours():
    with pytest.raises(AssertionError):
        reorder(RUN, {"q": {"c": 1.0}})


def test_choose_mix_takes_the_best_and_the_smallest_of_equals():
    scores = {"q": {"a": 0.0, "b": 4.0}}  # only λ near 1 keeps a first
    best, values = choose_mix(RUN, scores, lambda run: float(next(iter(run["q"])) == "a"), (0.0, 0.3, 0.8, 1.0))
    assert (best, values) == (0.8, [0.0, 0.0, 1.0, 1.0])


def test_top_pairs_cut_every_query_at_the_depth():
    assert top_pairs(RUN, 2) == [("q", "a"), ("q", "b")]
