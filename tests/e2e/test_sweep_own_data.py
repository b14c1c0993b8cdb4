"""A shipped sweep on data of one's own, as a user types it: each step, workers and clusters run the same command."""

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.e2e.test_sweep import CONFIG, place, sweep  # noqa: F401 (a fixture)
from tests.lm import rows

OWN = ("--set", "data.train=mine.jsonl", "--config", "steps.yaml")


@pytest.fixture
def shipped(place) -> str:  # noqa: F811
    """A sweep over rows.jsonl, and data of one's own beside it."""
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(20)[8:]))
    Path("steps.yaml").write_text("trainer: {max_steps: 1}\n")
    Path("sft.yaml").write_text(CONFIG)
    return sweep({"seed_everything": {"values": [0, 1]}})


def points(folder: Path) -> list[str]:
    return [json.loads(line)["point"] for line in (folder / "plan.jsonl").read_text().splitlines()]


def test_own_data_have_a_folder_of_their_own_which_every_step_finds(shipped, research):
    assert research("sweep", "plan", shipped).code == 0
    planned = research("sweep", "plan", shipped, *OWN, "--json")
    assert planned.code == 0, planned.err
    folder = Path(planned.json["out"])
    assert folder.name.startswith("runs-steps-mine-")
    assert not {*points(folder)} & {*points(Path("runs"))}
    assert research("sweep", "worker", folder, "--index", 0).code == 0  # what the folder holds is the sweep
    config = yaml.safe_load((folder / points(folder)[0] / "config.yaml").read_text())
    assert (config["data"]["init_args"]["train"], config["trainer"]["max_steps"]) == ("mine.jsonl", 1)
    for words in ((shipped, *OWN), (folder,)):
        told = research("sweep", "status", *words, "--json").json
        assert ([one["state"] for one in told["points"]], told["out"]) == (["done", "missing"], str(folder))
    assert research("sweep", "plan", folder).code == 0
    assert research("sweep", "status", shipped, *OWN).code == 0  # as before
    assert research("report", folder, "--out", "report").code == 0
    assert research("sweep", "status", shipped, "--json").json["states"] == {"missing": 2}


def test_one_folder_takes_one_overlay(shipped, research):
    assert research("sweep", "plan", shipped, *OWN, "--name", "mine").code == 0
    for words in (("--set", "data.train=rows.jsonl", "--name", "mine"), ("--name", "mine")):
        for step in ("plan", "run", "status", "submit"):
            refused = research("sweep", step, shipped, *words)
            assert refused.code == 2, (step, words)
            assert "mine holds the points of mine with -c steps.yaml --data.train=mine.jsonl" in refused.err
            assert "Pass another --out or --name" in refused.err
    assert research("sweep", "plan", shipped, "--set", "data.train=rows.jsonl", "--name", "other").code == 0
    sweep({"seed_everything": {"values": [0, 1, 2]}})  # an edit of the file goes on in the same folder
    assert len(research("sweep", "plan", shipped, *OWN, "--name", "mine", "--json").json["points"]) == 3


def test_clusters_get_the_command_with_own_data(shipped, research, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", "echo 71"), ("scontrol", "true")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert research("sweep", "submit", shipped, *OWN, "--json").code == 0
    pods = ("--kubernetes", "--image", "tandem:1", "--claim", "team:/mnt/team")
    assert research("sweep", "submit", shipped, *OWN, *pods, "--json").code == 0
    assert research("sweep", "submit", shipped, *OWN, "--wandb", "me/project/sw", "--json").code == 0
    (folder,) = tmp_path.glob("runs-steps-mine-*")
    copies = [folder / "sweep.yaml", folder / "submit/1/sweep.yaml", folder / "submit/2/sweep.yaml"]
    for copy in (*copies, folder / "submit/agents-sw.yaml"):
        command = yaml.safe_load(copy.read_text())["command"]
        assert command[2:6] == ["-c", "sft.yaml", "-c", "steps.yaml"], copy
        assert command[-2:] == ["--data.train=mine.jsonl", "${args}"], copy


def test_what_is_swept_and_what_fit_does_not_know_is_refused(shipped, research, monkeypatch):
    swept = research("sweep", "run", shipped, "--set", "seed_everything=3")
    assert (swept.code, "the sweep varies seed_everything" in swept.err) == (2, True)
    for step in ("plan", "run", "status"):  # before a point is described, which takes torch
        with monkeypatch.context() as patch:
            patch.setattr("research.training.describe.describe", lambda *_: pytest.fail("a point was described"))
            unknown = research("sweep", step, shipped, "--set", "data.trian=mine.jsonl")
        assert (unknown.code, "--data.trian; did you mean '--data.train'?" in unknown.err) == (2, True)
    assert sorted(Path().glob("runs*")) == []
