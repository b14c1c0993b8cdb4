"""The right name for a wrong one; options read off the source of classes without importing them."""

import argparse
import importlib
import inspect
import subprocess
import sys

import pytest

from research.cli import Parser, main
from research.data.sources import check_source
from research.errors import UserError, nearest, suggest, suggest_file
from research.runs.class_source import classes_beside, parameters
from research.runs.defaults import imported
from research.training.option_names import check_names
from research.training.places import check_places, values_of
from tests.conftest import ROOT, write_collection

OPTIONS = [
    "model.model",
    "model.optimisation.lr",
    "model.temperature",
    "model.adapter.r",
    "model.adapter.rank_pattern",
    "data.lr_x",
]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("model.lr", "model.optimisation.lr"),  # elsewhere in the tree
        ("lr", "model.optimisation.lr"),
        ("model.adapter.rank", "model.adapter.r"),  # what papers call it
        ("model.optimisation.learning_rate", "model.optimisation.lr"),
        ("model.temprature", "model.temperature"),  # spelling
        ("temprature", "model.temperature"),
        ("model.temp", "model.temperature"),
        ("model.target", None),  # `model.` alone makes nothing alike
    ],
)
def test_the_nearest_right_name(name, right):
    assert nearest(name, OPTIONS) == right
    assert nearest(f"--{name}", [f"--{option}" for option in OPTIONS]) == (right and f"--{right}")


def test_names_of_the_same_section_are_listed():
    assert suggest("model.x", OPTIONS) == "known: model, temperature"
    assert suggest("tset", ["dev", "test"]) == "did you mean 'test'? known: dev, test"
    assert suggest("corpus.json", ["queries.json", "corpus.jsonl"], paths=True).startswith("did you mean 'corpus.jsonl'?")


def test_a_missing_file_names_its_sibling(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "lora.yaml").touch()
    assert suggest_file(tmp_path / "adapter" / "lora.yml") == f" Did you mean {tmp_path}/adapter/lora.yaml?"
    assert suggest_file(tmp_path / "adapters" / "lora.yaml") == f" Did you mean {tmp_path}/adapter/lora.yaml?"
    assert suggest_file(tmp_path / "adapter" / "something.else") == ""


@pytest.mark.parametrize(
    ("typed", "there", "meant"),
    [
        ("fag", "faq", "faq"),
        ("fag", "faq.csv", "faq.csv"),
        ("faq", "faq.csv", "faq.csv"),
        ("faq.jsonl", "faq.csv", "faq.csv"),
        ("fag.csv", "faq.csv", "faq.csv"),
        ("noets", "notes", "notes"),
        ("faq", "bees", None),
    ],
)
def test_a_short_name_and_one_without_its_ending_are_near(typed, there, meant, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / there).touch()
    assert suggest_file(place / typed) == (f" Did you mean {place / meant}?" if meant else "")


def test_a_file_of_the_repository_is_named_where_another_folder_is_stood_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert suggest_file("configs/sft.yaml") == f" Did you mean {ROOT}/configs/sft.yaml?"


@pytest.mark.parametrize(
    "class_path",
    [
        "lightning.Trainer",
        "peft.LoraConfig",
        "peft.PrefixTuningConfig",
        "research.training.optimisation.Optimisation",
        "research.training.dual_encoder.DualEncoderModule",
        "research.training.cross_encoder.CrossEncoderModule",
        "research.training.sft.SFTModule",
        "research.training.dpo.DPOModule",
        "research.data.pairs.PairData",
        "research.data.preferences.PreferenceData",
    ],
)
def test_options_off_the_source_are_those_of_the_class(class_path):
    options = inspect.signature(imported(class_path).__init__).parameters.keys() - {"self"}
    assert parameters(class_path).keys() >= options  # a dataclass's fields may be no arguments
    assert len(parameters(class_path)) <= len(options) + 2


def test_what_the_source_does_not_tell_is_not_refused(tmp_path, monkeypatch):
    (tmp_path / "mine_options.py").write_text(
        "from research.training.dual_encoder import DualEncoderModule\n"
        "class Whole(DualEncoderModule):\n    pass\n"
        "class Passes(DualEncoderModule):\n    def __init__(self, **kwargs):\n        super().__init__(**kwargs)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = {"class_path": "research.data.pairs.PairData"}

    def check(name: str, **init_args: int) -> None:
        section = {"class_path": f"mine_options.{name}", "init_args": init_args}
        check_names({"c.yaml": {"model": section, "data": data}}, [], [], "research fit")

    check("Whole", temperature=1)
    with pytest.raises(UserError, match=r"c\.yaml: unknown option 'model.temprature'; did you mean 'model.temperature'"):
        check("Whole", temprature=1)
    check("Passes", anything=1)
    with pytest.raises(UserError, match=r"class_path=mine_options\.Pases does not exist; did you mean 'mine_options\.Passes'"):
        check("Pases", anything=1)


@pytest.mark.parametrize("verb", ["retrieve", "search", "mine", "encode", "generate", "tokenize", "evaluate"])
def test_every_default_is_in_the_help(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    parser = Parser(prog="x")
    importlib.import_module(f"research.verbs.{verb}").add_arguments(parser)
    for action in parser._actions:
        if action.option_strings and action.default not in (None, False, argparse.SUPPRESS):
            default = f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
            start = text.index(action.option_strings[-1] + " ", text.index("options:"))
            assert default in text[start : start + 400], action.option_strings


EARLY = {
    "-c configs/sft.yaml -c configs/adapter/lora.yaml --model.adapter.rank 4": "did you mean '--model.adapter.r'?",
    "-c configs/dpo.yaml --model.class_path research.training.dpo.DPOModul": "did you mean 'research.training.dpo.DPOModule'?",
    "-c configs/sft.yaml --model.adapter peft.LoRAConfig": "did you mean 'peft.LoraConfig'?",
    "-c configs/sft.yaml --data research.data.instruction.InstructionData": "did you mean 'research.data.instructions.",
    "-c configs/dual_encoder.yaml --model.model ./nope": "model './nope' does not exist; expected a model folder",
    "-c configs/dual_encoder.yaml --data.train beir:nope": "BEIR folder 'nope' does not exist; expected a folder with",
    "-c configs/sft.yaml --data.val [README.md,nope.jsonl]": "nope.jsonl does not exist; known: ",
    "-c configs/dpo.yaml --data.train no/*.jsonl": "'no/*.jsonl' matches no file; expected",
}
"""Options of `fit` → what is said of them before torch is loaded."""


def test_a_wrong_name_or_place_is_refused_before_torch_is_loaded():
    script = (
        "import sys; from research.cli import main\n"
        "for options in sys.argv[1:]: assert main(['fit', *options.split(), '--out', 'not-there']) == 2\n"
        "sys.exit(', '.join({'torch', 'transformers', 'lightning', 'peft'} & sys.modules.keys()) or 0)"
    )
    command = [sys.executable, "-c", script, *EARLY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line, expected in zip(done.stderr.splitlines(), EARLY.values(), strict=True):
        assert expected in line


def test_what_only_a_class_knows_of_its_data_is_left_to_it(tmp_path, monkeypatch):
    """A run that has begun may do without what it began from; a class of the user's own may call something else `train`."""
    (tmp_path / "mine_places.py").write_text(
        "from research.data.pairs import PairData\n"
        "class Own:\n    def __init__(self, train: str = 'x'):\n        pass\n"
        "class Inherits(PairData):\n    pass\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def check(train: object, owner: str = "research.data.pairs.PairData", resumes: bool = False) -> None:
        files = {"c.yaml": {"out": "out", "data": {"class_path": owner, "init_args": {"train": train}}}}
        check_places(argparse.Namespace(resumes=resumes, values=values_of(files, [])), check_source)

    for missing in ("nope.jsonl", "a.jsonl,b.jsonl", "beir:nope", ["nope.jsonl"]):
        for owner in ("research.data.pairs.PairData", "mine_places.Inherits"):
            with pytest.raises(UserError, match=r"does not exist"):
                check(missing, owner)
        check(missing, "mine_places.Own")
        check(missing, resumes=True)
    check("nope.jsonl", "research.data.candidates.CandidateData")  # it says how they are made
    for elsewhere in ("builtin:stdlib", "hf:org/name", "hf:org/name:config", None):
        check(elsewhere)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/provenance.json").touch()
    check("nope.jsonl")


def test_a_class_that_its_file_may_make_is_not_refused(tmp_path, monkeypatch):
    (tmp_path / "mine_classes.py").write_text("class Mine:\n    pass\nOther = type('Third', (), {})\n", encoding="utf-8")
    (tmp_path / "mine_lazy.py").write_text("def __getattr__(name):\n    return object\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert classes_beside("mine_classes.Mien") == ["mine_classes.Mine"]
    for there in ("mine_classes.Mine", "mine_classes.Other", "mine_lazy.Any", "no_module.Any", "Bare", "lightning.Trainer"):
        assert classes_beside(there) is None


@pytest.mark.parametrize(
    ("command", "near"),
    [
        ("retrieve --data beir:collecton --split test --retriever bm25 --out out", "Did you mean beir:collection?"),
        ("retrieve --data beir:collection --split test --retriever ./modle --out out", "Did you mean model?"),
        ("sweep plan sweep.yml", "Did you mean sweep.yaml?"),
        ("report runs/frist --out report", "Did you mean runs/first?"),
        ("fit -c dual.yml", "Did you mean dual.yaml?"),
        ("evaluate --data beir:collection --split test --runs rnu.trec", "did you mean 'run.trec'?"),
    ],
)
def test_a_misspelt_path_names_what_is_there(command, near, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path / "collection")
    for folder in ("model", "runs/first"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("sweep.yaml", "dual.yaml", "run.trec"):
        (tmp_path / file).touch()
    assert main(command.split()) == 2
    assert near in capsys.readouterr().err
