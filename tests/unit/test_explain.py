"""A page explains each metric that it shows."""

from argparse import ArgumentParser

from research.metrics import retrieval
from research.report import explain
from research.verbs.options import add_metrics


def test_a_metric_without_a_sentence_is_explained_by_its_function(monkeypatch):
    def success(gains, judged, k):
        """1 if any of the first k is relevant, else 0."""
        return float(any(gain > 0 for gain in gains[:k]))

    monkeypatch.setitem(retrieval.METRICS, "success", (success, "higher"))
    terms = dict(explain.definitions(["ndcg@10", "success@5"], ann=False))
    assert terms["success@5"] == "1 if any of the first k is relevant, else 0."
    assert "first 10" in terms["nDCG@10"]


def test_help_names_every_metric():
    parser = ArgumentParser()
    add_metrics(parser)
    assert all(name in parser.format_help() for name in retrieval.METRICS)
