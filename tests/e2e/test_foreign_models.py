"""Models as people bring them, through the verbs: trained, saved, encoded and searched as sentence-transformers would."""

import json
import shutil
from pathlib import Path

import fitting
import numpy as np
import peft
import pytest
import torch
import transformers as tf
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding

from research.models.cross_encoder import load_cross_encoder
from research.retrieval.rerank import score_pairs
from tests.conftest import WORDS

BASES = ("router", "max", "truncated", "adapter")  # a router has a static tower


@pytest.fixture
def typed(research, tmp_path, tiny_bert, monkeypatch):
    """typed("fit -c dual.yaml") → Result, beside a collection; `model` is to be put there."""
    fitting.furnish(tmp_path, tiny_bert, monkeypatch)
    Path("model").unlink()

    def run(line: str, code: int = 0):
        result = research(*line.split())
        assert result.code == code, result.err
        assert "Traceback" not in result.err
        return result

    return run


def encoder(kind: str, tiny_bert: Path, wordpiece, folder: str = "model") -> None:
    torch.manual_seed(0)
    first = Transformer(str(tiny_bert))
    static = StaticEmbedding(wordpiece, embedding_dim=12)
    if kind == "adapter":
        adapted = peft.get_peft_model(first.model, peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
        adapted.save_pretrained(folder)
        return
    stack = {
        "static": [static, Normalize()],
        "router": [Router.for_query_document([static], [first, Pooling(32), Dense(32, 12)]), Normalize()],
        "max": [first, Pooling(32, "max")],
        "truncated": [first, Pooling(32), Normalize()],
    }[kind]
    more = {"truncate_dim": 8} if kind == "truncated" else {}
    SentenceTransformer(modules=stack, device="cpu", prompts={"query": "what is "}, **more).save(folder)


@pytest.mark.parametrize("kind", BASES)
def test_encoder_trains_and_is_what_the_library_loads(typed, tiny_bert, wordpiece, kind):
    encoder(kind, tiny_bert, wordpiece)
    typed("fit -c dual.yaml --trainer.max_epochs 1")
    curve = fitting.curve("run")
    assert all(np.isfinite(line["train/loss"]) for line in curve if "train/loss" in line)
    typed("encode --data beir:collection --model run --out docs")
    typed("encode --data beir:collection --model run --out queries --tower query --split test")
    theirs = SentenceTransformer("run/model", device="cpu", model_kwargs={"dtype": torch.float32})
    texts = {row["_id"]: row for row in map(json.loads, Path("collection/corpus.jsonl").read_text().splitlines())}
    asked = {row["_id"]: row for row in map(json.loads, Path("collection/queries.jsonl").read_text().splitlines())}
    docs = [f"{texts[i]['title']} {texts[i]['text']}" for i in json.loads(Path("docs/ids.json").read_text())]
    queries = [asked[i]["text"] for i in json.loads(Path("queries/ids.json").read_text())]
    np.testing.assert_allclose(np.load("docs/embeddings.npy"), theirs.encode_document(docs), atol=1e-5)
    np.testing.assert_allclose(np.load("queries/embeddings.npy"), theirs.encode_query(queries), atol=1e-5)
    before = SentenceTransformer("model", device="cpu").encode_document(docs) if kind != "adapter" else None
    assert before is None or np.abs(before - np.load("docs/embeddings.npy")).max() > 1e-5  # it was trained
    found = typed("retrieve --data beir:collection --split dev --retriever run --top-k 5 --metrics ndcg@5 --out out --json")
    scores = theirs.similarity(theirs.encode_query([asked[q]["text"] for q in asked]), theirs.encode_document(docs)).numpy()
    ids, rows = json.loads(Path("docs/ids.json").read_text()), list(asked)
    assert found.json["metrics"]["ndcg@5"] >= 0
    for line in Path("out/dense.trec").read_text().splitlines():
        query, _, doc, _, score, _ = line.split()
        assert float(score) == pytest.approx(scores[rows.index(query), ids.index(doc)], abs=1e-5)


def test_adapter_on_a_stack_of_the_librarys_trains_and_saves_merged(typed, tiny_bert, wordpiece):
    encoder("max", tiny_bert, wordpiece)
    lora = "--model.adapter peft.LoraConfig --model.adapter.r 2 --model.adapter.target_modules [query]"
    typed(f"fit -c dual.yaml --trainer.max_epochs 1 {lora}")
    assert not list(Path("run/model").rglob("adapter*"))
    typed("validate run")
    encoder("static", tiny_bert, wordpiece)
    assert "0 transformers" in typed(f"fit -c dual.yaml --out other {lora}", code=2).err


def test_adapter_of_an_encoder_is_exported_as_a_whole_model(typed, tiny_bert, wordpiece):
    encoder("adapter", tiny_bert, wordpiece)
    typed("export model --out exported")
    typed("encode --data beir:collection --model model --out store")
    texts = [json.loads(line) for line in Path("collection/corpus.jsonl").read_text().splitlines()]
    theirs = SentenceTransformer("exported").encode_document([f"{row['title']} {row['text']}" for row in texts])
    assert not list(Path("exported").rglob("adapter*"))
    np.testing.assert_allclose(np.load("store/embeddings.npy"), theirs, atol=1e-5)


def reranker(kind: str, tiny_bert: Path, wordpiece) -> None:
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": len(wordpiece),
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    if kind == "two labels":
        tf.BertForSequenceClassification(tf.BertConfig(num_labels=2, **small)).save_pretrained("model")
    else:  # a language model's yes or no, with its template
        tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=wordpiece.backend_tokenizer, model_max_length=64)
        tokenizer.chat_template = "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
        config = tf.Qwen3Config(num_key_value_heads=2, head_dim=8, **small)
        tf.Qwen3ForCausalLM(config).save_pretrained("lm")
        tokenizer.save_pretrained("lm")
        first = Transformer("lm", transformer_task="text-generation")
        first.tokenizer.pad_token = "[PAD]"  # what the library itself needs
        from sentence_transformers.cross_encoder.modules import LogitScore

        ids = first.tokenizer.convert_tokens_to_ids(["only", "no"])
        CrossEncoder(modules=[first, LogitScore(*ids)], device="cpu").save("model")
        return
    wordpiece.save_pretrained("model")


@pytest.mark.parametrize("kind", ["two labels", "yes or no"])
def test_reranker_trains_and_is_what_the_library_loads(typed, tiny_bert, wordpiece, kind):
    reranker(kind, tiny_bert, wordpiece)
    typed(fitting.MINE)
    typed(fitting.RETRIEVE.format(split="dev", out="first"))
    typed(fitting.RETRIEVE.format(split="test", out="testrun"))
    typed("fit -c cross.yaml --trainer.max_epochs 1")
    queries, docs = WORDS[:6], [" ".join(WORDS[i : i + 5 * i + 1]) for i in range(6)]
    library = CrossEncoder("cross/model", device="cpu", model_kwargs={"dtype": torch.float32})
    theirs = library.predict(list(zip(queries, docs, strict=True)), activation_fn=torch.nn.Identity(), batch_size=1)
    theirs = theirs[:, 1] - theirs[:, 0] if kind == "two labels" else theirs
    ours = score_pairs(load_cross_encoder(Path("cross/model")), queries, docs)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(ours - score_pairs(load_cross_encoder(Path("model")), queries, docs)).max() > 1e-4  # it was trained
    typed("retrieve --data beir:collection --split dev --retriever bm25 --reranker cross --depth 5 --out out")


def test_own_code_ends_at_once_without_a_question(typed, tiny_bert, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    shutil.copytree(tiny_bert, "model")
    config = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").write_text(
        json.dumps(
            config
            | {"model_type": "own", "architectures": ["Own"], "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Own"}}
        )
    )
    Path("model/own.py").write_text("raise SystemExit('code of the folder was run')\n")
    for line in (
        "encode --data beir:collection --model model --out store",
        "fit -c dual.yaml",
        "retrieve --data beir:collection --split test --retriever model --out out",
    ):
        assert "needs code of its own, which is never run" in typed(line, code=2).err
    assert not Path("store").exists()


def test_decoder_without_a_padding_token_reranks(typed, wordpiece):
    torch.manual_seed(0)
    config = tf.Qwen3Config(
        vocab_size=len(wordpiece),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        num_labels=1,
    )
    tf.Qwen3ForSequenceClassification(config).save_pretrained("model")
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=wordpiece.backend_tokenizer, model_max_length=64)
    tokenizer.save_pretrained("model")
    typed("retrieve --data beir:collection --split dev --retriever bm25 --reranker model --depth 5 --out out")
    lines = [line.split() for line in Path("out/reranked.trec").read_text().splitlines()]
    scored = {(query, doc): float(score) for query, _, doc, position, score, _ in lines if int(position) <= 5}
    docs = {row["_id"]: f"{row['title']} {row['text']}" for row in map(json.loads, open("collection/corpus.jsonl"))}
    asked = {row["_id"]: row["text"] for row in map(json.loads, open("collection/queries.jsonl"))}
    library = CrossEncoder("model", device="cpu", model_kwargs={"dtype": torch.float32})
    library.tokenizer.pad_token = "[PAD]"  # without one it tokenises nothing; a pair alone is not padded
    alone = [library.predict([(asked[q], docs[d])], activation_fn=torch.nn.Identity())[0] for q, d in scored]
    assert len(scored) > 4
    np.testing.assert_allclose([*scored.values()], alone, atol=1e-5)
