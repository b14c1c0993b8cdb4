"""What is known to be relevant by text is no negative, anywhere; folds keep documents and texts together; copies tie."""

import random

import numpy as np
import pytest
import torch

from research.data.candidates import CandidateDataset
from research.data.equality import normalise
from research.data.folds import assign_folds, fold_of
from research.data.pairs import PairCollate, PairDataset
from research.data.positives import in_folds, positives_of, with_positives
from research.data.queries import TrainingQuery, count_by_text, join_known, load_training
from research.data.sources import load
from research.errors import UserError
from research.losses.contrastive import both_directions, info_nce, known_positives
from research.retrieval.candidates import find_candidates, known_relevant
from research.retrieval.exact import exact_search, to_run
from research.types import Document
from tests.beir import write_beir
from tests.unit.test_training_data import Words

CORPUS = {
    "p1": Document("", "the weaver"),
    "p2": Document("", "her sister"),
    "copy": Document("Other", "her  SISTER"),
    "own": Document("", "who wove the cloth?"),
    "n": Document("", "flour"),
}
QUERIES = [
    TrainingQuery("1", "Who wove the cloth?", ["p1"], ["p2", "copy", "own", "n"]),
    TrainingQuery("2", " who  wove the cloth? ", ["p2"], ["p1", "n"]),
    TrainingQuery("3", "what is ground", ["n"], ["p1"]),
]


def test_equal_queries_join_their_positives_with_copies_and_their_own_text():
    known = frozenset({"p1", "p2", "copy", "own"})
    first, second, third = join_known(QUERIES, CORPUS)
    assert (first.known, first.negatives) == (known, ["n"])
    assert (second.known, second.negatives) == (known, ["n"])
    assert (third.known, third.negatives) == ({"n"}, ["p1"])
    assert join_known([first, second, third], {}) == [first, second, third]  # once is enough


def test_queries_with_something_known_by_text_are_counted_in_the_facts_and_no_others():
    plain = [TrainingQuery("1", "one", ["p1"], ["n", "twin"]), TrainingQuery("2", "two", ["p2"], [])]
    corpus = CORPUS | {"twin": Document("", "the weaver")}  # an exact copy was known before
    assert count_by_text(join_known(plain, corpus)) == {}
    assert count_by_text(join_known([*plain, plain[0]._replace(query_id="3", positives=["n"])], corpus)) == {"known_by_text": 2}


def test_training_and_mining_leave_out_the_same_documents():
    """One rule in one place: what is left of the negatives is what `mine` would find."""
    dice = random.Random(0)
    words = ["Red apple", "red  apple", "green", "GREEN", "sea", "sky"]
    for _ in range(50):
        corpus = {f"d{i}": Document(dice.choice(["", "T", "red"]), dice.choice(words)) for i in range(8)}
        qrels = {f"q{i}": {f"d{j}": 1 for j in dice.sample(range(8), 2)} for i in range(4)}
        texts = {query: dice.choice(words) for query in qrels}
        queries = [TrainingQuery(q, texts[q], list(qrels[q]), [d for d in corpus if d not in qrels[q]]) for q in qrels]
        known = known_relevant(qrels, texts, [qrels], corpus)
        run = {query: {doc: 1.0 for doc in corpus} for query in qrels}
        mined, _ = find_candidates(run, known, corpus, 1, 99)
        assert {q.query_id: q.negatives for q in join_known(queries, corpus)} == {
            query: [c.doc for c in row] for query, row in mined.items()
        }


@pytest.mark.parametrize("symmetric", [False, True])
def test_equal_queries_of_a_batch_cost_a_perfect_encoder_nothing(symmetric):
    """Two equal queries, each with a passage: both columns of a row are right, so the loss is that of one column: 0."""
    pairs = PairDataset(QUERIES[:2], CORPUS, hard_negatives=0, seed=0)
    batch = PairCollate(pairs.texts, Words(), Words(), pairs.widest, None)([pairs[0, 0], pairs[0, 1]])
    own = torch.arange(2)
    masked = known_positives(batch.doc_ids, batch.positive_ids, own)
    assert masked.tolist() == [[False, True], [True, False]]
    vectors = torch.eye(2)
    if symmetric:
        asked = (batch.positive_ids[None] == batch.doc_ids[:, None, None]).any(-1).scatter(1, own[:, None], False)
        losses = both_directions(info_nce, vectors, vectors.flip(0), own, 0.05, masked, vectors, own, asked)
    else:
        losses = info_nce(vectors, vectors.flip(0), own, 0.05, masked)
    assert losses.tolist() == [0.0, 0.0]


def test_group_of_a_cross_encoder_holds_no_document_known_by_text():
    groups = CandidateDataset(QUERIES, CORPUS, group_size=9, seed=0)
    assert groups[0, 0].docs == ["the weaver", "flour"]


def test_document_of_the_querys_text_is_not_mined_and_keeps_its_position():
    run = {"1": {"own": 9.0, "n": 8.0}}
    known = known_relevant(["1"], {"1": "who wove  THE cloth?"}, [{"1": {"p1": 1}}], CORPUS)
    found, counts = find_candidates(run, known, CORPUS, 1, 30)
    assert [(c.doc, c.position) for c in found["1"]] == [("n", 2)]
    assert counts == {"text_of_query": 1}


def test_relevant_document_that_the_corpus_lacks_does_not_stop_mining():
    known = known_relevant(["1"], {"1": "x"}, [{"1": {"gone": 1, "p1": 1}}], CORPUS)
    assert [c.doc for c in find_candidates({"1": {"p1": 2.0, "n": 1.0}}, known, CORPUS, 1, 9)[0]["1"]] == ["n"]


# ---- folds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_folds_share_no_document_and_no_text(seed):
    dice = random.Random(seed)
    positives = {f"q{i}": [f"d{dice.randrange(150)}" for _ in range(dice.choice([1, 1, 2, 3]))] for i in range(80)}
    texts = {query: dice.choice(["same", "SAME "]) if dice.random() < 0.05 else query for query in positives}
    folds = assign_folds(positives, texts, 3)
    for held in (lambda query: positives[query], lambda query: [normalise(texts[query])]):
        by_fold = [{one for query in positives if folds[query] == fold for one in held(query)} for fold in range(3)]
        assert len(by_fold[0] | by_fold[1] | by_fold[2]) == sum(map(len, by_fold))


def test_fold_of_a_query_whose_documents_nobody_shares_is_the_one_it_always_had():
    positives = {f"q{i}": [f"d{i}", f"e{i}"] for i in range(100)}
    assert assign_folds(positives, {query: query for query in positives}, 2) == {
        query: fold_of(dict.fromkeys(docs, 1), 2) for query, docs in positives.items()
    }


@pytest.mark.parametrize("folds", [2, 3])
def test_training_without_a_fold_trains_on_no_query_that_mining_gives_its_retriever(tmp_path, folds):
    """Blank documents, which come first among the positives, are no positives for either."""
    dice, corpus, qrels = random.Random(folds), {}, {}
    for i in range(30):
        corpus |= {f"a{i:02}": Document("", "  "), f"d{i:02}": Document("", f"text {i}")}
        others = dice.sample(range(30), 2) if dice.random() < 0.2 else []
        qrels[f"q{i:02}"] = {f"{kind}{n:02}": 1 for n in [i, *others] for kind in "ad"} | {f"d{(i + 1) % 30:02}": 0}
    qrels["q05"] = {"a05": 1}  # nothing to train on, and nothing to mine for
    write_beir(tmp_path, corpus, {query: f"question {query}" for query in qrels}, {"train": qrels})
    mined = with_positives(load(f"beir:{tmp_path}", "train"))
    parts = in_folds(mined, folds)
    assert {*mined.queries} == {*qrels} - {"q05"} == {query for part in parts for query in part.queries}
    assert mined.notes["blank_positives"] > 0
    assert all(doc[0] == "d" for docs in positives_of(mined).values() for doc in docs)
    for fold, part in enumerate(parts):
        trained = load_training(f"beir:{tmp_path}", "train", f"{fold}/{folds}", None, False)[0]
        assert {query.query_id for query in trained} == mined.queries.keys() - part.queries.keys()
    write_beir(tmp_path / "blank", {"a": Document("", " "), "d": Document("", "x")}, {"q": "why"}, {"train": {"q": {"a": 1}}})
    with pytest.raises(UserError, match="no relevant document with a text for any of its 1 queries"):
        with_positives(load(f"beir:{tmp_path / 'blank'}", "train"))


def test_folds_that_hang_together_are_said(capsys):
    assign_folds({f"q{i}": ["hub"] for i in range(9)}, {f"q{i}": str(i) for i in range(9)}, 3)
    assert "warning: the folds have" in capsys.readouterr().err


# ---- ties of equal documents ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("top_k", [10, 99, 1563])
def test_equal_documents_tie_whatever_else_is_searched(count, top_k):
    """Every document twice: 1,563 pairs, whose columns lie in different tiles of the product."""
    draw = np.random.default_rng(0)
    half = draw.normal(size=(1563, 96)).astype(np.float32)
    docs = np.concatenate([half, half])
    ids = [f"d{i:05}" for i in range(len(docs))]
    queries = draw.normal(size=(count, 96)).astype(np.float32)
    scores, positions = exact_search(queries, docs, top_k, cosine=True, ids=ids)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    run = to_run([f"q{i}" for i in range(count)], ids, scores, positions)
    exact = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float64) @ (
        half / np.linalg.norm(half, axis=1, keepdims=True)
    ).T.astype(np.float64)
    for row, ranking in zip(exact, run.values(), strict=True):
        pairs = np.argsort(-row, kind="stable")
        expected = [ids[place] for pair in pairs for place in (pair + 1563, pair)][:top_k]  # the larger id first
        assert list(ranking) == expected
        assert all(a == b for a, b in zip(list(ranking.values())[::2], list(ranking.values())[1::2], strict=False))


def test_documents_that_differ_keep_scores_that_are_close():
    docs = np.array([[1, 0], [1, 3e-4], [1, 0]], np.float32)  # the middle one is ahead by less than a rounding of 1e-6
    query = np.array([[1, 1e-3]], np.float32)
    _, positions = exact_search(query, docs, 1, ids=["a", "b", "c"])
    assert positions.tolist() == [[1]]
    scores, positions = exact_search(query, docs, 2, ids=["a", "b", "c"])
    assert positions.tolist() == [[1, 2]]
    assert scores[0, 0] > scores[0, 1]
