"""Scores of pairs equal sentence-transformers' CrossEncoder.predict without its sigmoid, to 1e-5 in fp32."""

import json

import numpy as np
import pytest
import torch
import transformers as tf
from sentence_transformers import CrossEncoder as Peer

from research.errors import UserError
from research.models.cross_encoder import load_cross_encoder
from research.models.inference import for_inference
from research.retrieval.rerank import score_pairs
from tests.conftest import WORDS

QUERIES = ["the time", "who", "", *(" ".join(WORDS[i : i + i % 7 + 1]) for i in range(20))]
DOCS = ["of day", " ".join(WORDS * 2), "people", *(" ".join(WORDS[2 * i : 2 * i + i % 40 + 1]) for i in range(20))]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}  # wide enough that pairs get different scores


def folder_of(tmp_path, wordpiece, name, labels=1):
    torch.manual_seed(0)
    common = {"vocab_size": len(wordpiece), "num_labels": labels, **SMALL}
    if name == "bert":
        model = tf.BertForSequenceClassification(tf.BertConfig(max_position_embeddings=64, **common))
    else:
        model = tf.RobertaForSequenceClassification(tf.RobertaConfig(max_position_embeddings=66, pad_token_id=0, **common))
    model.eval().save_pretrained(tmp_path / name)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if name == "bert" else [])]
    wordpiece.save_pretrained(tmp_path / name)
    config = tmp_path / name / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_input_names": names}))
    return tmp_path / name


@pytest.mark.parametrize("max_length", [None, 16])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_logits_equal_the_peers(tmp_path, wordpiece, name, max_length):
    folder = folder_of(tmp_path, wordpiece, name)
    peer = Peer(str(folder), device="cpu", max_length=max_length)
    theirs = peer.predict(list(zip(QUERIES, DOCS, strict=True)), activation_fn=torch.nn.Identity(), batch_size=5)
    ours = score_pairs(load_cross_encoder(folder, max_length=max_length), QUERIES, DOCS, token_budget=200)
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    assert np.ptp(ours) > 1e-3  # the scores do tell pairs apart


def test_token_types_reach_the_model(tmp_path, wordpiece):
    model = load_cross_encoder(folder_of(tmp_path, wordpiece, "bert"))
    pairs = model.tokenize(["the time"], ["of people"])
    batch = model.collate(pairs, [0])
    assert batch["token_type_ids"][0, : len(pairs["input_ids"][0])].tolist() == [
        0,
        0,
        0,
        0,
        1,
        1,
        1,
    ]  # [CLS] the time [SEP] of people [SEP]
    with torch.inference_mode():
        kept, lost = model(**batch), model(batch["input_ids"], batch["attention_mask"])
    assert (kept - lost).abs() > 1e-4


def test_packed_bf16_scores_are_near_fp32(tmp_path, wordpiece):
    folder = folder_of(tmp_path, wordpiece, "bert")
    exact = score_pairs(load_cross_encoder(folder), QUERIES, DOCS)
    packed = score_pairs(for_inference(load_cross_encoder(folder, "bf16"), torch.device("cpu")), QUERIES, DOCS)
    np.testing.assert_allclose(packed, exact, atol=0.05)


def test_classifier_of_several_labels_is_refused(tmp_path, wordpiece):
    with pytest.raises(UserError, match="has 3 labels; expected 1"):
        load_cross_encoder(folder_of(tmp_path, wordpiece, "bert", labels=3))


def test_plain_encoder_has_no_head_and_is_refused(tiny_bert):
    with pytest.raises(UserError, match="has no head that scores pairs"):
        load_cross_encoder(tiny_bert)


@pytest.mark.parametrize("length", [7, 65])
def test_length_that_does_not_fit_is_refused(tmp_path, wordpiece, length):
    with pytest.raises(UserError, match="expected 8 to 64"):
        load_cross_encoder(folder_of(tmp_path, wordpiece, "bert"), max_length=length)
