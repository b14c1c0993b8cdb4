"""BEIR folders for tests."""

import json
from pathlib import Path

from research.runs.files import atomic_write
from research.types import Corpus, Qrels, Queries


def write_beir(folder: Path, corpus: Corpus, queries: Queries, qrels: dict[str, Qrels]) -> None:
    """Write a BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv."""
    with atomic_write(folder / "corpus.jsonl") as stream:
        for doc_id, doc in corpus.items():
            row = {"_id": doc_id, "title": doc.title, "text": doc.text}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic_write(folder / "queries.jsonl") as stream:
        for query_id, text in queries.items():
            stream.write(json.dumps({"_id": query_id, "text": text}, ensure_ascii=False) + "\n")
    for split, judgements in qrels.items():
        with atomic_write(folder / "qrels" / f"{split}.tsv") as stream:
            stream.write("query-id\tcorpus-id\tscore\n")
            for query_id, docs in judgements.items():
                stream.writelines(f"{query_id}\t{doc_id}\t{grade}\n" for doc_id, grade in docs.items())
