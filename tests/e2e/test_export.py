"""export as a user types it: what plain libraries load is the model that was trained."""

import json
import os
from pathlib import Path

import peft
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from research.models import adapters
from research.models.policy import load_policy, save_policy
from tests.e2e.fitting import MINE, RETRIEVE, furnish
from tests.lm import rows, save_tiny

CAUSAL = {"task_type": "CAUSAL_LM"}
METHODS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **CAUSAL),
    "dora": lambda: peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, use_dora=True, **CAUSAL),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, **CAUSAL),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=8, **CAUSAL),
}


def adapter_on(base: Path | str, method: str, folder: Path) -> Path:
    torch.manual_seed(1)
    policy = load_policy(str(base), merge=True)
    policy.model.transformer = adapters.attach(policy.model.transformer, METHODS[method]())
    save_policy(policy.model, folder, policy)
    return folder


def logits(model) -> torch.Tensor:
    ids = torch.randint(4, 260, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -17:]


@pytest.fixture
def base(tmp_path) -> Path:
    return save_tiny(tmp_path / "base")


def header(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


@pytest.mark.parametrize("method", METHODS)
def test_exported_adapter_has_the_same_logits_in_plain_peft(method, base, research, tmp_path):
    adapter = adapter_on(base, method, tmp_path / "adapter")
    result = research("export", adapter, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert (result.json["kind"], result.json["difference"]) == ("adapter", 0)
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(theirs), logits(load_policy(str(adapter)).model.transformer), rtol=0, atol=0)
    card = (tmp_path / "out/README.md").read_text()
    assert header(card)["library_name"] == "peft"
    assert "PeftModel.from_pretrained(base" in card  # the base is a folder of this machine
    assert "training is not known" in card
    assert not (tmp_path / "out/tandem.json").exists()


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_merged_export_is_an_ordinary_model(method, base, research, tmp_path):
    adapter = adapter_on(base, method, tmp_path / "adapter")
    result = research("export", adapter, "--merge", "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert result.json["kind"] == "causal-lm"
    theirs = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    ours = logits(load_policy(str(adapter)).model.transformer)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))
    assert float((theirs - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max()) > 1e-2
    assert not any("adapter" in path.name for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_virtual_tokens_cannot_be_merged(method, base, research, tmp_path):
    result = research("export", adapter_on(base, method, tmp_path / "adapter"), "--merge", "--out", tmp_path / "out")
    assert result.code == 2
    assert "cannot become part of the weights; expected LORA. Export it without --merge" in result.err
    assert not (tmp_path / "out").exists()


def test_an_adapter_on_an_adapter_is_exported_merged(base, research, tmp_path):
    """SFT, then DPO on it: plain PEFT would find the base without the first adapter."""
    sft = adapter_on(base, "lora", tmp_path / "sft")
    dpo = adapter_on(sft, "lora", tmp_path / "dpo")
    refused = research("export", dpo, "--out", tmp_path / "out")
    assert refused.code == 2
    assert "with an adapter of its own" in refused.err
    assert "Export this one with --merge" in refused.err
    assert not (tmp_path / "out").exists()
    result = research("export", dpo, "--merge", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    ours = logits(load_policy(str(dpo)).model.transformer)
    theirs = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))


def test_an_export_that_is_another_model_is_not_written(base, research, tmp_path, monkeypatch):
    """The check after the copy: here PEFT finds another base under the name."""
    adapter = adapter_on(base, "lora", tmp_path / "adapter")
    other = save_tiny(tmp_path / "other", seed=5)
    from research.models import policy

    plain = policy.load_policy
    monkeypatch.setattr(policy, "load_policy", lambda *a, **k: plain(*a, **k)._replace(base_folder=other))
    result = research("export", adapter, "--out", tmp_path / "out")
    assert result.code == 1
    assert not (tmp_path / "out").exists()


def test_a_run_s_card_says_data_metrics_and_configuration(base, research, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(16)))
    Path("base/README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    Path("sft.yaml").write_text(
        "seed_everything: 0\nout: run\nmonitor: val/loss\n"
        "model:\n  class_path: research.training.sft.SFTModule\n  init_args:\n    model: ./base\n"
        "    adapter:\n      class_path: peft.LoraConfig\n      init_args:\n        r: 2\n        target_modules: all-linear\n"
        "data:\n  class_path: research.data.instructions.InstructionData\n  init_args:\n    train: rows.jsonl\n"
        "    train_split: null\n    val: rows.jsonl\n    val_split: null\n    batch_size: 4\n    max_length: 256\n"
        "trainer:\n  accelerator: cpu\n  max_epochs: 1\n"
    )
    result = research("fit", "-c", "sft.yaml", "--wandb", "disabled")
    assert result.code == 0, result.err
    result = research("export", "run", "--out", "out")
    assert result.code == 0, result.err
    card = Path("out/README.md").read_text()
    found = json.loads(Path("run/metrics.json").read_text())["metrics"]
    assert f"| {found['loss']:.4f} |" in card
    assert "- train: `rows.jsonl`" in card
    assert "r: 2" in card
    assert "null" not in card
    header = ModelCard.load("out/README.md").data
    [result] = [result for result in header.eval_results if result.metric_type == "loss"]
    assert (result.dataset_name, result.metric_value) == ("rows.jsonl", found["loss"])
    assert (header.license, header.tags) == ("apache-2.0", ["tandem", "sft"])  # of the base's card
    assert research("export", "run", "--out", "mine", "--license", "mit").code == 0
    assert ModelCard.load("mine/README.md").data.license == "mit"
    assert oct(os.stat("run/model/adapter_model.safetensors").st_mode & 0o777) != "0o600"  # others of the group read it


@pytest.fixture
def hub(tmp_path, monkeypatch) -> None:
    """A hub's cache with org/name: other weights at v1.0 than on main."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for seed, (reference, commit) in enumerate({"main": "a" * 40, "v1.0": "b" * 40}.items()):
        place = tmp_path / "hub/models--org--name"
        save_tiny(place / "snapshots" / commit, seed=seed)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / reference).write_text(commit)


def test_an_exported_adapter_is_read_back_on_its_revision(hub, research, tmp_path):
    """Not on main: the base that the export's adapter_config.json names is org/name, its revision v1.0."""
    adapter = adapter_on("org/name@v1.0", "lora", tmp_path / "adapter")
    result = research("export", adapter, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", "v1.0")
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    ours = load_policy(str(tmp_path / "out"))
    torch.testing.assert_close(logits(ours.model.transformer), logits(theirs), rtol=0, atol=0)
    assert ours.base == "org/name@v1.0"
    assert ours.base_hash == load_policy(str(adapter)).base_hash != load_policy("org/name").base_hash
    assert research("export", tmp_path / "out", "--merge", "--out", tmp_path / "whole").code == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits(merged), logits(theirs), rtol=0, atol=1e-5 * float(logits(theirs).abs().max()))


def test_an_adapter_whose_base_lies_beside_it_is_found_from_anywhere(base, research, tmp_path):
    adapter = adapter_on(base, "lora", tmp_path / "adapter")
    expected = logits(load_policy(str(adapter)).model.transformer)
    (adapter / "tandem.json").unlink()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "../base"}))
    torch.testing.assert_close(logits(load_policy(str(adapter)).model.transformer), expected, rtol=0, atol=0)
    assert research("export", adapter, "--out", tmp_path / "out").code == 0
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(theirs), expected, rtol=0, atol=0)


def test_a_linked_module_is_exported_and_has_a_part_in_the_hash(tiny_bert, research, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from research.models.hashed import hash_model

    torch.manual_seed(0)
    stack = SentenceTransformer(modules=[Transformer(str(tiny_bert)), Pooling(32), Dense(32, 8)], device="cpu")
    stack.save(str(tmp_path / "model"), create_model_card=False)
    os.rename(tmp_path / "model/2_Dense", tmp_path / "dense")
    (tmp_path / "model/2_Dense").symlink_to(tmp_path / "dense")
    assert research("export", tmp_path / "model", "--out", tmp_path / "out").code == 0
    assert not (tmp_path / "out/2_Dense").is_symlink()
    assert hash_model(tmp_path / "out") == hash_model(tmp_path / "model")
    texts = ["a text", "another one of more words"]
    assert (SentenceTransformer(str(tmp_path / "out")).encode(texts) == stack.encode(texts)).all()


def test_retrieval_models_are_loaded_by_sentence_transformers(tiny_bert, research, tmp_path, monkeypatch):
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from research.models.dual_encoder import load_encoder
    from research.retrieval.encode import encode_texts

    furnish(tmp_path, tiny_bert, monkeypatch)
    assert research("fit", "-c", "dual.yaml", "--trainer.max_epochs", "1", "--wandb", "disabled").code == 0
    assert research("export", "run", "--out", "retriever").code == 0
    texts = ["a text", "another one of more words"]
    ours = encode_texts(load_encoder(Path("run/model")), texts, "query")
    assert abs(SentenceTransformer("retriever").encode(texts) - ours).max() < 1e-5
    assert header(Path("retriever/README.md").read_text())["pipeline_tag"] == "sentence-similarity"
    for line in (MINE, RETRIEVE.format(split="dev", out="first"), RETRIEVE.format(split="test", out="testrun")):
        assert research(*line.split()).code == 0
    assert research("fit", "-c", "cross.yaml", "--trainer.max_epochs", "1", "--wandb", "disabled").code == 0
    result = research("export", "cross", "--out", "reranker", "--json")
    assert result.json["kind"] == "cross-encoder"
    assert len(CrossEncoder("reranker").predict([("a", "b")])) == 1
    assert result.json["difference"] < 1e-5
    assert "CrossEncoder.predict(pairs, activation_fn=torch.nn.Identity()) gives these scores" in result.err
    assert "gives these scores" in Path("reranker/README.md").read_text()


@pytest.mark.parametrize("labels", [1, 2])
def test_an_exported_reranker_scores_short_and_long_pairs_as_plain_cross_encoder(labels, tiny_reranker, research, tmp_path):
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from research.models.cross_encoder import load_cross_encoder

    config = {"num_labels": labels, "ignore_mismatched_sizes": True}
    AutoModelForSequenceClassification.from_pretrained(tiny_reranker, **config).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_reranker).save_pretrained(tmp_path / "model")
    result = research("export", tmp_path / "model", "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert result.json["difference"] < 1e-4
    pairs = [("the of", "and a in"), ("the of", "and a in " * 60), ("and a in " * 60, "the"), ("and a " * 60, "in to " * 60)]
    ours = load_cross_encoder(tmp_path / "model")
    with torch.no_grad():
        expected = [float(ours(**ours.collate(ours.tokenize([q], [d]), [0]))) for q, d in pairs]
    found = CrossEncoder(str(tmp_path / "out")).predict(pairs, activation_fn=torch.nn.Identity())
    found = found if labels == 1 else found[:, 1] - found[:, 0]  # as the card says
    assert list(found) == pytest.approx(expected, abs=1e-4)
    assert ("column 1 minus column 0" in result.err) == (labels == 2)


def test_an_export_says_that_plain_cross_encoder_scores_otherwise(tiny_reranker, research, tmp_path, monkeypatch):
    from sentence_transformers import CrossEncoder

    predict = CrossEncoder.predict
    monkeypatch.setattr(CrossEncoder, "predict", lambda self, pairs, **more: predict(self, pairs, **more) + 1)
    result = research("export", tiny_reranker, "--out", tmp_path / "out")
    assert "differs from these scores" in result.err
    assert "differs from these scores" in (tmp_path / "out/README.md").read_text()


def test_a_retriever_s_lengths_are_exported_and_the_card_says_how_to_encode(tiny_bert, research, tmp_path, monkeypatch):
    """Also from a folder of before, whose lengths stand where sentence-transformers does not look."""
    from sentence_transformers import SentenceTransformer

    from research.models.dual_encoder import DualEncoder

    furnish(tmp_path, tiny_bert, monkeypatch)
    options = ("--model.query_max_length", 6, "--model.doc_max_length", 24, "--trainer.max_steps", 1)
    result = research("fit", "-c", "dual.yaml", "--wandb", "disabled", *options)
    assert result.code == 0, result.err
    assert "run/model: plain sentence-transformers' encode_query and encode_document give these embeddings" in result.err
    file = Path("run/model/sentence_bert_config.json")
    config = {name: value for name, value in json.loads(file.read_text()).items() if not name.endswith("_length")}
    file.write_text(json.dumps(config))
    Path("run/model/tandem.json").write_text(json.dumps({"query_max_length": 6, "doc_max_length": 24}))
    ours = DualEncoder.load(Path("run/model")).query
    result = research("export", "run", "--out", "exported", "--json")
    assert result.json["difference"] < 1e-5
    text = "where most know get " * 20
    theirs = SentenceTransformer("exported", device="cpu").encode_query([text])
    expected = ours(*ours.collate(ours.tokenize([text], "query"))).detach()
    torch.testing.assert_close(torch.tensor(theirs), expected, rtol=0, atol=1e-5)
    card = Path("exported/README.md").read_text()
    assert 'queries = model.encode_query(["a question"])' in card
    assert "its length of 6 tokens; use encode_query." in card


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("base", "--merge"), "holds no adapter"),
        (("nowhere/at/all",), "does not exist"),
        (("base", "--out", "base"), "not an empty"),
        (("base", "--license", "MIT License"), "--license 'MIT License'; expected the hub's id"),
    ],
)
def test_wrong_options_are_refused(options, says, base, research, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = research("export", *options, *(() if "--out" in options else ("--out", "out")))
    assert result.code == 2
    assert says in result.err
    assert not Path("out").exists()
