"""The same meaning has one resolved value, typed on the command line or written in YAML: else a run has two ids."""

import argparse
import datetime
import json
import types
import typing
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import pytest
import yaml

from research.runs.identity import ids_of
from research.training import configuration
from research.training.trainer import make_trainer

ROOT = Path(__file__).parents[2]
PLAIN = {
    int: [2, -1],
    float: [0.5, 1.0],
    bool: [True, False],
    list[int]: [[0], [0, 1]],
    type(None): [None],
    dict[str, int]: [{"minutes": 3}],
    str: ["auto", "00:01:00:00"],
    datetime.timedelta: [],
}


def resolved(path: Path, config: dict, *argv: str) -> dict:
    path.write_text(yaml.safe_dump(config))
    return configuration.read(argparse.Namespace(argv=["-c", str(path), *argv], prog="fit"))[1]


@pytest.fixture
def sft() -> dict:
    return yaml.safe_load((ROOT / "configs/sft.yaml").read_text())


def alternatives() -> list[tuple[str, object]]:
    """(option, value) of every Trainer option of several types: a value of each type that is written plainly."""
    found = []
    for action in configuration._parser("fit")._actions:
        kind = getattr(action, "_typehint", None)
        if (
            action.dest.endswith(".help")
            or get_origin(kind) not in (Union, types.UnionType)
            or not action.dest.startswith("trainer.")
        ):
            continue
        for one in get_args(kind):
            values = get_args(one) if get_origin(one) is Literal else PLAIN.get(one, [])
            found += [(action.dest, value) for value in values]
    return found


REFUSED = {"16", "16-true", "16-mixed", "bf16", "bf16-true", "transformer-engine", "transformer-engine-float16"}


def test_an_option_typed_is_the_option_written(tmp_path, monkeypatch):
    """Every Union of the parser, with each plain type in it; quoted in YAML too. Model and data are left out, for speed."""
    parser = configuration._parser("fit")
    monkeypatch.setattr(configuration, "_whole_parser", lambda prog: parser)
    given = {"out": "run", "trainer": {}}
    tried = [(name, value) for name, value in alternatives() if str(value) not in REFUSED and name != "trainer.strategy"]
    tried = [(name, value) for name, value in tried if not isinstance(value, str) or value != "x" or "devices" not in name]
    assert {
        "trainer.devices",
        "trainer.precision",
        "trainer.max_time",
        "trainer.limit_val_batches",
        "trainer.val_check_interval",
        "trainer.deterministic",
    } <= {name for name, _ in tried}
    values: dict[str, list] = {}
    for name, value in tried:
        values.setdefault(name.removeprefix("trainer."), []).append(value)
    for turn in range(max(map(len, values.values()))):  # one value of every option at a time: they do not meet in the parser
        some = {key: ones[turn] for key, ones in values.items() if turn < len(ones)}
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in some.items()}
        typed = resolved(tmp_path / "c.yaml", given, *(f"--trainer.{key}={text}" for key, text in texts.items()))
        apart = resolved(
            tmp_path / "c.yaml", given, *(part for key, text in texts.items() for part in (f"--trainer.{key}", text))
        )
        written = resolved(tmp_path / "c.yaml", given | {"trainer": some})
        quoted = resolved(tmp_path / "c.yaml", given | {"trainer": texts})
        for key, value in some.items():
            found = [repr(one["trainer"][key]) for one in (typed, apart, quoted)]
            one = written["trainer"][key]
            assert found == [repr(one)] * 3, (key, value)
            if not isinstance(value, str) and key != "precision":
                assert (one, type(one)) == (value, type(value)), key  # the form that YAML has had


def test_whole_numbers_stay_whole_whatever_other_libraries_have_declared(tmp_path, monkeypatch):
    """Python's cache of types takes `float | int` for `int | float`, and hands out the one that was asked for first."""
    for clean in typing._cleanups:
        clean()
    assert str(typing.Optional[Union[float, int]]).startswith("typing.Union[float")  # noqa: UP007, UP045
    assert typing.Optional[Union[int, float]].__args__[0] is float  # noqa: UP007, UP045
    parser = configuration._parser("fit")
    monkeypatch.setattr(configuration, "_whole_parser", lambda prog: parser)
    for name in ("limit_train_batches", "limit_val_batches", "val_check_interval"):
        config = resolved(tmp_path / "c.yaml", {"out": "run", "trainer": {}}, f"--trainer.{name}=1")
        assert type(config["trainer"][name]) is int, name
    for clean in typing._cleanups:
        clean()


@pytest.mark.parametrize(
    ("option", "forms", "normal"),
    [
        ("devices", [2, "2"], 2),
        ("devices", [-1, "-1"], -1),
        ("devices", [[0, 1], "0,1"], [0, 1]),
        ("devices", [[1], "1,"], [1]),
        ("precision", [32, "32", "32-true"], "32-true"),
        ("precision", [64, "64", "64-true"], "64-true"),
        ("limit_train_batches", [1, "1"], 1),
        ("limit_train_batches", [1.0, "1.0"], 1.0),  # a batch, and all of them
    ],
    ids=str,
)
def test_one_meaning_is_one_point(tmp_path, sft, option, forms, normal):
    points = set()
    for form in forms:
        values = resolved(tmp_path / "c.yaml", sft | {"trainer": sft["trainer"] | {option: form}})
        assert repr(values["trainer"][option]) == repr(normal)
        points.add(ids_of(values, "base", {})[0])
    assert len(points) == 1


def test_a_saved_configuration_reads_as_itself(tmp_path, sft):
    """config.yaml of a run, named again."""
    first = resolved(tmp_path / "c.yaml", sft, "--trainer.devices", "2", "--trainer.max_time={'minutes': 3}")
    assert (first["trainer"]["devices"], first["trainer"]["max_time"]) == (2, {"minutes": 3})
    assert resolved(tmp_path / "d.yaml", first) == first


def test_shipped_configurations_keep_the_form_they_have(tmp_path):
    """Point ids are hashes of it."""
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        trainer = resolved(tmp_path / "c.yaml", config)["trainer"]
        assert {name: trainer[name] for name in config["trainer"]} == config["trainer"]


def test_limits_of_time_reach_the_trainer_as_lightning_has_them(tmp_path, sft):
    config = sft | {"out": str(tmp_path / "out")}
    for value, seconds in (("{'minutes': 3}", 180), ("00:01:00:00", 3600)):
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(config))
        argv = ["-c", str(path), f"--trainer.max_time={value}", "--trainer.accelerator=cpu"]
        parsed, _ = configuration.read(argparse.Namespace(argv=argv, prog="fit"))
        trainer = make_trainer(parsed, [], [])
        (timer,) = (one for one in trainer.callbacks if type(one).__name__ == "Timer")
        assert timer._duration == seconds


def test_a_callback_s_default_that_is_an_enumeration_is_written_as_its_text(tmp_path, sft):
    """Timer's interval: YAML has no form for the member of an enumeration."""
    timer = {"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"duration": "00:00:10:00"}}
    first = resolved(tmp_path / "c.yaml", sft | {"trainer": sft["trainer"] | {"callbacks": [timer]}})
    (one,) = first["trainer"]["callbacks"]
    assert one["init_args"]["interval"] == "step"
    assert resolved(tmp_path / "d.yaml", first) == first


@pytest.mark.parametrize(
    "name", ["model.adapter", "model.init_args.adapter", "model.adapter.init_args", "model.init_args.adapter.init_args"]
)
def test_the_null_of_an_adapters_option_is_none_however_its_place_is_written(name, tmp_path, sft):
    overlay = yaml.safe_load((ROOT / "configs/adapter/prefix_tuning.yaml").read_text())
    sft["model"]["init_args"]["adapter"] = overlay["model"]["init_args"]["adapter"]
    for argv in (
        [f"--{name}.encoder_hidden_size=null"],
        [f"--{name}.encoder_hidden_size", "null"],
        [f"--{name}={{'encoder_hidden_size': None}}"],
    ):
        adapter = resolved(tmp_path / "sft.yaml", sft, *argv)["model"]["init_args"]["adapter"]
        assert (adapter["init_args"]["encoder_hidden_size"], adapter["init_args"]["prefix_projection"]) == (None, True)
