"""What the trainers read: pairs, groups, folds; numbers that a reader can check by hand."""

import json

import pytest
import torch

from research.data.candidates import CandidateCollate, CandidateData, CandidateDataset
from research.data.chunks import chunked, plan_chunks
from research.data.folds import fold_of, parse_fold
from research.data.pairs import PairCollate, PairData, PairDataset
from research.data.queries import TrainingQuery, load_validation
from research.data.rows import evenly_spaced
from research.errors import UserError
from research.types import NO_ID, Candidates, Document, Pair

CORPUS = {name: Document("", text) for name, text in {"a": "one", "b": "two", "c": "three", "d": "four", "copy": "one"}.items()}
QUERIES = [TrainingQuery("q1", "first", ["a"], ["b", "c", "copy"]), TrainingQuery("q2", "second", ["b", "c"], ["d"])]


class Words:
    """A tower whose tokens are the letters of a text."""

    def tokenize(self, texts, role):
        return [[ord(letter) for letter in text] for text in texts]

    def features(self, rows):
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def test_one_example_a_judged_pair_and_equal_texts_are_one_document():
    pairs = PairDataset(QUERIES, CORPUS, hard_negatives=5, seed=0)
    assert len(pairs) == 3  # q1–a, q2–b, q2–c
    assert pairs.texts == ["one", "two", "three", "four"]
    first = pairs[0, 0]
    assert (first.query, first.positive, first.known) == ("first", 0, [0])
    assert sorted(first.negatives) == [1, 2]  # "copy" is the positive's text
    assert pairs[0, 2] == Pair("second", 2, [3], [1, 2])


def test_negatives_are_a_function_of_seed_epoch_and_index():
    many = [TrainingQuery("q", "query", ["a"], [f"n{i}" for i in range(20)])]
    corpus = CORPUS | {f"n{i}": Document("", f"negative {i}") for i in range(20)}

    def drawn(seed, epoch):
        return tuple(PairDataset(many, corpus, 3, seed)[epoch, 0].negatives)

    assert drawn(0, 0) == drawn(0, 0)
    assert len({drawn(0, 0), drawn(0, 1), drawn(1, 0)}) == 3
    assert len(set(drawn(0, 0))) == 3


def test_batch_lays_positives_first_and_pads_known_ids():
    collate = PairCollate(["one", "two", "three", "four"], Words(), Words(), widest=2, chunk_overhead=None)
    batch = collate([Pair("x", 0, [1, 2], [0]), Pair("y", 2, [3], [1, 2])])
    assert batch.doc_ids.tolist() == [0, 2, 1, 2, 3]
    assert batch.positive_ids.tolist() == [[0, NO_ID], [1, 2]]
    (chunk,) = batch.docs.chunks
    assert ["".join(map(chr, row[row > 0])) for row in chunk["input_ids"]] == ["one", "three", "two", "three", "four"]


def test_no_id_is_the_loss_s_own():
    pass


@pytest.mark.parametrize("overhead", [0, 4, 1000, None])
def test_chunks_laid_end_to_end_hold_every_row_in_its_place(overhead):
    rows = [[1] * n for n in (30, 9, 1, 40, 44)]
    batch = chunked(rows, len, lambda some: {"length": torch.tensor([len(row) for row in some])}, overhead)
    laid = torch.cat([chunk["length"] for chunk in batch.chunks])
    assert laid[batch.rows].tolist() == [30, 9, 1, 40, 44]


def test_chunks_weigh_padding_against_the_cost_of_one_more():
    """Padded to 16: lengths 1, 9 take 16; 30 takes 32; 40, 44 take 48. In chunks of their own 2·16 + 32 + 2·48 = 160 tokens;
    all in one 5·48 = 240; {1, 9, 30} and {40, 44} 3·32 + 2·48 = 192; {1, 9} and the rest 2·16 + 3·48 = 176."""
    lengths = [30, 9, 1, 40, 44]
    assert plan_chunks(lengths, overhead=0) == [[2, 1], [0], [3, 4]]  # 160
    assert plan_chunks(lengths, overhead=15) == [[2, 1], [0], [3, 4]]  # 160 + 45 = 205 against 176 + 30 = 206
    assert plan_chunks(lengths, overhead=17) == [[2, 1], [0, 3, 4]]  # 211 against 210, and 240 + 17
    assert plan_chunks(lengths, overhead=65) == [[2, 1, 0, 3, 4]]  # 305 against 306


def test_group_has_its_positive_first_and_as_many_candidates_as_there_are():
    groups = CandidateDataset(QUERIES, CORPUS, group_size=3, seed=0)
    assert len(groups) == 2
    assert groups[0, 0].labels == [1.0, 0.0, 0.0]
    assert groups[0, 0].docs[0] == "one"
    assert {groups[epoch, 1].docs[0] for epoch in range(20)} == {"two", "three"}  # either positive
    assert all(groups[epoch, 1].docs[1:] == ["four"] for epoch in range(20))


def test_groups_of_unequal_size_are_padded_and_absent_pairs_are_not_computed():
    class Pairs:
        def tokenize(self, queries, docs):
            return {"input_ids": [[len(q), len(d)] for q, d in zip(queries, docs, strict=True)]}

        def collate(self, pairs, chosen):
            return {"input_ids": torch.tensor([pairs["input_ids"][i] for i in chosen])}

    batch = CandidateCollate(Pairs(), group_size=3, chunk_overhead=0)(
        [Candidates("q", ["aa", "b"], [1.0, 0.0]), Candidates("qq", ["a", "bb", "ccc"], [1.0, 0.0, 0.0])]
    )
    assert batch.labels.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert batch.present.tolist() == [[True, True, False], [True, True, True]]
    assert sum(len(chunk["input_ids"]) for chunk in batch.pairs.chunks) == 5
    laid = torch.cat([chunk["input_ids"] for chunk in batch.pairs.chunks])
    assert laid[batch.pairs.rows].tolist() == [[1, 2], [1, 1], [2, 1], [2, 2], [2, 3]]


def test_queries_of_one_document_lie_in_one_fold():
    assert fold_of({"d1": 1, "d2": 1}, 2) == fold_of({"d1": 2}, 2)
    folds = [fold_of({f"d{i}": 1}, 2) for i in range(1000)]
    assert 450 < sum(folds) < 550


@pytest.mark.parametrize(("size", "count"), [(15, 150), (50, 512), (500, 512), (7, 7), (100, 3), (1, 9)])
def test_evenly_spaced_items_repeat_nothing(size, count):
    items = evenly_spaced(list(range(size)), count)
    assert len({*items}) == len(items) == min(size, count)
    assert items == sorted(items)


def test_copies_of_a_positive_are_no_negatives_in_triplets(tmp_path):
    from research.data.queries import load_training

    same, copy, other = ({"docid": i, "title": "", "text": text} for i, text in zip("abc", ("x", "x", "y"), strict=True))
    row = {"query_id": "q", "query": "x", "positive_passages": [same], "negative_passages": [copy, other]}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    (query,), _, _ = load_training(str(tmp_path / "t.jsonl"), "", None, None, False)
    assert query.negatives == ["c"]


@pytest.mark.parametrize("text", ["2/2", "0/1", "-1/2", "half", "0/2/4", ""])
def test_wrong_folds_are_refused(text):
    with pytest.raises(UserError, match="expected FOLD/FOLDS"):
        parse_fold(text)


def test_training_without_a_fold_and_its_rest_make_the_whole(collection):
    parts = [PairData(f"beir:{collection}", "test", without_fold=f"{i}/2", batch_size=2, val_split=None) for i in (0, 1)]
    whole = PairData(f"beir:{collection}", "test", batch_size=2, val_split=None)
    ids = [{query.query_id for query in data.queries} for data in (*parts, whole)]
    assert ids[0] | ids[1] == ids[2]
    assert not ids[0] & ids[1]


def test_validation_on_a_sample_keeps_every_judged_document(collection):
    data = load_validation(f"beir:{collection}", "dev", 10, False)
    assert len(data.corpus) == 10
    assert {doc for docs in data.qrels.values() for doc in docs} <= data.corpus.keys()
    assert load_validation(f"beir:{collection}", "dev", 10, False).corpus == data.corpus
    with pytest.raises(UserError, match="val_documents=2 is less than the 4 documents"):
        load_validation(f"beir:{collection}", "dev", 2, False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hard_negatives": 2}, "holds none; expected a triplets file. Make one: research mine"),
        ({"train_split": "nowhere"}, "'nowhere'"),
        ({"val_split": "nowhere"}, "'nowhere'"),
        ({"train": "negatives.jsonl"}, "has no splits to validate on; expected train=rows:negatives.jsonl"),
        ({"train": "negatives.jsonl", "val": "builtin:stdlib"}, "negatives.jsonl"),
    ],
)
def test_wrong_pairs_are_refused_with_the_cure(collection, options, says):
    with pytest.raises(UserError) as error:
        PairData(**({"train": f"beir:{collection}", "train_split": "test", "val_split": "dev", "batch_size": 2} | options))
    assert says in str(error.value)


def test_rows_can_be_tested_on_a_source_of_its_own_without_a_validation(tmp_path, collection):
    (tmp_path / "rows.jsonl").write_text('{"query": "x", "answer": "y"}\n{"query": "z", "answer": "u"}\n')
    data = PairData(str(tmp_path / "rows.jsonl"), val_split=None, test=f"beir:{collection}", batch_size=2)
    assert data.load_test().source == f"beir:{collection}"
    with pytest.raises(UserError, match="has no splits to validate on"):
        PairData(str(tmp_path / "rows.jsonl"), val_split=None, batch_size=2)


def test_missing_candidates_name_the_command_that_makes_them(tmp_path, collection):
    with pytest.raises(UserError, match=r"research mine --data beir:\S+ --split train .* --out \S+candidates.jsonl"):
        CandidateData(str(tmp_path / "candidates.jsonl"), val=f"beir:{collection}")


def test_missing_validation_run_names_the_command_that_makes_it(tmp_path, collection):
    path = tmp_path / "candidates.jsonl"
    path.write_text(
        '{"query_id": "q", "query": "x", "positive_passages": [{"docid": "d", "title": "", "text": "t"}], '
        '"negative_passages": [{"docid": "e", "title": "", "text": "u"}]}\n'
    )
    with pytest.raises(UserError, match=r"val_run is null.*research retrieve .* --split dev.*--data.val_run"):
        CandidateData(str(path), val=f"beir:{collection}")


@pytest.mark.parametrize(
    ("neighbour", "retriever"), [("a: [1", "all_minilm"), ("[1]", "all_minilm"), ("retriever: [bm25]", "--retriever bm25")]
)
def test_a_damaged_file_beside_a_missing_validation_run_is_passed_over(tmp_path, collection, neighbour, retriever):
    row = {"query_id": "q", "query": "x"} | {
        f"{kind}_passages": [{"docid": kind, "title": "", "text": kind}] for kind in ("positive", "negative")
    }
    (tmp_path / "candidates.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "first").mkdir()
    (tmp_path / "first/config.yaml").write_text(neighbour)
    with pytest.raises(UserError, match=rf"(?s)research retrieve .*{retriever}"):
        CandidateData(str(tmp_path / "candidates.jsonl"), val=f"beir:{collection}", val_run=str(tmp_path / "first/dense.trec"))
