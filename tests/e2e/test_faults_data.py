"""Data that is missing, malformed, contradictory, or of the wrong type: refused with file, line, value and cure."""

import pytest
from faults import MAKE_NEGATIVES, MAKE_RUN, Row, append, cells, copy, furnish, refuse, remove, replace, write

CORPUS, QUERIES, QRELS = "collection/corpus.jsonl", "collection/queries.jsonl", "collection/qrels/test.tsv"
READERS = "encode retrieve mine evaluate"  # the verbs that read a data source
MAKE_DENSE_RUN = "retrieve --data beir:collection --split test --retriever ./model --out run2"
RUN_FOLDER = "research mine --data beir:collection --split test --retriever ./run --out out/negatives.jsonl"
HEADER = "query-id\tcorpus-id\tscore\n"
DEEP = '{"_id": ' + "[" * 100_000

MISSING = [
    Row("missing file", "no BEIR folder", READERS, "'nope'", "expected a folder with corpus.jsonl", "Check the path",
        "--data beir:nope"),
    Row("missing file", "BEIR folder is a file", READERS, "'good.trec'", "expected a folder", "Check the path",
        "--data beir:good.trec"),
    Row("missing file", "no corpus.jsonl", READERS, CORPUS, "known: qrels, queries.jsonl", "Check the path",
        breaks=(remove(CORPUS),)),
    Row("missing file", "no queries.jsonl", READERS, QUERIES, "known: corpus.jsonl, qrels",
        "Check the path", breaks=(remove(QUERIES),)),
    Row("missing file", "no such split", READERS, "'tset'", "did you mean 'test'? known: dev, test", "--split",
        "--split tset"),
    Row("missing file", "no such split to choose the mix on", "retrieve", "'devel'", "did you mean 'dev'? known: dev, test",
        "--mix-split", "--reranker ./model --mix-split devel"),
    Row("missing file", "no qrels folder", "encode", "collection/qrels", "expected one qrels file a split", "Add",
        breaks=(remove("collection/qrels"),)),
    Row("missing file", "no qrels folder", "retrieve mine evaluate", "'test'", "expected one .tsv file a split",
        "Add qrels/test.tsv", breaks=(remove("collection/qrels"),)),
    Row("missing file", "no run file", "evaluate", "goood.trec", "did you mean 'good.trec'?", "Check the path",
        "--runs goood.trec"),
    Row("missing file", "run file is a folder", "evaluate", "collection cannot be read", "expected a readable file",
        "Check the path", "--runs collection"),
    Row("missing file", "no model folder", "encode", "'./nope'", "expected a model folder", "Check the path",
        "--model ./nope"),
    Row("missing file", "no model folder", "retrieve mine", "'./nope'", "expected a model folder", "Check the path",
        "--retriever ./nope"),
    Row("missing file", "no reranker folder", "retrieve mine", "'./nope'", "expected a model folder", "Check the path",
        "--reranker ./nope"),
    Row("missing file", "no embeddings folder", "retrieve", "--embeddings nope does not exist",
        "expected a store", "Check the path", "--embeddings nope"),
    Row("missing file", "no run folder", "report", "run does not exist", "expected a folder",
        "that `research retrieve --out` wrote"),
    Row("missing file", "run without metrics.json", "report", "run", "half-written: it has no metrics.json",
        "Finish it: research retrieve --data beir:collection", before=(MAKE_RUN,), breaks=(remove("run/metrics.json"),)),
]  # fmt: skip

MALFORMED = [
    Row("malformed line", "corpus line is no JSON", READERS, f"{CORPUS}:31: '{{oops'", "Expected one JSON object a line",
        "mend the line, or pass --skip-bad-rows", breaks=(append(CORPUS, "{oops"),)),
    Row("malformed line", "corpus line is an array", READERS, f"{CORPUS}:31: '[1]'", "expected an object",
        "Mend the line", breaks=(append(CORPUS, "[1]"),)),
    Row("malformed line", "corpus line is nested too deep", READERS, f"{CORPUS}:31", "Expected one JSON object a line",
        "mend the line", breaks=(append(CORPUS, DEEP),)),
    Row("malformed line", "corpus line has a number of 5,000 digits", READERS, f"{CORPUS}:31",
        "Expected one JSON object a line", "mend the line", breaks=(append(CORPUS, '{"_id": ' + "9" * 5000 + "}"),)),
    Row("malformed line", "corpus line is not UTF-8", READERS, f"{CORPUS}:31", "expected UTF-8", "Convert the file",
        breaks=(append(CORPUS, b'{"_id": "x", "text": "caf\xe9"}'),)),
    Row("malformed line", "half a surrogate pair in a text", READERS, f"{CORPUS}:31: text", "surrogate", "Mend the row",
        breaks=(append(CORPUS, r'{"_id": "x", "text": "a \ud800 b"}'),)),
    Row("malformed line", "half a surrogate pair in an id", READERS, f"{CORPUS}:31: _id", "surrogate", "Give every row",
        breaks=(append(CORPUS, r'{"_id": "\ud800", "text": "a"}'),)),
    Row("malformed line", "queries line is no JSON", READERS, f"{QUERIES}:9: 'q9 text'", "Expected one JSON object a line",
        "mend the line", breaks=(append(QUERIES, "q9 text"),)),
    Row("malformed line", "qrels row of two columns", READERS, f"{QRELS}:6: 'q0 d1'", "Expected query id, document id",
        "mend the line", breaks=(append(QRELS, "q0\td1"),)),
    Row("malformed line", "qrels row separated by blanks", READERS, f"{QRELS}:6: 'q0 d1 1'", "Expected query id",
        "mend the line", breaks=(append(QRELS, "q0 d1 1"),)),
    Row("malformed line", "wrong qrels header", READERS, f"{QRELS}:1", "expected BEIR's header (query-id, corpus-id",
        "Add the header", breaks=(write(QRELS, "qid,docid,grade\nq0,d0,1\n"),)),
    Row("malformed line", "qrels columns in another order", READERS, f"{QRELS}:1", "expected BEIR's header",
        "Add the header", breaks=(write(QRELS, "corpus-id\tquery-id\tscore\nd0\tq0\t1\n"),)),
    Row("malformed line", "empty qrels file", READERS, QRELS, "expected BEIR's header", "Add the header",
        breaks=(write(QRELS, ""),)),
    Row("malformed line", "run row of five columns", "evaluate", "good.trec:9: 'q0 Q0 d5 1 0.5'", "Expected six columns",
        "mend the line", breaks=(append("good.trec", "q0 Q0 d5 1 0.5"),)),
    Row("malformed line", "empty run file", "evaluate", "good.trec", "expected a TREC run", "Make the run again",
        breaks=(write("good.trec", ""),)),
    Row("malformed line", "damaged metrics.json", "report", "run/metrics.json", "not readable JSON", "run again",
        before=(MAKE_RUN,), breaks=(write("run/metrics.json", '{"metrics": '),)),
    Row("malformed line", "damaged provenance.json", "report", "run/provenance.json", "not readable JSON", "run again",
        before=(MAKE_RUN,), breaks=(write("run/provenance.json", b"\xff"),)),
    Row("malformed line", "damaged facts beside --out", "mine", "out/negatives.jsonl.json", "not readable JSON", "Delete it",
        before=(MAKE_NEGATIVES,), breaks=(write("out/negatives.jsonl.json", '{"verb": '),)),
    Row("malformed line", "damaged config.yaml of a run folder", "mine", "run/config.yaml", "expected the configuration",
        "Copy the run folder again", RUN_FOLDER, breaks=(copy("model", "run/model"), write("run/config.yaml", "a: ["))),
    Row("malformed line", "config.yaml of a run folder is not UTF-8", "mine", "run/config.yaml", "expected the configuration",
        "Copy the run folder again", RUN_FOLDER, breaks=(copy("model", "run/model"), write("run/config.yaml", b"\xff"))),
]  # fmt: skip

DEV = "collection/qrels/dev.tsv"
MIX = "--reranker ./reranker --mix-split dev"
MIXED = [
    Row("malformed line", "row of the split that chooses the mix", "retrieve", f"{DEV}:6: 'q1 d1'", "Expected query id",
        "mend the line", MIX, breaks=(append(DEV, "q1\td1"),)),
    Row("unknown id", "unknown document in the split that chooses the mix", "retrieve", "'d99'", "not in the corpus of 30",
        "remove the judgement", MIX, breaks=(append(DEV, "q1\td99\t1"),)),
    Row("duplicate", "judged twice in the split that chooses the mix", "retrieve", f"{DEV}:6: document 'd1'",
        "judged twice for query 'q1'", "Keep one judgement", MIX, breaks=(append(DEV, "q1\td1\t2"),)),
    Row("wrong value", "nothing to choose the mix on", "retrieve", "0 judged queries", "expected one of each", "Add", MIX,
        breaks=(write(DEV, HEADER),)),
]  # fmt: skip

UNKNOWN = [
    Row("unknown id", "judged document is not in the corpus", READERS, "'d99'", "not in the corpus of 30 documents",
        "remove the judgement", breaks=(append(QRELS, "q0\td99\t1"),)),
    Row("unknown id", "judged query is not in queries.jsonl", READERS, "'q99'", "not among the 8 queries",
        "Add the query or remove", breaks=(append(QRELS, "q99\td0\t1"),)),
    Row("unknown id", "run names an unknown document", "evaluate", "good.trec: document id 'd99'",
        "not in this corpus of 30", "on the data", breaks=(append("good.trec", "q0 Q0 d99 3 0.1 x"),)),
    Row("unknown id", "run names an unknown query", "evaluate", "good.trec: query id 'q99'", "among the 4 judged queries",
        "on the data and split", breaks=(append("good.trec", "q99 Q0 d0 3 0.1 x"),)),
    Row("unknown id", "run of another split", "evaluate", "good.trec: query id 'q0'", "split", "--split", "--split dev"),
    Row("unknown id", "values of a query that the other run lacks", "report", "ndcg@10", "covers different queries",
        "Make the runs again", "research report run run2 --out out", before=(MAKE_RUN, MAKE_DENSE_RUN),
        breaks=(replace("run2/metrics.json", '"q0"', '"q99"'),)),
]  # fmt: skip

DUPLICATE = [
    Row("duplicate", "document id twice", READERS, f"{CORPUS}:31: document id 'd0'", "Ids must be unique",
        "rename or remove", breaks=(append(CORPUS, '{"_id": "d0", "text": "again"}'),)),
    Row("duplicate", "query id twice", READERS, f"{QUERIES}:9: query id 'q0'", "Ids must be unique", "rename or remove",
        breaks=(append(QUERIES, '{"_id": "q0", "text": "again"}'),)),
    Row("duplicate", "judged twice", READERS, f"{QRELS}:6: document 'd0'", "judged twice for query 'q0'",
        "Keep one judgement", breaks=(append(QRELS, "q0\td0\t2"),)),
    Row("duplicate", "ranked twice", "evaluate", "good.trec:9: document 'd0'", "ranked twice for query 'q0'",
        "Keep one line", breaks=(append("good.trec", "q0 Q0 d0 3 0.1 x"),)),
    Row("duplicate", "one run file twice", "evaluate", "good.trec twice", "expected different runs", "Remove one",
        "--runs good.trec ./good.trec"),
    Row("duplicate", "one run folder twice", "report", "run", "expected different runs", "Name it once",
        "research report run ./run --out out", before=(MAKE_RUN,)),
    Row("duplicate", "one retriever twice", "retrieve mine", "--retriever ./model is given twice", "changes nothing",
        "Remove one", "--retriever ./model"),
    Row("duplicate", "one retriever under two spellings", "retrieve mine", "--retriever model is given twice",
        "changes nothing", "Remove one", "--retriever model"),
]  # fmt: skip

WRONG_TYPE = [
    Row("wrong type", "title is a number", READERS, f"{CORPUS}:31: title is '5'", "expected a string", "Mend the row",
        breaks=(append(CORPUS, '{"_id": "x", "title": 5, "text": "a"}'),)),
    Row("wrong type", "text is a list", READERS, f"{CORPUS}:31: text is", "expected a string", "Mend the row",
        breaks=(append(CORPUS, '{"_id": "x", "text": ["a"]}'),)),
    Row("wrong type", "document id is a list", READERS, f"{CORPUS}:31: _id is ['x']", "expected a string without blanks",
        "Give every row an _id", breaks=(append(CORPUS, '{"_id": ["x"], "text": "a"}'),)),
    Row("wrong type", "document id is absent", READERS, f"{CORPUS}:31: _id is None", "expected a string without blanks",
        "Give every row an _id", breaks=(append(CORPUS, '{"text": "a"}'),)),
    Row("wrong type", "query text is an object", READERS, f"{QUERIES}:9: text is", "expected a string", "Mend the row",
        breaks=(append(QUERIES, '{"_id": "x", "text": {"a": 1}}'),)),
    Row("wrong type", "grade is a word", READERS, f"{QRELS}:6: 'q0 d1 high'", "whole-number grade", "mend the line",
        breaks=(append(QRELS, "q0\td1\thigh"),)),
    Row("wrong type", "grade is a fraction", READERS, f"{QRELS}:6: 'q0 d1 0.5'", "whole-number grade", "mend the line",
        breaks=(append(QRELS, "q0\td1\t0.5"),)),
    Row("wrong type", "run score is a word", "evaluate", "good.trec:9: 'q0 Q0 d5 1 high x'", "finite score",
        "mend the line", breaks=(append("good.trec", "q0 Q0 d5 1 high x"),)),
    Row("wrong type", "metrics.json is an array", "report", "run/metrics.json", "expected", "again",
        before=(MAKE_RUN,), breaks=(write("run/metrics.json", "[]"),)),
    Row("wrong type", "provenance.json is an array", "report", "run/provenance.json", "expected an object", "again",
        before=(MAKE_RUN,), breaks=(write("run/provenance.json", "[]"),)),
    Row("wrong type", "stages of metrics.json are a list", "report", "run/metrics.json", "expected", "again",
        before=(MAKE_RUN,), breaks=(replace("run/metrics.json", '"stages": {', '"stages": [1], "was": {'),)),
    Row("wrong type", "facts beside --out are an array", "mine", "out/negatives.jsonl.json", "expected the facts of",
        "delete both", before=(MAKE_NEGATIVES,), breaks=(write("out/negatives.jsonl.json", "[]"),)),
    Row("wrong type", "facts beside --out are another verb's", "mine", "out/negatives.jsonl.json", "expected the facts of",
        "name another --out", before=(MAKE_NEGATIVES,), breaks=(write("out/negatives.jsonl.json", '{"verb": "retrieve"}'),)),
]  # fmt: skip

WRONG_VALUE = [
    Row("wrong value", "document with neither title nor text", READERS, f"{CORPUS}:31: document 'x'",
        "Expected one of them", "rename the columns", breaks=(append(CORPUS, '{"_id": "x", "body": "a"}'),)),
    Row("wrong value", "corpus of blank documents", READERS, "1 documents, and each is blank", "expected a title or a text",
        "Add them", breaks=(write(CORPUS, '{"_id": "d0", "text": ""}'), write(QRELS, HEADER + "q0\td0\t1"),
                            write("collection/qrels/dev.tsv", HEADER + "q1\td0\t1"))),
    Row("wrong value", "document id with a blank", READERS, f"{CORPUS}:31: _id is 'a b'", "string without blanks",
        "Give every row an _id", breaks=(append(CORPUS, '{"_id": "a b", "text": "a"}'),)),
    Row("wrong value", "query without text", READERS, f"{QUERIES}:9: query 'x'", "no text", "Remove the row",
        breaks=(append(QUERIES, '{"_id": "x", "text": " "}'),)),
    Row("wrong value", "corpus without a document", "encode", "0 documents", "expected one or more", "Add rows",
        breaks=(write(CORPUS, ""), write(QRELS, HEADER), write("collection/qrels/dev.tsv", HEADER))),
    Row("wrong value", "split without a judgement", "retrieve mine evaluate", "0 judged queries", "expected one of each",
        "Add", breaks=(write(QRELS, HEADER),)),
    Row("wrong value", "split without a relevant document", "retrieve mine evaluate", "any of its 4 queries",
        "expected a grade above 0", "Judge one",
        breaks=(write(QRELS, HEADER + "".join(f"q{i}\td{i}\t0\n" for i in (0, 2, 4, 6))),)),
    Row("wrong value", "run score is not finite", "evaluate", "good.trec:9: 'q0 Q0 d5 1 nan x'", "finite score",
        "mend the line", breaks=(append("good.trec", "q0 Q0 d5 1 nan x"),)),
    Row("wrong value", "run score overflows", "evaluate", "good.trec:9: 'q0 Q0 d5 1 1e999 x'", "finite score",
        "mend the line", breaks=(append("good.trec", "q0 Q0 d5 1 1e999 x"),)),
    Row("wrong value", "run score with an underscore", "evaluate", "good.trec:9: 'q0 Q0 d5 1 1_000 x'", "finite score",
        "mend the line", breaks=(append("good.trec", "q0 Q0 d5 1 1_000 x"),)),
    Row("wrong value", "run whose values were changed", "report", "run", "per-query values", "again",
        before=(MAKE_RUN,), breaks=(replace("run/metrics.json", '"per_query"', '"was"'),)),
    Row("wrong value", "folder that is no run folder", "report", "collection", "not a run folder",
        "`research retrieve --out`", "research report collection --out out"),
]  # fmt: skip

ROWS = [*MISSING, *MALFORMED, *MIXED, *UNKNOWN, *DUPLICATE, *WRONG_TYPE, *WRONG_VALUE]


@pytest.mark.parametrize("cell", cells(ROWS))
def test_fault_in_the_data_is_refused(cell, research, collection, tiny_bert, tiny_reranker, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch, tiny_reranker)
    refuse(cell, research, monkeypatch)
