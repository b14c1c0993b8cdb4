"""Embeddings equal SentenceTransformer.encode to 1e-5 in fp32, over architectures, poolings, prompts and modules."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as tf
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from research.errors import UserError
from research.models.contents import weight_files
from research.models.cpu.packed import PackedLinear
from research.models.dual_encoder import load_encoder
from research.models.inference import for_inference
from research.retrieval.encode import encode_texts
from research.retrieval.exact import exact_search
from tests.conftest import WORDS

TEXTS = [
    "the time of day",
    "",
    "a",
    " long words ".join(WORDS[:60]),
    "Make it so; what, 3 people?",
    "  blanks \n and\tlines ",
    *(" ".join(WORDS[i : i + i % 11 + 1]) for i in range(25)),
]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def architecture(name: str, vocabulary: int) -> torch.nn.Module:
    torch.manual_seed(0)
    common = {"vocab_size": vocabulary, **SMALL}
    match name:
        case "bert":
            return tf.BertModel(tf.BertConfig(max_position_embeddings=64, **common))
        case "roberta":
            return tf.RobertaModel(tf.RobertaConfig(max_position_embeddings=66, pad_token_id=0, **common))
        case "mpnet":
            return tf.MPNetModel(tf.MPNetConfig(max_position_embeddings=66, pad_token_id=0, **common))
        case "distilbert":
            return tf.DistilBertModel(
                tf.DistilBertConfig(
                    vocab_size=vocabulary, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64
                )
            )
        case "modernbert":
            return tf.ModernBertModel(
                tf.ModernBertConfig(
                    max_position_embeddings=64,
                    pad_token_id=0,
                    cls_token_id=2,
                    sep_token_id=3,
                    bos_token_id=2,
                    eos_token_id=3,
                    **common,
                )
            )
        case "gpt2":
            return tf.GPT2Model(tf.GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=64))
        case "qwen3":
            return tf.Qwen3Model(tf.Qwen3Config(num_key_value_heads=2, head_dim=8, max_position_embeddings=64, **common))
    raise AssertionError(name)


def folder_of(tmp_path, wordpiece, name, pooling, *, prompts=None, default=None, modules=(), max_length=None, **kwargs):
    """A sentence-transformers folder made by sentence-transformers itself."""
    plain = tmp_path / "plain"
    architecture(name, len(wordpiece)).eval().save_pretrained(plain)
    wordpiece.save_pretrained(plain)
    first = Transformer(str(plain), **({"max_seq_length": max_length} if max_length else {}))
    stack = [first, Pooling(32, pooling_mode=pooling, **kwargs), *modules]
    model = SentenceTransformer(modules=stack, prompts=prompts, default_prompt_name=default, device="cpu")
    model.save(str(tmp_path / "st"))
    return tmp_path / "st"


def assert_same(folder, texts=TEXTS, **settings):
    theirs = SentenceTransformer(str(folder), device="cpu")
    ours = load_encoder(folder, **settings)
    for role, encode in (("query", theirs.encode_query), ("doc", theirs.encode_document)):
        mine = encode_texts(ours, texts, role, token_budget=300)
        np.testing.assert_allclose(mine, encode(texts, batch_size=7), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert", "modernbert"])
def test_encoders(tmp_path, wordpiece, name, pooling):
    assert_same(folder_of(tmp_path, wordpiece, name, pooling))


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_decoders_with_last_token_pooling(tmp_path, wordpiece, name):
    assert_same(folder_of(tmp_path, wordpiece, name, "lasttoken", modules=[Normalize()]))


def test_prompts_of_both_roles(tmp_path, wordpiece):
    assert_same(folder_of(tmp_path, wordpiece, "bert", "mean", prompts={"query": "what is: ", "passage": "one of: "}))


def test_default_prompt_serves_a_role_without_one(tmp_path, wordpiece):
    prompts = {"query": "what is: ", "other": "from there: "}
    assert_same(folder_of(tmp_path, wordpiece, "bert", "mean", prompts=prompts, default="other"))


def test_prompt_left_out_of_the_pooling(tmp_path, wordpiece):
    texts = [text for text in TEXTS if text.strip()]
    prompts = {"query": "what is this ", "document": "one of these "}
    assert_same(folder_of(tmp_path, wordpiece, "bert", "mean", prompts=prompts, include_prompt=False), texts)


def test_dense_layer_and_normalisation(tmp_path, wordpiece):
    torch.manual_seed(1)
    modules = [Dense(32, 12, activation_function=torch.nn.Tanh()), Normalize()]
    folder = folder_of(tmp_path, wordpiece, "bert", "mean", modules=modules)
    assert load_encoder(folder).dim == 12
    assert_same(folder)


def test_modules_in_another_order(tmp_path, wordpiece):
    """Normalised before the projection: the library's own forward does it."""
    torch.manual_seed(1)
    assert_same(folder_of(tmp_path, wordpiece, "bert", "mean", modules=[Normalize(), Dense(32, 32)]))


def test_encoder_half_of_t5(tmp_path, wordpiece):
    torch.manual_seed(0)
    config = tf.T5Config(vocab_size=len(wordpiece), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    tf.T5EncoderModel(config).eval().save_pretrained(tmp_path / "plain")
    wordpiece.save_pretrained(tmp_path / "plain")
    SentenceTransformer(modules=[Transformer(str(tmp_path / "plain")), Pooling(32, "mean")]).save(str(tmp_path / "st"))
    assert_same(tmp_path / "st")


def test_other_encoder_decoders_run_as_the_library_runs_them(tmp_path, wordpiece):
    torch.manual_seed(0)
    config = tf.BartConfig(
        vocab_size=len(wordpiece),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        max_position_embeddings=66,
    )
    tf.BartModel(config).eval().save_pretrained(tmp_path)
    wordpiece.save_pretrained(tmp_path)
    assert_same(tmp_path)


def test_prompt_that_leaves_nothing_to_pool_is_refused(tmp_path, wordpiece):
    prompts = {"query": "the time of day " * 20, "document": ""}
    folder = folder_of(tmp_path, wordpiece, "bert", "mean", prompts=prompts, include_prompt=False)
    with pytest.raises(UserError, match="nothing is left to pool"):
        encode_texts(load_encoder(folder), ["who"], "query")


def test_max_length_of_the_folder(tmp_path, wordpiece):
    folder = folder_of(tmp_path, wordpiece, "bert", "mean", max_length=9)
    assert load_encoder(folder).settings.doc_max_length == 9
    assert_same(folder)


def test_plain_folder_is_mean_pooled_as_sentence_transformers_does(tiny_bert):
    assert_same(tiny_bert)


def test_positions_of_roberta_leave_out_the_padding_offset(tmp_path, wordpiece):
    folder = folder_of(tmp_path, wordpiece, "roberta", "mean")  # 66 rows, padding_idx 0: the first is never used
    longest = load_encoder(folder, doc_max_length=65)
    assert encode_texts(longest, [" ".join(WORDS)], "doc").shape == (1, 32)
    with pytest.raises(UserError, match="expected 4 to 65 tokens"):
        load_encoder(folder, doc_max_length=66)


@pytest.mark.parametrize("modes", ["max", "weightedmean", "mean_sqrt_len_tokens", ("mean", "cls")])
def test_poolings_that_only_the_library_knows(tmp_path, wordpiece, modes):
    assert_same(folder_of(tmp_path, wordpiece, "bert", modes))


def test_module_that_is_not_supported_is_refused(tmp_path, wordpiece):
    folder = folder_of(tmp_path, wordpiece, "bert", "mean")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_LSTM", "type": "sentence_transformers.models.LSTM"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="LSTM"):
        load_encoder(folder)


def test_weights_that_the_file_lacks_are_refused_not_drawn_at_random(tmp_path, tiny_bert):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    (file,) = weight_files(folder)
    weights = load_file(file)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights.*encoder\.layer\.1\.output\.dense\.weight"):
        load_encoder(folder)


def test_minilm(minilm, tandem_data):
    rows = [json.loads(line) for line in (tandem_data / "squad/corpus.jsonl").read_text().splitlines()[:24]]
    texts = [f"{row['title']} {row['text']}" for row in rows] + ["Which NFL team?", "a"]
    assert_same(minilm, texts)
    assert load_encoder(minilm).settings.doc_max_length == 256


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_embedding_does_not_depend_on_padding_or_company(tmp_path, wordpiece, name, pooling):
    """Alone, padded on the right, padded on the left, in a mixed batch: the same to 1e-5."""
    architecture(name, len(wordpiece)).eval().save_pretrained(tmp_path)
    wordpiece.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, pooling=pooling)
    ids = encoder.tokenize(["the time of day"], "doc")[0]
    n = len(ids)
    with torch.inference_mode():
        alone = encoder(torch.tensor([ids]), torch.ones(1, n, dtype=torch.long))
        right = encoder(torch.tensor([ids + [0] * 5]), torch.tensor([[1] * n + [0] * 5]))
        left = encoder(torch.tensor([[0] * 5 + ids]), torch.tensor([[0] * 5 + [1] * n]))
    mixed = encode_texts(encoder, ["so", "the time of day", " ".join(WORDS[:40])], "doc")[1:2]
    for other in (right, left, torch.from_numpy(mixed)):
        torch.testing.assert_close(other, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert", "modernbert", "gpt2", "qwen3"])
def test_layers_packed_for_inference_give_the_same_bf16_embeddings(tmp_path, wordpiece, name):
    folder = folder_of(tmp_path, wordpiece, name, "lasttoken" if name in ("gpt2", "qwen3") else "mean")
    plain = encode_texts(load_encoder(folder, "bf16", normalize=True), TEXTS, "doc")
    packed = encode_texts(for_inference(load_encoder(folder, "bf16", normalize=True), torch.device("cpu")), TEXTS, "doc")
    exact = encode_texts(load_encoder(folder, normalize=True), TEXTS, "doc")
    assert (packed * exact).sum(1).min() > (plain * exact).sum(1).min() - 1e-3
    assert (packed * plain).sum(1).min() > 0.999


def test_packing_leaves_fp32_models_as_they_are(tiny_bert):
    plain, packed = load_encoder(tiny_bert), for_inference(load_encoder(tiny_bert), torch.device("cpu"))
    np.testing.assert_array_equal(encode_texts(plain, TEXTS, "doc"), encode_texts(packed, TEXTS, "doc"))


def test_gelu_is_fused_once_and_only_where_it_is_exact(tiny_bert):
    from transformers.activations import ACT2FN

    encoder = load_encoder(tiny_bert, "bf16")
    encoder.transformer.encoder.layer[1].intermediate.intermediate_act_fn = ACT2FN["gelu_new"]
    for_inference(encoder, torch.device("cpu"))
    first, second = (layer.intermediate for layer in encoder.transformer.encoder.layer)
    if isinstance(first.dense, PackedLinear):  # this CPU packs
        assert first.dense.epilogue[0] == "gelu"
        assert isinstance(first.intermediate_act_fn, torch.nn.Identity)
        assert second.dense.epilogue[0] == "none"
        assert not isinstance(second.intermediate_act_fn, torch.nn.Identity)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_gpu_gives_the_embeddings_and_the_ranking_of_the_cpu(minilm, precision, tolerance):
    device = torch.device("cuda")
    there = encode_texts(for_inference(load_encoder(minilm, precision), device), TEXTS, "doc")
    here = encode_texts(load_encoder(minilm), TEXTS, "doc")
    np.testing.assert_allclose(there, here, atol=tolerance)
    scores, positions = exact_search(there[:5], there, 3)
    np.testing.assert_allclose(scores, np.sort(there[:5] @ there.T, axis=1)[:, ::-1][:, :3], atol=1e-3)
    assert positions[:, 0].tolist() == list(range(5))
