"""Folders as people bring them: what sentence-transformers computes from them, to 1e-5, or a refusal by name."""

import json
import shutil
import sys

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder as Peer
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    Pooling,
    StaticEmbedding,
    WeightedLayerPooling,
    WordEmbeddings,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from research.errors import UserError
from research.models.cross_encoder import CrossEncoder, load_cross_encoder
from research.models.dual_encoder import DualEncoder, TextEncoder, load_encoder
from research.models.folder import without_weights
from research.models.hashed import hash_model
from research.models.saving import save_cross_encoder, save_dual_encoder
from research.models.sources import hash_with_base
from research.models.stack_encoder import StackEncoder
from research.models.stack_reranker import StackReranker
from research.retrieval.encode import encode_texts
from research.retrieval.rerank import Scorer, score_pairs
from tests.conftest import WORDS

TEXTS = ["the time of day", "a", " long words ".join(WORDS[:40]), "Make IT so; what, 3 people?", " ".join(WORDS[5:12])]
QUERIES = ["the time", "who", "what is water", "Some people"]
DOCS = ["of day", " ".join(WORDS[:50]), "people", "a b c"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
HEADS = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0}


def model_of(name: str, vocabulary: int) -> torch.nn.Module:
    torch.manual_seed(0)
    common = {"vocab_size": vocabulary, "initializer_range": 0.2, **SMALL}
    table = {"max_position_embeddings": 66, "pad_token_id": 0, **common}
    match name:
        case "bert":
            return tf.BertModel(tf.BertConfig(**table))
        case "xlm-roberta":
            return tf.XLMRobertaModel(tf.XLMRobertaConfig(**table))
        case "albert":
            return tf.AlbertModel(tf.AlbertConfig(embedding_size=16, **table))
        case "electra":
            return tf.ElectraModel(tf.ElectraConfig(embedding_size=16, **table))
        case "deberta-v2":
            return tf.DebertaV2Model(tf.DebertaV2Config(relative_attention=True, pos_att_type=["p2c", "c2p"], **table))
        case "nomic_bert":
            return tf.NomicBertModel(tf.NomicBertConfig(**table))
        case "xlnet":  # pads on the left, and its tokenizer has a token type of its own for <cls>
            return tf.XLNetModel(tf.XLNetConfig(vocab_size=vocabulary, d_model=32, n_layer=2, n_head=4, d_inner=64))
        case "llama":
            return tf.LlamaModel(tf.LlamaConfig(**HEADS, **common))
        case "mistral":
            return tf.MistralModel(tf.MistralConfig(sliding_window=8, **HEADS, **common))
        case "gemma3":
            return tf.Gemma3TextModel(tf.Gemma3TextConfig(sliding_window=8, query_pre_attn_scalar=8, **HEADS, **common))
        case "qwen3":
            return tf.Qwen3Model(tf.Qwen3Config(**HEADS, **common))
    raise AssertionError(name)


@pytest.fixture
def plain(tmp_path, wordpiece):
    """Writes a plain Hugging Face folder of an architecture."""

    def write(name: str, tokenizer=None, model=None):
        folder = tmp_path / f"plain-{name}"
        (model or model_of(name, len(wordpiece))).eval().save_pretrained(folder)
        (tokenizer or wordpiece).save_pretrained(folder)
        return folder

    return write


def saved(modules, folder, **options):
    SentenceTransformer(modules=modules, device="cpu", **options).save(str(folder), create_model_card=False)
    return folder


def peer(folder) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})


def assert_same(folder, kind=TextEncoder, texts=TEXTS, encoder=None):
    ours, theirs = encoder or load_encoder(folder), peer(folder)
    assert type(ours) is kind
    for role, encode in (("query", theirs.encode_query), ("doc", theirs.encode_document)):
        mine, expected = encode_texts(ours, texts, role, token_budget=150), encode(texts, batch_size=2)
        np.testing.assert_allclose(mine, expected, atol=1e-5, rtol=0)
        assert mine.shape[1] == ours.dim


def edit(path, **changes):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


# ---- encoders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("xlm-roberta", "mean"),
        ("albert", "cls"),
        ("electra", "mean"),
        ("deberta-v2", "mean"),
        ("nomic_bert", "mean"),
        ("llama", "lasttoken"),
        ("mistral", "lasttoken"),
        ("gemma3", "mean"),
        ("qwen3", "lasttoken"),
    ],
)
def test_architectures_with_all_that_a_folder_says(plain, tmp_path, name, pooling):
    """Prompts, a projection, a truncation and lengths a role; and the same after a round through our own saving."""
    torch.manual_seed(1)
    first = Transformer(str(plain(name)), query_length=9, document_length=21)
    modules = [first, Pooling(32, pooling), Dense(32, 24), Normalize()]
    folder = saved(modules, tmp_path / "st", prompts={"query": "what is: ", "document": "one of: "}, truncate_dim=16)
    assert_same(folder)
    encoder = load_encoder(folder)
    assert (encoder.settings.query_max_length, encoder.settings.doc_max_length, encoder.dim) == (9, 21, 16)
    save_dual_encoder(DualEncoder(encoder, encoder), tmp_path / "again")
    assert_same(tmp_path / "again")
    assert load_encoder(tmp_path / "again").settings == encoder.settings


def test_legacy_name_of_the_configuration(plain, tmp_path):
    folder = saved([Transformer(str(plain("bert"))), Pooling(32)], tmp_path / "st")
    (folder / "sentence_bert_config.json").rename(folder / "sentence_xlnet_config.json")
    before = hash_model(folder)
    edit(folder / "sentence_xlnet_config.json", max_seq_length=7, do_lower_case=True)
    assert load_encoder(folder).settings.doc_max_length == 7
    assert_same(folder)
    assert hash_model(folder) != before


def test_folders_of_the_librarys_first_versions(plain, tmp_path):
    """The Transformer in a folder of its own, and modules under their first names."""
    folder = saved([Transformer(str(plain("bert")), max_seq_length=9), Pooling(32, "cls"), Dense(32, 12)], tmp_path / "st")
    (folder / "0_Transformer").mkdir()
    for path in list(folder.iterdir()):
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(folder / "0_Transformer" / path.name)
    modules = json.loads((folder / "modules.json").read_text())
    for module, kind in zip(modules, ("Transformer", "Pooling", "Dense"), strict=True):
        module["type"] = f"sentence_transformers.models.{kind}"
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    edit(folder / "1_Pooling/config.json", word_embedding_dimension=32, pooling_mode_cls_token=True)
    assert_same(folder)
    assert load_encoder(folder).settings.doc_max_length == 9


def test_router_under_its_first_name(plain, wordpiece, tmp_path):
    torch.manual_seed(0)
    static = StaticEmbedding(wordpiece, embedding_dim=32)
    router = Router({"query": [static], "document": [Transformer(str(plain("bert"))), Pooling(32)]})
    folder = saved([router], tmp_path / "st")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.Asym"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert_same(folder, StackEncoder)


def test_static_embedding(wordpiece, tmp_path):
    torch.manual_seed(0)
    folder = saved([StaticEmbedding(wordpiece, embedding_dim=12), Normalize()], tmp_path / "st", prompts={"query": "what is "})
    assert_same(folder, StackEncoder)
    with pytest.raises(UserError, match="StaticEmbedding reads texts whole"):
        load_encoder(folder, doc_max_length=8)


def test_router_with_a_tower_a_role(plain, wordpiece, tmp_path):
    torch.manual_seed(0)
    doc = [Transformer(str(plain("bert")), max_seq_length=11), Pooling(32, "cls"), Dense(32, 12)]
    static = StaticEmbedding(wordpiece, embedding_dim=12)
    router = Router.for_query_document([static], doc)
    folder = saved([router, Normalize()], tmp_path / "st", similarity_fn_name="dot", truncate_dim=8)
    assert_same(folder, StackEncoder)
    encoder = load_encoder(folder)
    save_dual_encoder(DualEncoder(encoder, encoder), tmp_path / "again")
    assert_same(tmp_path / "again", StackEncoder)
    exact, rounded = (encode_texts(load_encoder(folder, precision), TEXTS, "doc") for precision in ("fp32", "bf16"))
    np.testing.assert_allclose(rounded, exact, atol=0.05)
    with without_weights():
        assert load_encoder(folder).dim == 8
    before = hash_model(folder)
    edit(folder / "router_config.json", default_route="query")
    assert hash_model(folder) != before


def test_modules_between_transformer_and_pooling(plain, tmp_path):
    torch.manual_seed(0)
    first = Transformer(str(plain("bert")), config_kwargs={"output_hidden_states": True})
    folder = saved([first, WeightedLayerPooling(32, num_hidden_layers=2, layer_start=1), Pooling(32)], tmp_path / "st")
    assert_same(folder, StackEncoder)


def test_words_through_a_convolution_are_encoded_alone(tmp_path):
    """Padding reaches into the last words of a text, which a probe of words that this stack does not know would not show."""
    torch.manual_seed(0)
    words = WordEmbeddings(WhitespaceTokenizer(WORDS, stop_words=["the"]), torch.randn(len(WORDS), 12).numpy())
    folder = saved([words, CNN(12, 8), Pooling(24)], tmp_path / "st")
    encoder, theirs = load_encoder(folder), peer(folder).encode(TEXTS, batch_size=1)
    np.testing.assert_allclose(encode_texts(encoder, TEXTS, "doc", token_budget=150), theirs, atol=1e-5)
    assert not load_encoder(saved([words, Pooling(12)], tmp_path / "mean")).singly


def test_tokenizer_that_needs_no_vocabulary(plain):
    config = tf.T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    assert_same(plain("byt5", tf.ByT5Tokenizer(), tf.T5EncoderModel(config)), StackEncoder)


@pytest.mark.parametrize("first_name", [False, True])
def test_text_tower_of_clip(plain, tmp_path, first_name):
    tokenizer = byte_tokenizer("<|end|>", eos=True)
    tokenizer.padding_side, tokenizer.model_max_length = "right", 64
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "eos_token_id": 1, "bos_token_id": 0} | SMALL
    vision = {"image_size": 16, "patch_size": 8} | SMALL
    torch.manual_seed(0)
    folder = plain("clip", tokenizer, tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)))
    tf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    if first_name:
        shutil.copytree(folder, tmp_path / "st/0_CLIPModel")
        module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
        (tmp_path / "st/modules.json").write_text(json.dumps([module]))
    assert_same(tmp_path / "st" if first_name else folder, StackEncoder)


def test_encoder_whose_configuration_names_the_classifier_that_it_was_made_from(plain, tmp_path):
    folder = saved([Transformer(str(plain("bert"))), Pooling(32)], tmp_path / "st")
    edit(folder / "config.json", architectures=["BertForSequenceClassification"])
    assert_same(folder)
    (folder / "modules.json").unlink()
    with pytest.raises(UserError, match="is a cross-encoder"):
        load_encoder(folder)


@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "max"])
def test_blank_text_without_a_token_is_zero_and_changes_no_other(plain, tmp_path, pooling):
    """Of decoders whose tokenizer adds nothing; the library alone cannot encode it."""
    tokenizer = byte_tokenizer("<|endoftext|>")
    model = model_of("qwen3", len(tokenizer))
    folder = saved(
        [Transformer(str(plain("qwen3", tokenizer, model))), Pooling(32, pooling)], tmp_path / "st", prompts={"query": "what: "}
    )
    encoder, texts = load_encoder(folder), ["people", "", "the day"]
    found = encode_texts(encoder, texts, "doc")
    np.testing.assert_allclose(found[[0, 2]], peer(folder).encode_document(["people", "the day"]), atol=1e-5)
    assert not found[1].any()
    assert not encode_texts(encoder, ["", ""], "doc").any()
    np.testing.assert_allclose(encode_texts(encoder, texts, "query"), peer(folder).encode_query(texts), atol=1e-5)


def test_dense_on_other_names_and_with_a_residual(plain, tmp_path):
    torch.manual_seed(0)
    first = Transformer(str(plain("bert")))
    tokens = Dense(32, 20, module_input_name="token_embeddings")
    assert_same(saved([first, tokens, Pooling(20)], tmp_path / "tokens"), StackEncoder)
    residual = Dense(32, 12, use_residual=True)
    assert_same(saved([first, Pooling(32), residual], tmp_path / "residual"), StackEncoder)
    aside = Dense(32, 12, module_output_name="elsewhere")  # what it computes is not what is read
    assert_same(saved([first, Pooling(32), aside], tmp_path / "aside"), StackEncoder)


def test_chat_template_of_a_plain_folder_is_what_the_library_makes_of_it(plain, wordpiece):
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=wordpiece.backend_tokenizer, pad_token="[PAD]", eos_token="[SEP]", model_max_length=64
    )
    tokenizer.chat_template = "{% for m in messages %}so: {{ m.content }} of{% endfor %}"
    assert_same(plain("qwen3", tokenizer), StackEncoder)


def test_inputs_that_the_fast_path_would_leave_out(plain, wordpiece):
    """A tokenizer with token types of its own, as XLNet's: known by its numbers, whatever it is called."""
    backend = Tokenizer.from_str(wordpiece.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="$A:0 [SEP]:0 [CLS]:2", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        model_max_length=64,
        padding_side="left",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    assert_same(plain("xlnet", tokenizer), StackEncoder)


def test_options_change_any_stack_that_has_a_place_for_them(plain, tmp_path):
    folder = saved([Transformer(str(plain("bert"))), Pooling(32, "max"), Normalize()], tmp_path / "st")
    changed = load_encoder(folder, query_prompt="what ", doc_max_length=9, normalize=False, similarity="dot")
    assert type(changed) is StackEncoder
    theirs = SentenceTransformer(modules=[Transformer(str(folder), max_seq_length=9), Pooling(32, "max")], device="cpu")
    np.testing.assert_allclose(encode_texts(changed, TEXTS, "doc"), theirs.encode(TEXTS), atol=1e-5)
    assert type(load_encoder(folder, pooling="cls")) is TextEncoder  # known again
    save_dual_encoder(DualEncoder(changed, changed), tmp_path / "again")
    assert_same(tmp_path / "again", StackEncoder)
    assert load_encoder(tmp_path / "again").settings.query_prompt == "what "


def test_similarity_that_search_cannot_follow_is_refused_and_the_cure_cures(plain, tmp_path):
    folder = saved([Transformer(str(plain("bert"))), Pooling(32)], tmp_path / "st", similarity_fn_name="euclidean")
    with pytest.raises(UserError, match=r"by euclidean; .* Pass --similarity cosine"):
        load_encoder(folder)
    assert load_encoder(folder, similarity="cosine").settings.similarity == "cosine"
    edit(folder / "config_sentence_transformers.json", similarity_fn_name="dot")
    assert load_encoder(folder).settings.similarity == "dot"


def test_truncated_embeddings_are_compared_by_cosine(plain, tmp_path):
    """A cut embedding has no norm of 1: search has to divide, though the folder normalises."""
    folder = saved([Transformer(str(plain("bert"))), Pooling(32), Normalize()], tmp_path / "st", truncate_dim=8)
    assert load_encoder(folder).settings.normalize_outside


def test_bf16_keeps_projections_in_float32(plain, tmp_path):
    torch.manual_seed(0)
    folder = saved([Transformer(str(plain("bert"))), Pooling(32), Dense(32, 12)], tmp_path / "st")
    encoder = load_encoder(folder, "bf16")
    assert torch.equal(encoder.dense[0].weight, load_encoder(folder).dense[0].weight)
    assert (
        type(
            load_encoder(saved([Transformer(str(plain("bert"))), Pooling(32, "max"), Dense(32, 12)], tmp_path / "max"), "bf16")
        )
        is StackEncoder
    )


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_code_of_the_folder_is_never_run_and_never_asked_about(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    ran = "raise SystemExit('code of the folder was run')\n"
    folder = plain("bert")
    edit(
        folder / "config.json",
        model_type="own_bert",
        architectures=["OwnModel"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    )
    (folder / "own.py").write_text(ran)
    from research.models.causal_lm import load_causal_lm

    edit(folder / "config.json", architectures=["OwnForSequenceClassification"])
    for load in (load_cross_encoder, load_causal_lm):
        with pytest.raises(UserError, match="needs code of its own, which is never run"):
            load(folder)
    edit(folder / "config.json", architectures=["OwnModel"])
    with pytest.raises(UserError, match="needs code of its own, which is never run"):
        load_encoder(folder)
    with without_weights(), pytest.raises(UserError, match="needs code of its own"):
        load_encoder(folder)


def test_module_of_the_folders_own_is_refused_by_its_name(plain, tmp_path):
    folder = saved([Transformer(str(plain("bert"))), Pooling(32)], tmp_path / "st")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "own_pooling.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "own_pooling.py").write_text("raise SystemExit('code of the folder was run')\n")
    with pytest.raises(UserError, match=r"own_pooling\.Pooling, code of the folder's own"):
        load_encoder(folder)


def test_pickles_are_refused_before_the_library_opens_them(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    folder = saved([Transformer(str(plain("bert"))), Pooling(32), Dense(32, 12)], tmp_path / "st")
    (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(UserError, match=r"2_Dense/pytorch_model\.bin holds weights as a pickle"):
        load_encoder(folder)


def test_activation_that_the_library_would_replace_is_refused(plain, tmp_path):
    folder = saved([Transformer(str(plain("bert"))), Pooling(32), Dense(32, 12)], tmp_path / "st")
    edit(folder / "2_Dense/config.json", activation_function="own.Activation")
    with pytest.raises(UserError, match=r"own\.Activation"):
        load_encoder(folder)


def test_a_reranker_is_no_retriever_whatever_it_is_built_of(plain, tmp_path, wordpiece):
    causal = tf.Qwen3ForCausalLM(tf.Qwen3Config(vocab_size=len(wordpiece), **HEADS, **SMALL))
    first = Transformer(str(plain("lm", model=causal)), transformer_task="text-generation")
    from sentence_transformers.cross_encoder.modules import LogitScore

    Peer(modules=[first, LogitScore(5, 6)], device="cpu").save(str(tmp_path / "ce"), create_model_card=False)
    with pytest.raises(UserError, match=r"is a CrossEncoder of sentence-transformers.* Name it as --reranker"):
        load_encoder(tmp_path / "ce")


FILES = (
    "modules.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "sentence_bert_config.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
KEYS = (
    "path",
    "type",
    "prompts",
    "default_prompt_name",
    "truncate_dim",
    "similarity_fn_name",
    "pooling_mode",
    "in_features",
    "activation_function",
    "max_seq_length",
    "query_length",
    "do_lower_case",
    "modality_config",
    "hidden_size",
    "model",
    "embedding_dimension",
    "model_max_length",
    "kwargs",
)
JSON = st.sampled_from([None, True, 0, -1, 3, 2.5, "", "mean", "nonsense", [], [1], {}, {"a": "b"}, {"query": 7}])
DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 0.99)),
    st.tuples(st.just("whole"), JSON),
    st.tuples(st.just("key"), st.tuples(st.sampled_from(KEYS), JSON)),
)


@settings(derandomize=True, max_examples=45, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(file=st.sampled_from(FILES), damage=DAMAGE)
def test_damaged_file_is_refused_or_changes_what_it_changes_in_the_library(tiny_bert, tmp_path_factory, file, damage):
    place = tmp_path_factory.getbasetemp() / "whole"
    if not place.exists():
        torch.manual_seed(0)
        saved([Transformer(str(tiny_bert)), Pooling(32), Dense(32, 12)], place)
    folder = shutil.copytree(place, place.with_name("damaged"), dirs_exist_ok=True)
    text, (how, value) = (folder / file).read_text(), damage
    if how == "cut":
        text = text[: int(len(text) * value)]
    elif how == "whole":
        text = json.dumps(value)
    else:
        found = json.loads(text)
        text = json.dumps(
            [one | {value[0]: value[1]} for one in found] if isinstance(found, list) else found | {value[0]: value[1]}
        )
    (folder / file).write_text(text)
    try:
        encoder = load_encoder(folder)
        mine = encode_texts(encoder, TEXTS, "doc")
    except UserError:
        return
    theirs = peer(folder).encode_document(TEXTS, batch_size=1)
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


# ---- hashes and plans -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "changes", "moves"),
    [
        ("config_sentence_transformers.json", {"truncate_dim": 8}, True),
        ("config_sentence_transformers.json", {"similarity_fn_name": "euclidean"}, True),
        ("config_sentence_transformers.json", {"prompts": {"query": "what: ", "document": ""}}, False),  # in every key
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, False),  # likewise
        ("sentence_bert_config.json", {"max_seq_length": 9}, False),  # likewise
        ("sentence_bert_config.json", {"query_length": 9}, True),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"padding": "max_length"}}}, True),
        ("1_Pooling/config.json", {"pooling_mode": "cls"}, True),
        ("README.md", {}, False),
    ],
)
def test_hash_has_what_changes_an_embedding_and_no_setting_holds(plain, tmp_path, file, changes, moves):
    folder = saved([Transformer(str(plain("bert"))), Pooling(32)], tmp_path / "st")
    before = hash_model(folder)
    edit(folder / file, **changes)
    assert (hash_model(folder) != before) == moves


def test_hash_of_folders_as_they_always_were_stays(tiny_bert, tmp_path):
    """A folder of `fit` before sentence-transformers wrote it: weights, configurations and tokenizers, as ever."""
    from research.models.hashed import HASHED
    from research.runs.hashes import hash_file, hash_json

    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    edit(
        folder / "config_sentence_transformers.json",
        prompts={"query": "q: ", "document": ""},
        default_prompt_name=None,
        similarity_fn_name="cosine",
    )
    edit(folder / "sentence_bert_config.json", max_seq_length=32, do_lower_case=True)
    edit(folder / "tandem.json", query_max_length=16, doc_max_length=32)
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
                for i, kind in enumerate(kinds)
            ]
        )
    )
    for place in (folder, tiny_bert):
        files = [p for p in sorted(place.rglob("*")) if p.suffix == ".safetensors" or p.name in HASHED]
        assert hash_model(place) == hash_json({str(p.relative_to(place)): hash_file(p) for p in files})


@pytest.mark.parametrize("name", ["spm.model", "sentencepiece.model"])
def test_sentencepiece_file_alone_is_a_vocabulary_and_in_the_hash(tiny_bert, tmp_path, name):
    """DeBERTa-v2's and RemBERT's. Beside a tokenizer.json, which is read then, the hash stays what it was."""
    from research.models.contents import check_tokenizer

    before = hash_model(tiny_bert)
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / name).write_bytes(b"one")
    assert hash_model(folder) == before
    for path in [*folder.glob("tokenizer*"), *folder.glob("vocab*")]:
        path.unlink()
    check_tokenizer(folder)
    one = hash_model(folder)
    (folder / name).write_bytes(b"other")
    assert hash_model(folder) != one
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"has no vocabulary; expected a tokenizer .*{name}"):
        check_tokenizer(folder)


def test_deberta_s_own_vocabulary_is_read_or_the_package_for_it_is_named(tmp_path):
    from importlib.util import find_spec

    from transformers import AutoModel, DebertaV2Config, DebertaV2Model
    from transformers.convert_slow_tokenizer import import_protobuf

    from research.models.folder import load_transformer

    pieces = import_protobuf().ModelProto()
    for text, kind in [("[PAD]", 3), ("[CLS]", 3), ("[SEP]", 3), ("[UNK]", 2), *((one, 1) for one in "▁abc"), ("▁bee", 1)]:
        pieces.pieces.add(piece=text, score=-len(text), type=kind)
    pieces.trainer_spec.unk_id, pieces.trainer_spec.model_type = 3, 1
    DebertaV2Model(
        DebertaV2Config(vocab_size=16, num_hidden_layers=1, intermediate_size=32, hidden_size=32, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    (tmp_path / "spm.model").write_bytes(pieces.SerializeToString())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    if find_spec("sentencepiece") is None:
        with pytest.raises(UserError, match=r"the package sentencepiece.*not installed.*pip install sentencepiece"):
            load_transformer(tmp_path, AutoModel, "fp32")
    else:
        tokenizer = load_transformer(tmp_path, AutoModel, "fp32")[1]
        assert [tokenizer.get_vocab()[piece.piece] for piece in pieces.pieces] == list(range(len(pieces.pieces)))


def test_folder_of_before_keeps_its_two_lengths(tiny_bert, tmp_path):
    folder = saved([Transformer(str(tiny_bert)), Pooling(32)], tmp_path / "st")
    edit(folder / "tandem.json", query_max_length=16, doc_max_length=32)
    settings = load_encoder(folder).settings
    assert (settings.query_max_length, settings.doc_max_length) == (16, 32)


def test_plans_read_no_weights(plain, tmp_path, monkeypatch):
    torch.manual_seed(0)
    folder = saved([Transformer(str(plain("bert"))), Pooling(32), Dense(32, 12)], tmp_path / "st")
    with without_weights():
        encoder = load_encoder(folder)
        reranker = load_cross_encoder(folder, new_head=True)
    assert all(parameter.is_meta for parameter in (*encoder.parameters(), *reranker.parameters()))
    assert [(n, p.shape) for n, p in encoder.named_parameters()] == [
        (n, p.shape) for n, p in load_encoder(folder).named_parameters()
    ]


# ---- rerankers --------------------------------------------------------------------------------------------------------


def byte_tokenizer(pad: str | None, eos: bool = False):
    """One token a byte, 0 and 1 special; the end-of-text token closes a pair if asked."""
    vocabulary = {t: i for i, t in enumerate(["<|endoftext|>", "<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    vocabulary |= {"yes": len(vocabulary), "no": len(vocabulary) + 1}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <|end|>", pair="$A $B:1 <|end|>:1", special_tokens=[("<|end|>", 1)]
        )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        padding_side="left",
        model_max_length=256,
        **({"pad_token": pad} if pad else {}),
    )


def decoder(folder, tokenizer, config_pad, labels=1, causal=False, spare=0, **more):
    torch.manual_seed(0)
    heads = HEADS | {"max_position_embeddings": 256, "pad_token_id": config_pad}
    config = tf.Qwen3Config(
        vocab_size=len(tokenizer) + spare, eos_token_id=1, initializer_range=0.2, num_labels=labels, **SMALL, **heads, **more
    )
    (tf.Qwen3ForCausalLM if causal else tf.Qwen3ForSequenceClassification)(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_head_of_modules_of_the_librarys(plain, tmp_path):
    torch.manual_seed(0)
    head = Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    Peer(modules=[Transformer(str(plain("bert"))), Pooling(32, "cls"), head], device="cpu").save(str(tmp_path / "ce"))
    model = load_cross_encoder(tmp_path / "ce")
    assert type(model) is StackReranker
    expected = alone(tmp_path / "ce", list(zip(QUERIES, DOCS, strict=True)))
    np.testing.assert_allclose(score_pairs(model, QUERIES, DOCS), expected, atol=1e-5)


def alone(folder, pairs) -> np.ndarray:
    """Raw scores of the library, a pair a batch, which is never padded."""
    model = Peer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = "<|end|>"  # it refuses to tokenise without one
    rows = [model.predict([pair], activation_fn=torch.nn.Identity())[0] for pair in pairs]
    return np.array(rows)


@pytest.mark.parametrize(
    ("pad", "config_pad", "eos", "spare"),
    [
        ("<|endoftext|>", 1, False, 0),  # tokenizer and configuration name different ones
        (None, None, False, 0),  # neither names one
        (None, 0, True, 0),
        (None, None, True, 1),  # the end-of-text token closes each pair, so padding with it would hide it
        ("<|end|>", None, True, 1),
        ("<|endoftext|>", 0, False, 0),
        ("<|end|>", 1, True, 0),  # padding = end of text in both: the model reads the token before, alone as well
        ("<|endoftext|>", -1, False, 0),
    ],
)
def test_score_of_a_decoder_does_not_depend_on_padding(tmp_path, pad, config_pad, eos, spare):
    folder = decoder(tmp_path / "m", byte_tokenizer(pad, eos), config_pad, spare=spare)
    expected = alone(folder, list(zip(QUERIES, DOCS, strict=True)))
    model = load_cross_encoder(folder)
    assert type(model) is CrossEncoder
    np.testing.assert_allclose(score_pairs(model, QUERIES, DOCS), expected, atol=1e-5)
    save_cross_encoder(model, tmp_path / "again")
    np.testing.assert_allclose(score_pairs(load_cross_encoder(tmp_path / "again"), QUERIES, DOCS), expected, atol=1e-5)
    bf16 = score_pairs(load_cross_encoder(folder, "bf16"), QUERIES, DOCS)
    assert np.abs(bf16 - expected).max() < 0.2 * np.abs(expected).max()


def test_end_token_within_a_document_of_an_encoder_decoder(plain, wordpiece):
    """BART's head reads the last end token, and takes a batch only where every pair has as many of them."""
    torch.manual_seed(0)
    config = tf.BartConfig(
        vocab_size=len(wordpiece),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=66,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        num_labels=1,
    )
    folder = plain("bart", model=tf.BartForSequenceClassification(config))
    docs = ["of day", "people [SEP] they", " ".join(WORDS[:20]), "a"]
    expected = alone(folder, list(zip(QUERIES, docs, strict=True)))
    np.testing.assert_allclose(score_pairs(load_cross_encoder(folder), QUERIES, docs), expected, atol=1e-5)


def test_another_padding_token_than_before_is_in_the_identity(tmp_path):
    right = Scorer(str(decoder(tmp_path / "right", byte_tokenizer("<|endoftext|>"), 0)), "fp32", None, None)
    wrong = Scorer(str(decoder(tmp_path / "wrong", byte_tokenizer("<|endoftext|>"), 1)), "fp32", None, None)
    assert right.identity == [right.model_hash, 256, "fp32"]
    assert wrong.identity[:3] == [wrong.model_hash, 256, "fp32"]
    assert len(wrong.identity) == 4


def test_prompt_before_every_query(tmp_path):
    base = decoder(tmp_path / "base", byte_tokenizer("<|endoftext|>"), 0)
    prompts = {"query": "Judge: ", "other": "Not this: "}
    for name in ("query", None):
        folder = tmp_path / f"ce-{name}"
        Peer(str(base), prompts=prompts, default_prompt_name=name, device="cpu").save(str(folder), create_model_card=False)
        expected = alone(folder, list(zip(QUERIES, DOCS, strict=True)))
        np.testing.assert_allclose(score_pairs(load_cross_encoder(folder), QUERIES, DOCS), expected, atol=1e-5)
        save_cross_encoder(load_cross_encoder(folder), tmp_path / f"again-{name}")
        np.testing.assert_allclose(
            alone(tmp_path / f"again-{name}", list(zip(QUERIES, DOCS, strict=True))), expected, atol=1e-5
        )
    before = hash_model(tmp_path / "ce-query")
    edit(tmp_path / "ce-query" / "config_sentence_transformers.json", prompts={"query": "Other: "})
    assert hash_model(tmp_path / "ce-query") != before


@pytest.mark.parametrize(
    ("names", "relevant"),
    [(None, 1), ({0: "relevant", 1: "not_relevant"}, 0), ({0: "no", 1: "yes"}, 1), ({0: "irrelevant", 1: "other"}, 1)],
)
def test_two_labels_score_by_the_log_odds_of_the_relevant_one(tmp_path, names, relevant):
    more = {} if names is None else {"id2label": names, "label2id": {v: k for k, v in names.items()}}
    folder = decoder(tmp_path / "m", byte_tokenizer("<|endoftext|>"), 0, labels=2, **more)
    logits = alone(folder, list(zip(QUERIES, DOCS, strict=True)))  # (N, 2)
    expected = logits[:, relevant] - logits[:, 1 - relevant]
    np.testing.assert_allclose(score_pairs(load_cross_encoder(folder), QUERIES, DOCS), expected, atol=1e-5)


def test_two_labels_that_do_not_say_which_is_relevant(tmp_path):
    names = {0: "cats", 1: "dogs"}
    folder = decoder(
        tmp_path / "m", byte_tokenizer("<|endoftext|>"), 0, labels=2, id2label=names, label2id={"cats": 0, "dogs": 1}
    )
    with pytest.raises(UserError, match=r"the labels 'cats' and 'dogs'; .*id2label"):
        load_cross_encoder(folder)
    edit(folder / "config.json", id2label={"0": "irrelevant", "1": "relevant"}, label2id={"irrelevant": 0, "relevant": 1})
    assert load_cross_encoder(folder).relevance.relevant == 1


TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n{% elif m.role == 'query' %}Q: {{ m.content }}\n"
    "{% else %}D: {{ m.content }}\nRelevant? {% endif %}{% endfor %}"
)


@pytest.mark.parametrize("saved_by_library", [False, True])
def test_yes_or_no_of_a_language_model_with_its_template(tmp_path, saved_by_library):
    tokenizer = byte_tokenizer("<|endoftext|>")
    tokenizer.chat_template = TEMPLATE
    folder = decoder(tmp_path / "lm", tokenizer, 0, causal=True)
    if saved_by_library:
        library = Peer(str(folder), device="cpu", prompts={"judge": "Judge it."}, default_prompt_name="judge")
        library.save(str(tmp_path / "ce"), create_model_card=False)
        folder = tmp_path / "ce"
    model = load_cross_encoder(folder)
    assert type(model) is StackReranker
    expected = alone(folder, list(zip(QUERIES, DOCS, strict=True)))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(score_pairs(model, QUERIES, DOCS), expected, atol=1e-5)
    save_cross_encoder(model, tmp_path / "again")
    np.testing.assert_allclose(alone(tmp_path / "again", list(zip(QUERIES, DOCS, strict=True))), expected, atol=1e-5)
    before = hash_model(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE + " ")
    assert hash_model(folder) != before


def test_template_that_drops_the_pair_is_refused_before_anything_is_computed(tmp_path):
    tokenizer = byte_tokenizer("<|endoftext|>")
    tokenizer.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    with pytest.raises(UserError, match="chat template"):
        load_cross_encoder(decoder(tmp_path / "lm", tokenizer, 0, causal=True))


def test_tokenizer_without_yes_and_no_is_no_judge(tmp_path, wordpiece):
    torch.manual_seed(0)
    config = tf.Qwen3Config(vocab_size=len(wordpiece), **SMALL, **HEADS)
    tf.Qwen3ForCausalLM(config).save_pretrained(tmp_path / "lm")
    wordpiece.save_pretrained(tmp_path / "lm")
    with pytest.raises(UserError, match="no tokens yes and no"):
        load_cross_encoder(tmp_path / "lm")


RERANKER_FILES = (
    "modules.json",
    "config_sentence_transformers.json",
    "1_LogitScore/config.json",
    "sentence_bert_config.json",
    "config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
RERANKER_KEYS = (
    "true_token_id",
    "false_token_id",
    "module_input_name",
    "pad_token_id",
    "pad_token",
    "num_labels",
    "prompts",
    "default_prompt_name",
    "transformer_task",
    "processing_kwargs",
    "vocab_size",
    "model_type",
    "eos_token",
    "padding_side",
    "model_max_length",
    "activation_fn",
    "keep_in_fp32_modules",
    "path",
    "type",
)


@settings(derandomize=True, max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(file=st.sampled_from(RERANKER_FILES), key=st.sampled_from(RERANKER_KEYS), value=JSON, cut=st.booleans())
def test_damaged_reranker_is_refused_or_changes_what_it_changes_in_the_library(tmp_path_factory, file, key, value, cut):
    place = tmp_path_factory.getbasetemp() / "judge"
    if not place.exists():
        tokenizer = byte_tokenizer("<|endoftext|>")
        tokenizer.chat_template = TEMPLATE
        lm = decoder(place.with_name("judge-lm"), tokenizer, 0, causal=True)
        Peer(str(lm), device="cpu").save(str(place), create_model_card=False)
    folder = shutil.copytree(place, place.with_name("damaged-judge"), dirs_exist_ok=True)
    text = (folder / file).read_text()
    if cut or file.endswith("jinja"):
        text = text[: len(text) // 2]
    else:
        found = json.loads(text)
        text = json.dumps([one | {key: value} for one in found] if isinstance(found, list) else found | {key: value})
    (folder / file).write_text(text)
    try:
        found = score_pairs(load_cross_encoder(folder), QUERIES, DOCS)
    except UserError:
        return
    np.testing.assert_allclose(found, alone(folder, list(zip(QUERIES, DOCS, strict=True))), atol=1e-5)


# ---- adapters ---------------------------------------------------------------------------------------------------------


def trained(model, **options):
    """A LoRA adapter whose update is not nothing."""
    torch.manual_seed(3)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, **options))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return adapted.eval()


@pytest.mark.parametrize("tokenizer", [True, False])
def test_adapter_of_an_encoder(plain, tmp_path, wordpiece, tokenizer):
    base = plain("bert")
    adapted = trained(tf.AutoModel.from_pretrained(base), target_modules=["query", "value"])
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder)
    if tokenizer:  # without one the library does not load it; it is the base's
        wordpiece.save_pretrained(folder)
        assert_same(folder)
    encoder = load_encoder(folder)
    with without_weights():
        assert all(parameter.is_meta for parameter in load_encoder(folder).parameters())
    whole = tmp_path / "whole"
    adapted.merge_and_unload().save_pretrained(whole)
    wordpiece.save_pretrained(whole)
    assert_same(whole, encoder=encoder)
    before = hash_with_base(folder)
    assert before not in (hash_model(folder), hash_with_base(base))
    moved = base.rename(base.with_name("moved"))
    edit(folder / "adapter_config.json", base_model_name_or_path=str(moved), revision=None)
    assert hash_with_base(folder) == before
    edit(folder / "adapter_config.json", lora_alpha=9)
    assert hash_with_base(folder) != before
    save_dual_encoder(DualEncoder(encoder, encoder), tmp_path / "again")  # a starting point: saved as a whole model
    np.testing.assert_allclose(peer(tmp_path / "again").encode(TEXTS), peer(whole).encode(TEXTS), atol=1e-5)


def test_dora_of_an_encoder_which_transformers_reads_in_part(plain, tmp_path):
    base = plain("bert")
    adapted = trained(tf.AutoModel.from_pretrained(base), target_modules=["query", "value"], use_dora=True)
    for name, parameter in adapted.named_parameters():
        if "magnitude" in name:
            torch.nn.init.normal_(parameter, 1, 0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    encoder = load_encoder(tmp_path / "adapter")
    with without_weights():
        assert load_encoder(tmp_path / "adapter").dim == 32
    whole = plain("merged", model=adapted.merge_and_unload())
    assert_same(whole, encoder=encoder)
    edit(tmp_path / "adapter/adapter_config.json", alora_offset=3)
    with pytest.raises(UserError, match=r"has alora_offset=3, which PEFT .* does not know"):
        load_encoder(tmp_path / "adapter")


def test_adapter_that_the_library_saved_with_its_modules(plain, tmp_path):
    base = SentenceTransformer(
        modules=[Transformer(str(plain("bert"))), Pooling(32, "cls"), Normalize()], device="cpu", prompts={"query": "what: "}
    )
    base.add_adapter(peft.LoraConfig(r=4, target_modules=["query"]))
    for name, parameter in base.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    base.save(str(tmp_path / "st"), create_model_card=False)
    edit(tmp_path / "st/adapter_config.json", base_model_name_or_path=str(plain("bert")))
    assert_same(tmp_path / "st")


def test_adapter_of_a_reranker_with_its_head(tmp_path):
    tokenizer = byte_tokenizer("<|endoftext|>")
    base = decoder(tmp_path / "lm", tokenizer, 0, causal=True)  # of a language model, which has no head
    torch.manual_seed(5)
    plain = tf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    adapted = trained(plain, target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS")
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = [
            float(adapted(**tokenizer([q], [d], return_tensors="pt", return_token_type_ids=False)).logits)
            for q, d in zip(QUERIES, DOCS, strict=True)
        ]
    found = score_pairs(load_cross_encoder(tmp_path / "adapter"), QUERIES, DOCS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    save_file({n: w for n, w in weights.items() if "score" not in n}, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(UserError, match=r"score\..*weight"):
        load_cross_encoder(tmp_path / "adapter")


def test_adapters_that_are_refused(plain, tmp_path, wordpiece):
    base, folder = plain("bert"), tmp_path / "adapter"
    trained(tf.AutoModel.from_pretrained(base), target_modules=["query"]).save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({f"other.{name}": value for name, value in weights.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="does not fit its base"):
        load_encoder(folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"needs w.*safetensors"):
        load_encoder(folder)
    trained(tf.AutoModel.from_pretrained(base), target_modules=["query"]).save_pretrained(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere"):
        load_encoder(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(UserError, match="names no base_model_name_or_path"):
        load_encoder(folder)


def test_nothing_of_the_library_is_changed_after_loading(tiny_bert):
    before = tf.PreTrainedModel.__dict__["from_pretrained"]
    load_encoder(tiny_bert)
    assert tf.PreTrainedModel.__dict__["from_pretrained"] is before
    assert "own_pooling" not in sys.modules
