"""Readers accept what the format promises and refuse the rest with file, line, value and cure."""

import json

import pytest

from research.data.formats import (
    check_qrels,
    check_run,
    read_corpus,
    read_qrels,
    read_queries,
    read_run,
    read_triplets,
    write_beir,
    write_run,
    write_triplets,
)
from research.data.rows import BadRows
from research.errors import UserError
from research.types import Document, Triplets

DOC = '{"_id": "d1", "title": "T", "text": "x"}'
HEADER = "query-id\tcorpus-id\tscore"
TRIPLET = {"query_id": "q", "query": "what", "positive_passages": [{"docid": "p", "title": "", "text": "yes"}],
           "negative_passages": [{"docid": "n", "title": "N", "text": "no"}]}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(*lines: str, name: str = "file"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_corpus_takes_missing_titles_numeric_ids_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"_id": 7, "text": "x"}\r\n\r\n{"_id": "d", "title": "T", "text": ""}\r\n')
    assert read_corpus(path, BadRows()) == {"7": Document("", "x"), "d": Document("T", "")}


def test_content_is_title_space_text_and_text_alone_without_a_title():
    assert Document("T", "x").content == "T x"
    assert Document("", "x").content == "x"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "is a JSON list, expected an object"),
        ('{"title": "T", "text": "x"}', "_id is None, expected a string"),
        ('{"_id": "a b", "text": "x"}', "_id is 'a b'"),
        ('{"_id": "", "text": "x"}', "_id is ''"),
        ('{"_id": true, "text": "x"}', "_id is True"),
        ('{"_id": "d2", "text": 5}', "text is '5', expected a string"),
        ('{"_id": "d2", "title": ["T"], "text": "x"}', "title is"),
        ('{"_id": "d2", "title": " ", "text": ""}', "neither title nor text"),
        (DOC, "'d1' was used before"),
    ],
)
def test_bad_document_is_refused_with_file_and_line_or_skipped_and_counted(write, row, says):
    path = write(DOC, row, '{"_id": "d3", "text": "z"}')
    with pytest.raises(UserError, match=f"{path}:2: .*") as caught:
        read_corpus(path, BadRows())
    assert says in str(caught.value)
    assert "--skip-bad-rows" in str(caught.value)
    bad = BadRows(skip=True)
    assert set(read_corpus(path, bad)) == {"d1", "d3"}
    assert sum(bad.counts.values()) == 1


def test_query_without_text_is_refused(write):
    with pytest.raises(UserError, match="has no text"):
        read_queries(write('{"_id": "q", "text": " "}'), BadRows())


def test_missing_file_lists_what_is_there(write):
    path = write("x", name="corpus.jsonl")
    with pytest.raises(UserError, match=r"did you mean 'corpus\.jsonl'"):
        read_corpus(path.with_name("corpsu.jsonl"), BadRows())


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "c").write_bytes(b'{"_id": "\xff"}\n')
    with pytest.raises(UserError, match="not UTF-8"):
        read_corpus(tmp_path / "c", BadRows())


def test_qrels_in_beirs_and_in_trecs_form(write):
    expected = {"q": {"a": 1, "b": 0}, "r": {"a": -1}}
    assert read_qrels(write(HEADER, "q\ta\t1", "q\tb\t0", "r\ta\t-1"), BadRows()) == expected
    assert read_qrels(write("q 0 a 1", "q 0 b 0", "r 0 a -1"), BadRows()) == expected


@pytest.mark.parametrize("first", ["q\ta\t1", "query_id\tcorpus_id\tscore", "qid,did,score", "q 0 a x", ""])
def test_wrong_qrels_header_is_refused(write, first):
    with pytest.raises(UserError, match="expected BEIR's header"):
        read_qrels(write(first, "q\tb\t1") if first else write(), BadRows())


@pytest.mark.parametrize(
    ("row", "says"),
    [("q\ta", "not a judgement"), ("q\ta\t1.5", "not a judgement"), ("q\ta\tx", "not a judgement"), ("q\tb\t1", "judged twice"),
     ("\ta\t1", "not a judgement")],
)  # fmt: skip
def test_bad_judgement_is_refused_or_counted(write, row, says):
    path = write(HEADER, "q\tb\t1", row)
    with pytest.raises(UserError, match=says):
        read_qrels(path, BadRows())
    bad = BadRows(skip=True)
    assert read_qrels(path, bad) == {"q": {"b": 1}}
    assert bad.counts.total() == 1


@pytest.mark.parametrize(("qrels", "says"), [({"x": {"d": 1}}, "query id 'x'"), ({"q": {"y": 1}}, "document id 'y'")])
def test_judgement_of_an_unknown_id_is_refused_or_counted(qrels, says):
    corpus, queries = {"d": Document("", "x")}, {"q": "what"}
    with pytest.raises(UserError, match=says):
        check_qrels("here", qrels, corpus, queries, BadRows())
    bad = BadRows(skip=True)
    assert check_qrels("here", qrels | {"q": {"d": 2} | qrels.get("q", {})}, corpus, queries, bad) == {"q": {"d": 2}}
    assert bad.counts.total() == 1


def test_run_round_trip_keeps_ranking_and_float32_scores(tmp_path):
    import numpy as np

    scores = np.random.default_rng(0).normal(size=50).astype(np.float32)
    run = {"q": {f"d{i}": float(s) for i, s in enumerate(sorted(scores, reverse=True))}}
    write_run(tmp_path / "run.trec", run, "tag")
    back = read_run(tmp_path / "run.trec")
    assert list(back["q"]) == list(run["q"])
    assert [np.float32(s) for s in back["q"].values()] == [np.float32(s) for s in run["q"].values()]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("q Q0 d 1 x tag", "not a run line"),
        ("q Q0 d 1 nan tag", "finite"),
        ("q Q0 d 1 inf tag", "finite"),
        ("q Q0 d 1 0.5", "six columns"),
        ("q Q0 a 2 0.5 tag", "'a' is ranked twice"),
    ],
)
def test_bad_run_line_is_refused(write, row, says):
    with pytest.raises(UserError, match=says):
        read_run(write("q Q0 a 1 0.9 tag", row))


def test_run_of_another_collection_is_refused(tmp_path):
    corpus, qrels = {"d": Document("", "x")}, {"q": {"d": 1}}
    cases = [
        ({"z": {"d": 1.0}}, "query id 'z' is not among the 1 judged queries"),
        ({"q": {"y": 1.0}}, "document id 'y'"),
        ({}, "holds no line"),
    ]
    for run, says in cases:
        with pytest.raises(UserError, match=says):
            check_run(tmp_path, run, qrels, corpus)


def test_queries_that_the_split_does_not_judge_are_ignored_and_counted(tmp_path):
    corpus, qrels = {"d": Document("", "x")}, {"q": {"d": 1}}
    run = {"q": {"d": 1.0}, "other": {"d": 1.0}}
    assert check_run(tmp_path, run, qrels, corpus, {"other"}) == 1
    with pytest.raises(UserError, match="'other' is not among"):
        check_run(tmp_path, run, qrels, corpus)
    with pytest.raises(UserError, match="'other' is not among"):  # a run of another split alone
        check_run(tmp_path, {"other": {"d": 1.0}}, qrels, corpus, {"other"})


def test_triplets_round_trip(tmp_path):
    triplets = [Triplets("q", "what", {"p": Document("", "yes")}, {"n": Document("N", "no"), "m": Document("", "nor")}),
                Triplets("r", "who", {"p": Document("", "yes")}, {}),
                Triplets("s", "why", {"p": Document("", "yes")}, {"n": Document("", "no")},
                         {"p": 0.5, "n": -2.0}, {"n": 7})]  # fmt: skip
    write_triplets(tmp_path / "t.jsonl", triplets)
    assert list(read_triplets(tmp_path / "t.jsonl", BadRows())) == triplets


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"positive_passages": []}, "lacks a text or a positive"),
        ({"query": ""}, "lacks a text or a positive"),
        ({"negative_passages": "no"}, "expected a list"),
        ({"negative_passages": [{"docid": "p", "text": "yes"}]}, "both positive and negative"),
        ({"positive_passages": [{"docid": "p", "text": "a"}, {"docid": "p", "text": "b"}]}, "twice"),
        ({"negative_passages": [{"docid": "n", "text": " "}]}, "neither title nor text"),
        ({"query_id": None}, "query_id is None"),
        ({"negative_passages": [{"docid": "n", "text": "no", "score": "high"}]}, "expected a finite number"),
        ({"negative_passages": [{"docid": "n", "text": "no", "score": float("nan")}]}, "expected a finite number"),
        ({"negative_passages": [{"docid": "n", "text": "no", "score": True}]}, "expected a finite number"),
        ({"negative_passages": [{"docid": "n", "text": "no", "rank": 0}]}, "expected a whole number from 1 up"),
        ({"negative_passages": [{"docid": "n", "text": "no", "rank": 1.5}]}, "expected a whole number from 1 up"),
    ],
)
def test_bad_triplet_is_refused(write, change, says):
    with pytest.raises(UserError, match=says):
        list(read_triplets(write(json.dumps(TRIPLET | change)), BadRows()))


def test_query_in_two_triplet_rows_is_refused(write):
    with pytest.raises(UserError, match="one row"):
        list(read_triplets(write(json.dumps(TRIPLET), json.dumps(TRIPLET)), BadRows()))


def test_beir_folder_round_trip(tmp_path):
    corpus, queries, qrels = {"d": Document("T", "x\ny")}, {"q": "é?"}, {"test": {"q": {"d": 2}}}
    write_beir(tmp_path, corpus, queries, qrels)
    assert read_corpus(tmp_path / "corpus.jsonl", BadRows()) == corpus
    assert read_queries(tmp_path / "queries.jsonl", BadRows()) == queries
    assert read_qrels(tmp_path / "qrels/test.tsv", BadRows()) == qrels["test"]
