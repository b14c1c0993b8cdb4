"""A sweep to a table: `research sweep run`, then `research report` with a spec and claims, as a user types them."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.e2e.sweeping import finished
from tests.e2e.test_sweep import CONFIG, sweep

POINTS = {
    "model.adapter": {"values": [{"r": r, "lora_alpha": r * scale} for r in (2, 4) for scale in (1, 2)]},
    "seed_everything": {"values": [0, 1, 2]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished sweep of twelve points."""
    place = tmp_path_factory.mktemp("study")
    result = finished(place, CONFIG, lambda: sweep(POINTS))
    assert result.json["states"] == {"done": 12}, result.err
    assert Path(result.json["report"]).name == "index.html"
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


def test_a_sweep_becomes_tables_a_page_and_a_tidy_table(place, research):
    result = research("report", "runs", "--out", "out", "--json")
    assert result.code == 0, result.err
    assert (result.json["runs"], result.json["states"]) == (12, {"done": 12})
    names = {path.name for path in Path("out/tables").glob("*.tex")}
    assert names == {
        "results.tex",
        "grid.tex",
        "by-r.tex",
        "by-lora-alpha-r.tex",
        "factorial.tex",
        "importance.tex",
        "runs.tex",
    }
    lines = list(csv.DictReader(Path("out/tables/results.csv").read_text().splitlines()))
    tidy = list(csv.DictReader(Path("out/runs.csv").read_text().splitlines()))
    assert len(tidy) == 12
    for line in lines:  # the table is what the runs say
        mine = [
            float(one["val/loss"])
            for one in tidy
            if one["option.model.adapter.r"] == line["r"]
            and float(one["option.model.adapter.lora_alpha/r"]) == float(line["lora_alpha/r"])
        ]
        assert float(line["val/loss"]) == pytest.approx(sum(mine) / 3)
        assert line["seeds"] == "3"
    assert {path.stem for path in Path("out/figures").glob("*.svg")} >= {"heatmap", "parallel", "importance", "seconds"}
    page = Path("out/index.html").read_text()
    assert "What explains val/loss" in page
    assert "val/loss by r and lora_alpha/r" in page
    assert page.count('<article class="training">') == 12
    files = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert research("report", "runs", "--out", "out").code == 0
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == files


def test_claims_decide_the_exit_code(place, research):
    Path("c.yaml").write_text("claims:\n  - r=4 beats r=2\n  - alpha/r=1 is equivalent to alpha/r=2 within 2\n")
    result = research("report", "runs", "--out", "out", "--claims", "c.yaml", "--json")
    assert (result.code, result.json["broken"]) == (0, 0)
    Path("c.yaml").write_text("claims:\n  - r=2 beats r=4 by 5\n")
    result = research("report", "runs", "--out", "out", "--claims", "c.yaml", "--json")
    assert (result.code, result.json["broken"]) == (1, 1)
    assert "| broken |" in Path("out/report.md").read_text()
    assert json.loads(Path("out/report.json").read_text())["study"]["claims"][0]["state"] == "broken"


def test_a_spec_says_what_is_compared(place, research):
    Path("report.yaml").write_text(
        yaml.safe_dump(
            {
                "metric": "val/token_accuracy",
                "goal": "maximize",
                "title": "My study",
                "baseline": "r=4 lora_alpha/r=1",
                "pair_by_seed": True,
            }
        )
    )
    assert research("report", "runs", "--out", "out", "--spec", "report.yaml").code == 0
    text = Path("out/report.md").read_text()
    assert text.startswith("# My study")
    assert "higher is better" in text
    assert "paired t test over seeds" in text
    assert next(line for line in text.splitlines() if "baseline" in line).startswith("| 4 | 1 | 3 |")


def test_a_spec_s_metrics_are_the_columns_of_the_main_table(place, research):
    Path("report.yaml").write_text("metrics: [val/loss, val/token_accuracy]\n")
    assert research("report", "runs", "--out", "out", "--spec", "report.yaml").code == 0
    main = list(csv.reader(Path("out/tables/main.csv").read_text().splitlines()))
    single = list(csv.reader(Path("out/tables/results.csv").read_text().splitlines()))
    assert main[0] == [
        "r",
        "lora_alpha/r",
        "seeds",
        "val/loss ↓",
        "val/loss ↓ sd",
        "val/token_accuracy ↑",
        "val/token_accuracy ↑ sd",
    ]
    assert [row[3:5] for row in main[1:]] == [row[3:5] for row in single[1:]]
    assert "Main results" in Path("out/index.html").read_text()
    refused = research("report", "runs", "--out", "new", "--spec", "wrong.yaml")
    assert refused.code == 2
    Path("wrong.yaml").write_text("metrics: [val/loss, val/bleu]\n")
    refused = research("report", "runs", "--out", "new", "--spec", "wrong.yaml")
    assert (refused.code, Path("new").exists()) == (2, False)
    assert "no finished run has val/bleu" in refused.err


def test_claims_have_the_goal_of_the_spec(place, research):
    """A higher loss is r=2's: to be high it is better, to be low it is not."""
    Path("c.yaml").write_text("claims:\n  - r=2 beats r=4\n")
    for goal, state in (("maximize", "held"), ("minimize", "broken")):
        Path("report.yaml").write_text(yaml.safe_dump({"metric": "val/loss", "goal": goal}))
        found = research("report", "runs", "--out", "out", "--spec", "report.yaml", "--claims", "c.yaml")
        assert found.out.startswith(f"{state}: r=2 beats r=4"), found.out


def test_missing_and_failed_points_are_in_the_report(place, research):
    points = [json.loads(line)["point"] for line in Path("runs/plan.jsonl").read_text().splitlines()]
    shutil.rmtree(Path("runs") / points[0])
    (Path("runs") / points[4] / "metrics.json").unlink()
    from research.runs.ledger import Ledger

    shutil.rmtree(Path("runs") / points[7])
    Ledger(Path("runs")).append(points[7], "failed", error="no [room]")
    result = research("report", "runs", "--out", "out", "--json")
    assert result.code == 0, result.err
    assert result.json["states"] == {"missing": 2, "done": 9, "failed": 1}
    text = Path("out/report.md").read_text()
    assert "no \\[room\\]" in text
    assert "2 of 3" in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("nowhere",), "does not exist"),
        (("runs", "--metric", "val/x"), "no finished run has val/x; expected one of"),
        (("runs", "--baseline", "r=9"), "baseline 'r=9' is no setting"),
        (("runs", "--claims", "no.yaml"), "cannot be read"),
        (("runs", "--spec", "no.yaml"), "spec no.yaml cannot be read"),
        (("runs", "--spec", "sft.yaml"), "sft.yaml has"),
        (("lm",), "is not a run folder"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(options, says, place, research):
    result = research("report", *options, "--out", "new")
    assert result.code == 2
    assert says in result.err, result.err
    assert not Path("new").exists()


def test_seeds_of_one_setting_are_a_study(place, research):
    """Mean and spread of three runs, without naming a metric; other things that share a page are none."""
    plan = [json.loads(line) for line in Path("runs/plan.jsonl").read_text().splitlines()]
    same = [one["point"] for one in plan if one["values"]["model.adapter"] == plan[0]["values"]["model.adapter"]]
    result = research("report", *(f"runs/{name}" for name in same), "--out", "out", "--json")
    assert (result.code, result.json["runs"]) == (0, 3), result.err
    (line,) = csv.DictReader(Path("out/tables/results.csv").read_text().splitlines())
    assert line["seeds"] == "3"
    assert "val/loss of" in Path("out/report.md").read_text()


def test_a_page_says_what_was_trained_on_what(place, research):
    assert research("report", "runs", "--out", "out").code == 0
    text = Path("out/report.md").read_text()
    assert "Model: ./lm; Data: rows.jsonl" in text
    assert "<dt>Model</dt>" in Path("out/index.html").read_text()


def test_a_damaged_copy_is_no_folder_of_w_and_b(place, research):
    run = next(path for path in Path("runs").iterdir() if (path / "metrics.json").is_file())
    for name in ("metrics.json", "provenance.json", "config.yaml"):
        (run / name).unlink()
    (run / "wandb").mkdir(exist_ok=True)
    (run / "wandb" / "run-x.wandb").write_bytes(b"x")
    result = research("report", run, "--out", "new")
    assert result.code == 2
    assert "is not a run folder" in result.err
    assert not Path("new").exists()


def test_a_seed_of_w_and_b_is_refused_for_run_folders(place, research):
    Path("report.yaml").write_text("seed: model.adapter.r\n")
    result = research("report", "runs", "--out", "new", "--spec", "report.yaml")
    assert (result.code, Path("new").exists()) == (2, False)
    assert "is for runs of W&B" in result.err
