"""Tiny trainings: a two-layer BERT on forty queries, a second each."""

import json
from pathlib import Path

import pytest

from tests.conftest import WORDS, write_collection
from tests.integration.small import Training


@pytest.fixture(scope="session")
def training_data(tmp_path_factory) -> Path:
    """A BEIR folder of 60 documents and 40 queries, with a triplets file and a run of its dev split."""
    folder = write_collection(tmp_path_factory.mktemp("data") / "collection", documents=60, queries=40)
    corpus = {row["_id"]: row for row in map(json.loads, (folder / "corpus.jsonl").read_text().splitlines())}
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").read_text().splitlines())}

    def passage(doc: str) -> dict:
        return {"docid": doc, "title": corpus[doc]["title"], "text": corpus[doc]["text"]}

    with open(folder / "triplets.jsonl", "w") as stream:
        for i in range(0, 40, 2):
            negatives = [f"d{(i + 1 + j) % 60}" for j in range(2 + i % 5)]  # groups of unequal size
            stream.write(json.dumps({
                "query_id": f"q{i}", "query": queries[f"q{i}"], "positive_passages": [passage(f"d{i}")],
                "negative_passages": [passage(doc) for doc in negatives],
            }) + "\n")  # fmt: skip
    with open(folder / "dev.trec", "w") as stream:
        for i in range(1, 40, 2):
            for position in range(8):
                stream.write(f"q{i} Q0 d{(i + 5 - position) % 60} {position + 1} {8 - position} run\n")
    assert len(WORDS) > 60
    return folder


@pytest.fixture
def training(tiny_bert, training_data, tmp_path):
    """training(kind, name, **options) → Training in a run folder of that name."""

    def make(kind: str, name: str, **options) -> Training:
        return Training(kind, tiny_bert, training_data, tmp_path / name, **options)

    return make
