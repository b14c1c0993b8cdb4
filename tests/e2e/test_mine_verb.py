"""`research mine` as a user types it, on tiny models."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from research.data.rankings import read_run
from research.data.rows import BadRows, read_jsonl
from research.data.triplets import read_triplet
from research.types import Triplets


@pytest.fixture
def mine(research, collection, tiny_bert, tmp_path):
    def run(*extra, retrievers=(tiny_bert,), split="test", out=tmp_path / "negatives.jsonl"):
        chosen = [part for name in retrievers for part in ("--retriever", name)]
        return research("mine", "--data", f"beir:{collection}", "--split", split, *chosen, "--out", out, *extra)

    return run


@pytest.fixture
def ranking(research, collection, tmp_path):
    """The last ranking of `retrieve --drop-self`, which mined positions and scores must be those of."""

    def run(*retrievers, stage="dense", split="test"):
        chosen = [part for name in retrievers for part in ("--retriever", name)]
        out = tmp_path / f"run-{split}-{len(retrievers)}-{stage}"
        done = research("retrieve", "--data", f"beir:{collection}", "--split", split, *chosen, "--out", out, "--drop-self")
        assert done.code == 0, done.err
        return read_run(out / f"{stage}.trec")

    return run


def triplets(path: Path) -> dict[str, Triplets]:
    rows = (read_triplet(row, where, BadRows()) for where, row in read_jsonl(path, BadRows()))
    return {row.query_id: row for row in rows}


def facts(path: Path) -> dict:
    return json.loads(Path(f"{path}.json").read_text())


def judge(collection: Path, split: str, *lines: str) -> None:
    with open(collection / "qrels" / f"{split}.tsv", "a") as stream:
        stream.writelines("\t".join(line.split()) + "\n" for line in lines)


# ---- what is mined --------------------------------------------------------------------------------------------------


def test_every_query_has_the_rest_of_its_ranking_in_order(mine, ranking, tiny_bert, tmp_path):
    assert mine().code == 0
    rows, run = triplets(tmp_path / "negatives.jsonl"), ranking(tiny_bert)
    assert list(rows) == ["q0", "q2", "q4", "q6"]
    for query, row in rows.items():
        positive = query.replace("q", "d")
        expected = {doc: position for position, doc in enumerate(run[query], 1) if doc != positive}
        assert list(row.positives) == [positive]
        assert list(row.negatives) == list(expected)
        assert row.positions == expected
        assert row.scores == {doc: run[query][doc] for doc in expected}


@pytest.mark.parametrize(("retrievers", "stage"), [(("bm25",), "bm25"), (("bm25", "MODEL"), "fused")])
def test_lexical_and_fused_rankings_are_mined_as_retrieve_ranks(mine, ranking, tiny_bert, tmp_path, retrievers, stage):
    retrievers = [tiny_bert if name == "MODEL" else name for name in retrievers]
    assert mine("--ranks", "2-6", retrievers=retrievers).code == 0
    run = ranking(*retrievers, stage=stage)
    for query, row in triplets(tmp_path / "negatives.jsonl").items():
        expected = [doc for doc in list(run.get(query, {}))[1:6] if doc != query.replace("q", "d")]
        assert list(row.negatives) == expected


def test_json_is_one_line_and_the_facts_say_what_the_file_is(mine, tmp_path, collection):
    result = mine("--json", "--negatives", 5, "--ranks", "3-20")
    said, kept = result.json, facts(tmp_path / "negatives.jsonl")
    digest = hashlib.sha256((tmp_path / "negatives.jsonl").read_bytes()).hexdigest()
    assert said["sha256"] == kept["sha256"] == digest
    assert (said["queries"], said["negatives"], said["queries_with_none"]) == (4, 20, 0)
    assert said["excluded"] == kept["counts"]["excluded"]
    assert (kept["first"], kept["last"], kept["negatives"]) == (3, 20, 5)
    assert (kept["source"], kept["split"], kept["splits"]) == (f"beir:{collection}", "test", ["dev", "test"])
    assert len(kept["data"]) == len(kept["retrievers"][0]["model_hash"]) == 64
    assert kept["provenance"]["command"][:2] == ["research", "mine"]
    assert kept["counts"]["queries_by_negatives"] == {"5": 4}


def test_no_relevant_document_of_any_split_nor_its_copy_nor_the_query_s_own(mine, collection, tmp_path):
    judge(collection, "dev", "q0 d5 2", "q0 d6 0")  # a leak: q0 is of split test
    judge(collection, "test", "q2 d7 1", "q2 d8 -1")
    docs = [json.loads(line) for line in (collection / "corpus.jsonl").read_text().splitlines()]
    docs += [
        {"_id": "copy", "title": docs[0]["title"].upper(), "text": f"  {docs[0]['text']}\n"},
        {"_id": "q4", "title": "", "text": "the the of"},
    ]
    (collection / "corpus.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    result = mine("--json", "--ranks", "1-32")
    rows = triplets(tmp_path / "negatives.jsonl")
    assert {query: set(doc["_id"] for doc in docs) - {*rows[query].negatives} for query in rows} == {
        "q0": {"d0", "d5", "copy"},
        "q2": {"d2", "d7"},
        "q4": {"d4", "q4"},
        "q6": {"d6"},
    }
    assert list(rows["q0"].positives) == ["d0"]  # what another split judges stays out of this one's positives
    assert list(rows["q2"].positives) == ["d2", "d7"]
    assert {"d6"} <= rows["q0"].negatives.keys()  # judged, and not relevant
    assert result.json["excluded"] == {
        "own_id": 1,
        "relevant": 6,
        "relevant_to_equal_query": 0,
        "text_of_relevant": 1,
        "margin": 0,
    }
    for words in (
        "1 documents that have the query's own id",
        "6 documents that are judged relevant",
        "1 documents that have the text of a relevant",
    ):
        assert words in result.err


def test_relevant_to_a_query_of_equal_text_is_no_negative(mine, collection, tmp_path):
    rows = [json.loads(line) for line in (collection / "queries.jsonl").read_text().splitlines()]
    rows[1]["text"] = f" {rows[0]['text'].upper()}"  # q1, of split dev, asks what q0 asks
    (collection / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert mine("--json").json["excluded"]["relevant_to_equal_query"] == 1
    assert "d1" not in triplets(tmp_path / "negatives.jsonl")["q0"].negatives


def test_blank_document_is_no_negative_and_no_positive(mine, collection, tmp_path):
    """A row of training must not hold one: a dense retriever ranks it as any other."""
    for name in ("blank", "void"):
        with open(collection / "corpus.jsonl", "a") as stream:
            stream.write(json.dumps({"_id": name, "title": "", "text": " "}) + "\n")
    judge(collection, "test", "q0 void 1", "q2 void 2")
    Path(collection / "qrels/test.tsv").write_text((collection / "qrels/test.tsv").read_text().replace("q2\td2\t1\n", ""))
    result = mine("--ranks", "1-40", "--json")
    assert result.code == 0, result.err
    assert "1 queries of the split have no relevant document" in result.err
    rows = triplets(tmp_path / "negatives.jsonl")  # read as the trainers read it
    assert {query: [*row.positives] for query, row in rows.items()} == {"q0": ["d0"], "q4": ["d4"], "q6": ["d6"]}
    assert not {"blank", "void"} & {doc for row in rows.values() for doc in row.negatives}
    assert result.json["excluded"]["blank"] == 5  # one of them is judged relevant to q0, and counted so


def test_queries_without_a_positive_are_left_out_and_those_without_a_negative_are_not(mine, collection, tmp_path):
    judge(collection, "test", "q1 d3 0", *(f"q0 d{i} 1" for i in range(1, 30)))
    result = mine("--json")
    rows = triplets(tmp_path / "negatives.jsonl")
    assert "1 queries of the split have no relevant document" in result.err
    assert "warning: 1 of 4 queries have no negative left" in result.err
    assert list(rows) == ["q0", "q2", "q4", "q6"]
    assert rows["q0"].negatives == {}
    assert result.json["queries_with_none"] == 1
    assert facts(tmp_path / "negatives.jsonl")["notes"]["queries_without_positive"] == 1


# ---- margins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retriever", ["MODEL", "bm25"])
@pytest.mark.parametrize("option", ["--margin", "--relative-margin"])
def test_margin_is_taken_of_the_best_positive(mine, ranking, tiny_bert, collection, tmp_path, retriever, option):
    judge(collection, "test", *(f"q{i} d{i + 10} 1" for i in (0, 2, 4, 6)))  # two positives, of which the better counts
    retriever = tiny_bert if retriever == "MODEL" else retriever
    run = ranking(retriever, stage="bm25" if retriever == "bm25" else "dense")
    value = 0.9 if option == "--relative-margin" else 0.01
    assert mine(option, value, retrievers=[retriever]).code == 0
    dropped = 0
    for query, row in triplets(tmp_path / "negatives.jsonl").items():
        ranked = run.get(query, {})
        best = max(ranked.get(doc, 0.0) for doc in row.positives)
        limit = best * value if option == "--relative-margin" else best - value
        others = {doc: score for doc, score in ranked.items() if doc not in row.positives}
        assert list(row.negatives) == [doc for doc, score in others.items() if score <= limit]
        assert max(row.scores[doc] for doc in row.positives) == pytest.approx(best)
        dropped += len(others) - len(row.negatives)
    assert dropped == facts(tmp_path / "negatives.jsonl")["counts"]["excluded"]["margin"] > 0


@pytest.mark.parametrize("retriever", ["MODEL", "bm25"])
def test_positive_that_was_not_retrieved_has_its_score_all_the_same(
    mine, tiny_bert, collection, tmp_path, monkeypatch, retriever
):
    judge(collection, "test", *(f"q{i} d{29 - i} 1" for i in (0, 2, 4, 6)))
    chosen = [tiny_bert if retriever == "MODEL" else retriever]
    mine("--margin", -100, "--ranks", "1-2", retrievers=chosen, out=tmp_path / "deep.jsonl")
    monkeypatch.setattr("research.retrieval.mining.TOP_K", 1)
    result = mine("--margin", -100, "--ranks", "1-2", retrievers=chosen)
    assert "positives are not among those retrieved" in result.err
    deep, shallow = (triplets(tmp_path / name) for name in ("deep.jsonl", "negatives.jsonl"))
    for query, row in shallow.items():
        assert list(row.negatives) == list(deep[query].negatives)
        assert row.scores == pytest.approx(deep[query].scores, rel=1e-5)


def test_reranker_s_logits_replace_the_scores_and_the_margin_is_of_them(mine, tiny_bert, tiny_reranker, tmp_path):
    both = ("bm25", tiny_bert)
    mine("--reranker", tiny_reranker, retrievers=both, out=tmp_path / "all.jsonl")
    result = mine("--reranker", tiny_reranker, "--margin", 0.1, retrievers=both)
    assert result.code == 0, result.err
    assert "logits: unchanged" in result.err  # the same pairs: another margin reads nothing again
    every, kept = (triplets(tmp_path / name) for name in ("all.jsonl", "negatives.jsonl"))
    for query, row in kept.items():
        limit = max(row.scores[doc] for doc in row.positives) - 0.1
        scores = every[query].scores
        assert row.scores.keys() == {*row.positives, *row.negatives}
        assert list(row.negatives) == [doc for doc in every[query].negatives if scores[doc] <= limit]
        assert list(row.positions.values()) == sorted(row.positions.values())  # the order stays the retrievers'
    assert sum(len(row.negatives) for row in kept.values()) < sum(len(row.negatives) for row in every.values())
    assert facts(tmp_path / "negatives.jsonl")["reranker"]["model"] == str(tiny_reranker)


def test_relative_margin_of_scores_that_are_not_positive_is_said(mine, collection):
    rows = [json.loads(line) for line in (collection / "corpus.jsonl").read_text().splitlines()]
    rows[0] |= {"title": "", "text": "zebra"}  # d0 now shares no word with q0
    (collection / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = mine("--relative-margin", 0.95, "--json", retrievers=("bm25",))
    assert "the best positive of 1 of 4 queries scores 0 or less" in result.err
    assert result.json["queries_with_none"] == 1


# ---- finished work --------------------------------------------------------------------------------------------------


def test_same_command_does_nothing_and_says_the_same(mine, tmp_path, monkeypatch):
    first = mine("--json", "--relative-margin", 0.95)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("negatives.jsonl*")}
    monkeypatch.setattr("research.retrieval.pipeline.Pipeline.rank", None)  # called, it would raise
    again = mine("--json", "--relative-margin", 0.95)
    assert again.json == first.json
    assert "unchanged since it was mined" in again.err
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_other_rules_need_no_other_retrieval(mine, tmp_path, monkeypatch):
    mine()
    monkeypatch.setattr("research.retrieval.stages.exact_search", None)
    result = mine("--negatives", 3, "--json")
    assert result.json["negatives"] == 12
    assert "dense: unchanged" in result.err


def test_bytes_are_the_same_in_another_cache_and_from_a_kept_ranking(mine, tmp_path, tiny_bert, tiny_reranker):
    options = ("--reranker", tiny_reranker, "--margin", 0.05)
    mine(*options, retrievers=("bm25", tiny_bert), out=tmp_path / "a.jsonl")
    mine(*options, retrievers=("bm25", tiny_bert), out=tmp_path / "b.jsonl")
    mine(*options, "--cache", tmp_path / "other", retrievers=("bm25", tiny_bert), out=tmp_path / "c.jsonl")
    a, b, c = ((tmp_path / f"{name}.jsonl").read_bytes() for name in "abc")
    assert a == b == c


def test_new_judgement_in_another_split_is_mined_again(mine, collection, tmp_path):
    mine()
    judge(collection, "dev", "q0 d5 1")
    assert "unchanged since it was mined" not in mine().err
    assert "d5" not in triplets(tmp_path / "negatives.jsonl")["q0"].negatives


@pytest.mark.parametrize("killed", ["before the triplets", "after the triplets"])
def test_killed_command_is_gone_on_with(mine, tmp_path, killed, monkeypatch):
    out = tmp_path / "negatives.jsonl"
    mine()
    finished = out.read_bytes()
    Path(f"{out}.json").write_text(json.dumps(facts(out) | {"sha256": None}))
    if killed == "before the triplets":
        out.unlink()
    result = mine()
    assert result.code == 0, result.err
    assert out.read_bytes() == finished
    assert facts(out)["sha256"] == hashlib.sha256(finished).hexdigest()


# ---- folds ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tiny_bert, collection, tmp_path):
    """trained(name, …) → a run folder as `research fit` leaves it."""

    def make(
        name: str,
        fold: str | None = None,
        split: str = "test",
        source: str | None = None,
        pooling="mean",
        model: str | None = None,
    ) -> Path:
        shutil.copytree(tiny_bert, tmp_path / name / "model")
        config = {
            "class_path": "research.data.pairs.PairData",
            "init_args": {"train": source or f"beir:{collection}", "train_split": split, "without_fold": fold},
        }
        text = json.dumps({"data": config, "model": {"init_args": {"model": model}}})  # JSON is YAML
        (tmp_path / name / "config.yaml").write_text(text)
        return tmp_path / name

    return make


def test_each_fold_is_mined_by_its_retriever_and_merged_in_the_order_of_the_queries(mine, trained, tmp_path, tiny_bert):
    from research.data.folds import fold_of

    left, right = trained("left", "0/2"), "bm25"
    result = mine("--folds", retrievers=(left, right))
    assert result.code == 0, result.err
    assert "bm25 records no fold" in result.err
    mine(retrievers=(tiny_bert,), out=tmp_path / "dense.jsonl")
    mine(retrievers=("bm25",), out=tmp_path / "bm25.jsonl")
    dense, bm25 = triplets(tmp_path / "dense.jsonl"), triplets(tmp_path / "bm25.jsonl")
    rows = triplets(tmp_path / "negatives.jsonl")
    folds = {query: fold_of({query.replace("q", "d"): 1}, 2) for query in rows}
    assert {*folds.values()} == {0, 1}
    for query, fold in folds.items():
        whole = (bm25 if fold else dense)[query]
        assert list(rows[query].negatives) == list(whole.negatives)
        # a batch of other queries rounds otherwise
        assert (rows[query].scores or {}) == pytest.approx(whole.scores or {}, rel=1e-5)
    assert list(rows) == ["q0", "q2", "q4", "q6"]
    lines = facts(tmp_path / "negatives.jsonl")["retrievers"]
    assert [line["fold"] for line in lines] == ["0/2", "1/2"]
    assert [line["queries"] for line in lines] == [[*folds.values()].count(fold) for fold in (0, 1)]
    assert lines[0]["trained_on"]["without_fold"] == "0/2"


@pytest.mark.parametrize("inside", ["", "/model"])
def test_retriever_of_another_fold_is_refused(mine, trained, inside):
    left, right = trained("left", "0/2"), trained("right", "1/2")
    assert mine("--folds", retrievers=(f"{left}{inside}", right)).code == 0
    result = mine("--folds", retrievers=(right, f"{left}{inside}"))
    assert result.code == 2
    assert "right was trained without fold 1/2, expected 0/2" in result.err
    assert "Reorder the retrievers" in result.err
    assert mine("--folds", retrievers=(left, right, "bm25")).code == 2  # 0/2 is no fold of three


def test_fold_left_out_of_other_data_is_warned_of(mine, trained, tmp_path):
    result = mine("--folds", retrievers=(trained("left", "0/2", split="dev"), "bm25"))
    assert "left left out fold 0/2" in result.err
    assert len(facts(tmp_path / "negatives.jsonl")["warnings"]) == 1


def test_margins_of_each_fold_are_of_its_retriever_s_scores(mine, tiny_bert, tmp_path):
    assert mine("--folds", "--relative-margin", 0.95, retrievers=(tiny_bert, "bm25")).code == 0
    for row in triplets(tmp_path / "negatives.jsonl").values():
        best = max(row.scores[doc] for doc in row.positives)
        assert all(row.scores[doc] <= 0.95 * best for doc in row.negatives)


@pytest.mark.parametrize("spelling", ["beir:collection", "beir:./collection/", "mined"])
def test_retriever_that_was_trained_on_these_queries_is_warned_of(mine, trained, tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    if spelling == "mined":  # trained on triplets, which say what they were mined from
        mine(retrievers=("bm25",), out=Path("first.jsonl"))
        spelling = "first.jsonl"
    result = mine(retrievers=(trained("run", source=spelling),))
    assert "was trained on beir:" in result.err
    assert "warning: " in result.err
    assert "With --folds" in result.err
    assert len(facts(tmp_path / "negatives.jsonl")["warnings"]) == 1
    assert "was trained on" in mine("--folds", retrievers=(tmp_path / "run", "bm25"), out=tmp_path / "f.jsonl").err


def test_what_the_starting_model_was_trained_on_counts_too(mine, trained, tmp_path):
    """Leaving a fold out of a second training does not hide it from a model that saw it in the first."""
    first = trained("first")
    second = trained("second", "0/2", model=str(first))
    result = mine("--folds", retrievers=(second, "bm25"))
    assert "second started from a model that was trained on beir:" in result.err
    result = mine("--folds", retrievers=(trained("clean", "0/2"), "bm25"), out=tmp_path / "b.jsonl")
    assert "started from" not in result.err


def test_retriever_that_was_trained_on_another_split_is_not(mine, trained, tmp_path):
    assert "was trained on" not in mine(retrievers=(trained("run", split="dev"),)).err
    assert facts(tmp_path / "negatives.jsonl")["warnings"] == []


def test_run_folder_of_retrieve_is_no_training(mine, research, collection, tmp_path, tiny_bert):
    research("retrieve", "--data", f"beir:{collection}", "--split", "test", "--retriever", "bm25", "--out", tmp_path / "run")
    shutil.copytree(tiny_bert, tmp_path / "run/model")
    assert mine(retrievers=(tmp_path / "run",)).code == 0


def test_mined_triplets_are_read_by_the_trainer(mine, tmp_path):
    pytest.importorskip("research.data.queries")
    from research.data.queries import load_training

    mine("--negatives", 4)
    queries, *_ = load_training(str(tmp_path / "negatives.jsonl"), "", None, None, False)
    assert [(query.query_id, len(query.negatives)) for query in queries] == [("q0", 4), ("q2", 4), ("q4", 4), ("q6", 4)]


def test_hnsw_mines_what_exact_search_does_here(mine, tmp_path):
    mine(out=tmp_path / "exact.jsonl")
    assert mine("--index", "hnsw", out=tmp_path / "hnsw.jsonl").code == 0
    exact, hnsw = (triplets(tmp_path / f"{name}.jsonl") for name in ("exact", "hnsw"))
    assert {query: row.positions for query, row in hnsw.items()} == {query: row.positions for query, row in exact.items()}


def test_bad_rows_are_skipped_and_counted_when_asked(mine, collection, tmp_path):
    with open(collection / "corpus.jsonl", "a") as stream:
        stream.write("{oops\n")
    assert mine().code == 2
    assert mine("--skip-bad-rows").code == 0
    assert facts(tmp_path / "negatives.jsonl")["notes"]["skipped_rows"] == {"malformed JSON": 1}
