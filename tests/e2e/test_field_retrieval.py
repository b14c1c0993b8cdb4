"""What people bring to retrieval: their collections, judgements and runs. The numbers are trec_eval's."""

import json
from math import log2
from pathlib import Path

import pytest

from research.data.rankings import read_run

DOCS = {
    "d1": "a cat sat on the mat and purred",
    "d2": "a dog chased the ball",
    "d3": "a bird sang in the tree",
    "d4": "a fish swam under the bridge",
}
ASKED = {"q1": "which animal purred on the mat", "q2": "who chased a ball", "q3": "singing in a tree"}
HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.fixture
def folder(tmp_path):
    """Write a BEIR folder: documents, queries, and lines of the judgements of split test."""

    def write(docs=DOCS, queries=ASKED, qrels=("q1 d1 1", "q2 d2 1", "q3 d3 1")) -> Path:
        place = tmp_path / "data"
        (place / "qrels").mkdir(parents=True, exist_ok=True)
        for name, texts in (("corpus", docs), ("queries", queries)):
            lines = (
                json.dumps({"_id": one, "title": "", "text": text} if name == "corpus" else {"_id": one, "text": text})
                for one, text in texts.items()
            )
            (place / f"{name}.jsonl").write_text("\n".join(lines))
        (place / "qrels/test.tsv").write_text(HEADER + "\n".join("\t".join(line.split()) for line in qrels))
        return place

    return write


@pytest.fixture
def bm25(research, tmp_path):
    def run(data: Path, *extra, out: str = "out"):
        return research(
            "retrieve",
            "--data",
            f"beir:{data}",
            "--split",
            "test",
            "--retriever",
            "bm25",
            "--wandb",
            "disabled",
            "--out",
            tmp_path / out,
            "--json",
            *extra,
        )

    return run


# ---- the query's own document ---------------------------------------------------------------------------------------


def own_documents(tmp_path, folder):
    texts = {
        "a1": "alpha beta gamma delta",
        "a2": "alpha beta gamma",
        "a3": "alpha beta",
        "a4": "alpha",
        "z1": "omega psi chi phi",
        "z2": "omega psi chi",
        "z3": "omega psi",
        "z4": "omega",
    }
    return folder(texts, {name: texts[name] for name in ("a1", "z1")}, ("a1 a4 1", "z1 z3 1"))


def test_dropped_document_leaves_its_place_to_another(bm25, folder, tmp_path):
    data = own_documents(tmp_path, folder)
    result = bm25(data, "--top-k", 3, "--drop-self", "--metrics", "recall@3")
    assert result.json["metrics"] == {"recall@3": 1.0}
    assert {query: list(docs) for query, docs in read_run(tmp_path / "out/bm25.trec").items()} == {
        "a1": ["a2", "a3", "a4"],
        "z1": ["z2", "z3", "z4"],
    }


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_every_retriever_their_fusion_and_a_reranker_drop_before_the_cut(
    research, folder, tmp_path, tiny_bert, tiny_reranker, index
):
    data = own_documents(tmp_path, folder)

    def retrieve(top_k, out, *extra):
        result = research(
            "retrieve",
            "--data",
            f"beir:{data}",
            "--split",
            "test",
            "--retriever",
            "bm25",
            "--retriever",
            tiny_bert,
            "--index",
            index,
            "--top-k",
            top_k,
            "--out",
            tmp_path / out,
            "--reranker",
            tiny_reranker,
            "--wandb",
            "disabled",
            *extra,
        )
        assert result.code == 0, result.err
        return {path.name: read_run(path) for path in sorted((tmp_path / out).glob("*.trec"))}

    cut, whole = retrieve(3, "cut", "--drop-self"), retrieve(8, "whole")
    for name in ("bm25.trec", "dense.trec"):
        for query, docs in whole[name].items():
            assert list(cut[name][query]) == [doc for doc in docs if doc != query][:3]
    for query in ("a1", "z1"):
        assert query not in cut["fused.trec"][query]
        assert len(cut["fused.trec"][query]) == 3
        assert cut["reranked.trec"][query].keys() == cut["fused.trec"][query].keys()


def test_hnsw_is_asked_for_one_more_and_says_so(research, folder, tmp_path, tiny_bert):
    data = own_documents(tmp_path, folder)
    command = [
        "retrieve",
        "--data",
        f"beir:{data}",
        "--split",
        "test",
        "--retriever",
        tiny_bert,
        "--index",
        "hnsw",
        "--top-k",
        3,
        "--drop-self",
        "--wandb",
        "disabled",
        "--out",
        tmp_path / "out",
    ]
    refused = research(*command, "--ef", 3)
    assert refused.code == 2
    assert "pass --ef 4 or more" in refused.err
    assert research(*command, "--ef", 4).code == 0


def test_fused_ranking_is_mined_as_retrieve_drops(research, folder, tmp_path, tiny_bert):
    """A query's own document, dropped before fusing, must not move the others' reciprocal ranks."""
    data = own_documents(tmp_path, folder)
    both = ["--data", f"beir:{data}", "--split", "test", "--retriever", "bm25", "--retriever", tiny_bert]
    assert research("retrieve", *both, "--drop-self", "--wandb", "disabled", "--out", tmp_path / "out").code == 0
    mined = research("mine", *both, "--out", tmp_path / "n.jsonl", "--json")
    assert mined.json["excluded"]["own_id"] == 2
    run = read_run(tmp_path / "out/fused.trec")
    for line in (tmp_path / "n.jsonl").read_text().splitlines():
        row = json.loads(line)
        relevant = {passage["docid"] for passage in row["positive_passages"]}
        assert {p["docid"]: p["score"] for p in row["negative_passages"]} == {
            doc: score for doc, score in run[row["query_id"]].items() if doc not in relevant
        }


# ---- what is judged -------------------------------------------------------------------------------------------------


def test_judged_document_that_the_corpus_lacks_stays_in_the_ideal_ranking(research, folder, tmp_path):
    data = folder(qrels=("q1 d1 1", "q1 d77 1", "q2 d2 1", "q3 d3 1"))
    run = tmp_path / "run.trec"
    run.write_text("q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\nq2 Q0 d2 1 1 x\nq3 Q0 d3 1 1 x\n")
    command = ["evaluate", "--data", f"beir:{data}", "--split", "test", "--runs", run, "--metrics", "ndcg@10", "recall@10"]
    refused = research(*command)
    assert refused.code == 2
    assert "--skip-bad-rows to keep it" in refused.err
    result = research(*command, "--skip-bad-rows", "--json")
    # q1 found 1 of 2: 1 / (1 + 1/log2 3) and ½
    expected = {"ndcg@10": (1 / (1 + 1 / log2(3)) + 2) / 3, "recall@10": (0.5 + 2) / 3}
    assert result.json["metrics"] == pytest.approx(expected)
    assert result.json["metrics"] == pytest.approx({"ndcg@10": 0.8710, "recall@10": 0.8333}, abs=1e-4)
    assert "1 judgements of documents that the corpus lacks" in result.err
    run.write_text(run.read_text() + "q1 Q0 d77 3 0.5 x\n")  # made where the document was
    assert research(*command, "--skip-bad-rows", "--json").json["metrics"]["recall@10"] == 1.0


def test_collection_with_absent_judged_documents_is_retrieved_mined_and_trained_on(research, bm25, folder, tmp_path):
    from research.data.pairs import PairData

    data = folder(qrels=("q1 d1 1", "q1 d77 1", "q2 d88 1", "q3 d3 1"))
    result = bm25(data, "--skip-bad-rows", "--metrics", "recall@10")
    assert result.json["metrics"] == {"recall@10": pytest.approx((0.5 + 0 + 1) / 3)}
    mined = research(
        "mine",
        "--data",
        f"beir:{data}",
        "--split",
        "test",
        "--retriever",
        "bm25",
        "--skip-bad-rows",
        "--json",
        "--out",
        tmp_path / "n.jsonl",
    )
    assert (mined.json["queries"], "1 queries of the split have no relevant document in the corpus" in mined.err) == (2, True)
    pairs = PairData(f"beir:{data}", "test", val_split="test", batch_size=2, skip_bad_rows=True, val_documents=4)
    assert [(query.query_id, query.positives) for query in pairs.queries] == [("q1", ["d1"]), ("q3", ["d3"])]


def test_blank_document_stays_and_is_counted(bm25, folder):
    result = bm25(folder(DOCS | {"d5": "", "d6": " "}), "--metrics", "ndcg@10")
    assert result.json["metrics"] == {"ndcg@10": 1.0}
    assert "2 blank documents" in result.err


def test_blank_document_is_encoded_and_read_by_a_reranker(research, folder, tmp_path, tiny_bert, tiny_reranker):
    data = folder(DOCS | {"d5": ""})
    result = research(
        "retrieve",
        "--data",
        f"beir:{data}",
        "--split",
        "test",
        "--retriever",
        tiny_bert,
        "--reranker",
        tiny_reranker,
        "--wandb",
        "disabled",
        "--out",
        tmp_path / "out",
    )
    assert result.code == 0, result.err
    assert {len(docs) for docs in read_run(tmp_path / "out/reranked.trec").values()} == {5}


def test_whole_grades_written_as_floats_are_whole(bm25, folder):
    result = bm25(folder(qrels=("q1 d1 2.0", "q2 d2 1.0", "q3 d3 1.")), "--metrics", "ndcg@10")
    assert result.json["metrics"] == {"ndcg@10": 1.0}


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_bad_run_line_is_skipped_and_counted_when_asked(research, folder, tmp_path):
    data, run = folder(), tmp_path / "run.trec"
    run.write_text("q1 Q0 d1 1 2 x\nq1 Q0 d2 2 nan x\nq2 Q0 d2 1 1\nq3 Q0 d3 1 1 x\nq2 Q0 d2 1 1 x\n")
    command = ["evaluate", "--data", f"beir:{data}", "--split", "test", "--runs", run, "--metrics", "ndcg@10"]
    refused = research(*command)
    assert refused.code == 2
    assert "or pass --skip-bad-rows" in refused.err
    result = research(*command, "--skip-bad-rows", "--json", "--out", tmp_path / "out")
    assert result.json["metrics"] == {"ndcg@10": 1.0}
    assert "skipped rows: 2 malformed run line" in result.err
    notes = json.loads((tmp_path / "out/metrics.json").read_text())["notes"]
    assert notes["skipped_run_lines"] == {"run": {"malformed run line": 2}}


@pytest.mark.parametrize("mean", ["scorable", "trec_eval", "trec_eval-c"])
def test_mean_over_the_queries_that_trec_eval_takes(research, folder, tmp_path, mean):
    """q2 is not in the first run, and nothing is relevant to q3."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    data = folder(qrels=("q1 d1 1", "q1 d4 1", "q2 d2 1", "q3 d3 0"))
    runs = {"a": {"q1": {"d1": 2.0, "d2": 1.0}, "q3": {"d3": 1.0}}, "b": {"q1": {"d4": 1.0}, "q2": {"d2": 1.0}}}
    for name, run in runs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
    result = research(
        "evaluate",
        "--data",
        f"beir:{data}",
        "--split",
        "test",
        "--runs",
        tmp_path / "a.json",
        tmp_path / "b.json",
        "--metrics",
        "ndcg@10",
        "--mean",
        mean,
        "--json",
    )
    qrels = {"q1": {"d1": 1, "d4": 1}, "q2": {"d2": 1}, "q3": {"d3": 0}}
    for name, run in runs.items():
        found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
        values = [row["ndcg_cut_10"] for row in found.values()]
        over = {"scorable": 2, "trec_eval": len(values), "trec_eval-c": 3}[mean]
        assert result.json["stages"][name]["ndcg@10"] == pytest.approx(sum(values) / over, abs=1e-6)
    assert "a.json: 1 of 3 queries have no ranking, 'q2' for example" in result.err
    assert "1 of 3 queries have no relevant document" in result.err
    (pair,) = result.json["comparisons"]
    assert pair["queries"] == {"scorable": 2, "trec_eval": 1, "trec_eval-c": 3}[mean]


def test_mean_over_no_query_is_refused_with_a_cure_that_works(bm25, folder):
    data = folder(queries={"q1": "zebra"}, qrels=("q1 d1 1",))
    refused = bm25(data, "--mean", "trec_eval")
    assert refused.code == 2
    assert "Pass --mean scorable" in refused.err
    assert bm25(data, "--mean", "scorable").code == 0


# ---- BM25 of other languages ----------------------------------------------------------------------------------------


def test_clauses_without_blanks_find_nothing_and_the_proposed_tokenizer_finds_them(bm25, folder, tmp_path):
    from tests.unit.test_terms import ASKED as QUESTIONS
    from tests.unit.test_terms import CHINESE

    data = folder(CHINESE, QUESTIONS, ("q1 z1 1", "q2 z2 1", "q3 z3 1"))
    empty = bm25(data, "--metrics", "recall@5")
    assert empty.json["metrics"] == {"recall@5": 0.0}
    assert "3 of 3 queries share no term with any document" in empty.err
    assert "pass --bm25-tokenizer bigrams, or characters" in empty.err
    for tokenizer in ("bigrams", "characters"):
        found = bm25(data, "--metrics", "recall@5", "--bm25-tokenizer", tokenizer)
        assert found.json["metrics"] == {"recall@5": 1.0}
        assert "unchanged" not in found.err
        assert "share no term" not in found.err
    facts = json.loads((tmp_path / "out/metrics.json").read_text())["stages"]["bm25"]["facts"]
    assert facts["model"] == "bm25 (lucene, k1=1.2, b=0.75, characters, stop words english)"


def test_stage_and_configuration_of_the_default_terms_are_as_before(bm25, folder, tmp_path):
    import bm25s
    import yaml

    from research.retrieval.store import hash_texts
    from research.runs.hashes import hash_json

    data = folder()
    bm25(data)
    stages = json.loads((tmp_path / "out/stages.json").read_text())
    docs, queries = (hash_texts(list(texts), list(texts.values())) for texts in (DOCS, ASKED))
    part = hash_json(["bm25", bm25s.__version__, docs, queries, 1.2, 0.75, 4])
    assert stages["bm25"]["key"] == hash_json([part, False])
    config = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert not {"mean", "bm25_tokenizer", "bm25_stemmer", "bm25_stopwords"} & config.keys()
    result = bm25(data, "--bm25-stemmer", "english", "--bm25-tokenizer", r"regex:\w+")
    assert result.code == 0
    config = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert (config["bm25_stemmer"], config["bm25_tokenizer"]) == ("english", r"regex:\w+")


def test_unknown_terms_are_refused_before_anything_is_read(research, tmp_path):
    result = research(
        "mine",
        "--data",
        f"beir:{tmp_path}",
        "--split",
        "test",
        "--retriever",
        "bm25",
        "--out",
        tmp_path / "n.jsonl",
        "--bm25-tokenizer",
        "bigram",
    )
    assert result.code == 2
    assert "expected words, characters, bigrams or regex:PATTERN" in result.err
