"""The kit for half an hour with a GPU, run dry on the CPU, in a Python that lacks what such a machine may lack."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

PARTS = ("device", "tests", "training", "language", "inference", "packing")
MISSING = ("trl", "wandb", "hnswlib", "datasets", "gguf", "optuna", "jsonargparse", "bm25s", "rouge_score")
COUNTED = {"aten_ops", "waits"}
MEASURED = {"seconds_per_step", "gib", "loader_share", "peak_share", "start_seconds"}
HIDE = f"""
import functools, importlib.machinery, importlib.metadata
MISSING = {MISSING!r}
find, from_name = importlib.machinery.PathFinder.find_spec, importlib.metadata.Distribution.from_name
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] in MISSING else find(name, path, target)
def distribution(name):
    if name in MISSING:
        raise importlib.metadata.PackageNotFoundError(name)
    return from_name(name)
importlib.machinery.PathFinder.find_spec = functools.partial(find_spec)  # no function, which a class would bind
importlib.metadata.Distribution.from_name = staticmethod(distribution)
"""


def check(*argv: str, hidden: Path | None = None, **more: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **({"PYTHONPATH": str(hidden)} if hidden else {}), **more}
    command = ["bash", "scripts/gpu_check.sh", *argv]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory) -> Path:
    """A folder on Python's path that hides packages."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(HIDE)
    return folder


@pytest.fixture(scope="module")
def dry(tmp_path_factory, hidden) -> Path:
    """Where all parts have left their files."""
    out = tmp_path_factory.mktemp("gpu")
    done = check("--dry-run", "--out", str(out), hidden=hidden)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.mark.thorough
@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_done_without_the_packages_that_it_does_not_need(dry, part):
    facts = json.loads((dry / f"{part}.json").read_text())
    assert facts["done"]
    assert [case for case, found in facts["cases"].items() if "error" in found] == []
    packages = facts["environment"]["packages"]
    assert packages["torch"]
    assert [name for name in MISSING if packages.get(name)] == []
    expected = {"device": 1, "tests": 1, "training": 8, "language": 2, "inference": 4, "packing": 1}
    assert len(facts["cases"]) == expected[part]
    assert all("not installed" in why for why in facts["left_out"].values())
    assert set(facts["left_out"]) == ({"TRL's trainers"} if part == "language" else set())


@pytest.mark.thorough
def test_sides_are_measured_and_have_the_same_loss(dry):
    training, language = (json.loads((dry / f"{name}.json").read_text())["cases"] for name in ("training", "language"))
    losses = [case["loss_difference"] for case in (*training.values(), *language.values()) if "loss_difference" in case]
    assert len(losses) == 4
    assert max(losses) < 1e-3
    for name, case in (training | language).items():
        for side in case.get("sides", {}).values():
            assert set(side) >= MEASURED | (COUNTED if "launches" in name or name in language else set())
    tests = json.loads((dry / "tests.json").read_text())["cases"]["tests/gpu"]
    assert (tests["failed"], tests["skipped"]) == (0, 0)
    assert tests["passed"] >= 30
    assert any("relative_difference" in values for values in tests["recorded"].values())


@pytest.mark.thorough
def test_what_is_there_is_not_measured_again_and_the_table_shows_it(dry, hidden):
    before = {path.name: path.read_bytes() for path in dry.iterdir()}
    again = check("--dry-run", "--out", str(dry), hidden=hidden)
    assert again.returncode == 0
    assert again.stderr.count("there already") == len(PARTS)
    assert before == {path.name: path.read_bytes() for path in dry.iterdir()}
    shown = check("--table", "--out", str(dry)).stdout
    assert shown.count("\n| ") == 2 + 6 + 2 + 4  # heading and line; cases of training, language and inference
    assert "not done" not in shown


def test_without_results_the_table_says_so(tmp_path):
    assert check("--table", "--out", str(tmp_path)).stdout.startswith("no GPU yet")


def test_without_a_gpu_it_is_refused_with_a_cure(tmp_path):
    done = check("--out", str(tmp_path / "out"), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "torch sees no GPU" in done.stderr
    assert "--dry-run" in done.stderr
    assert not (tmp_path / "out").exists()
