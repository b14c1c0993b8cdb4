"""Exact search against a plain matrix product; HNSW, its sidecar and its recall."""

import json

import numpy as np
import pytest
import torch

from research.errors import UserError
from research.retrieval import exact, index
from research.retrieval.exact import ann_recall, exact_search, to_run
from research.retrieval.index import HnswIndex


def vectors(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


DOCS, QUERIES = vectors(700), vectors(40, seed=1)
IDS = [f"d{i}" for i in range(700)]


def brute(queries, docs, k, cosine):
    if cosine:
        queries, docs = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, docs))
    scores = queries.astype(np.float64) @ docs.T.astype(np.float64)
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize(("block", "query_block"), [(64, 7), (699, 40), (10_000, 1)])
def test_exact_search_equals_the_plain_product_whatever_the_blocks(monkeypatch, cosine, block, query_block):
    monkeypatch.setattr(exact, "BLOCK", block)
    monkeypatch.setattr(exact, "QUERY_BLOCK", query_block)
    scores, positions = exact_search(QUERIES, DOCS, 25, cosine)
    expected_scores, expected = brute(QUERIES, DOCS, 25, cosine)
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)


def test_ties_at_the_cut_go_to_the_larger_ids():
    """300 equal documents and one better: whatever the blocks, the cut keeps the larger ids, as trec_eval would rank them."""
    docs = np.repeat(vectors(1), 301, axis=0)
    docs[17] *= 2
    ids = [f"d{i:03}" for i in range(301)]
    scores, positions = exact_search(docs[:1], docs, 5, ids=ids)
    assert [ids[p] for p in positions[0]] == ["d017", "d300", "d299", "d298", "d297"]
    assert scores[0, 0] == pytest.approx(2 * scores[0, 1])
    assert (scores[0, 1:] == scores[0, 1]).all()


def test_every_document_can_be_asked_for():
    assert sorted(exact_search(QUERIES[:1], DOCS, 700)[1][0]) == list(range(700))


@pytest.mark.parametrize("cosine", [False, True])
def test_hnsw_scores_are_similarities_and_recall_is_high(tmp_path, cosine):
    scores, positions = HnswIndex.build(tmp_path, DOCS, IDS, cosine=cosine).search(QUERIES, 10, ef=200)
    exact_scores, exact = exact_search(QUERIES, DOCS, 10, cosine)
    assert ann_recall(scores, exact_scores) > 0.97
    same = positions[:, 0] == exact[:, 0]
    np.testing.assert_allclose(scores[same, 0], exact_scores[same, 0], atol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_single_thread_builds_are_equal_byte_for_byte(tmp_path):
    for name in "ab":
        HnswIndex.build(tmp_path / name, DOCS, IDS)
    assert (tmp_path / "a/index.bin").read_bytes() == (tmp_path / "b/index.bin").read_bytes()


def test_loaded_index_answers_as_the_built_one(tmp_path):
    built = HnswIndex.build(tmp_path, DOCS, IDS)
    loaded = HnswIndex.build(tmp_path, DOCS, IDS)
    np.testing.assert_array_equal(loaded.search(QUERIES, 10, ef=30)[1], built.search(QUERIES, 10, ef=30)[1])


def test_ann_recall_by_hand():
    exact = np.array([[0.9, 0.8], [0.7, 0.5]])
    assert ann_recall(np.array([[0.9, 0.6], [0.7, 0.5]]), exact) == 3 / 4


def test_ann_recall_counts_an_equal_document_as_found(tmp_path):
    docs = np.repeat(vectors(40), 5, axis=0)
    scores, _ = HnswIndex.build(tmp_path, docs, [f"d{i}" for i in range(200)]).search(docs[:20], 3, ef=200)
    assert ann_recall(scores, exact_search(docs[:20], docs, 3)[0]) == 1.0


def test_to_run_keeps_the_order():
    run = to_run(["q"], IDS, np.array([[0.5, 0.25]]), np.array([[7, 3]]))
    assert list(run["q"].items()) == [("d7", 0.5), ("d3", 0.25)]


def test_to_run_ranks_ties_by_descending_id():
    assert list(to_run(["q"], IDS, np.array([[0.5, 0.25, 0.25]]), np.array([[7, 3, 4]]))["q"]) == ["d7", "d4", "d3"]


def test_ef_below_top_k_is_refused(tmp_path):
    with pytest.raises(UserError, match="top_k=10 exceeds ef=5; pass --ef 10 or more"):
        HnswIndex.build(tmp_path, DOCS, IDS).search(QUERIES, 10, ef=5)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"docs": DOCS[:600], "ids": IDS[:600]}, "count"),
        ({"ids": IDS[::-1]}, "ids"),
        ({"cosine": True}, "space"),
        ({"M": 8}, "M is 16, expected 8"),
        ({"ef_construction": 50}, "ef_construction"),
        ({"seed": 1}, "seed"),
        ({"threads": 2}, "threads"),
        ({"docs": vectors(700, 8)}, "dim"),
        ({"facts": {"model_hash": "other", "normalize": True, "prompt": "p"}}, "model_hash"),
        ({"facts": {"model_hash": "m", "normalize": False, "prompt": "p"}}, "normalize"),
        ({"facts": {"model_hash": "m", "normalize": True, "prompt": ""}}, "prompt"),
    ],
)
def test_index_of_anything_else_is_refused(tmp_path, changed, named):
    facts = {"model_hash": "m", "normalize": True, "prompt": "p"}
    HnswIndex.build(tmp_path, DOCS, IDS, facts=facts)
    arguments = {"docs": DOCS, "ids": IDS, "facts": facts} | changed
    with pytest.raises(UserError, match=named):
        HnswIndex.build(tmp_path, **arguments)


def test_truncated_index_is_refused(tmp_path):
    HnswIndex.build(tmp_path, DOCS, IDS)
    data = (tmp_path / "index.bin").read_bytes()
    (tmp_path / "index.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="another size"):
        HnswIndex.build(tmp_path, DOCS, IDS)


def test_sidecar_is_written_last_so_a_killed_build_is_done_again(tmp_path):
    HnswIndex.build(tmp_path, DOCS, IDS)
    (tmp_path / index.SIDECAR).unlink()
    (tmp_path / "index.bin").write_bytes(b"half")
    assert HnswIndex.build(tmp_path, DOCS, IDS).search(QUERIES, 1, ef=10)[1].shape == (40, 1)
    assert json.loads((tmp_path / index.SIDECAR).read_text())["count"] == 700


def test_queries_of_another_dimension_are_refused(tmp_path):
    with pytest.raises(UserError, match="dimension 8"):
        exact_search(vectors(3, 8), DOCS, 5)
    with pytest.raises(UserError, match="dimension 8"):
        HnswIndex.build(tmp_path, DOCS, IDS).search(vectors(3, 8), 5, ef=10)


def test_ties_at_the_cut_are_settled_in_float32_under_autocast():
    """Settling takes products of its own: in bf16 they ended a validation whose cut fell between two close scores."""
    draw = np.random.default_rng(0)
    docs = np.repeat(draw.normal(size=(20, 32)).astype(np.float32), 3, axis=0)
    queries, ids = draw.normal(size=(5, 32)).astype(np.float32), [f"d{i:02}" for i in range(60)]
    plain = exact_search(queries, docs, 10, ids=ids)  # of three copies the cut takes one
    with torch.autocast("cpu", torch.bfloat16):
        scores, positions = exact_search(queries, docs, 10, ids=ids)
    np.testing.assert_array_equal(scores, plain[0])
    np.testing.assert_array_equal(positions, plain[1])


def test_exact_search_is_float32_under_autocast():
    """Lightning validates inside its bf16 context, where scores would be rounded and ranked by their ties."""
    draw = np.random.default_rng(0)
    docs = draw.normal(size=(200, 32)).astype(np.float32)
    queries = draw.normal(size=(5, 32)).astype(np.float32)
    plain = exact_search(queries, docs, 50)
    with torch.autocast("cpu", torch.bfloat16):
        scores, positions = exact_search(queries, docs, 50)
    np.testing.assert_array_equal(scores, plain[0])
    np.testing.assert_array_equal(positions, plain[1])
