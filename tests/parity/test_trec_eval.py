"""Every metric equals trec_eval's (pytrec_eval-terrier), on golden rows and on 200 random runs."""

import random

import pytest

from research.metrics.retrieval import evaluate, rank_documents

pytrec_eval = pytest.importorskip("pytrec_eval")
NAMES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}
CUTS = (1, 3, 10, 100)
OURS = [f"{name}@{k}" for name in (*NAMES, "mrr") for k in CUTS]

GOLDEN = {
    "ties": ({"q": {"a": 1, "c": 2}}, {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}),
    "ties below float32": ({"q": {"a": 1}}, {"q": {"a": 0.1 + 1e-10, "b": 0.1}}),
    "graded": ({"q": {"a": 4, "b": 1, "c": 2, "d": 3}}, {"q": {"b": 3.0, "d": 2.0, "a": 1.0}}),
    "zero grades": ({"q": {"a": 0, "b": 1, "c": 0}}, {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}),
    "negative grades": ({"q": {"a": -1, "b": 1}}, {"q": {"a": 3.0, "b": 2.0}}),
    "unjudged above": ({"q": {"b": 1}}, {"q": {"x": 3.0, "y": 2.5, "b": 2.0}}),
    "nothing relevant found": ({"q": {"b": 1}}, {"q": {"x": 3.0}}),
    "more relevant than the cut": ({"q": {f"d{i}": 1 for i in range(20)}}, {"q": {f"d{i}": -i for i in range(20)}}),
    "ids beyond ASCII": ({"q": {"é": 1, "z": 1}}, {"q": {"é": 1.0, "z": 1.0, "𝄞": 1.0, "\uffee": 1.0}}),
    "empty run": ({"q": {"a": 1}}, {}),
    "query missing from the run": ({"q": {"a": 1}, "r": {"b": 1}}, {"q": {"a": 1.0}}),
    "query without a relevant document": ({"q": {"a": 1}, "none": {"b": 0}}, {"q": {"a": 1.0}, "none": {"b": 1.0}}),
    "negative scores": ({"q": {"a": 1}}, {"q": {"a": -5.0, "b": -4.0, "c": -6.0}}),
}


def trec_eval(qrels, run):
    """{metric: {query: value}} by trec_eval itself; mrr@k is recip_rank of the run cut at k."""
    cuts = ",".join(map(str, CUTS))
    found = pytrec_eval.RelevanceEvaluator(qrels, {f"{theirs}.{cuts}" for theirs in NAMES.values()}).evaluate(run)
    values = {
        f"{ours}@{k}": {query: row[f"{theirs}_{k}"] for query, row in found.items()}
        for ours, theirs in NAMES.items()
        for k in CUTS
    }
    for k in CUTS:
        cut = {query: {doc: docs[doc] for doc in rank_documents(docs)[:k]} for query, docs in run.items()}
        ranks = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(cut)
        values[f"mrr@{k}"] = {query: row["recip_rank"] for query, row in ranks.items()}
    return values


def assert_equal(qrels, run):
    ours, theirs = evaluate(qrels, run, OURS), trec_eval(qrels, run)
    scorable = {query for query, docs in qrels.items() if any(grade > 0 for grade in docs.values())}
    for metric in OURS:
        assert ours[metric].keys() == scorable
        for query, value in ours[metric].items():
            assert value == pytest.approx(theirs[metric].get(query, 0.0), abs=1e-6), (metric, query)


@pytest.mark.parametrize("case", GOLDEN)
def test_golden(case):
    assert_equal(*GOLDEN[case])


def test_golden_values_do_not_move():
    """The numbers themselves, so that a change in the oracle is seen too."""
    values = evaluate(*GOLDEN["graded"], ["ndcg@10", "map@10", "mrr@10"])
    # gains 1 3 4 over the ideal 4 3 2 1: (1 + 3/1.58496 + 4/2) / (4 + 3/1.58496 + 2/2 + 1/2.32193)
    assert values["ndcg@10"]["q"] == pytest.approx(4.892789 / 7.323466, abs=1e-6)
    assert values["map@10"]["q"] == 3 / 4  # three of four relevant, found at ranks 1, 2 and 3
    assert values["mrr@10"]["q"] == 1.0


@pytest.mark.parametrize("seed", range(200))
def test_random_runs(seed):
    """Ties (few distinct scores), graded, zero and negative grades, unjudged documents, missing queries."""
    rng = random.Random(seed)
    docs = [f"d{i}" for i in range(rng.randrange(5, 200))]
    grades = rng.choice([[0, 1], [0, 0, 1, 2, 3], [-1, 0, 1, 4], [1]])
    score = rng.choice([rng.random, lambda: rng.randrange(4), lambda: round(rng.gauss(0, 1), 1), lambda: 1e-9 * rng.random()])
    queries = [f"q{i}" for i in range(12)]
    qrels = {q: {d: rng.choice(grades) for d in rng.sample(docs, rng.randrange(1, len(docs)))} for q in queries}
    run = {q: {d: float(score()) for d in rng.sample(docs, rng.randrange(1, len(docs)))} for q in queries if rng.random() < 0.9}
    run["not judged"] = {docs[0]: 1.0}
    assert_equal(qrels, run)
