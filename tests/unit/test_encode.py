"""Batches, and the store that survives a kill."""

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from research.errors import UserError
from research.models.cut import CutCount
from research.models.dual_encoder import load_encoder
from research.models.guard import module_paths
from research.models.library import open_encoder, open_reranker
from research.models.settings import Dense, EncoderSettings, settings_of
from research.models.stack_encoder import StackEncoder
from research.models.stack_reranker import StackReranker
from research.retrieval import earlier, encode, journal, store
from research.retrieval.embedder import encode as encode_in_memory
from research.retrieval.embedder import load_encoder as load_embedder
from research.retrieval.encode import encode_texts, plan_batches
from research.retrieval.rerank import load_reranker, score_pairs
from research.retrieval.reuse import known_texts
from research.retrieval.store import build_store, hash_texts, open_store, store_key
from tests.conftest import WORDS

TEXTS = [" ".join(WORDS[i % 50 : i % 50 + 1 + i % 13]) for i in range(120)]
IDS = [f"d{i}" for i in range(120)]
BUDGET = 60


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    return load_encoder(tiny_bert)


def build(folder, encoder, key="k", texts=TEXTS, **kwargs):
    return build_store(folder, encoder, IDS[: len(texts)], texts, "doc", key, {}, BUDGET, **kwargs)


@pytest.mark.parametrize(
    ("lengths", "budget", "batches"),
    [
        ([3, 1, 2], 6, [[0, 2], [1]]),  # longest first: 2 rows of 3 tokens fill the budget
        ([2, 2, 2, 2], 4, [[0, 1], [2, 3]]),
        ([9], 4, [[0]]),  # a row longer than the budget goes alone
        ([], 4, []),
        ([1, 5, 5], 10, [[1, 2], [0]]),  # equal lengths keep their order
    ],
)
def test_plan_batches(lengths, budget, batches):
    assert [batch.tolist() for batch in plan_batches(lengths, budget)] == batches


def test_store_holds_the_embeddings_in_the_order_of_its_ids(tmp_path, encoder):
    built = build(tmp_path / "s", encoder)
    assert built.ids == IDS
    np.testing.assert_array_equal(built.embeddings, encode_texts(encoder, TEXTS, "doc", BUDGET))
    assert isinstance(built.embeddings, np.memmap)


def test_token_budget_does_not_change_the_embeddings_beyond_rounding(encoder):
    many, few = (encode_texts(encoder, TEXTS, "doc", budget) for budget in (1, 10_000))
    np.testing.assert_allclose(many, few, atol=1e-5)


def test_windows_join_without_a_seam(encoder, monkeypatch):
    whole = encode_texts(encoder, TEXTS, "doc", BUDGET)
    monkeypatch.setattr(encode, "WINDOW", 17)  # 120 texts are 7 windows and a rest
    np.testing.assert_allclose(encode_texts(encoder, TEXTS, "doc", BUDGET), whole, atol=1e-5)


def _encode_until_killed(folder, model):
    """A child that is killed with SIGKILL once some of its batches are in the journal."""
    journal.SYNC_SECONDS = 0.0
    calls = iter(range(10**6))
    real = encode.encode_batch

    def slow(*args):
        if next(calls) == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    encode.encode_batch = slow
    build(folder, load_encoder(model))


def test_killed_encode_resumes_and_gives_the_same_bits(tmp_path, encoder, tiny_bert, monkeypatch):
    straight = build(tmp_path / "straight", encoder)
    child = multiprocessing.get_context("spawn").Process(target=_encode_until_killed, args=(tmp_path / "s", tiny_bert))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "s/store.json").exists()
    finished = len((tmp_path / "s/journal.jsonl").read_text().splitlines()) - 1
    assert finished == 9

    calls = []
    real = encode.encode_batch
    monkeypatch.setattr(encode, "encode_batch", lambda *args: calls.append(1) or real(*args))
    resumed = build(tmp_path / "s", encoder)
    lengths = [encoder.padded_length(len(row)) for row in encoder.tokenize(TEXTS, "doc")]
    assert len(calls) == len(plan_batches(lengths, BUDGET)) - finished
    assert resumed.meta["resumed_batches"] == finished
    assert (tmp_path / "s/embeddings.npy").read_bytes() == (tmp_path / "straight/embeddings.npy").read_bytes()
    np.testing.assert_array_equal(resumed.embeddings, straight.embeddings)


def test_finished_store_is_opened_not_encoded(tmp_path, encoder, monkeypatch):
    build(tmp_path / "s", encoder)
    monkeypatch.setattr(encode, "encode_batch", None)
    assert build(tmp_path / "s", encoder).meta["count"] == 120


def test_journal_line_cut_short_by_a_kill_is_done_again(tmp_path, encoder, monkeypatch):
    straight = build(tmp_path / "straight", encoder).embeddings
    stop_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", encoder)
    monkeypatch.undo()
    with open(tmp_path / "s/journal.jsonl", "a") as stream:
        stream.write("[5, 1")
    np.testing.assert_array_equal(build(tmp_path / "s", encoder).embeddings, straight)


def test_journal_that_was_cut_short_serves_the_next_kill_too(tmp_path, encoder, monkeypatch):
    """What is appended after a torn line must not be lost with it."""
    for stop in (5, 4):
        stop_after(monkeypatch, stop)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "s", encoder)
        monkeypatch.undo()
        with open(tmp_path / "s/journal.jsonl", "a") as stream:
            stream.write("[5, 1")
    assert build(tmp_path / "s", encoder).meta["resumed_batches"] == 9


def test_journal_does_not_outlive_the_rows_it_speaks_of(tmp_path, encoder, monkeypatch):
    """A fresh start that is killed at once must leave nothing that a later run takes for finished work."""
    straight = build(tmp_path / "straight", encoder).embeddings
    stop_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", encoder)
    monkeypatch.undo()

    def killed(*_, **__):
        raise SystemExit

    with monkeypatch.context() as patch:  # under other threads the work starts afresh, and dies while taking its space
        patch.setattr(journal.torch, "get_num_threads", lambda: 99)
        patch.setattr(journal.os, "posix_fallocate", killed)
        with pytest.raises(SystemExit):
            build(tmp_path / "s", encoder)
    np.testing.assert_array_equal(build(tmp_path / "s", encoder).embeddings, straight)


def test_finished_store_opens_where_nothing_can_be_written(tmp_path, encoder, monkeypatch):
    build(tmp_path / "s", encoder)

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(store, "exclusive", refused)
    assert build(tmp_path / "s", encoder).meta["count"] == 120


def test_altered_embeddings_are_refused(tmp_path, encoder):
    build(tmp_path / "s", encoder)
    path = tmp_path / "s/embeddings.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="sha256 differs"):
        open_store(tmp_path / "s", "k")


@pytest.mark.thorough
def test_long_documents_are_tokenised_a_few_at_a_time(encoder, monkeypatch):
    """A tokenizer keeps what it cuts off until its call ends: a window of long documents would fill the memory."""
    calls = []
    real = type(encoder.tokenizer).__call__

    def counting(self, texts, **kwargs):
        calls.append(sum(map(len, texts)))
        return real(self, texts, **kwargs)

    monkeypatch.setattr(type(encoder.tokenizer), "__call__", counting)
    texts = ["word " * 200_000] * 9 + ["short"]
    assert [len(row) for row in encoder.tokenize(texts, "doc")] == [64] * 9 + [3 + len("short") - 1]
    assert max(calls) <= 2**22
    assert len(calls) == 3


def test_unfinished_work_of_other_threads_is_not_mixed_in(tmp_path, encoder, monkeypatch):
    stop_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", encoder)
    monkeypatch.undo()
    header, *rest = (tmp_path / "s/journal.jsonl").read_text().splitlines()
    changed = json.loads(header)
    changed["environment"]["threads"] += 1
    (tmp_path / "s/journal.jsonl").write_text("\n".join([json.dumps(changed), *rest]) + "\n")
    assert build(tmp_path / "s", encoder).meta["resumed_batches"] == 0


def test_store_of_another_key_is_refused_and_kept(tmp_path, encoder):
    before = build(tmp_path / "s", encoder, key="a").embeddings.copy()
    with pytest.raises(UserError, match="expected key b"):
        build(tmp_path / "s", encoder, key="b")
    np.testing.assert_array_equal(open_store(tmp_path / "s", "a").embeddings, before)


def test_folder_with_other_files_is_refused(tmp_path, encoder):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        build(tmp_path, encoder)


def test_two_processes_that_want_one_store_encode_it_once(tmp_path, tiny_bert):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_build_and_time, args=(tmp_path / "s", tiny_bert, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    counts = sorted(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(30)
    assert counts[0] == 0
    assert counts[1] > 0


def _build_and_time(folder, model, queue):
    calls = []
    real = encode.encode_batch

    def slow(*args):
        calls.append(1)
        time.sleep(0.05)
        return real(*args)

    encode.encode_batch = slow
    build(folder, load_encoder(model))
    queue.put(len(calls))


def stop_after(monkeypatch, batches):
    """Interrupt the encoding after so many batches, with all of them in the journal."""
    calls = iter(range(10**6))
    real = encode.encode_batch

    def stopping(*args):
        if next(calls) == batches:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(journal, "SYNC_SECONDS", 0.0)
    monkeypatch.setattr(encode, "encode_batch", stopping)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EncoderSettings)])
def test_key_depends_on_every_setting_of_its_role_and_on_none_of_the_others(tiny_bert, field):
    other = {
        "pooling": "cls",
        "normalize": True,
        "similarity": "dot",
        "query_prompt": "x",
        "doc_prompt": "x",
        "query_max_length": 8,
        "doc_max_length": 8,
        "include_prompt": False,
        "lower_case": True,
        "dense": (Dense("2_Dense", 32, 32, True, "tanh"),),
        "truncate_dim": 8,
        "modules": "Transformer, CNN",
    }[field]
    encoder = load_encoder(tiny_bert)
    before = store_key("m", encoder, "doc", "fp32", "t")
    encoder.settings = dataclasses.replace(encoder.settings, **{field: other})
    assert (store_key("m", encoder, "doc", "fp32", "t") == before) == field.startswith("query_")


def test_key_depends_on_weights_precision_and_texts_and_not_on_the_other_role(encoder, tiny_bert):
    base = store_key("m", encoder, "doc", "fp32", "t")
    assert base not in (
        store_key("n", encoder, "doc", "fp32", "t"),
        store_key("m", encoder, "doc", "bf16", "t"),
        store_key("m", encoder, "doc", "fp32", "u"),
    )
    assert base == store_key("m", load_encoder(tiny_bert, query_prompt="x"), "doc", "fp32", "t")


def test_text_hash_sees_where_one_text_ends():
    assert hash_texts(["a", "b"], ["xy", "z"]) != hash_texts(["a", "b"], ["x", "yz"])
    assert hash_texts(["a", "b"], ["x", "y"]) != hash_texts(["b", "a"], ["x", "y"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            [60, 62, 63, 70],
            "2 of 4 documents are longer than the 64 tokens that m reads",
        ),  # with [CLS] and [SEP] 62, 64, 65, 72
        ([1, 62], None),  # what just fits is not cut
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_texts_that_are_cut_are_counted_exactly(tmp_path, tiny_bert, capsys, monkeypatch, words, expected, fast):
    encoder = load_encoder(tiny_bert)
    if not fast:  # tokenizers in Python keep no encodings
        monkeypatch.setattr("transformers.BatchEncoding.encodings", None)
    texts = [" ".join(["the"] * count) for count in words]
    for again in range(3):  # encoded; opened; opened by somebody else
        ids = [f"d{i}" for i in range(len(texts))]
        built = build_store(tmp_path / "s", encoder, ids, texts, "doc", "k", {"model": "m"}, BUDGET)
        err = capsys.readouterr().err
        assert (expected or "") in err, again
        assert ("longer than" in err) == bool(expected)
        assert built.meta["cut"] == (2 if expected else 0)
    if expected:
        assert "more the model cannot read" in err
        assert "warning: 2" in err


def test_the_cure_for_texts_that_are_cut_is_a_longer_length(tiny_bert, capsys):
    embedder = load_embedder(str(tiny_bert), doc_max_length=8)
    for _ in range(2):
        encode_in_memory(embedder, ["the " * 9, "the"])
    err = capsys.readouterr().err
    assert err.count("1 of 2 documents are longer than the 8 tokens") == 1
    assert "(--doc-max-length reads more, up to 64; files are cut to shorter passages by search --passage-words)" in err


def test_a_library_that_tokenises_itself_is_counted_too(tiny_bert, tiny_reranker):
    stack = open_encoder(tiny_bert, "fp32")
    settings = settings_of(stack, tiny_bert, False, module_paths(tiny_bert)).override(doc_max_length=8)
    cut = CutCount()
    encode_texts(StackEncoder(stack, settings, 32).eval(), ["the " * 6, "the " * 7, "the"], "doc", cut=cut)  # 8, 9, 3 tokens
    assert (cut.texts, cut.cut) == (3, 1)
    cut = CutCount()
    reranker = StackReranker(open_reranker(tiny_reranker, "fp32"), max_length=8)
    score_pairs(reranker, ["the"] * 2, ["of", "of " * 9], cut=cut)
    assert (cut.texts, cut.cut) == (2, 1)


def test_pairs_that_a_reranker_cuts_are_counted(tiny_reranker, capsys):
    scorer = load_reranker(str(tiny_reranker), max_length=8)
    for _ in range(2):
        scorer.score(["the"] * 3, ["of " * 4, "of " * 5, "of"])  # [CLS] the [SEP] of … [SEP]: 8, 9, 5 tokens
        assert scorer.cut == 1
    err = capsys.readouterr().err
    assert err.count("1 of 3 pairs of query and document are longer than the 8 tokens") == 1
    assert "(--reranker-max-length reads more, up to 64;" in err


# ---- texts that were encoded before ---------------------------------------------------------------------------------

CHANGED = [*TEXTS[7:], "a new text", "another one"]
CHANGED_IDS = [f"c{i}" for i in range(len(CHANGED))]


def rebuild(folder, encoder, known, key="other"):
    return build_store(folder, encoder, CHANGED_IDS, CHANGED, "doc", key, {"made_with": "m"}, BUDGET, known)


@pytest.fixture
def old(tmp_path, encoder):
    """A finished store of TEXTS."""
    return build_store(tmp_path / "old", encoder, IDS, TEXTS, "doc", "k", {"made_with": "m"}, BUDGET).folder


def test_only_new_texts_are_encoded_and_all_embeddings_are_those_of_a_new_store(tmp_path, encoder, old, monkeypatch):
    straight = rebuild(tmp_path / "straight", encoder, ())
    encoded = []
    real = encode.encode_batch
    monkeypatch.setattr(encode, "encode_batch", lambda encoder, ids, *more: encoded.extend(ids) or real(encoder, ids, *more))
    reused = rebuild(tmp_path / "new", encoder, known_texts([old], "m", CHANGED, 32))
    assert sorted(map(len, encoded)) == sorted(map(len, encoder.tokenize(CHANGED[-2:], "doc")))
    assert (reused.meta["reused"], reused.ids) == (len(CHANGED) - 2, CHANGED_IDS)
    np.testing.assert_allclose(reused.embeddings, straight.embeddings, atol=1e-5)
    assert known_texts([old], "another model", CHANGED, 32) == []
    assert known_texts([tmp_path / "none"], "m", CHANGED, 32) == []


def test_a_damaged_store_gives_no_embeddings(encoder, old):
    (old / "embeddings.npy").write_bytes((old / "embeddings.npy").read_bytes()[:-1] + b"x")
    assert known_texts([old], "m", CHANGED, 32) == []


def test_a_store_is_replaced_in_the_end_and_a_kill_leaves_the_old_one(tmp_path, encoder, old, monkeypatch):
    before = open_store(old, "k").embeddings.copy()
    known = [
        part._replace(positions=part.positions[:40], rows=part.rows[:40], cut=part.cut[:40])
        for part in known_texts([old], "m", CHANGED, 32)
    ]
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        rebuild(old, encoder, known)
    monkeypatch.undo()
    np.testing.assert_array_equal(open_store(old, "k").embeddings, before)
    replaced = rebuild(old, encoder, known)
    assert replaced.meta["resumed_batches"] == 3
    straight = rebuild(tmp_path / "straight", encoder, known)
    np.testing.assert_array_equal(replaced.embeddings, straight.embeddings)
    assert not (old / earlier.NEXT).exists()


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_a_kill_while_the_new_store_takes_its_place_loses_nothing(tmp_path, encoder, old, monkeypatch, moved):
    straight = rebuild(tmp_path / "straight", encoder, known_texts([old], "m", CHANGED, 32)).embeddings
    calls = iter(range(10**6))
    real = os.replace

    def dying(a, b):
        if Path(b).parent == old and Path(a).parent.name == earlier.NEXT and next(calls) == moved:
            raise KeyboardInterrupt
        real(a, b)

    monkeypatch.setattr(earlier.os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        rebuild(old, encoder, known_texts([old], "m", CHANGED, 32))
    monkeypatch.undo()
    assert not (old / "store.json").exists()
    monkeypatch.setattr(encode, "encode_batch", None)  # nothing is encoded again
    np.testing.assert_array_equal(rebuild(old, encoder, ()).embeddings, straight)


def test_texts_that_were_cut_are_known_to_be(tmp_path, encoder, capsys):
    texts = ["the " * 70, "of", "the " * 80]
    first = build_store(tmp_path / "a", encoder, ["1", "2", "3"], texts, "doc", "a", {"made_with": "m"}, BUDGET)
    known = known_texts([first.folder], "m", [texts[2], "new " * 90, "of"], 32)
    second = build_store(tmp_path / "b", encoder, ["1", "2", "3"], [texts[2], "and " * 90, "of"], "doc", "b", {}, BUDGET, known)
    assert (first.meta["cut"], second.meta["cut"]) == (2, 2)
    assert np.load(tmp_path / "b/texts.npy")[:, -1].tolist() == [1, 1, 0]
