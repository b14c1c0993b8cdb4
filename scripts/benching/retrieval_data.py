"""Rows of the retrieval trainings' benchmark: a triplets file that every side reads, in the order of training."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benching import ROOT
from benching.shapes import texts_of

GROUP = 8  # candidates of a query


def squad_pairs() -> list[tuple[str, str]]:
    """One question a passage, in an order that mixes the articles."""
    folder = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data")) / "squad"
    if not folder.is_dir():
        sys.exit(f"error: {folder} does not exist; set TANDEM_DATA, or pass --random-weights for made-up texts")
    rows = {name: [json.loads(line) for line in open(folder / f"{name}.jsonl")] for name in ("corpus", "queries")}
    docs = {row["_id"]: f"{row['title']} {row['text']}" for row in rows["corpus"]}
    queries = {row["_id"]: row["text"] for row in rows["queries"]}
    first: dict[str, str] = {}
    for line in (folder / "qrels" / "all.tsv").read_text().splitlines()[1:]:
        query, doc, _ = line.split("\t")
        first.setdefault(doc, query)
    pairs = [(queries[query], docs[doc]) for doc, query in first.items()]
    return [pairs[i * 1009 % len(pairs)] for i in range(len(pairs))]  # 1009 is prime to their number


def made_up_pairs(task: str, tokens: int | None, count: int) -> list[tuple[str, str]]:
    """Both texts of a contrastive pair have `tokens` tokens; a query and its document together, where they are one input."""
    if tokens is None:
        return [(" ".join(text.split()[:12]), text) for text in texts_of(count)]
    if task == "contrastive":
        return list(zip(texts_of(count, tokens - 2, seed=1), texts_of(count, tokens - 2, seed=2), strict=True))
    query = tokens // 4
    return list(zip(texts_of(count, query, seed=1), texts_of(count, tokens - query - 3, seed=2), strict=True))


def groups_of(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Of eight pairs each: every query with its own document first and the seven others after it."""
    for start in range(0, len(pairs) - GROUP + 1, GROUP):
        some = [pairs[start + i][1] for i in range(GROUP)]
        for i in range(GROUP):
            yield pairs[start + i][0], [some[(i + j) % GROUP] for j in range(GROUP)]


def write_rows(pairs: list[tuple[str, str]], task: str, path: Path) -> Path:
    """A tevatron triplets file, in the order of training."""

    def passages(texts: Sequence[str]) -> list[dict]:
        return [{"docid": numbers[text], "title": "", "text": text} for text in texts]

    numbers = {doc: f"d{i}" for i, (_, doc) in enumerate(pairs)}
    rows = [(query, [doc]) for query, doc in pairs] if task == "contrastive" else list(groups_of(pairs))
    with open(path, "w") as stream:
        for i, (query, docs) in enumerate(rows):
            row = {
                "query_id": f"q{i}",
                "query": query,
                "positive_passages": passages(docs[:1]),
                "negative_passages": passages(docs[1:]),
            }
            stream.write(json.dumps(row) + "\n")
    return path


def batches_of(path: str, task: str, pairs: int) -> Iterator[list[tuple[str, str]]]:
    """(query, document) of each step, without end; a cross-encoder's step has pairs/8 queries, their own documents first."""
    rows = [json.loads(line) for line in open(path)]
    flat = [
        (row["query"], passage["text"]) for row in rows for passage in (*row["positive_passages"], *row["negative_passages"])
    ]
    whole = len(flat) // pairs * pairs
    while True:
        for start in range(0, whole, pairs):
            yield flat[start : start + pairs]
