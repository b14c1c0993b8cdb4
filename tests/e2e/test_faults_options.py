"""Command lines that ask for what cannot be: refused before anything heavy is imported."""

import pytest
from faults import MAKE_RUN, Row, append, cells, furnish, refuse, write

ALL = "encode retrieve evaluate report quickstart"
READERS = "encode retrieve evaluate"
ENCODERS = "encode retrieve"
HUGE = "9" * 20
DENSE = "--index hnsw"
TAKEN = (write("out", "mine"),)
FOREIGN = (write("out/thesis.txt", "mine"),)

WRONG_TYPE = [
    Row("wrong type", "--top-k is a word", "retrieve", "--top-k", "invalid int value: 'abc'", "--help", "--top-k abc"),
    Row("wrong type", "--max-length is a fraction", ENCODERS, "--max-length", "invalid int value: '1.5'", "--help",
        "--max-length 1.5"),
    Row("wrong type", "--token-budget is a word", "encode", "--token-budget", "invalid int value: 'all'", "--help",
        "--token-budget all"),
    Row("wrong type", "--bm25-b is a word", "retrieve", "--bm25-b", "invalid float value: 'high'", "--help",
        "--bm25-b high"),
    Row("wrong type", "option without its value", ALL, "--out", "expected one argument", "--help", "--out"),
    Row("wrong type", "flag with a value", READERS, "'yes'", "--skip-bad-rows", "--help", "--skip-bad-rows=yes"),
    Row("wrong type", "argument that is not UTF-8", ALL, r"\udcff", "expected text", "Rename the file",
        "--out out\udcff"),
]  # fmt: skip

UNKNOWN_NAMES = [
    Row("wrong value", "unknown verb", "retrieve", "'retreive'", "did you mean 'retrieve'? known: encode", "--help",
        "research retreive --out out"),
    Row("wrong value", "unknown option", ALL, "--otu", "did you mean '--out'? known: --", "--help", "--otu x"),
    Row("wrong value", "option that lacks a letter", "encode", "--mode", "did you mean '--model'?", "--help",
        "research encode --data beir:collection --mode ./model --out out"),
    Row("wrong value", "argument too many", READERS.replace("evaluate", "quickstart"), "spare", "unrecognized arguments",
        "--help", "spare"),
    Row("wrong value", "unknown index", "retrieve", "'hsnw'", "did you mean 'hnsw'? known: exact, hnsw", "--help",
        "--index hsnw"),
    Row("wrong value", "unknown tower", "encode", "'docs'", "did you mean 'doc'? known: doc, query", "--help",
        "--tower docs"),
    Row("wrong value", "unknown pooling", ENCODERS, "'max'", "known: cls, last, mean", "--help", "--pooling max"),
    Row("wrong value", "unknown precision", ENCODERS, "'fp16'", "known: bf16, fp32", "--help", "--precision fp16"),
    Row("wrong value", "unknown similarity", ENCODERS, "'cosin'", "did you mean 'cosine'?", "--help",
        "--similarity cosin"),
    Row("wrong value", "unknown W&B mode", "retrieve", "'on'", "known: auto, disabled, offline, online", "--help",
        "--wandb on"),
    Row("wrong value", "unknown metric", "retrieve evaluate", "'ndgc@10'", "NAME one of ndcg, mrr", "for example ndcg@10",
        "--metrics ndgc@10"),
    Row("wrong value", "metric without a cut", "retrieve evaluate", "'ndcg'", "expected NAME@K", "for example ndcg@10",
        "--metrics mrr@10 ndcg"),
    Row("wrong value", "metric cut at 0", "retrieve evaluate", "'ndcg@0'", "K ≥ 1", "for example ndcg@10",
        "--metrics ndcg@0"),
    Row("wrong value", "unknown kind of source", READERS, "'csv:collection'", "expected builtin:stdlib",
        "beir:PATH", "--data csv:collection"),
    Row("wrong value", "unknown builtin", READERS, "'stdlb'", "did you mean 'stdlib'?", "known: packages, stdlib",
        "--data builtin:stdlb"),
    Row("wrong value", "impossible model name", "encode", "'a b'", "hub id (org/name", "Check the spelling",
        "--model 'a b'"),
    Row("wrong value", "impossible retriever name", "retrieve", "'a b'", "hub id (org/name", "Check the spelling",
        "--retriever 'a b'"),
    Row("wrong value", "queries of no split", "encode", "--tower query", "--split", "Pass --split test", "--tower query"),
]  # fmt: skip

EMPTY = [
    Row("wrong value", "empty --data", READERS, "''", "expected builtin:stdlib", "beir:PATH", "--data ''"),
    Row("wrong value", "empty path after beir:", READERS, "'beir:'", "expected builtin:stdlib", "beir:PATH",
        "--data beir:"),
    Row("wrong value", "empty --split", READERS, "''", "known: dev, test", "--split", "--split ''"),
    Row("wrong value", "empty --out", ALL, "--out: ''", "expected a path", "for example ./out", "--out ''"),
    Row("wrong value", "empty --model", "encode", "''", "expected a model folder", "Name one", "--model ''"),
    Row("wrong value", "empty --retriever", "retrieve", "''", "expected a model folder", "Name one", "--retriever ''"),
    Row("wrong value", "empty --embeddings", "retrieve", "--embeddings: ''", "expected a path", "for example",
        "--embeddings ''"),
    Row("wrong value", "empty --cache", "retrieve", "--cache: ''", "expected a path", "for example", "--cache ''"),
    Row("wrong value", "empty --runs", "evaluate", "--runs: ''", "expected a path", "for example", "--runs ''"),
    Row("wrong value", "empty run folder name", "report", "RUN: ''", "expected a path", "for example",
        "research report '' --out out"),
    Row("wrong value", "empty metric", "retrieve evaluate", "''", "expected NAME@K", "for example ndcg@10",
        "--metrics ''"),
]  # fmt: skip

RANGES = [
    *(Row("wrong value", f"{option} {value}", verbs, f"{option} {value};", f"expected {least}", "Leave it out", flags)
      for option, value, least, verbs in (
          ("--top-k", "0", "1 to", "retrieve"), ("--top-k", "-5", "1 to", "retrieve"),
          ("--top-k", HUGE, "1 to 1,000,000,000", "retrieve"),
          ("--ef", "0", "1 to", "retrieve"), ("--ef", HUGE, "1 to 1,000,000,000", "retrieve"),
          ("--hnsw-m", "1", "2 to 10,000", "retrieve"), ("--hnsw-m", "10001", "2 to 10,000", "retrieve"),
          ("--ef-construction", "0", "1 to", "retrieve"), ("--index-threads", "0", "1 to 1,024", "retrieve"),
          ("--index-threads", HUGE, "1 to 1,024", "retrieve"),
          ("--token-budget", "0", "1 or more", "encode"), ("--token-budget", "-1", "1 or more", "encode"),
          ("--max-length", "0", "4 tokens or more", ENCODERS), ("--max-length", "-8", "4 tokens or more", ENCODERS),
          ("--query-max-length", "0", "4 tokens or more", ENCODERS),
          ("--doc-max-length", "3", "4 tokens or more", ENCODERS),
      ) for flags in (f"{option} {value}",)),
    *(Row("wrong value", f"--bm25-{name} {value}", "retrieve", f"--bm25-{name} {shown}", "k1 from 0 to 1,000 and b from 0",
          "Leave them out", f"--bm25-{name}={value}")
      for name, value, shown in (("b", "2", "2.0"), ("b", "-0.1", "-0.1"), ("b", "nan", "nan"), ("b", "inf", "inf"),
                                 ("k1", "-1", "-1.0"), ("k1", "nan", "nan"), ("k1", "inf", "inf"))),
    Row("wrong value", "--ef below --top-k with HNSW", "retrieve", "top_k=50 exceeds ef=20", "or more", "pass --ef 50",
        "--index hnsw --top-k 50 --ef 20"),
    Row("wrong value", "--max-length beyond the model's positions", ENCODERS, "max length 65", "expected 4 to 64 tokens",
        "Pass --max-length", "--max-length 65"),
    Row("wrong value", "--embeddings without a dense retriever", "retrieve", "--embeddings store", "expected exactly one",
        "Remove", "research retrieve --data beir:collection --split test --retriever bm25 --embeddings store --out out"),
]  # fmt: skip

PLACES = [
    Row("wrong value", "--out is a file", "encode retrieve evaluate report", "--out out is a file", "expected a folder",
        "Name another", breaks=TAKEN, before=(MAKE_RUN,)),
    Row("wrong value", "--out lies below a file", "encode retrieve evaluate report", "good.trec/out", "a directory",
        "another folder", "--out good.trec/out", before=(MAKE_RUN,)),
    Row("wrong value", "--out has too long a name", "encode retrieve evaluate report", "n" * 300, "expected a path",
        "Check the path", f"--out {'n' * 300}", before=(MAKE_RUN,)),
    Row("wrong value", "--out holds another's files", "retrieve evaluate report", "--out out holds files",
        "nothing was touched", "Name a new or empty folder", breaks=FOREIGN, before=(MAKE_RUN,)),
    Row("wrong value", "--out holds another's files", "encode", "out holds other files (thesis.txt)",
        "expected a new or empty folder", "Name another", breaks=FOREIGN),
    Row("wrong value", "--out is a run folder", "encode", "run holds other files", "expected a new or empty folder",
        "Name another", "--out run", before=(MAKE_RUN,)),
    Row("wrong value", "--out is a run folder", "report", "--out run holds files", "nothing was touched",
        "Name a new or empty folder", "--out run", before=(MAKE_RUN,)),
    Row("wrong value", "data with a name too long", READERS, "n" * 300, "expected a path", "Check the path",
        f"--data beir:{'n' * 300}"),
    Row("wrong value", "run folder kept when its next command is refused", "retrieve", "collection/corpus.jsonl:31",
        "expected an object", "Mend the line", "--out run", before=(MAKE_RUN,),
        breaks=(append("collection/corpus.jsonl", "[]"),)),
]  # fmt: skip

QUICKSTART_PLACES = [
    Row("wrong value", "--out is a file", "quickstart", "out", "a directory", "another folder", breaks=TAKEN),
    Row("wrong value", "its run folder holds another's files", "quickstart", "out/exact holds files",
        "nothing was touched", "Name a new or empty folder", breaks=(write("out/exact/thesis.txt", "mine"),)),
]  # fmt: skip

ROWS = [*WRONG_TYPE, *UNKNOWN_NAMES, *EMPTY, *RANGES, *PLACES, *QUICKSTART_PLACES]


@pytest.mark.parametrize("cell", cells(ROWS))
def test_fault_on_the_command_line_is_refused(cell, research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    refuse(cell, research, monkeypatch)
