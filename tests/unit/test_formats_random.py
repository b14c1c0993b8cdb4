"""Judgements, runs and documents by random: what is sound comes back, what is damaged is refused or changes nothing else."""

import gzip
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.data.beir import read_corpus
from research.data.qrels import read_qrels
from research.data.rankings import read_run
from research.data.rows import BadRows
from research.errors import UserError
from research.types import Document

CHECKS = settings(
    derandomize=True, max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NO_ID = ("Cs", "Cc", "Zs", "Zl", "Zp")
ID = st.text(st.characters(codec="utf-8", exclude_categories=NO_ID, exclude_characters='"{'), min_size=1, max_size=6).filter(
    lambda text: text.split() == [text] and not text.startswith("\ufeff")
)
LINE = st.text(max_size=12).filter(lambda text: text.strip() and not re.search(r"[\r\n\ud800-\udfff]", text))
SCORE = st.floats(-1e6, 1e6, allow_nan=False, width=32)
QRELS = st.dictionaries(ID, st.dictionaries(ID, st.integers(-1, 4), min_size=1, max_size=4), min_size=1, max_size=4)
RUN = st.dictionaries(ID, st.dictionaries(ID, SCORE, min_size=1, max_size=4), min_size=1, max_size=4)


def quoted(text: str) -> str:
    return f'"{text}"'


QRELS_WRITERS = {
    "beir": (True, lambda q, d, g: f"{q}\t{d}\t{g}"),
    "beir, floats": (True, lambda q, d, g: f"{q}\t{d}\t{float(g)}"),
    "beir, quoted": (True, lambda q, d, g: f"{quoted(q)}\t{quoted(d)}\t{quoted(g)}"),
    "beir, no header": (False, lambda q, d, g: f"{q}\t{d}\t{g}"),
    "trec": (False, lambda q, d, g: f"{q} 0 {d} {g}"),
    "trec, tabs and floats": (False, lambda q, d, g: f"{q}\tQ0\t{d}\t{float(g)}  "),
}
RUN_WRITERS = {
    "trec": lambda q, d, i, s: f"{q} Q0 {d} {i} {s:.9g} tag",
    "ranks from 0, tabs, exponents": lambda q, d, i, s: f"{q}\tQ0\t{d}\t{i - 1}\t{s:.9e}\ttag ",
    "tevatron": lambda q, d, i, s: f"{q}\t{d}\t{s:.9e}",
}


def trec_lines(run, write):
    return [write(q, d, i, s) for q, docs in run.items() for i, (d, s) in enumerate(docs.items(), 1)]


@pytest.mark.parametrize("form", QRELS_WRITERS)
@CHECKS
@given(qrels=QRELS, ends=st.sampled_from(["\n", "\r\n"]), mark=st.booleans(), packed=st.booleans())
def test_random_judgements_come_back(tmp_path, form, qrels, ends, mark, packed):
    header, write = QRELS_WRITERS[form]
    lines = ["query-id\tcorpus-id\tscore"] * header + [write(q, d, g) for q, docs in qrels.items() for d, g in docs.items()]
    data = (("\ufeff" if mark else "") + ends.join(lines)).encode()
    (tmp_path / "qrels").write_bytes(gzip.compress(data) if packed else data)
    assert read_qrels(tmp_path / "qrels", BadRows()) == qrels


@pytest.mark.parametrize("form", [*RUN_WRITERS, "json"])
@CHECKS
@given(run=RUN, ends=st.sampled_from(["\n", "\r\n"]), packed=st.booleans())
def test_random_runs_come_back(tmp_path, form, run, ends, packed):
    text = json.dumps(run) if form == "json" else ends.join(trec_lines(run, RUN_WRITERS[form]))
    data = text.encode()
    (tmp_path / "run").write_bytes(gzip.compress(data) if packed else data)
    found = read_run(tmp_path / "run")
    assert found.keys() == run.keys()
    for query, docs in run.items():
        assert found[query] == pytest.approx(docs, rel=1e-7, abs=1e-30)


@CHECKS
@given(qrels=QRELS, data=st.data())
def test_damaged_judgement_is_refused_by_its_line_or_read_as_it_stands(tmp_path, qrels, data):
    rows = [(q, d, g) for q, docs in qrels.items() for d, g in docs.items()]
    lines = [f"{q}\t{d}\t{g}" for q, d, g in rows]
    at = data.draw(st.integers(0, len(lines) - 1))
    grades = [f"{rows[at][0]}\t{rows[at][1]}\t{grade}" for grade in ("0.5", "x", "", "1e3", "NaN")]
    lines[at] = data.draw(st.one_of(LINE, st.sampled_from(grades)))
    (tmp_path / "qrels").write_bytes("\n".join(["query-id\tcorpus-id\tscore", *lines]).encode())
    expected = {}
    for i, (query, doc, grade) in enumerate(rows):
        if i != at:
            expected.setdefault(query, {})[doc] = grade
    bad = BadRows(skip=True)
    found = read_qrels(tmp_path / "qrels", bad)
    for query, docs in expected.items():
        assert docs.items() <= found[query].items()  # no judgement of another line is another
    if bad.counts:
        with pytest.raises(UserError, match=rf"qrels:{at + 2}: .*--skip-bad-rows"):
            read_qrels(tmp_path / "qrels", BadRows())


@CHECKS
@given(run=RUN, data=st.data())
def test_damaged_run_line_is_refused_by_its_line(tmp_path, run, data):
    lines = trec_lines(run, RUN_WRITERS["trec"])
    at = data.draw(st.integers(0, len(lines) - 1))
    query, _, doc, *_ = lines[at].split()
    scores = ("nan x", "1,5 x", "inf x", "0.5", "0.5 my run", "1_0 x", "0x1 x", "1e999 x", "high x")
    lines[at] = data.draw(st.sampled_from(["x", *(f"{query} Q0 {doc} 1 {score}" for score in scores)]))
    (tmp_path / "run").write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"run:{at + 1}: .*six columns"):
        read_run(tmp_path / "run", BadRows())
    rest = {q: {d: pytest.approx(s, rel=1e-7) for d, s in docs.items() if (q, d) != (query, doc)} for q, docs in run.items()}
    found = read_run(tmp_path / "run", BadRows(skip=True))
    assert found == {q: docs for q, docs in rest.items() if docs}


@CHECKS
@given(docs=st.dictionaries(ID, st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=4), data=st.data())
def test_damaged_document_is_refused_by_its_line(tmp_path, docs, data):
    lines = [json.dumps({"_id": one, "title": title, "text": text}) for one, (title, text) in docs.items()]
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(
        st.sampled_from(
            [
                "{",
                "[]",
                '{"_id": "a b", "text": "x"}',
                '{"_id": "new", "text": 5}',
                '{"text": "x"}',
                '{"_id": "new"}',
                lines[at][:-2],
            ]
        )
    )
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    skipping = "--skip-bad-rows" if len(lines) > 1 else ""  # not offered where it may leave no row
    with pytest.raises(UserError, match=rf"corpus\.jsonl:{at + 1}: .*{skipping}"):
        read_corpus(tmp_path / "corpus.jsonl", BadRows())
    rest = {one: Document(*both) for i, (one, both) in enumerate(docs.items()) if i != at}
    assert read_corpus(tmp_path / "corpus.jsonl", BadRows(skip=True)) == rest
