"""Every shipped configuration parses, reloads as it was recorded, and trains, with every overlay that this machine can run."""

import argparse
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.lm import save_tiny

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
ADAPTERS = sorted((ROOT / "configs/adapter").glob("*.yaml"))
LANGUAGE = ("sft", "dpo", "gpt2")
OVERLAYS = sorted((ROOT / "configs/trainer").glob("*.yaml"))
METRIC_OF = {"quick_language": LANGUAGE, "early_stopping": ("dual_encoder", "cross_encoder"), "early_stopping_loss": LANGUAGE}
"""Overlays that name a metric or an option, and the configurations that have it."""
PAIRS = [(config, None) for config in CONFIGS] + [
    (config, overlay)
    for config in CONFIGS
    for overlay in OVERLAYS
    if config.stem in METRIC_OF.get(overlay.stem, (config.stem,))
]
NEEDS = {"gpu": "a GPU", "ddp": "a process of its own"}
TRIPLETS = "--model.model {model} --data.batch_size 4 --data.train {data}/triplets.jsonl --data.val beir:{data}"
ROWS = (
    "--model.model {model} --data.batch_size 4 --data.train {data}/{name}.jsonl --data.train_split null "
    "--data.val_split null --data.val {data}/{name}-val.jsonl --data.max_length 256"
)
SMALL_OF = {
    "dual_encoder": f"{TRIPLETS} --data.test_split dev --model.query_max_length 16 --model.doc_max_length 32",
    "cross_encoder": f"{TRIPLETS} --data.val_run {{data}}/dev.trec --data.val_queries 8 --model.max_length 32",
    "sft": ROWS.replace("{name}", "sft"),
    "gpt2": ROWS.replace("{name}", "sft"),
    "dpo": ROWS.replace("{name}", "dpo"),
}
"""Options that make a shipped configuration tiny: model and data are replaced, all else is as it stands there."""
EXPECTED = {"sft": {"loss", "perplexity"}, "gpt2": {"loss", "perplexity"}, "dpo": {"reward_accuracy", "reward_margin"}}
METRICS = {"mrr@10", "ndcg@10"}


def named(pair: tuple[Path, Path | None]) -> str:
    return " + ".join(path.stem for path in pair if path)


def command(config: Path, overlay: Path | None, *options: str) -> list[str]:
    return ["-c", str(config), *(["-c", str(overlay)] if overlay else []), *options]


@pytest.fixture
def small(tiny_bert, tiny_lm, training_data, language_data, tmp_path, monkeypatch):
    """small(config) → the options that make it tiny, with a run folder in tmp_path."""
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))

    def make(config: Path) -> list[str]:
        model, data = (tiny_lm, language_data) if config.stem in LANGUAGE else (tiny_bert, training_data)
        text = SMALL_OF[config.stem].format(model=model, data=data)
        return [*text.split(), "--out", str(tmp_path / "run"), "--wandb", "disabled"]

    return make


def resolved(argv: list[str]) -> dict:
    from research.training import configuration

    return configuration.read(argparse.Namespace(argv=argv, prog="research fit"))[1]


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_configuration_reloads_as_it_was_recorded(pair, tmp_path):
    first = resolved(command(*pair))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(first, sort_keys=False))
    assert resolved(["-c", str(tmp_path / "config.yaml")]) == first


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[1]], ids=named)
def test_overlay_changes_what_it_names_and_nothing_else(pair):
    from research.runs.identity import differences

    def leaves(value: dict, name: str = "") -> dict:
        found = {}
        for key, inner in value.items():
            found |= leaves(inner, f"{name}{key}.") if isinstance(inner, dict) else {f"{name}{key}": inner}
        return found

    config, overlay = pair
    before, after = resolved(command(config, None)), resolved(command(config, overlay))
    asked = leaves(yaml.safe_load(overlay.read_text()))
    assert differences(before, after).keys() <= asked.keys()
    got = leaves(after)
    for name, value in asked.items():
        if not isinstance(value, list):  # callbacks get their defaults filled in
            assert got[name] == value, name
    assert differences(before, after) or "workers" in overlay.read_text()


@pytest.mark.sample(8)
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if not pair[1] or pair[1].stem not in NEEDS], ids=named)
def test_configuration_trains(pair, research, small, tmp_path):
    result = research("fit", *command(*pair), *small(pair[0]), "--json")
    assert result.code == 0, result.err
    assert set(result.json["metrics"]) >= EXPECTED.get(pair[0].stem, METRICS)
    assert list((tmp_path / "run/model").glob("*model.safetensors"))
    again = research("validate", "-c", tmp_path / "run/config.yaml", "--json")
    assert again.json["metrics"] == pytest.approx(result.json["metrics"], abs=1e-5)


ADAPTED = [
    (config, adapter)
    for config in CONFIGS
    if config.stem in LANGUAGE
    for adapter in ADAPTERS
    if adapter.stem != "lora_encoder" and (adapter.stem == "lora_c_attn") == (config.stem == "gpt2")
]
FITTING = {"lora_last_layers": "--model.adapter.layers_to_transform [1]", "last_layers": "--model.train_layers 1"}
"""Overlays made for SmolLM2's 30 layers, on a model of two."""


@pytest.mark.parametrize("kind", ["dual_encoder", "cross_encoder"])
def test_lora_on_an_encoder_trains_and_is_saved_merged(kind, research, small, tmp_path):
    import torch

    config = ROOT / f"configs/{kind}.yaml"
    argv = [*command(config, ROOT / "configs/adapter/lora_encoder.yaml"), *small(config), "--trainer.precision", "32-true"]
    result = research("fit", *argv, "--keep_checkpoints", "true", "--json")
    assert result.code == 0, result.err
    (checkpoint,) = sorted((tmp_path / "run").glob("step-*.ckpt"))[-1:]
    names = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert any("lora_A" in name for name in names)
    assert all("lora_" in name or "classifier" in name or name == "log_temperature" for name in names)
    assert "lora" not in " ".join(path.name for path in (tmp_path / "run/model").iterdir())
    # the folder is an ordinary model, whose merged weights give the numbers of the adapter
    again = research("validate", tmp_path / "run", "--json")
    assert again.code == 0, again.err
    assert again.json["metrics"] == pytest.approx(result.json["metrics"], abs=1e-5)


@pytest.mark.sample(5)
@pytest.mark.parametrize("init", ["no adapter", "false", "pissa"])
@pytest.mark.parametrize("kind", ["dual_encoder", "separate", "cross_encoder", "sft", "dpo"])
def test_a_finished_run_is_measured_with_the_adapter_that_it_kept(kind, init, research, small, tmp_path):
    """Not with another one, fresh from an initialisation that changes the model or draws at random."""
    name = "dual_encoder" if kind == "separate" else kind
    config = ROOT / f"configs/{name}.yaml"
    overlay = ROOT / f"configs/adapter/{'lora' if name in LANGUAGE else 'lora_encoder'}.yaml"
    adapted = init != "no adapter"
    options = {"--trainer.max_epochs": "1", "--trainer.precision": "32-true"}
    options |= {"--model.adapter.init_lora_weights": init, "--model.adapter.lora_alpha": "64"} if adapted else {}
    options |= {"--model.towers": "separate"} if kind == "separate" else {}
    options |= {"--data.val_queries": "null"} if kind == "cross_encoder" else {}  # as test, which takes all of them
    argv = [*command(config, overlay if adapted else None), *small(config), *itertools.chain(*options.items())]
    result = research("fit", *argv, "--json")
    assert result.code == 0, result.err
    kept = json.loads((tmp_path / "run/metrics.json").read_text())["per_query"]
    val = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["data"]["init_args"]
    test = {"--data.test_split": val["val_split"]} if name not in LANGUAGE else {"--data.test": val["val"]}
    test |= {"--data.test_run": val["val_run"]} if kind == "cross_encoder" else {}
    for verb, more in (("validate", {}), ("test", test)):
        again = research(verb, tmp_path / "run", *itertools.chain(*more.items()), "--json")
        assert again.code == 0, again.err
        assert again.json["metrics"] == pytest.approx(result.json["metrics"], abs=1e-4), verb
        values = json.loads((tmp_path / f"run/{verb}.json").read_text())["per_query"]
        assert {metric: pytest.approx(kept[metric], abs=1e-3) for metric in values} == values, verb


@pytest.mark.sample(4)
@pytest.mark.parametrize("pair", ADAPTED, ids=named)
def test_adapter_overlay_trains_is_saved_and_measured_again(pair, research, small, tmp_path, tiny_lm):
    config, adapter = pair
    options = small(config)
    if config.stem == "gpt2":  # as it stands: GPT-2's architecture, with the tiny model's tokenizer
        shape = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512, "tokenizer": str(tiny_lm)}
        (tmp_path / "gpt2.json").write_text(json.dumps(shape))
        options[options.index(str(tiny_lm))] = f"random:{tmp_path / 'gpt2.json'}"
    argv = [*command(*pair), *options, *FITTING.get(adapter.stem, "").split(), "--trainer.precision", "32-true"]
    result = research("fit", *argv, "--json")
    assert result.code == 0, result.err
    names = {path.name for path in (tmp_path / "run/model").iterdir()}
    assert "adapter_model.safetensors" in names or adapter.stem == "last_layers"
    again = research("validate", tmp_path / "run", "--json")
    assert again.code == 0, again.err
    assert again.json["metrics"] == pytest.approx(result.json["metrics"], abs=1e-5)


@pytest.mark.sample(1)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_two_processes_train_with_the_ddp_overlay(config, research_process, small, tmp_path):
    argv = [*command(config, ROOT / "configs/trainer/ddp.yaml"), *small(config)]
    result = research_process(
        "fit",
        *argv,
        "--trainer.accelerator",
        "cpu",
        "--trainer.max_epochs",
        "1",
        "--json",
        env={"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert result.code == 0, result.err
    assert set(result.json["metrics"]) >= EXPECTED.get(config.stem, METRICS)
    assert list((tmp_path / "run/model").glob("*model.safetensors"))
    expected = re.compile(
        r"train:|step |untrained: |trained: |.* parameters to train|.* has no "
        r"head|log-probabilities|reference:|generate:|other: |kl is not measured|\d+ rows make"
        r"|warning: ((the|on the) validation's|the training has made)|before reranking: |validate|.*run: finished; "
        r"|.*run/model: (plain|encode)|.* negatives a query"
    )
    assert [line for line in result.err.splitlines() if not expected.match(line)] == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_gpu_overlay_without_a_gpu_is_refused(config, research, small, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    argv = [*command(config, ROOT / "configs/trainer/gpu.yaml"), *small(config)]
    result = research("fit", *argv)
    assert result.code == 2
    assert "No supported gpu backend found" in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "verb"),
    [("", "mine"), ("--data.train {data}/triplets.jsonl", "retrieve")],
    ids=["no candidates", "no run to validate on"],
)
def test_missing_input_is_refused_with_the_command_that_makes_it(
    options, verb, research, tiny_bert, training_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = research(
        "fit",
        "-c",
        ROOT / "configs/cross_encoder.yaml",
        "--model.model",
        tiny_bert,
        "--model.max_length",
        32,
        *options.format(data=training_data).split(),
    )
    assert result.code == 2
    assert not list(tmp_path.iterdir())
    (made,) = re.findall(r"Make it: research (.+?)(?:; then name its last .trec: --data.val_run (\S+))?$", result.err.strip())
    argv = shlex.split(made[0])
    assert argv[0] == verb
    config = yaml.safe_load((ROOT / "configs/cross_encoder.yaml").read_text())["data"]["init_args"]
    if verb == "mine":
        assert argv[argv.index("--out") + 1] == config["train"]
        assert argv[argv.index("--ranks") + 1] == f"1-{config['depth']}"
    else:
        assert made[1] == config["val_run"]
    from research.cli import parse

    parse(argv)  # every option is one that the verb has


SWEEPS = sorted([*(ROOT / "sweeps").glob("*.yaml"), *(ROOT / "sweeps/quick").glob("*.yaml")])


@pytest.fixture(scope="module")
def deep_lm(tmp_path_factory) -> Path:
    """As many layers as SmolLM2-135M has: a sweep names the last of them."""
    return save_tiny(tmp_path_factory.mktemp("lm") / "deep", layers=30)


@pytest.mark.sample(4)
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_setting_of_every_shipped_sweep_can_be_run(
    path, research, tiny_bert, deep_lm, training_data, language_data, tmp_path, monkeypatch
):
    """Of one seed: another changes nothing that a plan checks."""
    facts = yaml.safe_load(path.read_text())
    facts["parameters"]["seed_everything"] = {"values": [0]}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))
    (config, *_) = [Path(word).stem for word in facts["command"] if word.endswith(".yaml")]
    model, data = (deep_lm, language_data) if config in LANGUAGE else (tiny_bert, training_data)
    small = SMALL_OF[config].format(model=model, data=data).split()
    options = [f"{name.removeprefix('--')}={value}" for name, value in zip(small[::2], small[1::2], strict=True)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    sets = [word for option in options for word in ("--set", option)]
    result = research("sweep", "plan", "sweep.yaml", *sets, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert result.json["settings"] == len(result.json["points"]) >= 3
