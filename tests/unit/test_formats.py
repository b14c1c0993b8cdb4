"""Readers accept what the format promises and refuse the rest with file, line, value and cure."""

import gzip

import pytest

from research.data.beir import read_corpus, read_queries
from research.data.qrels import check_qrels, read_qrels
from research.data.rankings import check_run, read_run, write_run
from research.data.rows import BadRows, read_jsonl
from research.data.sources import load
from research.data.triplets import read_triplet, write_triplets
from research.errors import UserError
from research.types import Document, Triplets
from tests.beir import write_beir

DOC = '{"_id": "d1", "title": "T", "text": "x"}'
HEADER = "query-id\tcorpus-id\tscore"
TRIPLET = {
    "query_id": "q",
    "query": "what",
    "positive_passages": [{"docid": "p", "title": "", "text": "yes"}],
    "negative_passages": [{"docid": "n", "title": "N", "text": "no"}],
}


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
        ('{"_id": "d2", "body": "x"}', "neither title nor text, but _id, body"),
        ('{"_id": "d1", "title": "T", "text": "y"}', "'d1' was used before, with another text"),
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


def test_rows_under_anserinis_and_tevatrons_names(write):
    """Corpora of Anserini and tevatron, and queries as some hubs have them."""
    assert read_corpus(write('{"id": "1", "contents": "x"}', '{"docid": "2", "title": "T", "text": "y"}'), BadRows()) == {
        "1": Document("", "x"),
        "2": Document("T", "y"),
    }
    assert read_queries(write('{"_id": "1", "query": "x"}', '{"query_id": 2, "text": "y"}'), BadRows()) == {"1": "x", "2": "y"}


@pytest.mark.parametrize("first", ["q\ta\t0.5", "corpus-id\tquery-id\tscore", "qid,did,score", "q 0 a x", ""])
def test_wrong_qrels_header_is_refused(write, first):
    with pytest.raises(UserError, match="expected BEIR's header"):
        read_qrels(write(first, "q\tb\t1") if first else write(), BadRows())


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("q\ta", "not a judgement"),
        ("q\ta\t1.5", "not a judgement"),
        ("q\ta\tx", "not a judgement"),
        ("q\tb\t2", "judged twice"),
        ("\ta\t1", "not a judgement"),
    ],
)
def test_bad_judgement_is_refused_or_counted(write, row, says):
    path = write(HEADER, "q\tb\t1", row)
    with pytest.raises(UserError, match=says):
        read_qrels(path, BadRows())
    bad = BadRows(skip=True)
    assert read_qrels(path, bad) == {"q": {"b": 1}}
    assert bad.counts.total() == 1


def test_judgement_of_an_unknown_query_is_refused_or_left_out():
    corpus, queries = {"d": Document("", "x")}, {"q": "what"}
    with pytest.raises(UserError, match="query id 'x'"):
        check_qrels("here", {"x": {"d": 1}}, corpus, queries, BadRows())
    bad = BadRows(skip=True)
    assert check_qrels("here", {"x": {"d": 1}, "q": {"d": 2}}, corpus, queries, bad) == {"q": {"d": 2}}
    assert bad.counts.total() == 1


def test_judgement_of_an_absent_document_is_refused_or_stays_in_the_ideal_ranking():
    corpus, queries, qrels = {"d": Document("", "x")}, {"q": "what"}, {"q": {"y": 1, "d": 2}}
    with pytest.raises(UserError, match=r"document id 'y'.*--skip-bad-rows to keep it, as one that no ranking can find"):
        check_qrels("here", qrels, corpus, queries, BadRows())
    bad = BadRows(skip=True)
    assert check_qrels("here", qrels, corpus, queries, bad) == qrels
    assert (bad.counts.total(), bad.kept.total()) == (0, 1)


def test_exact_repeats_and_blank_documents_are_taken_and_counted(write):
    bad = BadRows()
    rows = [DOC, DOC, '{"_id": "b", "title": "", "text": null}', '{"_id": "e", "title": " ", "text": ""}']
    assert read_corpus(write(*rows), bad) == {"d1": Document("T", "x"), "b": Document("", ""), "e": Document(" ", "")}
    assert read_queries(write('{"_id": "q", "text": "x"}', '{"_id": "q", "text": "x"}'), bad) == {"q": "x"}
    assert read_qrels(write(HEADER, "q\tb\t1", "q\tb\t1.0"), bad) == {"q": {"b": 1}}
    assert dict(bad.kept) == {
        "repeats of a document": 1,
        "blank documents": 2,
        "repeats of a query": 1,
        "repeats of a judgement": 1,
    }
    with pytest.raises(UserError, match="another text"):
        read_queries(write('{"_id": "q", "text": "x"}', '{"_id": "q", "text": "y"}'), bad)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((HEADER, "q\ta\t2.0", "q\tb\t-1.00", "r\ta\t0."), {"q": {"a": 2, "b": -1}, "r": {"a": 0}}),
        (("q\ta\t1", "q\tb\t0"), {"q": {"a": 1, "b": 0}}),  # no header: BEIR's own reader would lose the first row
        (("q\t0\ta\t1", "q 0 b 2.0"), {"q": {"a": 1, "b": 2}}),
        (('"query-id"\t"corpus-id"\t"score"', '"q 1"\t"a ""b"""\t"1"', 'r\t5"\t1'), {"q 1": {'a "b"': 1}, "r": {'5"': 1}}),
        (("q Q0 a 1", "", "q Q0 b 0  "), {"q": {"a": 1, "b": 0}}),
        (("q a 1", "q  b 0"), {"q": {"a": 1, "b": 0}}),
        (("query_id\tdoc_id\trelevance", "q\ta\t1"), {"q": {"a": 1}}),
        (("qid iter docno rel", "q 0 a 1"), {"q": {"a": 1}}),
        (("query-id corpus-id score", "q a 1"), {"q": {"a": 1}}),
    ],
)
def test_qrels_as_tools_write_them(write, lines, expected):
    assert read_qrels(write(*lines), BadRows()) == expected


@pytest.mark.parametrize("grade", ["0.5", "1e0", "2,0", "", "nan", "1_0", "+1", "١"])
def test_grade_that_is_no_whole_number_is_refused(write, grade):
    with pytest.raises(UserError, match="not a judgement"):
        read_qrels(write(HEADER, f"q\ta\t{grade}"), BadRows())


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


RUN = {"q": {"b": 0.5, "a": 0.001}, "r": {"a": -2.0}}


@pytest.mark.parametrize(
    "text",
    [
        "q Q0 b 1 0.5 tag\nq Q0 a 2 1e-3 tag\nr Q0 a 1 -2 tag\n",
        "q\tQ0\tb\t0\t.5\ttag\nq\tQ0\ta\t1\t1E-03\ttag\nr\tQ0\ta\t0\t-2.0\ttag\n",  # pyserini with tabs, ranks from 0
        "\ufeffq Q0 b 1 0.500000 Anserini  \r\n\r\nq Q0 a 2 0.001000 Anserini\r\nr Q0 a 1 -2.000000 Anserini",
        "r q0 a 9 -2 x\nq q0 a 7 0.001 x\nq q0 b 7 5e-1 x\n",  # in no order, with ranks that mean nothing
        "q b 0.5\nq a 0.001\nr a -2.0\n",  # tevatron
        "q\tb\t1\t0.5\nq\ta\t2\t0.001\nr\ta\t1\t-2.0\n",  # ColBERT
        '{"q": {"a": 0.001, "b": 0.5}, "r": {"a": -2}}',  # BEIR's results, ranx
        '\n {\n "q": {"b": 0.5,\n "a": 1e-3}, "r": {"a": -2.0}, "s": {}\n}\n',
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_run_as_other_tools_write_it(tmp_path, text, packed):
    data = text.encode()
    (tmp_path / "run").write_bytes(gzip.compress(data) if packed else data)
    assert read_run(tmp_path / "run") == RUN


def test_run_of_three_columns_is_read_by_ranks_that_count_up_or_scores_that_fall(write):
    assert read_run(write("q\tb\t1", "q\ta\t2", "r\ta\t1")) == {"q": {"b": -1.0, "a": -2.0}, "r": {"a": -1.0}}
    assert read_run(write("q b 7", "q a 7", "r a 3")) == {"q": {"b": 7.0, "a": 7.0}, "r": {"a": 3.0}}
    with pytest.raises(UserError, match="neither ranks that count up from 1 nor scores that fall"):
        read_run(write("q a 2", "q b 1", "q c 3"))
    with pytest.raises(UserError, match="scores, or ranks with the best last"):
        read_run(write("q a 2", "q b 1", "r b 1"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"q": {"a": 1', "begins as JSON and is none"),
        ('{"q": {"a": 1}}\n{"r": {"a": 1}}', "begins as JSON and is none"),
        ('{"q": {"a": NaN}}', "query 'q': .* is not a run line"),
        ('{"q": {"a": "1"}}', "query 'q': .* is not a run line"),
        ('{"q": {"a": true}}', "query 'q': .* is not a run line"),
        ('{"q": [["a", 1]]}', "query 'q': .* is not a run line"),
        ('{"q": {"a": 1, "a": 2}}', "document 'a' is ranked twice"),
        ("q a 1,5\nq b 1", "is not a run line"),
        ("q a 1 .5\nq Q0 b 2 .4 tag", "is not a run line"),
        ("q Q0 a .5", "is not a run line"),
    ],
)
def test_bad_run_of_another_tool_is_refused(write, text, says):
    with pytest.raises(UserError, match=says):
        read_run(write(text))


def test_packed_collection_is_read_as_it_is_unpacked(tmp_path):
    corpus, queries, qrels = {"d": Document("T", "x\ny")}, {"q": "é?"}, {"test": {"q": {"d": 2}}}
    write_beir(tmp_path, corpus, queries, qrels)
    plain = load(f"beir:{tmp_path}", "test")
    for path in [tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl", tmp_path / "qrels/test.tsv"]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load(f"beir:{tmp_path}", "test") == plain
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "d", "text": "x"}\n' * 99)[:-9])
    with pytest.raises(UserError, match=r"corpus\.jsonl\.gz: damaged after line \d+"):
        load(f"beir:{tmp_path}", "test")


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
    triplets = [
        Triplets("q", "what", {"p": Document("", "yes")}, {"n": Document("N", "no"), "m": Document("", "nor")}),
        Triplets("r", "who", {"p": Document("", "yes")}, {}),
        Triplets("s", "why", {"p": Document("", "yes")}, {"n": Document("", "no")}, {"p": 0.5, "n": -2.0}, {"n": 7}),
    ]
    write_triplets(tmp_path / "t.jsonl", triplets)
    rows = read_jsonl(tmp_path / "t.jsonl", BadRows())
    assert [read_triplet(row, where, BadRows()) for where, row in rows] == triplets


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
def test_bad_triplet_is_refused(change, says):
    with pytest.raises(UserError, match=says):
        read_triplet(TRIPLET | change, "here", BadRows())


def test_beir_folder_round_trip(tmp_path):
    corpus, queries, qrels = {"d": Document("T", "x\ny")}, {"q": "é?"}, {"test": {"q": {"d": 2}}}
    write_beir(tmp_path, corpus, queries, qrels)
    assert read_corpus(tmp_path / "corpus.jsonl", BadRows()) == corpus
    assert read_queries(tmp_path / "queries.jsonl", BadRows()) == queries
    assert read_qrels(tmp_path / "qrels/test.tsv", BadRows()) == qrels["test"]
