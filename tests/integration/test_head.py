"""What was made before identity was versioned (tests/fixtures) is read, gone on with, and keeps its numbers."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from research.runs import known_code as known
from research.runs.base_model import option
from research.runs.changes import Change
from research.runs.fingerprint import COMPUTES, PACKAGE, TRAINERS, code_fingerprint, reached_files
from research.runs.known_code import known_code
from tests.conftest import ROOT

HEAD = Path(__file__).parents[1] / "fixtures/head"
TRAININGS = ("dual", "cross", "sft", "dpo")
THIS = [code_fingerprint(*classes) for classes in TRAINERS.values()]
TEXT = {".json", ".jsonl", ".yaml", ".csv", ".trec"}


@pytest.fixture
def head(tmp_path, monkeypatch) -> Path:
    """A copy of the folders, and this process in it."""
    place = tmp_path / "head"
    shutil.copytree(HEAD, place)
    for path in place.rglob("*"):
        if path.suffix in TEXT and "@ROOT@" in (text := path.read_text(encoding="utf-8")):
            path.write_text(text.replace("@ROOT@", str(place)), encoding="utf-8")
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def run(research, head, monkeypatch):
    monkeypatch.setenv("TANDEM_CACHE", "cache")
    # whether this code is listed is asked once, below; all else asks what its numbers are
    listed = known_code() | dict.fromkeys(THIS, len(known.CHANGES))
    monkeypatch.setattr(known, "known_code", lambda: listed)
    return research


def metrics(run: str) -> dict:
    return json.loads(Path(run, "metrics.json").read_text())["metrics"]


def steps(run: str) -> int:
    return len(Path(run, "curves.jsonl").read_text().splitlines())


def test_this_code_is_listed():
    assert {*THIS} <= known_code().keys(), (
        "code that computes has changed: if its numbers are those of before (this file's other tests pass), or "
        "research.runs.changes.CHANGES says which are not, run `python scripts/list_code.py`"
    )


@pytest.mark.parametrize(("name", "trainer"), [*zip(TRAININGS, TRAINERS, strict=True)])
def test_the_fingerprint_holds_all_code_that_a_training_loads(head, name, trainer):
    """What Python has loaded by the end of a training, of the rooms that compute, is what the walk over imports reached."""
    script = (
        "import sys, research.cli, research.data.sources\n"
        "print(*(one.__file__ for name, one in sys.modules.items() if name.startswith('research.')))\n"
        f"code = research.cli.main(['fit', '-c', '{name}.yaml', '--out', 'new', '--wandb', 'disabled'])\n"
        "print(code, *(one.__file__ for name, one in sys.modules.items() if name.startswith('research.')))"
    )
    environment = os.environ | {"TANDEM_CACHE": "cache", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    checks, *_, last = done.stdout.splitlines()
    code, *files = last.split()
    assert code == "0", done.stderr
    loaded = {path for path in map(Path, files) if path.relative_to(PACKAGE).with_suffix("").parts[0] in COMPUTES}
    assert PACKAGE / "training/optimisation.py" in loaded
    # the verbs' own: what they make of options is in the configuration, or they refuse it
    of_verbs = {*map(Path, checks.split()), PACKAGE / "training/arguments.py", PACKAGE / "training/places.py"}
    assert loaded - of_verbs <= {*reached_files(*TRAINERS[trainer])}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_finished_run_is_finished_and_is_measured_alike(run, name):
    lines = steps(f"runs/{name}")
    again = run("fit", "-c", f"{name}.yaml", "--wandb", "disabled")
    assert again.code == 0
    assert "finished before" in again.err
    assert steps(f"runs/{name}") == lines
    found = run("validate", f"runs/{name}", "--json").json["metrics"]
    assert found == pytest.approx(metrics(f"runs/{name}"), rel=1e-5)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_stopped_run_goes_on_to_the_numbers_of_the_straight_one(run, name):
    result = run("fit", "-c", f"{name}.yaml", "--wandb", "disabled", "--out", f"stopped/{name}")
    assert result.code == 0
    assert "going on from" in result.err, result.err
    assert "stale" not in result.err
    assert metrics(f"stopped/{name}") == pytest.approx(metrics(f"runs/{name}"), rel=1e-5)
    assert steps(f"stopped/{name}") == steps(f"runs/{name}")


@pytest.mark.parametrize("name", TRAININGS)
def test_a_new_run_has_the_numbers_of_the_old_one(run, name):
    assert run("fit", "-c", f"{name}.yaml", "--wandb", "disabled", "--out", "new").code == 0
    assert metrics("new") == pytest.approx(metrics(f"runs/{name}"), rel=1e-5)


def test_two_processes_are_one_training(run, head):
    """Devices at an equal global batch are no part of what is computed."""
    again = run("fit", "-c", "dual.yaml", "--wandb", "disabled", "--out", "runs/dual_ddp")
    assert again.code == 0
    assert "finished before" in again.err
    other = run("fit", "-c", "dual.yaml", "--wandb", "disabled", "--out", "runs/dual_ddp", "--data.batch_size", "8")
    assert other.code == 2
    assert "batch_size" in other.err


def test_what_another_verb_wrote_is_no_training(run):
    result = run("validate", "-c", "runs/retrieve/config.yaml")
    assert result.code == 2
    assert "runs/retrieve is what `research retrieve` wrote; expected the config.yaml of a training" in result.err


def test_two_processes_are_one_setting_of_a_report(run):
    """Counted once, with both values said; a global batch of another size is a setting of its own."""
    for other, size in (("runs/other", "8"), ("runs/other_ddp", "4")):
        shutil.copytree("runs/dual_ddp" if "ddp" in other else "runs/dual", other)
        config = Path(other, "config.yaml").read_text()
        Path(other, "config.yaml").write_text(re.sub(r"(?<= batch_size: )\d", size, config))
    folders = ("runs/dual", "runs/dual_ddp", "runs/other", "runs/other_ddp")
    result = run("report", *folders, "--metric", "val/mrr@10", "--out", "out")
    assert result.code == 0, result.err
    lines = list(csv.DictReader(Path("out/tables/results.csv").read_text().splitlines()))
    assert {(line["batch_size"], line["seeds"]) for line in lines} == {("4", "1"), ("8", "1")}
    assert [float(line["val/mrr@10"]) for line in lines] == [pytest.approx(metrics("runs/dual")["mrr@10"])] * 2
    said = Path("out/report.md").read_text().replace("\\", "")
    assert (
        "dual and dual_ddp are one training, computed in two ways (data.batch_size 4 and 2, trainer.devices auto and 2" in said
    )
    assert "val/mrr@10 is 0.784722 and 0.752778, and the first is counted" in said


@pytest.mark.parametrize("name", ["grid", "search"])
def test_points_that_were_done_are_done(run, name):
    before = Path(f"runs/sweeps/{name}/ledger.jsonl").read_text()
    folders = sorted(path.name for path in Path(f"runs/sweeps/{name}").iterdir() if path.is_dir())
    assert run("sweep", "run", f"{name}.yaml", "--threads", "1").code == 0
    shown = run("sweep", "status", f"{name}.yaml", "--json").json["points"]
    assert {one["state"] for one in shown} == {"done"}
    assert Path(f"runs/sweeps/{name}/ledger.jsonl").read_text() == before
    now = {path.name for path in Path(f"runs/sweeps/{name}").iterdir() if path.is_dir()} - {
        "logs",
        "claims",
        "report",
        "plans",
        "config",
    }
    assert now == {*folders}


def test_a_grid_that_grows_runs_the_new_points_alone_and_pools_all(run):
    text = Path("grid.yaml").read_text()
    Path("grid.yaml").write_text(text.replace("values: [0, 1, 2]", "values: [0, 1, 2, 3]"))
    assert run("sweep", "run", "grid.yaml", "--threads", "1").code == 0
    events = [json.loads(line) for line in Path("runs/sweeps/grid/ledger.jsonl").read_text().splitlines()]
    assert sum(event["state"] == "running" for event in events) == 6 + 2
    table = pd.read_csv("runs/sweeps/grid/report/tables/results.csv")
    assert len(table) == 2  # r=1 and r=2: seeds of both states of the code in one mean
    assert list(table["seeds"]) == [4, 4]


def test_a_mend_that_changes_numbers_makes_its_points_stale_and_no_others(run, monkeypatch):
    change = Change("r", "r=2 was trained as r=3", lambda config: option(config, "model.adapter.r") == 2)
    monkeypatch.setattr(known, "CHANGES", (*known.CHANGES, change))
    monkeypatch.setattr(known, "known_code", lambda: known_code() | dict.fromkeys(THIS, len(known.CHANGES)))
    shown = run("sweep", "status", "grid.yaml", "--json").json["points"]
    assert {(one["values"]["model.adapter.r"], one["state"]) for one in shown} == {(1, "done"), (2, "stale")}
    told = run("sweep", "run", "grid.yaml", "--threads", "1")
    assert "3 points made by other code or of other data (r=2 was trained as r=3)" in told.err
    assert "--rerun-stale" in told.err
    text = Path("grid.yaml").read_text()
    Path("grid.yaml").write_text(text.replace("values: [0, 1, 2]", "values: [0, 1, 2, 3]"))
    # the new points are trained in processes of their own, which know nothing of the change: they are done here
    for one in [
        one
        for one in json.loads(run("sweep", "plan", "grid.yaml", "--json").out)["points"]
        if one["values"]["seed_everything"] == 3
    ]:
        out = f"runs/sweeps/grid/{one['point']}"
        r = one["values"]["model.adapter.r"]
        assert run("fit", "-c", "sft.yaml", "--out", out, f"--model.adapter.r={r}", "--seed_everything=3").code == 0
    assert run("report", "runs/sweeps/grid", "--out", "again").code == 0
    table = pd.read_csv("again/tables/results.csv")
    assert sorted(table["seeds"]) == [1, 3, 4]  # r=2: three old seeds apart from the new one


def test_a_report_has_the_numbers_of_before(run):
    assert run("report", "runs/sweeps/grid", "--out", "again").code == 0
    for name in ("runs.csv", "tables/results.csv"):
        old, new = pd.read_csv(f"report/{name}"), pd.read_csv(f"again/{name}")
        if name == "tables/results.csv":  # seconds were whole numbers, of which those below one said nothing
            assert (new.pop("seconds").round() == old.pop("seconds")).all()
        same = [column for column in old.columns if column in new.columns]
        assert {*old.columns} <= {*new.columns}
        pd.testing.assert_frame_equal(old[same], new[same], rtol=1e-9)


def test_stores_and_rankings_are_kept(run):
    before = {path: path.stat().st_mtime_ns for path in Path("stores").rglob("*.npy")}
    docs = run("encode", "--data", "beir:beir", "--model", "models/encoder", "--out", "stores/docs")
    queries = run(
        "encode",
        "--data",
        "beir:beir",
        "--model",
        "runs/dual",
        "--tower",
        "query",
        "--split",
        "test",
        "--out",
        "stores/queries",
    )
    assert docs.code == queries.code == 0, docs.err + queries.err
    assert {path: path.stat().st_mtime_ns for path in Path("stores").rglob("*.npy")} == before
    new = run("encode", "--data", "beir:beir", "--model", "models/encoder", "--out", "new")
    assert new.code == 0
    np.testing.assert_allclose(np.load("new/embeddings.npy"), np.load("stores/docs/embeddings.npy"), atol=1e-6)
    line = "retrieve --data beir:beir --split test --retriever runs/dual --retriever bm25 --reranker runs/cross --depth 8 --out"
    old = metrics("runs/retrieve")
    kept = run(*line.split(), "runs/retrieve", "--json")
    assert kept.code == 0, kept.err
    assert kept.json["metrics"] == pytest.approx({name: old[name] for name in kept.json["metrics"]})
    stages = json.loads(Path("runs/retrieve/stages.json").read_text())
    fresh = json.loads((HEAD / "runs/retrieve/stages.json").read_text())
    assert {name: stage["made"] for name, stage in stages.items()} == {name: stage["made"] for name, stage in fresh.items()}, (
        "a stage was computed again"
    )
    shutil.rmtree("cache")
    again = run(*line.split(), "again", "--json")
    assert again.json["metrics"] == pytest.approx(kept.json["metrics"], rel=1e-5)


def test_a_training_that_two_processes_began_goes_on_in_one(run):
    path = Path("stopped/dual/config.yaml")
    path.write_text(path.read_text().replace("devices: auto", "devices: 2").replace("batch_size: 4", "batch_size: 2"))
    assert run("fit", "-c", "dual.yaml", "--wandb", "disabled", "--out", "stopped/dual").code == 0
    assert metrics("stopped/dual") == pytest.approx(metrics("runs/dual"), rel=1e-5)
