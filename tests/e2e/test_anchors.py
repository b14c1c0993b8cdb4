"""The published numbers, reproduced from the command line: all-MiniLM-L6-v2 and BM25 on real collections."""

import pytest

from research.models.sources import MINILM
from tests.conftest import ROOT

pytestmark = [pytest.mark.thorough, pytest.mark.model, pytest.mark.data]
ANCHORS = {  # nDCG@10 on the test split: dense by exact search in fp32, BM25
    "cranfield": (0.5162, 0.5281),
    "squad": (0.7430, 0.8329),
}


@pytest.fixture(scope="module")
def answers(tandem_data, minilm, tmp_path_factory):
    """Both collections retrieved once, exact and HNSW, sharing the embeddings."""
    import json
    import os
    import subprocess
    import sys

    scratch = tmp_path_factory.mktemp("anchors")
    environment = {**os.environ, "TANDEM_CACHE": str(scratch / "cache")}

    def retrieve(name, out, *extra):
        command = [
            sys.executable,
            "-m",
            "research",
            "retrieve",
            "--data",
            f"beir:{tandem_data / name}",
            "--split",
            "test",
            "--retriever",
            MINILM,
            "--out",
            str(scratch / out),
            "--json",
            *extra,
        ]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=550)
        return json.loads(done.stdout)["stages"]

    return {
        name: {
            "exact": retrieve(name, f"{name}-exact", "--retriever", "bm25"),
            "hnsw": retrieve(name, f"{name}-hnsw", "--index", "hnsw", "--ef", "200"),
        }
        for name in ANCHORS
    }


@pytest.mark.parametrize("name", ANCHORS)
def test_dense_exact_search_gives_the_anchor(answers, name):
    assert answers[name]["exact"]["dense"]["ndcg@10"] == pytest.approx(ANCHORS[name][0], abs=0.002)


@pytest.mark.parametrize("name", ANCHORS)
def test_bm25_gives_the_anchor(answers, name):
    assert answers[name]["exact"]["bm25"]["ndcg@10"] == pytest.approx(ANCHORS[name][1], abs=0.01)


@pytest.mark.parametrize("name", ANCHORS)
def test_hnsw_at_ef_200_is_within_three_thousandths_of_exact(answers, name):
    exact, hnsw = answers[name]["exact"]["dense"], answers[name]["hnsw"]["dense"]
    assert hnsw["ndcg@10"] == pytest.approx(exact["ndcg@10"], abs=0.003)
    assert hnsw["ann_recall@100"] > 0.97
