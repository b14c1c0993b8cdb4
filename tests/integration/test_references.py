"""The reference of DPO is the base, whatever the adapter did to it, and whatever lies in the cache."""

import itertools
import json
import math
from pathlib import Path

import lightning as L
import numpy as np
import peft
import pytest
import torch

from research.data.preferences import PreferenceData
from research.errors import UserError
from research.training.dpo import DPOModule
from research.training.optimisation import Optimisation
from tests.lm import rows, save_tiny

PAIRS = [
    {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(rows(9))
]
CAUSAL = {"task_type": "CAUSAL_LM"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("lm") / "model")


def lora(**more):
    return peft.LoraConfig(**({"r": 4, "target_modules": ["q_proj", "v_proj"]} | CAUSAL | more))


def first_loss(folder: Path, tmp_path: Path, adapter, precision: str = "32-true", data=(), **options) -> float:
    """Of the first step, before anything is trained."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    torch.manual_seed(0)
    module = DPOModule(str(folder), adapter=adapter, optimisation=Optimisation(lr=1e-3, warmup=0.0), **options)
    pairs = PreferenceData(str(file), None, str(file), None, batch_size=8, max_length=256, **dict(data))
    losses = []
    module.log_dict = lambda values, **_: losses.append(values)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        precision=precision,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=pairs)
    return float(losses[0]["train/loss"])


STRANGE = {"replicated": {"layer_replication": [[0, 2], [1, 2]]}, "shrunk": {"layer_replication": [[0, 1]]}}


@pytest.mark.parametrize("name", STRANGE)
def test_another_model_than_the_base_is_no_reference_of_others(name, folder, tmp_path):
    for reference in ("cached", "adapter_off"):
        with pytest.raises(UserError, match=r"is the model its base"):
            first_loss(folder, tmp_path, lora(**STRANGE[name]), reference=reference)
    # the cure of the message
    assert first_loss(folder, tmp_path, lora(**STRANGE[name]), reference="copy") == pytest.approx(math.log(2), abs=1e-5)
    assert first_loss(folder, tmp_path, lora(), reference="cached") == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "mica"},
        {"init_lora_weights": "orthogonal"},
        {"use_dora": True},
        {"trainable_token_indices": [4, 5]},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_what_starts_as_the_base_starts_at_ln_2(more, folder, tmp_path):
    assert first_loss(folder, tmp_path, lora(**more), reference="cached") == pytest.approx(math.log(2), abs=1e-4)


def test_a_base_whose_biases_are_trained_is_not_the_reference_when_off(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from tests.lm import byte_tokenizer

    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=264,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    ).save_pretrained(tmp_path / "q")
    byte_tokenizer().save_pretrained(tmp_path / "q")
    module = DPOModule(str(tmp_path / "q"), adapter=lora(bias="all"), reference="cached")
    assert module.language.start.base_trained
    assert module.reference_model() is None
    assert not DPOModule(str(tmp_path / "q"), adapter=lora(), reference="cached").language.start.base_trained


def test_a_cache_of_another_model_is_not_believed(folder, tmp_path, cache, capsys):
    assert first_loss(folder, tmp_path, lora(), reference="cached") == pytest.approx(math.log(2), abs=1e-5)
    for path in cache.rglob("*.npy"):
        np.save(path, np.load(path) - np.array([3.0, 1.0]))
    capsys.readouterr()
    assert first_loss(folder, tmp_path, lora(), reference="cached") == pytest.approx(math.log(2), abs=1e-5)
    assert "are not this model's; they are computed again" in capsys.readouterr().err


AGAIN = "are not this model's; they are computed again"


@pytest.mark.parametrize(
    ("precision", "off"), [("32-true", -0.1), ("32-true", 0.01), ("bf16-mixed", -9.0), ("bf16-mixed", 4.0)]
)
@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("others", ["there", "gone"])
def test_any_part_of_another_model_is_found(part, others, precision, off, folder, tmp_path, cache, capsys, monkeypatch):
    """By nats a token: relative to a sum of some hundred, the wrong one of -209 was that of -200."""
    monkeypatch.setattr("research.training.reference.PART", 8)
    monkeypatch.setattr("tests.integration.test_references.PAIRS", PAIRS + PAIRS[::-1] + PAIRS[:2])  # 8, 8 and 2
    expected = first_loss(folder, tmp_path, lora(), precision, reference="cached")
    parts = sorted(cache.glob("reference/*/*.npy"))
    assert [path.name for path in parts] == ["00000.npy", "00001.npy", "00002.npy"]
    kept = [np.load(path) for path in parts]
    for path, values in zip(parts, kept, strict=True):
        if path != parts[part] and others == "gone":
            path.unlink()
        elif path == parts[part]:
            np.save(path, values + off)  # of both sides, so that the loss alone would not tell
    capsys.readouterr()
    assert first_loss(folder, tmp_path, lora(), precision, reference="cached") == expected
    assert AGAIN in capsys.readouterr().err
    assert all((np.load(path) == values).all() for path, values in zip(parts, kept, strict=True))


@pytest.mark.parametrize("few", [False, True])
def test_a_cache_that_differs_by_rounding_is_believed(few, tmp_path, cache, capsys, monkeypatch):
    """What float32 gives is further from a bf16 run than what another kernel's bf16 gives."""
    if few:  # completions of one token or two
        monkeypatch.setattr(
            "tests.integration.test_references.PAIRS",
            [{"prompt": "the of and a " * (1 + i), "chosen": "xx"[: 1 + i % 2], "rejected": "y"} for i in range(9)],
        )
    deep = save_tiny(tmp_path / "deep", layers=6, seed=3)
    made = {}
    for precision in ("32-true", "bf16-mixed"):
        first_loss(deep, tmp_path, lora(), precision, reference="cached")
        (made[precision],) = {*cache.glob("reference/*/00000.npy")} - {*made.values()}
    exact, rounded = (np.load(path) for path in made.values())
    assert np.abs(exact - rounded).max() > 0.01  # there is something to tolerate
    np.save(made["bf16-mixed"], exact)
    capsys.readouterr()
    first_loss(deep, tmp_path, lora(), "bf16-mixed", reference="cached")
    assert AGAIN not in capsys.readouterr().err
    assert (np.load(made["bf16-mixed"]) == exact).all()
    np.save(made["32-true"], exact + 5e-6)
    first_loss(deep, tmp_path, lora(), "32-true", reference="cached")
    assert AGAIN not in capsys.readouterr().err


def test_each_layout_and_precision_has_a_cache_of_its_own(folder, tmp_path, cache):
    counts = []
    for precision, share in (("32-true", None), ("32-true", None), ("32-true", False), ("bf16-mixed", None)):
        first_loss(folder, tmp_path, lora(), precision, {"share_prompt": share}, reference="cached")
        counts.append(len(list((cache / "reference").glob("*/00000.npy"))))
    assert counts[0] == counts[1] < counts[2] < counts[3]


def test_a_cache_of_before_is_read_where_it_is_right(folder, tmp_path, cache, monkeypatch):
    """In float32: its key had no device and no layout, which there do not matter."""
    from research.training import reference

    folders = []
    plain = reference._folder

    def recorded(module, made_of):
        found = plain(module, made_of)
        if "device" in made_of:
            folders.append((found, plain(module, reference._older(module, made_of))))
        return found

    monkeypatch.setattr(reference, "_folder", recorded)
    expected = first_loss(folder, tmp_path, lora(), reference="cached")
    new, old = folders[0]
    new.rename(old)
    assert first_loss(folder, tmp_path, lora(), reference="cached") == expected
    assert not new.exists()
    np.save(old / "00000.npy", np.load(old / "00000.npy") - 1.0)  # of another model
    assert first_loss(folder, tmp_path, lora(), reference="cached") == expected
    assert new.exists()


def test_the_model_is_asked_where_no_list_knows(folder, tmp_path, monkeypatch):
    """An initialisation that moves the base under another name than those that are known."""
    from research.models import adapters

    plain = adapters.attach

    def moved(model, config, *more):
        adapted = plain(model, config, *more)
        with torch.no_grad():
            adapted.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight[0, 0] += 0.1
        return adapted

    monkeypatch.setattr(adapters, "attach", moved)
    for reference in ("cached", "adapter_off"):
        with pytest.raises(UserError, match=r"the model (?:is not )?its base"):
            DPOModule(str(folder), adapter=lora(), reference=reference)
    assert DPOModule(str(folder), adapter=lora(), reference="copy").frozen


def test_a_validation_finds_what_the_training_has_cached(folder, tmp_path, cache):
    first_loss(folder, tmp_path, lora(), reference="cached")
    made = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    module = DPOModule(str(folder), adapter=lora(), reference="cached")
    file = str(tmp_path / "pairs.jsonl")
    pairs = PreferenceData(file, None, file, None, batch_size=8, max_length=256)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.validate(module, datamodule=pairs, verbose=False)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == made
    assert module.means()["loss"] == pytest.approx(math.log(2), abs=1e-5)
