"""What a model folder is hashed by, and what an adapter in it says of its base."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from research.errors import UserError
from research.models.contents import weight_files
from research.models.hashed import hash_model
from research.models.policy import load_policy
from research.models.sources import adapter_base, base_name

DENSE = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]


def weights(folder: Path, value: float, **config) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"a": np.full(3, value, "f4")}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    """A stack whose Dense module is a link to a folder elsewhere."""
    folder = weights(tmp_path / "model", 0.0)
    (folder / "modules.json").write_text(json.dumps(DENSE))
    weights(tmp_path / "dense", 1.0, in_features=3)
    (folder / "2_Dense").symlink_to(tmp_path / "dense")
    return folder


def copied(folder: Path, to: Path) -> Path:
    """The same with every link replaced by what it leads to."""
    return Path(shutil.copytree(folder, to, symlinks=False))


def test_a_linked_module_is_hashed_as_one_that_lies_there(model, tmp_path):
    before = hash_model(model)
    assert before == hash_model(copied(model, tmp_path / "copy"))
    weights(tmp_path / "dense", 2.0, in_features=3)
    assert hash_model(model) != before
    assert hash_model(model) == hash_model(copied(model, tmp_path / "another"))
    weights(tmp_path / "dense", 1.0, in_features=4)  # not the weights alone
    assert hash_model(model) != before


def test_linked_folders_within_linked_folders_are_hashed(model, tmp_path):
    weights(tmp_path / "inner", 3.0)
    (tmp_path / "dense/inner").symlink_to("../inner")  # relative to where the link really lies
    before = hash_model(model)
    assert before == hash_model(copied(model, tmp_path / "copy"))
    weights(tmp_path / "inner", 4.0)
    assert hash_model(model) != before


def test_two_towers_that_are_links_have_weights(tmp_path):
    (tmp_path / "two").mkdir()
    for role in ("query", "doc"):
        (tmp_path / "two" / role).symlink_to(weights(tmp_path / f"{role}-model", 1.0))
    assert [str(path.relative_to(tmp_path / "two")) for path in weight_files(tmp_path / "two")] == [
        "doc/model.safetensors",
        "query/model.safetensors",
    ]
    before = hash_model(tmp_path / "two")
    weights(tmp_path / "query-model", 2.0)
    assert hash_model(tmp_path / "two") != before


@pytest.mark.parametrize("target", [".", "..", "/", "sub", "../other"])
def test_a_circle_of_links_has_an_end(target, tmp_path):
    """Nor is what holds the model walked, which may be the whole disk."""
    folder = weights(tmp_path / "holds/model", 0.0)
    weights(folder / "sub", 1.0)
    weights(tmp_path / "holds/other", 2.0)
    (tmp_path / "holds/other/back").symlink_to(tmp_path / "holds/model/sub/link")
    before = hash_model(folder)
    (folder / "sub/link").symlink_to(target if target == "/" else os.path.join(folder, target))
    (folder / "sub/gone").symlink_to(tmp_path / "nowhere")
    assert (hash_model(folder) == before) == (target != "../other")


def test_a_snapshot_of_links_to_files_hashes_as_the_files(tmp_path):
    real = weights(tmp_path / "real", 0.0)
    weights(real / "2_Dense", 1.0)
    snapshot = tmp_path / "snapshot"
    for path in real.rglob("*"):
        if path.is_file():
            (snapshot / path.relative_to(real)).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / path.relative_to(real)).symlink_to(path)
    assert (
        hash_model(snapshot)
        == hash_model(real)
        == (
            # as it was before links were followed
            "cb2d044518074247eabfb5cf3bed2bead323eb0eeeb2eca485f1b68de1d5ce87"
        )
    )


def adapter(folder: Path, facts: dict | None = None, **config) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    if facts is not None:
        (folder / "tandem.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize(
    ("name", "revision", "facts", "expected"),
    [
        ("org/name", None, None, "org/name"),
        ("org/name", "v1.0", None, "org/name@v1.0"),
        ("name", "main", None, "name@main"),
        ("org/name@a", "b", None, "org/name@a"),
        ("org/name", "", None, "org/name"),
        ("org/name", "v1", {}, "org/name@v1"),
        ("org/name", "v1", {"base": "org/other"}, "org/other"),
        ("/gone", "v1", {"base": "org/name@v2"}, "org/name@v2"),
        ("pkg:package/file.gguf", "v1", None, "pkg:package/file.gguf"),
        ("random:a.json", "v1", None, "random:a.json"),
        ("./base", None, None, "{adapter}/base"),
        ("./base", "v1", None, "{adapter}/base"),
        ("../near", None, None, "{root}/near"),
        ("../../deep/near", None, None, "../../deep/near"),
        ("./nowhere", "v1", None, "./nowhere"),
        ("{root}/near", "v1", None, "{root}/near"),
        ("/nowhere/at/all", "v1", None, "/nowhere/at/all"),
        ("./here", None, None, "./here"),
        ("here/a/b", "v1", None, "here/a/b"),
        ("sub/a/b", None, None, "{adapter}/sub/a/b"),
        ("base", None, None, "base"),
        (None, None, {"base": "org/name"}, "org/name"),
    ],
)
def test_one_rule_says_what_an_adapter_lies_on(name, revision, facts, expected, tmp_path, monkeypatch):
    from research.models import policy, sources

    folder = adapter(
        tmp_path / "adapter", facts, base_model_name_or_path=name and name.format(root=tmp_path), revision=revision
    )
    for place in ("adapter/base", "near", "some/cwd/here/a/b", "adapter/here", "adapter/sub/a/b"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "some/cwd")  # PEFT's own place comes first
    asked = []
    monkeypatch.setattr(sources, "resolve", lambda name: asked.append(name) or tmp_path)
    monkeypatch.setattr(policy, "load_policy", lambda name, *_, **__: asked.append(name) or policy.Policy(*"abcd"))
    assert base_name(folder) == expected.format(adapter=folder, root=tmp_path)
    adapter_base(folder)  # of an encoder's or a reranker's
    policy._base_of(folder, "fp32", ())  # of a language model's
    assert asked == [base_name(folder)] * 2


@pytest.mark.parametrize("name", [None, "", 3, ["a"]])
def test_an_adapter_without_a_base_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="names no base_model_name_or_path"):
        base_name(adapter(tmp_path / "adapter", base_model_name_or_path=name))


def test_an_encoder_is_refused_as_a_language_model(tiny_bert):
    with pytest.raises(UserError, match="it is a BertModel, an encoder for --retriever; expected a causal language model"):
        load_policy(str(tiny_bert))


def test_the_bar_of_dequantising_is_our_own(capsys):
    """transformers' own redraws a terminal's line in a log file too."""
    from transformers import modeling_gguf_pytorch_utils as loading

    from research.models.gguf import _own_bar

    plain = loading.tqdm
    with _own_bar():
        assert list(loading.tqdm(range(300), desc="Converting and de-quantizing GGUF tensors...")) == [*range(300)]
    assert loading.tqdm is plain
    assert capsys.readouterr().err == ""  # of less than half a minute a log file has no line
