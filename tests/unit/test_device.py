"""--device: how it is written, which options of a trainer it means, what is refused and where the name is taken from."""

import argparse

import pytest
import torch

from research.cli import Parser
from research.errors import UserError
from research.models.device import add_device
from research.models.inference import best_device, use_device
from research.training.arguments import add_arguments, parse
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _auto():
    yield
    use_device("auto")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "", "cpu:1"])
def test_what_is_no_device_is_refused_before_torch_is_loaded(name):
    parser = Parser(prog="research encode")
    add_device(parser)
    with pytest.raises(UserError, match=r"is no device; expected auto \| cpu \| cuda"):
        parser.parse_args(["--device", name])


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda:2", "mps"):
        with pytest.raises(UserError, match=rf"--device {name} is not there; expected one of cpu, cuda:0, cuda:1, or auto"):
            use_device(name)
    for name in ("cuda", "cuda:1", "cpu"):
        use_device(name)
        assert best_device() == torch.device(name)


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    use_device("auto")
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert best_device().type == kind


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("auto", []),
        ("cpu", ["--trainer.accelerator=cpu", "--trainer.devices=1"]),
        ("cuda", ["--trainer.accelerator=gpu", "--trainer.devices=1"]),
        ("cuda:1", ["--trainer.accelerator=gpu", "--trainer.devices=[1]"]),
        ("mps", ["--trainer.accelerator=mps", "--trainer.devices=1"]),
    ],
)
def test_a_training_s_device_is_lightning_s(name, options):
    typed = ["-c", str(ROOT / "configs/dual_encoder.yaml")]
    parser = argparse.ArgumentParser(prog="research fit")
    add_arguments(parser)
    for given in (["--device", name], [f"--device={name}"]):
        args = parse(parser, [*typed, *given, "--seed_everything", "-1"])
        assert args.argv == [*typed, "--seed_everything", "-1", *options]
        assert args.device == name


def test_every_verb_that_computes_takes_one():
    import importlib

    for verb in ("encode", "retrieve", "mine", "search", "generate", "tokenize", "fit", "validate", "test"):
        parser = argparse.ArgumentParser()
        importlib.import_module(f"research.verbs.{verb}").add_arguments(parser)
        assert "--device" in parser.format_help(), verb
