"""Tiny trainings: a two-layer BERT on forty queries, a second each."""

import itertools
import json
from pathlib import Path

import pytest

from tests.conftest import WORDS, write_collection
from tests.integration.small import Training
from tests.lm import rows, save_tiny


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
            stream.write(
                json.dumps(
                    {
                        "query_id": f"q{i}",
                        "query": queries[f"q{i}"],
                        "positive_passages": [passage(f"d{i}")],
                        "negative_passages": [passage(doc) for doc in negatives],
                    }
                )
                + "\n"
            )
    with open(folder / "dev.trec", "w") as stream:
        for i in range(1, 40, 2):
            for position in range(8):
                stream.write(f"q{i} Q0 d{(i + 5 - position) % 60} {position + 1} {8 - position} run\n")
    assert len(WORDS) > 60
    return folder


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory) -> Path:
    """A two-layer language model with a byte tokenizer."""
    return save_tiny(tmp_path_factory.mktemp("lm") / "model")


@pytest.fixture(scope="session")
def language_data(tmp_path_factory) -> Path:
    """Twenty instructions and twenty preference pairs to train on, eight of each to validate on."""
    folder = tmp_path_factory.mktemp("language")
    made = rows(60)
    pairs = [
        {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(made)
    ]
    for name, some in {"sft": made[:20], "sft-val": made[20:28], "dpo": pairs[:20], "dpo-val": pairs[20:28]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return folder


@pytest.fixture
def training(tiny_bert, tiny_lm, training_data, language_data, tmp_path, monkeypatch):
    """training(kind, name, **options) → Training in a run folder of that name."""
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))

    def make(kind: str, name: str, **options) -> Training:
        model, data = (tiny_lm, language_data) if kind in ("sft", "dpo") else (tiny_bert, training_data)
        return Training(kind, model, data, tmp_path / name, **options)

    return make
