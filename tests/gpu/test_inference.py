"""Embeddings, scores, search and answers on a GPU are sentence-transformers' and transformers' own."""

import numpy as np
import pytest
import torch

from research.models.cross_encoder import load_cross_encoder
from research.models.dual_encoder import load_encoder
from research.models.inference import for_inference
from research.retrieval.encode import encode_texts
from research.retrieval.exact import exact_search
from research.retrieval.rerank import score_pairs
from tests.conftest import WORDS

pytestmark = pytest.mark.gpu
TEXTS = [" ".join(WORDS[(i * 7 + j * (i + 1)) % len(WORDS)] for j in range(1 + i % 23)) for i in range(60)]
TOLERANCE = {"fp32": 1e-5, "bf16": 6e-2}
DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.mark.parametrize("precision", TOLERANCE)
def test_embeddings_are_sentence_transformers(tiny_bert, device, record_property, precision):
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(tiny_bert), device=device.type, model_kwargs={"dtype": torch.float32})
    expected = peer.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    encoder = for_inference(load_encoder(tiny_bert, precision, normalize=True), device)
    found = encode_texts(encoder, TEXTS, "doc")
    record_property("largest_difference", float(np.abs(found - expected).max()))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[precision])


@pytest.mark.parametrize("precision", TOLERANCE)
def test_scores_are_sentence_transformers(tiny_reranker, device, record_property, precision):
    from sentence_transformers import CrossEncoder

    peer = CrossEncoder(str(tiny_reranker), device=device.type, max_length=64, model_kwargs={"dtype": torch.float32})
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    expected = peer.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    model = for_inference(load_cross_encoder(tiny_reranker, precision, max_length=64), device)
    found = score_pairs(model, TEXTS, TEXTS[::-1])
    spread = float(expected.max() - expected.min())
    record_property("largest_difference_of_spread", float(np.abs(found - expected).max()) / spread)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[precision] * max(1.0, spread))


def test_exact_search_on_a_device_ranks_as_float64(device, record_property):
    rng = np.random.default_rng(0)
    docs, queries = (rng.normal(size=(count, 64)).astype(np.float32) for count in (3000, 50))
    scores, positions = exact_search(queries, docs, 100)
    exact = queries.astype(np.float64) @ docs.astype(np.float64).T
    expected = np.sort(exact, axis=1)[:, ::-1][:, :100]
    record_property("largest_difference", float(np.abs(scores - expected).max()))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(exact, positions, 1), expected, atol=1e-4)


def test_answers_are_transformers_own(tiny_lm, device):
    """Greedy, in one padded batch, against each prompt alone through `generate`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from research.models.causal_lm import load_causal_lm
    from research.models.generate import Decoding, generate

    prompts = ["a b", "the of and", " ".join(WORDS[:20])]
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    model = load_causal_lm(tiny_lm).to(device).eval()
    found = generate(model, [tokenizer(prompt)["input_ids"] for prompt in prompts], Decoding(max_new_tokens=12))
    peer = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).to(device).eval()
    for prompt, answer in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, return_tensors="pt").to(device)
        out = peer.generate(**ids, max_new_tokens=12, do_sample=False)
        assert answer.text == tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
