"""Command lines that ask for what cannot be: refused before anything heavy is imported."""

import pytest
from faults import MAKE_NEGATIVES, MAKE_RUN, Row, append, cells, copy, furnish, refuse, write

ALL = "encode retrieve mine evaluate report quickstart"
READERS = "encode retrieve mine evaluate"
ENCODERS = "encode retrieve mine"
RETRIEVERS = "retrieve mine"
HUGE = "9" * 20
DENSE = "--index hnsw"
TAKEN = (write("out", "mine"),)
FOREIGN = (write("out/thesis.txt", "mine"),)

WRONG_TYPE = [
    Row("wrong type", "--top-k is a word", "retrieve", "--top-k", "invalid int value: 'abc'", "--help", "--top-k abc"),
    Row(
        "wrong type",
        "--max-length is a fraction",
        ENCODERS,
        "--max-length",
        "invalid int value: '1.5'",
        "--help",
        "--max-length 1.5",
    ),
    Row(
        "wrong type",
        "--token-budget is a word",
        "encode",
        "--token-budget",
        "invalid int value: 'all'",
        "--help",
        "--token-budget all",
    ),
    Row("wrong type", "--bm25-b is a word", RETRIEVERS, "--bm25-b", "invalid float value: 'high'", "--help", "--bm25-b high"),
    Row("wrong type", "option without its value", ALL, "--out", "expected one argument", "--help", "--out"),
    Row("wrong type", "flag with a value", READERS, "'yes'", "--skip-bad-rows", "--help", "--skip-bad-rows=yes"),
    Row("wrong type", "argument that is not UTF-8", ALL, r"\udcff", "expected text", "Rename the file", "--out out\udcff"),
]

UNKNOWN_NAMES = [
    Row(
        "wrong value",
        "unknown verb",
        "retrieve",
        "'retreive'",
        "did you mean 'retrieve'? known: encode",
        "--help",
        "research retreive --out out",
    ),
    Row("wrong value", "unknown option", ALL, "--otu", "did you mean '--out'? known: --", "--help", "--otu x"),
    Row(
        "wrong value",
        "option that lacks a letter",
        "encode",
        "--mode",
        "did you mean '--model'?",
        "--help",
        "research encode --data beir:collection --mode ./model --out out",
    ),
    Row(
        "wrong value",
        "argument too many",
        READERS.replace("evaluate", "quickstart"),
        "spare",
        "unrecognized arguments",
        "--help",
        "spare",
    ),
    Row(
        "wrong value",
        "unknown index",
        RETRIEVERS,
        "'hsnw'",
        "did you mean 'hnsw'? known: exact, hnsw",
        "--help",
        "--index hsnw",
    ),
    Row("wrong value", "unknown tower", "encode", "'docs'", "did you mean 'doc'? known: doc, query", "--help", "--tower docs"),
    Row("wrong value", "unknown pooling", ENCODERS, "'max'", "known: cls, last, mean", "--help", "--pooling max"),
    Row("wrong value", "unknown precision", ENCODERS, "'fp16'", "known: bf16, fp32", "--help", "--precision fp16"),
    Row("wrong value", "unknown similarity", ENCODERS, "'cosin'", "did you mean 'cosine'?", "--help", "--similarity cosin"),
    Row(
        "wrong value", "unknown W&B mode", "retrieve", "'on'", "known: auto, disabled, offline, online", "--help", "--wandb on"
    ),
    Row(
        "wrong value",
        "unknown metric",
        "retrieve evaluate",
        "'ndgc@10'",
        "NAME one of ndcg, mrr",
        "for example ndcg@10",
        "--metrics ndgc@10",
    ),
    Row(
        "wrong value",
        "metric without a cut",
        "retrieve evaluate",
        "'ndcg'",
        "expected NAME@K",
        "for example ndcg@10",
        "--metrics mrr@10 ndcg",
    ),
    Row("wrong value", "metric cut at 0", "retrieve evaluate", "'ndcg@0'", "K ≥ 1", "for example ndcg@10", "--metrics ndcg@0"),
    Row(
        "wrong value",
        "unknown kind of source",
        READERS,
        "'csv:collection'",
        "expected builtin:stdlib",
        "beir:PATH",
        "--data csv:collection",
    ),
    Row(
        "wrong value",
        "unknown builtin",
        READERS,
        "'stdlb'",
        "did you mean 'stdlib'?",
        "known: packages, stdlib",
        "--data builtin:stdlb",
    ),
    Row("wrong value", "impossible model name", "encode", "'a b'", "hub id (org/name", "Check the spelling", "--model 'a b'"),
    Row(
        "wrong value",
        "impossible retriever name",
        RETRIEVERS,
        "'a b'",
        "hub id (org/name",
        "Check the spelling",
        "--retriever 'a b'",
    ),
]

EMPTY = [
    Row("wrong value", "empty --data", READERS, "''", "expected builtin:stdlib", "beir:PATH", "--data ''"),
    Row("wrong value", "empty path after beir:", READERS, "'beir:'", "expected builtin:stdlib", "beir:PATH", "--data beir:"),
    Row("wrong value", "empty --split", READERS, "''", "known: dev, test", "--split", "--split ''"),
    Row("wrong value", "empty --out", ALL, "--out: ''", "expected a path", "for example ./out", "--out ''"),
    Row("wrong value", "empty --model", "encode", "''", "expected a model folder", "Name one", "--model ''"),
    Row("wrong value", "empty --retriever", RETRIEVERS, "''", "expected a model folder", "Name one", "--retriever ''"),
    Row(
        "wrong value", "empty --embeddings", "retrieve", "--embeddings: ''", "expected a path", "for example", "--embeddings ''"
    ),
    Row("wrong value", "empty --cache", RETRIEVERS, "--cache: ''", "expected a path", "for example", "--cache ''"),
    Row("wrong value", "empty --runs", "evaluate", "--runs: ''", "expected a path", "for example", "--runs ''"),
    Row(
        "wrong value",
        "empty run folder name",
        "report",
        "RUN: ''",
        "expected a path",
        "for example",
        "research report '' --out out",
    ),
    Row("wrong value", "empty metric", "retrieve evaluate", "''", "expected NAME@K", "for example ndcg@10", "--metrics ''"),
]

RANGES = [
    *(
        Row("wrong value", f"{option} {value}", verbs, f"{option} {value};", f"expected {least}", "Leave it out", flags)
        for option, value, least, verbs in (
            ("--top-k", "0", "1 to", "retrieve"),
            ("--top-k", "-5", "1 to", "retrieve"),
            ("--top-k", HUGE, "1 to 1,000,000,000", "retrieve"),
            ("--ef", "0", "1 to", RETRIEVERS),
            ("--ef", HUGE, "1 to 1,000,000,000", RETRIEVERS),
            ("--hnsw-m", "1", "2 to 10,000", RETRIEVERS),
            ("--hnsw-m", "10001", "2 to 10,000", "retrieve"),
            ("--ef-construction", "0", "1 to", RETRIEVERS),
            ("--index-threads", "0", "1 to 1,024", RETRIEVERS),
            ("--index-threads", HUGE, "1 to 1,024", "retrieve"),
            ("--token-budget", "0", "1 or more", "encode"),
            ("--token-budget", "-1", "1 or more", "encode"),
            ("--max-length", "0", "4 tokens or more", ENCODERS),
            ("--max-length", "-8", "4 tokens or more", ENCODERS),
            ("--query-max-length", "0", "4 tokens or more", ENCODERS),
            ("--doc-max-length", "3", "4 tokens or more", ENCODERS),
        )
        for flags in (f"{option} {value}",)
    ),
    *(
        Row(
            "wrong value",
            f"--bm25-{name} {value}",
            RETRIEVERS,
            f"--bm25-{name} {shown}",
            "k1 from 0 to 1,000 and b from 0",
            "Leave them out",
            f"--bm25-{name}={value}",
        )
        for name, value, shown in (
            ("b", "2", "2.0"),
            ("b", "-0.1", "-0.1"),
            ("b", "nan", "nan"),
            ("b", "inf", "inf"),
            ("k1", "-1", "-1.0"),
            ("k1", "nan", "nan"),
            ("k1", "inf", "inf"),
        )
    ),
    Row(
        "wrong value",
        "--ef below --top-k with HNSW",
        "retrieve",
        "top_k=50 exceeds ef=20",
        "or more",
        "pass --ef 50",
        "--index hnsw --top-k 50 --ef 20",
    ),
    Row(
        "wrong value",
        "--max-length beyond the model's positions",
        ENCODERS,
        "max length 65",
        "expected 4 to 64 tokens",
        "Pass --max-length",
        "--max-length 65",
    ),
    Row(
        "wrong value",
        "--embeddings without a dense retriever",
        "retrieve",
        "--embeddings store",
        "expected exactly one",
        "Name one",
        "research retrieve --data beir:collection --split test --retriever bm25 --embeddings store --out out",
    ),
]

PLACES = [
    Row(
        "wrong value",
        "--out is a file",
        "encode retrieve evaluate report",
        "--out out is a file",
        "expected a folder",
        "Name another",
        breaks=TAKEN,
        before=(MAKE_RUN,),
    ),
    Row(
        "wrong value",
        "--out lies below a file",
        "encode retrieve evaluate report",
        "good.trec/out",
        "a directory",
        "another folder",
        "--out good.trec/out",
        before=(MAKE_RUN,),
    ),
    Row(
        "wrong value",
        "--out has too long a name",
        "encode retrieve evaluate report",
        "n" * 300,
        "expected a path",
        "Check the path",
        f"--out {'n' * 300}",
        before=(MAKE_RUN,),
    ),
    Row(
        "wrong value",
        "--out holds another's files",
        "retrieve evaluate report",
        "--out out holds files",
        "nothing was touched",
        "Name a new or empty folder",
        breaks=FOREIGN,
        before=(MAKE_RUN,),
    ),
    Row(
        "wrong value",
        "--out holds another's files",
        "encode",
        "out holds other files (thesis.txt)",
        "expected a new or empty folder",
        "Name another",
        breaks=FOREIGN,
    ),
    Row(
        "wrong value",
        "--out is a run folder",
        "encode",
        "run holds other files",
        "expected a new or empty folder",
        "Name another",
        "--out run",
        before=(MAKE_RUN,),
    ),
    Row(
        "wrong value",
        "--out is a run folder",
        "report",
        "--out run holds files",
        "nothing was touched",
        "Name a new or empty folder",
        "--out run",
        before=(MAKE_RUN,),
    ),
    Row(
        "wrong value",
        "data with a name too long",
        READERS,
        "n" * 300,
        "expected a path",
        "Check the path",
        f"--data beir:{'n' * 300}",
    ),
    Row(
        "wrong value",
        "run folder kept when its next command is refused",
        "retrieve",
        "collection/corpus.jsonl:31",
        "expected an object",
        "Mend the line",
        "--out run",
        before=(MAKE_RUN,),
        breaks=(append("collection/corpus.jsonl", "[]"),),
    ),
]

QUICKSTART_PLACES = [
    Row("wrong value", "--out is a file", "quickstart", "out", "a directory", "another folder", breaks=TAKEN),
    Row(
        "wrong value",
        "its run folder holds another's files",
        "quickstart",
        "out/exact holds files",
        "nothing was touched",
        "Name a new or empty folder",
        breaks=(write("out/exact/thesis.txt", "mine"),),
    ),
]

RERANKING = [
    Row("wrong type", "--depth is a word", "retrieve", "--depth", "invalid int value: 'deep'", "--help", "--depth deep"),
    Row(
        "wrong type",
        "--reranker-max-length is a word",
        RETRIEVERS,
        "--reranker-max-length",
        "invalid int value: 'long'",
        "--help",
        "--reranker-max-length long",
    ),
    Row(
        "wrong value",
        "--depth without a reranker",
        "retrieve",
        "--depth 5",
        "expected --reranker MODEL",
        "Name one",
        "--depth 5",
    ),
    Row(
        "wrong value", "--mix without a reranker", "retrieve", "--mix 0.5", "expected --reranker MODEL", "Name one", "--mix 0.5"
    ),
    Row(
        "wrong value",
        "--mix-split without a reranker",
        "retrieve",
        "--mix-split dev",
        "expected --reranker MODEL",
        "Name one",
        "--mix-split dev",
    ),
    Row(
        "wrong value",
        "--mix-split beside --mix",
        "retrieve",
        "--mix-split dev chooses λ",
        "no --mix beside it",
        "give --mix alone",
        "--reranker ./reranker --mix-split dev --mix 0.5",
    ),
    Row(
        "wrong value",
        "--mix-split is the split itself",
        "retrieve",
        "--mix-split test",
        "expected another split than",
        "Name a dev split",
        "--reranker ./reranker --mix-split test",
    ),
    Row(
        "wrong value",
        "empty --mix-split",
        "retrieve",
        "''",
        "known: dev, test",
        "--mix-split",
        "--reranker ./reranker --mix-split ''",
    ),
    Row(
        "wrong value",
        "--reranker-max-length without a reranker",
        RETRIEVERS,
        "--reranker-max-length 32",
        "expected --reranker MODEL",
        "Name one",
        "--reranker-max-length 32",
    ),
    Row(
        "wrong value", "--depth 0", "retrieve", "--depth 0", "expected 1 to", "Leave it out", "--reranker ./reranker --depth 0"
    ),
    Row(
        "wrong value",
        "--depth beyond --top-k",
        "retrieve",
        "--depth 30 exceeds --top-k 20",
        "expected at most",
        "smaller depth",
        "--reranker ./reranker --top-k 20 --depth 30",
    ),
    Row("wrong value", "--mix 1.5", "retrieve", "--mix 1.5", "expected 0", "Pass --mix", "--reranker ./reranker --mix 1.5"),
    Row("wrong value", "--mix nan", "retrieve", "--mix nan", "expected 0", "Pass --mix", "--reranker ./reranker --mix nan"),
    Row(
        "wrong value",
        "--reranker-max-length beyond the model's positions",
        RETRIEVERS,
        "max length 65",
        "expected 8 to 64",
        "Pass a --reranker-max-length",
        "--reranker ./reranker --reranker-max-length 65",
    ),
    Row(
        "wrong value",
        "--reranker-max-length too short for a pair",
        RETRIEVERS,
        "max length 7",
        "expected 8 to 64",
        "Pass a --reranker-max-length",
        "--reranker ./reranker --reranker-max-length 7",
    ),
    Row("wrong value", "empty --reranker", RETRIEVERS, "''", "expected a model folder", "Name one", "--reranker ''"),
    Row(
        "wrong value",
        "impossible reranker name",
        RETRIEVERS,
        "'a b'",
        "hub id (org/name",
        "Check the spelling",
        "--reranker 'a b'",
    ),
]

MINING = [
    Row("wrong type", "--negatives is a word", "mine", "--negatives", "invalid int value: 'all'", "--help", "--negatives all"),
    Row("wrong type", "--margin is a word", "mine", "--margin", "invalid float value: 'wide'", "--help", "--margin wide"),
    *(
        Row("wrong value", f"--ranks {ranks}", "mine", f"'{ranks}'", "expected FIRST-LAST", "Correct it", f"--ranks={ranks}")
        for ranks in ("30", "0-5", "5-4", "1-", "-3", "a-b", "1-2-3", f"1-{HUGE}")
    ),
    Row(
        "wrong value",
        "--ranks beyond the corpus",
        "mine",
        "--ranks 31-40",
        "30 documents; expected",
        "Pass --ranks",
        "--ranks 31-40",
    ),
    Row("wrong value", "--negatives 0", "mine", "--negatives 0", "expected 1 to 30", "Leave it out", "--negatives 0"),
    Row(
        "wrong value",
        "more --negatives than --ranks",
        "mine",
        "--negatives 6",
        "expected 1 to 5",
        "widen --ranks",
        "--negatives 6 --ranks 6-10",
    ),
    *(
        Row(
            "wrong value",
            f"--margin {value}",
            "mine",
            f"--margin {value}",
            "expected a finite number",
            "Pass --margin",
            f"--margin={value}",
        )
        for value in ("nan", "inf", "-inf")
    ),
    *(
        Row(
            "wrong value",
            f"--relative-margin {value}",
            "mine",
            f"--relative-margin {value}",
            "expected 0 to 1",
            "Pass --relative-margin",
            f"--relative-margin={value}",
        )
        for value in ("-0.1", "1.1", "nan", "inf")
    ),
    Row(
        "wrong value",
        "--relative-margin of logits",
        "mine",
        "--relative-margin 0.9 with --reranker",
        "expected --margin",
        "Pass --margin",
        "--relative-margin 0.9 --reranker ./reranker",
    ),
    *(
        Row(
            "wrong value",
            f"{option} of a fused ranking",
            "mine",
            f"{option} 0.5 with 2 retrievers",
            "expected one",
            "Name one --retriever, or pass --reranker",
            f"--retriever bm25 {option} 0.5",
        )
        for option in ("--margin", "--relative-margin")
    ),
    Row(
        "wrong value",
        "--folds of one retriever",
        "mine",
        "--folds with 1 retriever",
        "expected 2 or more",
        "Name one a fold",
        "--folds",
    ),
    Row(
        "wrong value",
        "a fold without a query",
        "mine",
        "fold 0 of 2 has none of the 1 queries",
        "expected one or more",
        "use fewer retrievers",
        "--folds --retriever bm25",
        (write("collection/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t1\n"),),
    ),
    Row(
        "wrong value",
        "retriever of another fold",
        "mine",
        "without fold 1/2",
        "expected 0/2",
        "Reorder the retrievers",
        "research mine --data beir:collection --split test --retriever ./run --retriever bm25 --folds --out out/n.jsonl",
        (copy("model", "run/model"), write("run/config.yaml", "data: {init_args: {without_fold: 1/2}}")),
    ),
    Row(
        "wrong value",
        "--ef below what is retrieved with HNSW",
        "mine",
        "--ef 50",
        "expected as many or more",
        "Pass --ef 100",
        "--index hnsw --ef 50",
    ),
    Row(
        "wrong value",
        "--out is a folder",
        "mine",
        "--out collection is a folder",
        "expected a file",
        "collection/negatives.jsonl for example",
        "--out collection",
    ),
    Row(
        "wrong value",
        "--out is no .jsonl",
        "mine",
        "--out n.txt does not end in .jsonl",
        "expected a file",
        "n.txt.jsonl",
        "--out n.txt",
    ),
    Row(
        "wrong value",
        "--out lies below a file",
        "mine",
        "good.trec/n.jsonl",
        "expected a writable place",
        "name another folder",
        "--out good.trec/n.jsonl",
    ),
    Row(
        "wrong value",
        "--out has too long a name",
        "mine",
        "n" * 300,
        "expected a path",
        "Check the path",
        f"--out {'n' * 300}.jsonl",
    ),
    Row(
        "wrong value",
        "--out is another's file",
        "mine",
        "--out out/negatives.jsonl exists",
        "expected with it",
        "Name another file",
        breaks=(write("out/negatives.jsonl", "mine"),),
    ),
    Row(
        "wrong value",
        "--out was changed by hand",
        "mine",
        "--out out/negatives.jsonl was changed",
        "expected sha256",
        "delete this one",
        before=(MAKE_NEGATIVES,),
        breaks=(append("out/negatives.jsonl", "{}"),),
    ),
    Row(
        "wrong value",
        "--out was mined from another split",
        "mine",
        "split dev",
        "expected beir:collection split test",
        "Name another file",
        before=(MAKE_NEGATIVES.replace("--split test", "--split dev"),),
    ),
]

BM25_ALONE = "{verb} --data beir:collection --split test --retriever bm25 --out out{end}"
UNUSED = [
    *(
        Row("wrong value", f"{flags} without a use, {verb}", verb, f"{shown or flags} is for", expected, cure, command)
        for options, expected, cure in (
            (("--index exact", "--index hnsw", "--ef 300"), "a model as --retriever", "Name one, or leave --"),
            (("--hnsw-m 8", "--ef-construction 90", "--index-threads 2"), "a model as --retriever", "Name one, or leave --"),
            (("--max-length 16", "--query-max-length 16", "--doc-max-length 16"), "a model as --retriever", "leave --"),
            (("--query-prompt x", "--doc-prompt x", "--pooling cls"), "a model as --retriever", "leave --"),
            (("--similarity dot", "--normalize", "--no-normalize"), "a model as --retriever", "leave --"),
            (("--precision fp32", "--token-budget 512", "--device cpu"), "a model as --retriever", "leave --"),
            (("--doc-max-length 16 --reranker ./reranker",), "a reranker has --reranker-max-length", "leave --"),
        )
        for flags in options
        for verb, end in (("retrieve", ""), ("mine", "/negatives.jsonl"))
        for shown in (flags.partition(" --reranker")[0],)
        for command in (f"research {BM25_ALONE.format(verb=verb, end=end)} {flags}",)
    ),
    *(
        Row("wrong value", f"{flags} without a use", verbs, value, expected, cure, flags)
        for flags, verbs, value, expected, cure in (
            ("--bm25-k1 1.2", RETRIEVERS, "--bm25-k1 1.2 is for bm25", "--retriever bm25", "Name it, or leave --bm25-k1 out"),
            ("--bm25-b 0.3", RETRIEVERS, "--bm25-b 0.3 is for bm25", "--retriever bm25", "leave --bm25-b out"),
            ("--bm25-tokenizer words", RETRIEVERS, "--bm25-tokenizer words is for", "bm25", "leave --bm25-tokenizer out"),
            ("--bm25-stemmer german", "mine", "--bm25-stemmer german is for", "bm25", "leave --bm25-stemmer out"),
            ("--bm25-stopwords none", "retrieve", "--bm25-stopwords none is for", "bm25", "leave --bm25-stopwords out"),
            ("--index exact --ef 200", RETRIEVERS, "--ef 200 is for HNSW", "--index hnsw", "Pass that, or leave --ef out"),
            ("--index exact --hnsw-m 8", RETRIEVERS, "--hnsw-m 8 is for HNSW", "--index hnsw", "leave --hnsw-m out"),
            ("--ef 300", RETRIEVERS, "--ef 300 is for HNSW, and 30 documents", "--index hnsw", "leave --ef out"),
            ("--index-threads 2", "mine", "--index-threads 2 is for HNSW", "--index hnsw", "leave --index-threads out"),
            (
                "--max-length 9 --query-max-length 8 --doc-max-length 7",
                RETRIEVERS,
                "--max-length 9 is for",
                "--query-max-length and --doc-max-length",
                "leave --max-length out",
            ),
            ("--max-length 9 --doc-max-length 8", "encode", "--max-length 9 is for", "one a tower", "leave --max-length out"),
            ("--query-prompt x", "encode", "--query-prompt x is for --tower query", "--tower query", "leave --query-prompt"),
            ("--query-max-length 9", "encode", "--query-max-length 9 is for", "--tower query", "leave --query-max-length"),
            (
                "--tower query --doc-prompt x",
                "encode",
                "--doc-prompt x is for --tower doc",
                "--tower doc",
                "leave --doc-prompt",
            ),
        )
    ),
]

ROWS = [*UNUSED, *WRONG_TYPE, *UNKNOWN_NAMES, *EMPTY, *RANGES, *PLACES, *QUICKSTART_PLACES, *RERANKING, *MINING]


@pytest.mark.parametrize("cell", cells(ROWS))
def test_fault_on_the_command_line_is_refused(cell, research, collection, tiny_bert, tiny_reranker, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch, tiny_reranker)
    refuse(cell, research, monkeypatch)


def test_queries_of_no_split_are_refused(research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    result = research("encode", "--data", "beir:collection", "--model", "./model", "--tower", "query", "--out", "out")
    assert (result.code, "Pass --split test" in result.err) == (2, True), result.err
