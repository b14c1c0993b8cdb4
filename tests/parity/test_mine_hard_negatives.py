"""Mined negatives equal sentence-transformers' `mine_hard_negatives`, an implementation that shares no code with ours.

One positive a query: with more, ours takes the margin of the best, theirs of the worst.
"""

import json

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from research.data.sources import load
from research.types import Document


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([], {}),
        (["--margin", 0.01], {"absolute_margin": 0.01}),
        (["--margin", 0.05], {"absolute_margin": 0.05}),
        (["--relative-margin", 0.97], {"relative_margin": 0.03}),  # they name the share that is missing
        (["--relative-margin", 0.9], {"relative_margin": 0.1}),
        (["--relative-margin", 0.97, "--negatives", 2], {"relative_margin": 0.03, "num_negatives": 2}),
    ],
)
def test_negatives_equal_sentence_transformers(research, collection, tiny_bert, tmp_path, ours, theirs):
    data = load(f"beir:{collection}", "test")
    content = {doc: document.content for doc, document in data.corpus.items()}
    pairs = [(data.queries[query], content[doc]) for query, docs in data.qrels.items() for doc in docs]
    rows = mine_hard_negatives(
        Dataset.from_dict({"query": [query for query, _ in pairs], "positive": [doc for _, doc in pairs]}),
        SentenceTransformer(str(tiny_bert), device="cpu"),
        corpus=list(content.values()),
        range_max=29,
        verbose=False,
        output_format="triplet",
        **{"num_negatives": 29, **theirs},
    )
    expected: dict[str, list[str]] = {query: [] for query, _ in pairs}
    for row in rows:
        expected[row["query"]].append(row["negative"])

    done = research(
        "mine",
        "--data",
        f"beir:{collection}",
        "--split",
        "test",
        "--retriever",
        tiny_bert,
        *ours,
        "--out",
        tmp_path / "negatives.jsonl",
    )
    assert done.code == 0, done.err
    mined = map(json.loads, (tmp_path / "negatives.jsonl").read_text().splitlines())
    found = {row["query"]: [Document(doc["title"], doc["text"]).content for doc in row["negative_passages"]] for row in mined}
    assert found == expected
