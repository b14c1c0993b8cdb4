"""Retrieval metrics on values that a reader can check by hand."""

from math import log2

import pytest

from research.errors import UserError
from research.metrics.retrieval import evaluate, mean, rank_documents, unscorable

QRELS = {"q": {"a": 3, "b": 0, "c": 1, "x": 2}}  # x is relevant and never retrieved
RUN = {"q": {"b": 9.0, "a": 8.0, "u": 7.0, "c": 6.0}}  # u is unjudged; gains in rank order: 0 3 0 1
IDEAL = 3 + 2 / log2(3) + 1 / log2(4)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("ndcg@1", 0.0),
        ("ndcg@2", (3 / log2(3)) / (3 + 2 / log2(3))),
        ("ndcg@4", (3 / log2(3) + 1 / log2(5)) / IDEAL),
        ("mrr@1", 0.0),
        ("mrr@10", 1 / 2),
        ("map@4", (1 / 2 + 2 / 4) / 3),
        ("map@2", (1 / 2) / 3),
        ("recall@2", 1 / 3),
        ("recall@4", 2 / 3),
        ("precision@4", 2 / 4),
        ("precision@10", 2 / 10),  # over k, though only four were retrieved
    ],
)
def test_metric_by_hand(metric, value):
    assert evaluate(QRELS, RUN, [metric])[metric]["q"] == pytest.approx(value, abs=1e-12)


def test_ties_go_to_the_larger_id_whatever_the_order_of_insertion():
    assert rank_documents({"a": 1.0, "c": 1.0, "b": 1.0}) == ["c", "b", "a"]


def test_scores_that_differ_below_float32_are_ties():
    assert rank_documents({"a": 1.0 + 1e-12, "b": 1.0}) == ["b", "a"]


def test_query_missing_from_the_run_counts_zero():
    values = evaluate({"q": {"a": 1}, "r": {"a": 1}}, {"q": {"a": 1.0}}, ["mrr@10"])["mrr@10"]
    assert values == {"q": 1.0, "r": 0.0}
    assert mean(values) == 0.5


def test_query_without_relevant_documents_is_left_out_and_listed():
    qrels = {"q": {"a": 1}, "none": {"a": 0, "b": -1}}
    assert set(evaluate(qrels, {"none": {"a": 1.0}}, ["mrr@10"])["mrr@10"]) == {"q"}
    assert unscorable(qrels) == ["none"]


def test_arguments_are_not_changed():
    qrels, run = {"q": {"b": 1, "a": 2}}, {"q": {"b": 1.0, "a": 2.0}}
    evaluate(qrels, run)
    assert (list(qrels["q"].items()), list(run["q"].items())) == ([("b", 1), ("a", 2)], [("b", 1.0), ("a", 2.0)])


def test_a_misspelt_metric_is_told_the_right_one():
    with pytest.raises(UserError, match=r"Did you mean ndcg@20\?"):
        evaluate(QRELS, RUN, ["ndgc@20"])


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@ten", "ndgc@10", "ndcg@-1", "@10"])
def test_unknown_metric_is_refused(name):
    with pytest.raises(UserError, match="expected NAME@K"):
        evaluate(QRELS, RUN, [name])
