"""`research report` on W&B's offline logs: the same sweep read from its folders and from W&B; other programs' runs."""

import csv
import json
from pathlib import Path

import pytest

from tests.e2e.sweeping import finished
from tests.e2e.test_sweep import CONFIG, sweep
from tests.wandb_log import run_records, write_log

POINTS = {
    "model.adapter": {"values": [{"r": r, "lora_alpha": 2 * r} for r in (2, 4)]},
    "seed_everything": {"values": [0, 1]},
    "model.optimisation.lr": {"values": [0.01, 3.0]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished sweep whose points are validated three times, and logged by W&B offline."""
    place = tmp_path_factory.mktemp("study")
    text = CONFIG.replace("wandb: disabled", "wandb: offline").replace("max_steps: 2", "max_steps: 4")
    # of equal accuracies the first is kept: not the last model
    text = text.replace("monitor: val/loss", "monitor: val/token_accuracy") + "  val_check_interval: 2\n"
    rule = {"type": "hyperband", "min_iter": 1, "eta": 2, "strict": True}
    metric = {"name": "val/loss", "goal": "minimize"}
    result = finished(place, text, lambda: sweep(POINTS, metric=metric, early_terminate=rule))
    assert sum(result.json["states"].values()) == 8
    return place


def table(folder: Path) -> list[dict]:
    return list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))


@pytest.mark.thorough
def test_folders_and_logs_of_one_sweep_give_one_table(made, tmp_path, monkeypatch, research):
    monkeypatch.chdir(made)
    logs = sorted(Path("runs").glob("*/wandb"))
    assert len(logs) == 8
    assert research("report", "runs", "--out", tmp_path / "folders").code == 0
    result = research("report", *logs, "--out", tmp_path / "logs", "--json")
    assert result.code == 0, result.err
    mine, theirs = ({line["point"]: line for line in table(tmp_path / name)} for name in ("folders", "logs"))
    assert mine.keys() == theirs.keys()
    columns = [*next(iter(mine.values()))]
    assert {"val/loss", "val/perplexity", "fact.trained_parameters", "fact.seconds", "option.model.adapter.r"} < {*columns}
    assert {"pruned", "done"} == {line["state"] for line in mine.values()}
    for point, line in mine.items():
        for name in columns:
            if name.startswith("fact."):
                assert float(theirs[point][name] or "nan") == pytest.approx(float(line[name] or "nan"), nan_ok=True)
            elif name != "sweep":  # the folder's name, and W&B's group
                assert theirs[point][name] == line[name], name
    best = {point: json.loads((Path("runs") / point / "metrics.json").read_text()) for point in mine}
    assert any(one["step"] < one["steps"] for one in best.values())  # W&B's summary is not what was logged last
    for name in ("results.csv", "by-r.csv", "by-lr.csv", "matched.tex", "results.tex"):
        one, other = (tmp_path / report / "tables" / name for report in ("folders", "logs"))
        assert one.exists() == other.exists()
        assert not one.exists() or one.read_bytes() == other.read_bytes(), name
    header = [(tmp_path / report / "tables/runs.csv").read_text().splitlines()[0] for report in ("folders", "logs")]
    assert {*header[0].split(",")} == {*header[1].split(",")}
    one, other = (tmp_path / report / "figures/curves.vl.json" for report in ("folders", "logs"))
    assert one.read_bytes() == other.read_bytes()  # and so are the learning curves
    assert (tmp_path / "logs/report.md").read_text().startswith("# tiny")


@pytest.mark.thorough
def test_a_folder_of_research_is_its_own_source(made, tmp_path, monkeypatch, research):
    monkeypatch.chdir(made)
    point = next(path for path in sorted(Path("runs").iterdir()) if (path / "wandb").is_dir())
    from research.runs.table import read_runs

    (run,) = read_runs([point])
    assert run.history is None
    assert run.path == point.resolve()
    # both given: each point is there twice, and counts once
    logs = sorted(Path("runs").glob("*/wandb"))
    result = research("report", "runs", *logs, "--out", tmp_path / "both", "--json")
    assert (result.code, result.json["runs"]) == (0, 16), result.err
    both, alone = tmp_path / "both", tmp_path / "alone"
    assert research("report", "runs", "--out", alone).code == 0
    assert (both / "tables/results.csv").read_text() == (alone / "tables/results.csv").read_text()
    done = [run for run in read_runs([Path("runs")]) if run.state == "done"]
    assert (both / "report.md").read_text().count("is a copy of") == len(done)


# ---- other programs -------------------------------------------------------------------------------------------------


def other(place: Path, seeds: int = 3) -> Path:
    """What a program leaves that is not ours: two learning rates, seeds, one run that failed."""
    for i, (lr, seed) in enumerate((lr, seed) for lr in (0.1, 0.2) for seed in range(seeds)):
        rows = [{"_step": step, "eval_loss": 1 + lr + 0.01 * seed + 1 / (1 + step), "acc": step / 10} for step in range(6)]
        records = run_records(
            f"id{i}",
            {"lr": lr, "seed": seed, "data": {"name": "d"}},
            rows,
            run_group="ablation",
            started=1_700_000_000 + i,
            exit_code=int(i == 5),
        )
        write_log(place / f"wandb/offline-run-20260101_00000{i}-id{i}/run-id{i}.wandb", records)
    return place / "wandb"


def test_runs_of_any_program_become_a_report(tmp_path, monkeypatch, research):
    monkeypatch.chdir(tmp_path)
    result = research("report", other(Path()), "--metric", "eval_loss", "--out", "out", "--json")
    assert result.code == 0, result.err
    assert (result.json["runs"], result.json["states"]) == (6, {"done": 5, "failed": 1})
    first, second = csv.DictReader(Path("out/tables/results.csv").read_text().splitlines())
    ends = [1 + 0.1 + 0.01 * seed + 1 / 6 for seed in range(3)]
    assert float(first["eval_loss"]) == pytest.approx(sum(ends) / 3)  # lower is the better, by its name
    assert (first["lr"], first["seeds"], second["seeds"]) == ("0.1", "3", "2")
    text = Path("out/report.md").read_text()
    assert text.startswith("# ablation")
    assert "exit code 1" in text
    spec = json.loads(Path("out/figures/curves.vl.json").read_text())
    assert "eval_loss" in json.dumps(spec)
    files = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert research("report", "wandb", "--metric", "eval_loss", "--out", "out").code == 0
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == files
    named = sorted(Path("wandb").glob("*/*.wandb"))
    assert research("report", *named, "--metric", "eval_loss", "--out", "out").code == 0
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["wandb"], "have several metrics and do not say which one they are about; expected one of acc, eval_loss"),
        (["wandb", "--metric", "x"], "no finished run has x; expected one of acc, eval_loss"),
        (["empty"], "holds no log of W&B"),
        (["run-no.wandb"], "cannot be read"),
        (["run-bad.wandb"], "begins with b'x'"),
        (["wandb:me"], "1 names; expected wandb:ENTITY/PROJECT"),
        (["wandb:me/p/s/t"], "4 names"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(tmp_path, monkeypatch, research, argv, says):
    monkeypatch.chdir(tmp_path)
    other(Path())
    Path("empty/offline-run-20260101_000000-a").mkdir(parents=True)
    Path("run-bad.wandb").write_bytes(b"x")
    result = research("report", *argv, "--out", "out")
    assert result.code == 2
    assert says in result.err, result.err
    assert not Path("out").exists()


def test_a_seed_of_another_name_is_said_in_the_spec(tmp_path, monkeypatch, research):
    monkeypatch.chdir(tmp_path)
    for i, (lr, seed) in enumerate((lr, seed) for lr in (0.1, 0.2) for seed in range(2)):
        records = run_records(f"id{i}", {"lr": lr, "train": {"init": seed}}, [{"_step": 0, "loss": lr + 0.01 * seed}])
        write_log(Path(f"wandb/offline-run-20260101_00000{i}-id{i}/run-id{i}.wandb"), records)
    Path("report.yaml").write_text("seed: train.init\n")
    assert research("report", "wandb", "--spec", "report.yaml", "--out", "out").code == 0
    lines = list(csv.DictReader(Path("out/tables/results.csv").read_text().splitlines()))
    assert [(line["lr"], line["seeds"]) for line in lines] == [("0.1", "2"), ("0.2", "2")]
