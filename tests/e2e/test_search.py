"""`research search`: own texts, own questions, no judgement anywhere."""

import json
import math
import shutil

import pytest

from tests.conftest import write_collection

PASSAGES = {
    "bees": "bees make honey honey",
    "mill": "flour millers grind",
    "loom": "weavers make cloth",
    "smith": "iron tools",
    "well": "water",
}


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps({"_id": name, "title": "", "text": text}) + "\n" for name, text in PASSAGES.items()))
    return path


def lines(result) -> list[dict]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def hits(line: dict) -> dict[str, float]:
    return {hit["id"]: hit["score"] for hit in line["hits"]}


def test_bm25_over_five_passages_is_what_the_formula_says(research, passages):
    (line,) = lines(research("search", "--corpus", passages, "--query", "honey make", "--retriever", "bm25", "--texts"))
    # Lucene's BM25, k1 1.2, b .75: lengths 4, 3, 3, 2, 1 have the mean 2.6; honey is in 1 of 5 documents, make in 2
    idf = {count: math.log(1 + (5 - count + 0.5) / (count + 0.5)) for count in (1, 2)}

    def weight(frequency: int, length: int) -> float:
        return frequency / (frequency + 1.2 * (1 - 0.75 + 0.75 * length / 2.6))

    bees = idf[1] * weight(2, 4) + idf[2] * weight(1, 4)
    loom = idf[2] * weight(1, 3)
    assert (line["query_id"], line["query"]) == ("q1", "honey make")
    assert [(hit["rank"], hit["id"], hit["title"], hit["text"]) for hit in line["hits"]] == [
        (1, "bees", "", PASSAGES["bees"]),
        (2, "loom", "", PASSAGES["loom"]),
    ]
    assert [*hits(line).values()] == pytest.approx([bees, loom], rel=1e-5)


def test_numbers_are_those_of_retrieve(research, collection, tiny_bert, tiny_reranker, tmp_path):
    how = ["--retriever", "bm25", "--retriever", tiny_bert, "--reranker", tiny_reranker, "--depth", "4", "--mix", "0.3"]
    assert research("retrieve", "--data", f"beir:{collection}", "--split", "test", *how, "--out", tmp_path / "run").code == 0
    retrieved: dict[str, list] = {}
    for row in (tmp_path / "run/reranked.trec").read_text().splitlines():
        query, _, doc, _, score, _ = row.split()
        retrieved.setdefault(query, []).append((doc, float(score)))
    judged = research("search", "--data", f"beir:{collection}", "--split", "test", *how, "--top-k", "3")
    shutil.rmtree(collection / "qrels")
    free = research("search", "--data", f"beir:{collection}", *how, "--top-k", "3")
    for line in lines(judged):
        assert [*hits(line).items()] == [
            (doc, pytest.approx(score, abs=1e-5)) for doc, score in retrieved[line["query_id"]][:3]
        ]
    assert len(lines(free)) == 8
    for line, alike in zip([line for line in lines(free) if line["query_id"] in retrieved], lines(judged), strict=True):
        assert hits(line) == pytest.approx(hits(alike), abs=1e-5)  # other queries beside it in a batch: other last bits


def test_a_hit_in_a_folder_names_its_file(research, tmp_path):
    (tmp_path / "notes/deep").mkdir(parents=True)
    (tmp_path / "notes/deep/on bees.md").write_text("# Bees\nbees make honey")
    (line,) = lines(research("search", "--corpus", tmp_path / "notes", "--query", "honey", "--retriever", "bm25"))
    (hit,) = line["hits"]
    assert (hit["id"], hit["file"], hit["title"]) == ("deep/on_bees.md#1", "deep/on bees.md", "Bees")


def test_a_reranker_reads_deeper_than_what_is_shown(research, passages, tiny_reranker):
    query = ["--query", "bees make water tools flour"]
    (all_read,) = lines(research("search", "--corpus", passages, *query, "--retriever", "bm25", "--reranker", tiny_reranker))
    assert {*hits(all_read)} == {*PASSAGES}
    assert [*hits(all_read).values()] == sorted(hits(all_read).values(), reverse=True)
    how = ["--retriever", "bm25", "--reranker", tiny_reranker, "--top-k", "1"]
    (first,) = lines(research("search", "--corpus", passages, *query, *how))
    assert [*hits(first)] == [*hits(all_read)][:1]
    (before,) = lines(research("search", "--corpus", passages, *query, "--retriever", "bm25"))
    (one_read,) = lines(research("search", "--corpus", passages, *query, *how, "--depth", "1"))
    assert [*hits(one_read)] == [*hits(before)][:1]


def test_queries_come_from_a_file_and_results_go_to_one(research, passages, tmp_path):
    (tmp_path / "q.txt").write_text("honey\nzebra\n")
    result = research(
        "search", "--corpus", passages, "--queries", tmp_path / "q.txt", "--retriever", "bm25", "--out", tmp_path / "hits.jsonl"
    )
    assert (result.code, result.out) == (0, f"{tmp_path / 'hits.jsonl'}: 1 hits of 2 queries\n")
    written = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()]
    assert [(line["query_id"], line["query"], [*hits(line)]) for line in written] == [
        ("q.txt#1", "honey", ["bees"]),
        ("q.txt#2", "zebra", []),
    ]
    assert "1 of 2 queries share no term" in result.err


def test_pretty_results_are_read_by_people(research, passages):
    result = research("search", "--corpus", passages, "--query", "honey", "--query", "zebra", "--retriever", "bm25", "--pretty")
    first, hit, snippet, _, second, nothing, *_ = result.out.splitlines()
    assert (first, second, nothing.strip()) == ("q1: honey", "q2: zebra", "(nothing found)")
    assert hit.split()[0::2] == ["1.", "bees"]
    assert snippet.strip() == PASSAGES["bees"]


def test_pretty_results_are_whole_where_texts_are_asked_for(research, tmp_path):
    text = " ".join(f"honey{i}" for i in range(300))
    (tmp_path / "long.jsonl").write_text(json.dumps({"_id": "long", "text": f"honey {text} end"}) + "\n")
    words = ("search", "--corpus", tmp_path / "long.jsonl", "--query", "honey", "--retriever", "bm25", "--pretty")
    short, whole = research(*words).out, research(*words, "--texts").out
    assert "…" in short
    assert "honey299 end" not in short
    assert f"honey {text} end" in " ".join(whole.split())


def test_a_store_keeps_the_embeddings_and_encodes_what_is_new(research, passages, tiny_bert, tmp_path):
    search = ["search", "--query", "honey", "--retriever", tiny_bert, "--store", tmp_path / "store", "--corpus"]
    first = research(*search, passages)
    assert (tmp_path / "store/store.json").exists()
    assert not (tmp_path / "cache/embeddings").exists()
    at = (tmp_path / "store/embeddings.npy").stat().st_mtime_ns
    assert lines(research(*search, passages)) == lines(first)
    assert (tmp_path / "store/embeddings.npy").stat().st_mtime_ns == at
    passages.write_text(passages.read_text() + json.dumps({"_id": "new", "text": "honey"}) + "\n")
    changed = research(*search, passages)
    assert "5 of 6 texts were encoded before and are taken from there" in changed.err
    assert "encoding 1 texts (doc)" in changed.err
    assert {path.name for path in (tmp_path / "store").iterdir()} == {
        "lock",
        "embeddings.npy",
        "ids.json",
        "texts.npy",
        "store.json",
    }
    anew = research(*search[:-3], "--store", tmp_path / "anew", "--corpus", passages)
    assert hits(lines(changed)[0]) == pytest.approx(hits(lines(anew)[0]), abs=1e-5)
    (tmp_path / "other.txt").write_text("nothing alike\n")
    for refused in (research(*search, tmp_path / "other.txt"), research(*search, passages, "--max-length", "8")):
        assert refused.code == 2
        assert "weights, texts or settings differ" in refused.err


def test_of_a_changed_folder_only_what_is_new_is_encoded(research, tiny_bert, tmp_path):
    (tmp_path / "notes").mkdir()
    for name in "abc":
        (tmp_path / f"notes/{name}.md").write_text(f"{name} " * 9)
    search = ["search", "--corpus", tmp_path / "notes", "--query", "c", "--retriever", tiny_bert]
    assert "encoding 3 texts" in research(*search).err
    (tmp_path / "notes/a.md").unlink()
    (tmp_path / "notes/d.md").write_text("the of and")
    changed = research(*search)
    assert "2 of 3 texts were encoded before" in changed.err
    assert "encoding 1 texts" in changed.err
    again = research(*search)
    assert "finished before" in again.err
    anew = research(*search, "--cache", tmp_path / "empty")
    assert hits(lines(changed)[0]) == pytest.approx(hits(lines(anew)[0]), abs=1e-5)
    assert lines(again) == lines(changed)


def test_hnsw_finds_what_exact_search_finds(research, collection, tiny_bert):
    search = ["search", "--data", f"beir:{collection}", "--retriever", tiny_bert, "--top-k", "5", "--query", "the of and"]
    exact, approximate = (lines(research(*search, "--index", index))[0] for index in ("exact", "hnsw"))
    assert hits(approximate) == pytest.approx(hits(exact), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--query a", "neither --corpus nor --data; expected one of them, the texts to search"),
        ("--corpus {passages} --data builtin:stdlib --query a", "both --corpus and --data"),
        ("--corpus {passages}", "neither --queries nor --query; expected one of them, what is asked"),
        ("--corpus {passages} --query a --queries q.txt", "both --queries and --query"),
        ("--corpus {passages} --query a --split test", "--split test; expected it with --data, and without --queries"),
        ("--corpus {passages} --query a --query-columns {{}}", "expected it with --queries"),
        ("--corpus {passages} --query a --top-k 0", "--top-k 0; expected 1 or more"),
        ("--corpus {passages} --query a --depth 5", "--depth 5 is for a reranker, and there is none"),
        ("--corpus {passages} --query a --retriever BM25", "expected bm25, in small letters"),
        ("--corpus {passages} --query a --retriever bm25 --store s", "expected exactly one dense --retriever"),
        ("--corpus {passages} --query a --retriever ./none", "model './none' does not exist"),
        ("--corpus {passages} --query a --out .", "is a folder; expected a file"),
        ("--corpus {passages} --query a --passage-words 0", "--passage-words 0"),
        ("--corpus none.jsonl --query a --retriever bm25", "none.jsonl does not exist"),
        ("--corpus {passages} --queries none.txt --retriever bm25", "none.txt does not exist"),
        ("--data beir:none --query a", "does not exist"),
        ("--corpus {passages} --query a --ef 0", "--ef 0; expected 1 to"),
        ("--corpus {passages} --query a --index hnsw --ef 3", "exceeds ef=3"),
        ("--corpus {passages} --query a --ef 300", "--ef 300 is for HNSW, and 5 documents are searched exactly"),
        ("--corpus {passages} --query a --index exact --ef 300", "--ef 300 is for HNSW, and --index is exact"),
        ("--corpus {passages} --query a --bm25-k1 1", "--bm25-k1 1.0 is for bm25, which is not among the retrievers"),
        ("--corpus {passages} --query a --retriever bm25 --max-length 9", "--max-length 9 is for an encoder"),
        ("--corpus {passages} --query a --retriever bm25 --precision bf16", "--precision bf16 is for a model"),
        ("--corpus {passages} --query a --retriever bm25 --passage-words 90", "a passage a row, and a length of passages (90"),
        ("--corpus lines.txt --query a --retriever bm25 --passage-overlap 9", "a passage a line, and a length"),
        ("--data builtin:stdlib --query a --passage-words 9", "--passage-words 9; expected it with --corpus"),
        ("--corpus lines.txt --query a --retriever bm25 --columns {{}}", "lines.txt is text, which has none"),
        ("--corpus {passages} --queries asked.csv --retriever bm25", 'Name them: --query-columns \'{"text": "COLUMN"}\''),
        ("--corpus notes --query a --retriever bm25 --columns {{}}", "notes is text, which has none"),
        ("--corpus {passages} --queries lines.txt --retriever bm25 --query-columns {{}}", "lines.txt is text, which has none"),
    ],
)
def test_wrong_input_is_refused_before_a_model_is_loaded(research, passages, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text("a b\nc d\n")
    (tmp_path / "asked.csv").write_text("frage\nwho?\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.md").write_text("# A\nb c\n")
    monkeypatch.setattr("research.models.dual_encoder.DualEncoder.load", lambda *args, **more: pytest.fail("loaded"))
    result = research("search", *options.format(passages=passages).split())
    assert result.code == 2, result.err
    assert message in result.err
    assert not result.out
    blank = research("search", "--corpus", passages, "--query", " ")
    assert (blank.code, "is blank" in blank.err) == (2, True)


def test_a_beir_folder_without_judgements_can_be_encoded(research, tiny_bert, tmp_path):
    folder = write_collection(tmp_path / "folder")
    shutil.rmtree(folder / "qrels")
    (folder / "queries.jsonl").unlink()
    result = research("encode", "--data", f"beir:{folder}", "--model", tiny_bert, "--out", tmp_path / "store", "--json")
    assert result.json["count"] == 30
