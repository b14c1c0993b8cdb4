"""`rows:FILE` as a data source: its splits, its settings, and what it is refused for."""

import json

import datasets
import pytest

from research.data.pairs import PairData
from research.data.row_source import divide, queries_trained_on
from research.data.rows import BadRows
from research.data.sources import check_split, load, load_source
from research.data.unjudged import load_unjudged
from research.errors import UserError
from research.types import Document, Triplets


def csv_of(path, rows, header="question,answer"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture
def faq(tmp_path):
    return csv_of(tmp_path / "faq.csv", [(f"how is {n} made?", f"{n} is made of {n + 1}") for n in range(200)])


def row(name, query, *answers):
    return Triplets(name, query, {answer: Document("", answer) for answer in answers}, {})


def split_by_query(rows):
    return {r.query_id: split for split, part in divide(rows).items() for r in part}


def test_a_file_is_one_corpus_with_three_splits_that_share_no_query(faq):
    source = load_source(f"rows:{faq}", BadRows())
    assert len(source.corpus) == len(source.queries) == 200
    sizes = {split: len(qrels) for split, qrels in source.qrels.items()}
    assert sum(sizes.values()) == 200 == len(set().union(*source.qrels.values()))
    assert sizes == {"train": 147, "dev": 15, "test": 38}  # a hash divides: about 140, 20, 40
    data = load(f"rows:{faq}", "test")
    (query, docs), *_ = data.qrels.items()
    number = data.queries[query].split()[2]
    assert [data.corpus[doc].text for doc in docs] == [f"{number} is made of {int(number) + 1}"]


def test_rows_that_are_added_move_no_query(faq):
    before = {query: split for split, qrels in load_source(f"rows:{faq}", BadRows()).qrels.items() for query in qrels}
    faq.write_text(faq.read_text() + "".join(f"why is {n} good?,{n} is good\n" for n in range(50)))
    after = {query: split for split, qrels in load_source(f"rows:{faq}", BadRows()).qrels.items() for query in qrels}
    assert len(after) == 250
    assert before.items() <= after.items()


def test_queries_of_equal_text_and_texts_that_are_query_and_answer_stay_together():
    alone = [row(f"x{n}", f"text {n}") for n in range(40)]
    assert len({*split_by_query([r._replace(positives={"d": Document("", "d")}) for r in alone]).values()}) == 3
    chain = [row(f"x{n}", f"text {n}", f"Text  {n + 1}") for n in range(40)]  # each answer is the next query
    assert len({*split_by_query(chain).values()}) == 1
    twins = [row(f"{kind}{n}", text, f"{kind} {n}") for n in range(40) for kind, text in (("a", f"Q {n}"), ("b", f"q  {n}"))]
    of = split_by_query(twins)
    assert all(of[f"a{n}"] == of[f"b{n}"] for n in range(40))


def test_a_shared_answer_does_not_bind_queries():
    """Many questions with one answer are usual (an FAQ); all of them in one split would leave nothing to measure."""
    assert {*split_by_query([row(f"x{n}", f"text {n}", "one answer") for n in range(40)]).values()} == {"train", "dev", "test"}


def test_files_named_after_splits_are_those_splits(tmp_path):
    for name in ("train", "validation", "test"):
        csv_of(tmp_path / f"{name}.csv", [(f"{name} {n}?", f"{name} {n}") for n in range(3)])
    source = load_source(f"rows:{tmp_path}", BadRows())
    assert {split: len(qrels) for split, qrels in source.qrels.items()} == {"train": 3, "dev": 3, "test": 3}
    assert len(source.corpus) == 9
    listed = load_source(f"rows:{tmp_path / 'train.csv'},{tmp_path / 'test.csv'}", BadRows())
    assert list(listed.qrels) == ["train", "test"]
    assert len(load(f"rows:{tmp_path / 'test.csv'}", "test").queries) == 3
    assert len(load(f"rows:{tmp_path / 'test.csv'},split=mine", "mine").queries) == 3
    with pytest.raises(UserError, match=r"has no split 'tset'; did you mean 'test'"):
        check_split(f"rows:{tmp_path}", "tset")


def test_settings_name_columns_and_labels(tmp_path):
    path = csv_of(tmp_path / "a.csv", [("q1", "yes", "no", "0.9"), ("q2", "ja", "nein", "0.1")], "Frage,Gut,Schlecht,Wert")
    data = load(f"rows:{path},query=Frage,positive=Gut,negative=Schlecht,split=test", "test")
    assert [data.corpus[doc].text for docs in data.qrels.values() for doc in docs] == ["yes", "ja"]
    assert {doc.text for doc in data.corpus.values()} == {"yes", "no", "ja", "nein"}
    both = load_source(f"rows:{path},query=Frage,positive=Gut,negative=Schlecht,negative=Wert", BadRows())
    assert {doc.text for doc in both.corpus.values()} == {"yes", "no", "ja", "nein", "0.9", "0.1"}
    graded = load(f"rows:{path},query=Frage,positive=Gut,label=Wert,positive_from=0.5,split=test", "test")
    assert list(graded.queries.values()) == ["q1"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rows:{}/fag.csv", "did you mean 'faq.csv'"),
        ("rows:{}/faq.csv,qery=a", "did you mean 'query'"),
        ("rows:{}/faq.csv,query=a", "Add ,positive=COLUMN to the name"),
        ("rows:{}/faq.csv,split=a,split=b", "names split twice"),
        ("rows:{}/faq.csv,positive_from=high", "positive_from=high; expected a number"),
        ("rows:hf:me/mine", "not the hub's"),
        ("{}/faq.csv", "expected rows:"),
        ("{}", "rows:"),
    ],
)
def test_wrong_names_are_refused_before_rows_are_read(faq, name, says):
    with pytest.raises(UserError) as error:
        check_split(name.format(faq.parent), "test")
    assert says in str(error.value)


def test_files_of_which_only_some_are_named_after_splits_are_refused(faq):
    csv_of(faq.parent / "test.csv", [("a", "b")])
    with pytest.raises(UserError, match=r"test\.csv is named after a split and .*faq\.csv is not"):
        load(f"rows:{faq},{faq.parent / 'test.csv'}", "test")


@pytest.mark.parametrize(
    ("header", "cells", "cure"),
    [
        ("Frage,Antwort", ("a", "b"), "rows:FILE,query=QUESTION,positive=ANSWER"),
        ("sentence1,sentence2,score", ("a", "b", ".3"), ",positive_from=0.5 behind the name of the source"),
    ],
)
def test_cures_are_settings_of_the_name(tmp_path, header, cells, cure):
    csv_of(tmp_path / "a.csv", [cells], header)
    with pytest.raises(UserError) as error:
        load(f"rows:{tmp_path / 'a.csv'}", "test")
    assert cure in str(error.value)
    assert "--data." not in str(error.value)
    with pytest.raises(UserError) as error:
        load(f"rows:{tmp_path / 'a.csv'},query={header.split(',')[0]},positive=nowhere", "test")
    assert "'nowhere'" in str(error.value)
    assert "data." not in str(error.value)


def test_a_training_takes_its_split_with_its_negatives_and_measures_on_the_others(tmp_path):
    rows = [{"query": f"q {n}", "positive": f"good {n}", "negative": f"bad {n}"} for n in range(60)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    name = f"rows:{tmp_path / 't.jsonl'}"
    data = PairData(name, batch_size=2)
    train, dev = load(name, "train"), data.collections["val"]
    assert {query.text for query in data.queries} == {*train.queries.values()}
    assert all(len(query.negatives) == 1 for query in data.queries)
    assert data.hard_negatives == 1
    assert {*dev.queries.values()} == {*load(name, "dev").queries.values()}
    assert not data.shared.get("val_trained")
    assert len(data.load_test().queries) == len(load(name, "test").queries)
    known = queries_trained_on({"train": name, "train_split": "train"})
    assert known == {*train.queries.values()}


def test_rows_are_read_and_reported_once_while_they_are_unchanged(faq, capsys):
    faq.write_text(faq.read_text() + "how is 1 made?,1 is made of 2\nhow is 9 made?, \n")
    for split in ("train", "dev", "test"):
        assert load(f"rows:{faq}", split, skip_bad_rows=True).notes["skipped_rows"] == {"no text": 1}
    assert capsys.readouterr().err.count("divided by a hash") == 1
    faq.write_text(faq.read_text() + "why?,so\n")
    assert sum(map(len, load_source(f"rows:{faq}", BadRows(True)).qrels.values())) == 201


def test_settings_of_rows_and_options_of_rows_are_not_mixed(faq):
    with pytest.raises(UserError, match=r"Write rows:.*,query=COLUMN,positive=COLUMN"):
        PairData(f"rows:{faq}", batch_size=2, columns={"query": "question", "positive": "answer"})


def test_all_of_it_can_be_searched_and_encoded(faq):
    corpus, queries = load_unjudged(f"rows:{faq}", None, queries=True)
    assert len(corpus) == len(queries) == 200


def test_a_folder_that_save_to_disk_wrote_is_a_source(tmp_path):
    rows = [{"question": f"{name} {n}?", "answer": f"{name} {n}"} for name in ("a", "b") for n in range(40)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "one")
    parts = {name: datasets.Dataset.from_list(rows[:5]) for name in ("train", "validation")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "two")
    assert sum(map(len, load_source(f"rows:{tmp_path / 'one'}", BadRows()).qrels.values())) == 80
    assert len(load(f"rows:{tmp_path / 'two'}", "dev").queries) == 5


def test_texts_of_ids_are_read_again_when_their_file_has_changed(tmp_path):
    row = {"query_id": "q1", "query_text": "a bee", "positive_document_ids": ["d1"], "negative_document_ids": []}
    (tmp_path / "ids.jsonl").write_text(json.dumps(row) + "\n")
    name = f"rows:{tmp_path / 'ids.jsonl'},corpus_file={tmp_path / 'corpus.tsv'},split=test"
    for text in ("bees make honey", "bees make wax and honey"):
        (tmp_path / "corpus.tsv").write_text(f"d1\t{text}\n")
        assert [doc.text for doc in load(name, "test").corpus.values()] == [text]
