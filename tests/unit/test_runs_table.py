"""Run folders of every version → records → one frame; and how few files a value passes on its way into a paper."""

import inspect
import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from research.errors import UserError
from research.report import latex
from research.report.factors import factors, with_scale
from research.report.groups import make_study
from research.report.study_sheets import results
from research.runs.folder import RunFolder
from research.runs.table import as_frame, points_in, read_runs
from tests.synthetic_runs import ids, write_study
from tests.wandb_log import run_records, write_log

HEAD = Path(__file__).parents[1] / "fixtures/head"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "points"
    write_study(folder, 42)
    return folder


@pytest.mark.parametrize(
    ("folder", "state", "monitor"),
    [
        ("runs/dual", "done", "val/mrr@10"),
        ("runs/cross", "done", "val/mrr@10"),
        ("runs/sft", "done", "val/loss"),
        ("runs/dpo", "done", "val/loss"),
        ("runs/dual_ddp", "done", "val/mrr@10"),
        ("stopped/sft", "half-written", "val/loss"),
    ],
)
def test_trainings_of_an_earlier_state_are_read(folder, state, monitor):
    assert RunFolder(HEAD / folder).is_training
    (run,) = read_runs([HEAD / folder])
    assert (run.state, run.monitor, run.seed) == (state, monitor, 0)
    assert (monitor in run.metrics) == (state == "done")
    assert all(run.made_of)


def test_a_retrieval_of_an_earlier_state_is_read_stage_by_stage():
    folder = RunFolder(HEAD / "runs/retrieve")
    folder.check_stages()
    assert not folder.is_training
    assert [*folder.metrics["stages"]] == ["dense", "bm25", "fused", "reranked"]
    assert folder.examples["queries"]


def test_a_folder_of_a_later_version_is_refused(tmp_path):
    shutil.copytree(HEAD / "runs/sft", tmp_path / "sft", ignore=shutil.ignore_patterns("*.ckpt", "model"))
    marker = tmp_path / "sft/provenance.json"
    facts = json.loads(marker.read_text())
    assert "schema" not in facts  # written before there was one
    for schema in (0, 1):
        marker.write_text(json.dumps(facts | {"schema": schema}))
        assert len(read_runs([tmp_path / "sft"])) == 1
    marker.write_text(json.dumps(facts | {"schema": 99}))
    with pytest.raises(UserError, match=r"provenance\.json: schema is 99; expected up to 1"):
        read_runs([tmp_path / "sft"])


def test_every_point_of_a_sweep_is_a_row_whatever_became_of_it(sweep):
    frame = as_frame(read_runs([sweep]))
    assert list(frame["point"]) == ids(42)
    assert frame["state"].value_counts().to_dict() == {"done": 39, "failed": 1, "pruned": 1, "missing": 1}
    assert list(frame.columns[:6]) == ["run", "sweep", "point", "state", "error", "seed"]
    missing = frame[frame["state"] == "missing"].iloc[0]
    assert (missing["option.model.adapter.r"], missing["val/loss"]) == (4, None)


def test_a_frame_is_grouped_as_any_other(sweep):
    frame = as_frame(read_runs([sweep]))
    done = frame[frame["state"] == "done"].astype({"val/loss": float})
    by_r = done.groupby("option.model.adapter.r")["val/loss"].agg(["mean", "count"])
    losses = [
        json.loads((sweep / point.point / "metrics.json").read_text())["metrics"]["loss"] for point in points_in(sweep)[:3]
    ]
    first = done[done["point"].isin(ids(42)[:3])]["val/loss"]
    assert sorted(first) == sorted(losses)
    assert by_r["count"].sum() == 39


def test_integers_beside_gaps_stay_integers(sweep):
    frame = as_frame(read_runs([sweep]))
    assert {type(value) for value in frame["fact.trained_parameters"]} == {int, type(None)}
    assert pd.isna(frame["fact.trained_parameters"]).sum() == 2


def test_w_and_b_s_runs_are_rows_of_the_same_frame(tmp_path, sweep):
    records = run_records("a", {"seed": 3, "lr": 0.1}, [{"_step": 0, "val/loss": 1.5}], host="node1")
    write_log(tmp_path / "wandb/offline-run-20250101_000000-a/run-a.wandb", records)
    frame = as_frame(read_runs([sweep, tmp_path / "wandb"]))
    row = frame.iloc[-1]
    assert len(frame) == 43
    assert (row["run"], row["state"], row["seed"], row["option.lr"], row["val/loss"]) == ("a", "done", 3, 0.1, 1.5)
    assert (row["host"], frame["host"].iloc[0]) == ("node1", "")


# ---- the walk of docs/architecture.md -------------------------------------------------------------------------------

WALK = {
    "runs/folder.py",  # a run folder's files, read and checked
    "runs/record.py",  # → one record a run: val/loss, state, seed, options
    "runs/table.py",  # → all runs of the folders, sweeps and W&B
    "report/groups.py",  # → settings, each with a value a seed
    "report/study_sheets.py",  # → the rows of a table
    "metrics/seeds.py",  # mean, spread and interval over seeds
    "report/sheets.py",  # → the text of a cell
    "report/latex.py",  # → LaTeX
}
BESIDE = {
    "runs/reading.py",  # read_json
    "report/factors.py",  # adds alpha / r to the options, and passes the records on
    "metrics/families.py",  # the comparison with the baseline: other cells of the row
}


def test_a_value_enters_eight_files_from_its_run_folder_to_its_latex_cell(tmp_path):
    """Files with a function that returns the value of a run, the mean that it goes into, or the text of its cell."""
    write_study(tmp_path / "six", 6)
    package = Path(sys.modules["research"].__file__).parent
    losses = [json.loads((tmp_path / "six" / one / "metrics.json").read_text())["metrics"]["loss"] for one in ids(3)]
    wanted, entered = {losses[0]}, set()

    def holds(value, depth: int = 0) -> bool:
        if isinstance(value, float):
            return value in wanted
        if isinstance(value, str):
            return any(isinstance(one, str) and one in value for one in wanted)
        if depth > 8 or not isinstance(value, dict | list | tuple):
            return False
        return any(holds(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value))

    def watch(frame, event, value):
        file = frame.f_code.co_filename
        is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR
        if event == "return" and not is_generator and file.startswith(f"{package}{os.sep}") and holds(value):
            entered.add(Path(file).relative_to(package).as_posix())

    mean = sum(losses) / 3
    wanted |= {mean, f"{mean:.4f}"}
    sys.setprofile(watch)
    try:
        runs = read_runs([tmp_path / "six"])
        runs, names = with_scale(runs, factors(runs))
        table = results(make_study(runs, "val/loss", names))
        text = latex.render(table)
    finally:
        sys.setprofile(None)
    assert f"{mean:.4f}" in text
    assert entered - BESIDE == WALK
    assert len(WALK) <= 8
