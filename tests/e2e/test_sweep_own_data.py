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


def test_the_folder_holds_the_configurations_as_they_were_planned(shipped, research):
    """Whatever becomes of the user's files: what is queued trains what was planned, and the folder is the whole sweep."""
    folder = Path(research("sweep", "plan", shipped, *OWN, "--json").json["out"])
    planned = points(folder)
    for path in ("steps.yaml", "sft.yaml"):
        Path(path).unlink()
    worked = research("sweep", "worker", folder, "--plan", folder / "plan.jsonl", "--folder", folder, "--index", 0)
    assert worked.code == 0, worked.err
    assert (folder / planned[0] / "metrics.json").exists()
    status = research("sweep", "status", folder)
    assert (status.code, "changed since" in status.err) == (0, False)
    again = research("sweep", "plan", folder, "--json").json
    assert ([row["point"] for row in again["points"]], again["states"]) == (planned, {"done": 1, "missing": 1})


@pytest.mark.parametrize("file", ["steps.yaml", "sft.yaml"])
def test_a_configuration_that_was_edited_is_told_with_its_keys(file, shipped, research):
    folder = Path(research("sweep", "plan", shipped, *OWN, "--json").json["out"])
    before = Path(file).read_text()
    Path(file).write_text(before.replace("max_steps: 1", "max_steps: 2").replace("lr: 1.0e-2", "lr: 3.0e-2"))
    changed = {"steps.yaml": "steps.yaml (trainer.max_steps 1 → 2)", "sft.yaml": "sft.yaml (model.optimisation.lr 0.01 → 0.03)"}
    assert changed[file] in research("sweep", "status", shipped, *OWN).err
    earlier = points(folder)
    assert research("sweep", "plan", shipped, *OWN).code == 0  # none is begun
    assert not {*points(folder)} & {*earlier}
    assert research("sweep", "worker", folder, "--index", 0).code == 0
    Path(file).write_text(before)
    for step in ("plan", "run", "submit"):
        refused = research("sweep", step, shipped, *OWN)
        assert (refused.code, f"of {folder} were planned, and 1 of them is begun" in refused.err) == (2, True), refused.err
        assert "pass another --name or --out" in refused.err
    assert research("sweep", "plan", shipped, *OWN, "--name", "other").code == 0
    Path(file).write_text(before.replace("max_steps: 1", "max_steps: 2").replace("lr: 1.0e-2", "lr: 3.0e-2 # as before"))
    assert research("sweep", "plan", shipped, *OWN, "--json").json["states"] == {"done": 1, "missing": 1}


def test_a_seed_that_is_added_to_the_source_is_run_beside_what_is_done(shipped, research):
    Path("src").mkdir()
    source = {**yaml.safe_load(Path(shipped).read_text()), "parameters": {"seed_everything": {"values": [0, 1]}}}
    Path("src/tiny.yaml").write_text(yaml.safe_dump(source))
    compiled = research("sweep", "compile", "src/tiny.yaml")
    assert "next: research sweep plan tiny.yaml (its points go to runs)" in compiled.err
    options = (*OWN, "--out", "mine")
    assert research("sweep", "run", "tiny.yaml", *options, "--threads", "1").code == 0
    done = points(Path("mine"))
    Path("src/tiny.yaml").write_text(yaml.safe_dump(source | {"parameters": {"seed_everything": {"values": [0, 1, 2]}}}))
    assert "has changed" not in research("sweep", "status", "mine").err
    assert research("sweep", "compile", "src/tiny.yaml").code == 0
    again = ("research sweep plan tiny.yaml -c steps.yaml --set data.train=mine.jsonl --name ", " --out mine")
    for step in ("plan", "status", "run"):  # the folder is what was planned
        told = research("sweep", step, "mine", "--json")
        assert "note: tiny.yaml has changed since mine was planned from it" in told.err
        assert all(words in told.err for words in again)
        assert told.json["states"] == {"done": 2}
    cure = told.err[told.err.index(again[0]) :].splitlines()[0].split()[1:]
    assert "2 done, 1 to run" in research(*cure).out
    assert points(Path("mine"))[:2] == done
    ran = research("sweep", "run", "mine", "--threads", "1", "--json")
    assert (ran.json["states"], "has changed" in ran.err) == ({"done": 3}, False)
    assert research("report", "mine", "--out", "report", "--json").json["trainings"] == 3


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
        assert command[2:6:2] == ["-c", "-c"], copy
        texts = [Path(path).read_text() for path in command[3:6:2]]
        assert texts == [CONFIG, "trainer: {max_steps: 1}\n"], copy
        if copy in copies:  # W&B's server keeps the command itself
            assert {Path(path).parent.name for path in command[3:6:2]} == {"config"}, copy
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
