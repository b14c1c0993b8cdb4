"""Every block of docs/sweep-sources.md is compiled, compared or parsed."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from research import cli
from research.sweeps.overlay import Overlay, overlaid
from research.sweeps.sampling import sampled_points
from research.sweeps.spec import read_sweep
from tests.conftest import ROOT

TEXT = (ROOT / "docs/sweep-sources.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL)
SOURCES = {title: text for kind, title, text in BLOCKS if kind == "yaml" and title.startswith("sweeps/src/")}
SWEEPS = {title: text for kind, title, text in BLOCKS if kind == "yaml" and title not in SOURCES}
COMMANDS = [line for kind, _, text in BLOCKS if kind == "sh" for line in text.splitlines()]
CONSOLES = [text for kind, _, text in BLOCKS if kind == "console"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in SOURCES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    return tmp_path


def test_no_block_is_left_out():
    assert len(SOURCES) + len(SWEEPS) + len(CONSOLES) + 1 == len(BLOCKS)
    assert (len(SOURCES), len(SWEEPS), len(CONSOLES), len(COMMANDS)) == (6, 2, 6, 4)
    for key in ("let", "tie", "zip", "cases", "sizes", "configs"):
        assert any(key in yaml.safe_load(text) for text in SOURCES.values()), key


def test_each_source_compiles_to_what_the_page_shows(place, research):
    for console in CONSOLES:
        command, *output = console.splitlines()
        result = research(*shlex.split(command.removeprefix("$ research ")))
        assert (result.code, result.out.splitlines()) == (0, output), result.err
    for title, text in SWEEPS.items():
        path, _, key = title.partition(": ")
        compiled = yaml.safe_load(Path(path).read_text())
        assert (compiled[key] if key else compiled) == yaml.safe_load(text), title


def test_the_points_are_those_that_the_page_describes(place, research):
    for source in SOURCES:
        assert research("sweep", "compile", source).code == 0
    lengths = [point["data"] for point in sampled_points(read_sweep(Path("sweeps/length.yaml")), 0)]
    assert {(one["max_length"], one["batch_size"]) for one in lengths} == {(128, 32), (256, 16)}
    methods = sampled_points(read_sweep(Path("sweeps/methods.yaml")), 0)
    assert sum("optimisation.lr" in point["model"] for point in methods) == 6  # LoRA's, three seeds
    quick = sampled_points(read_sweep(Path("sweeps/quick/tokens.yaml")), 0)
    assert {(point["model.adapter.num_virtual_tokens"], point["seed_everything"]) for point in quick} == {
        (tokens, seed) for tokens in (1, 20) for seed in (0, 1, 2)
    }
    assert not any("model.optimisation.lr" in point for point in quick)


def test_options_of_sources_are_those_of_shipped_configurations():
    for text in SOURCES.values():
        source = yaml.safe_load(text)
        for config in [*source["configs"], *source.get("sizes", {}).get("quick", {}).get("configs", [])]:
            assert (ROOT / config).is_file(), config


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_on_own_data_are_taken(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    args = cli.parse(shlex.split(line)[1:])
    if args.file.suffix == ".yaml":
        configs = ["configs/adapter/lora.yaml" for _ in args.config]  # the page's mine.yaml is not there
        sweep = overlaid(read_sweep(args.file), Overlay(configs, args.set, args.name, args.out))
        assert sweep.name == (args.name or "lora_r_alpha-quick-mine-dev-" + sweep.name[-6:])
        if args.name is None:
            assert f"`{sweep.name}`" in TEXT
