"""Every shipped configuration parses, reloads as it was recorded, and trains, with every overlay that this machine can run."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
OVERLAYS = sorted((ROOT / "configs/trainer").glob("*.yaml"))
PAIRS = [(config, None) for config in CONFIGS] + [(config, overlay) for config in CONFIGS for overlay in OVERLAYS]
NEEDS = {"gpu": "a GPU", "ddp": "a process of its own"}
SMALL = "--model.model {model} --data.batch_size 4 --data.train {data}/triplets.jsonl --data.val beir:{data}"
"""Options that make a shipped configuration tiny: model and data are replaced, all else is as it stands there."""
SMALL_OF = {
    "dual_encoder": "--data.test_split dev --model.query_max_length 16 --model.doc_max_length 32",
    "cross_encoder": "--data.val_run {data}/dev.trec --data.val_queries 8 --model.max_length 32",
}


def named(pair: tuple[Path, Path | None]) -> str:
    return " + ".join(path.stem for path in pair if path)


def command(config: Path, overlay: Path | None, *options: str) -> list[str]:
    return ["-c", str(config), *(["-c", str(overlay)] if overlay else []), *options]


def small(config: Path, model: Path, data: Path, out: Path) -> list[str]:
    text = f"{SMALL} {SMALL_OF[config.stem]}".format(model=model, data=data)
    return [*text.split(), "--out", str(out), "--wandb", "disabled"]


def resolved(argv: list[str]) -> dict:
    from research.verbs import configuration

    return configuration.read(argparse.Namespace(argv=argv, prog="research fit"))[1]


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_configuration_reloads_as_it_was_recorded(pair, tmp_path):
    first = resolved(command(*pair))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(first, sort_keys=False))
    assert resolved(["-c", str(tmp_path / "config.yaml")]) == first


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[1]], ids=named)
def test_overlay_changes_what_it_names_and_nothing_else(pair):
    from research.verbs.training import differences

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


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if not pair[1] or pair[1].stem not in NEEDS], ids=named)
def test_configuration_trains(pair, research, tiny_bert, training_data, tmp_path):
    result = research("fit", *command(*pair), *small(pair[0], tiny_bert, training_data, tmp_path / "run"), "--json")
    assert result.code == 0, result.err
    assert set(result.json["metrics"]) >= {"mrr@10", "ndcg@10"}
    assert (tmp_path / "run/model/model.safetensors").exists()
    assert research("validate", "-c", tmp_path / "run/config.yaml").code == 0


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_two_processes_train_with_the_ddp_overlay(config, research_process, tiny_bert, training_data, tmp_path):
    argv = [
        *command(config, ROOT / "configs/trainer/ddp.yaml"),
        *small(config, tiny_bert, training_data, tmp_path / "run"),
    ]
    result = research_process("fit", *argv, "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--json",
                              env={"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert result.code == 0, result.err
    assert set(result.json["metrics"]) >= {"mrr@10", "ndcg@10"}
    assert (tmp_path / "run/model/model.safetensors").exists()
    lines = [
        line
        for line in result.err.splitlines()
        if not line.startswith(("train:", "step ", "untrained: ", str(tiny_bert)))
    ]
    assert [line for line in lines if "has no head" not in line] == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_gpu_overlay_without_a_gpu_is_refused(config, research, tiny_bert, training_data, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    argv = [
        *command(config, ROOT / "configs/trainer/gpu.yaml"),
        *small(config, tiny_bert, training_data, tmp_path / "run"),
    ]
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
    result = research("fit", "-c", ROOT / "configs/cross_encoder.yaml", "--model.model", tiny_bert,
                      "--model.max_length", 32, *options.format(data=training_data).split())  # fmt: skip
    assert result.code == 2
    assert not list(tmp_path.iterdir())
    (made,) = re.findall(r"Make (?:them|it): research (.+?)(?:; the run is (\S+))?$", result.err.strip())
    argv = shlex.split(made[0])
    assert argv[0] == verb
    config = yaml.safe_load((ROOT / "configs/cross_encoder.yaml").read_text())["data"]["init_args"]
    if verb == "mine":
        assert argv[argv.index("--out") + 1] == config["train"]
        assert argv[argv.index("--ranks") + 1] == f"1-{config['depth']}"
    else:
        assert made[1] == config["val_run"]
    from research.cli import _parse

    _parse(argv)  # every option is one that the verb has
