"""A sweep of sixty made-up points: the report's numbers are numpy's, and the points are in it, whatever became of them."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.synthetic_runs import write_study


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "sixty"
    write_study(folder, 60, outputs=2)
    return folder


def oracle(sweep: Path) -> dict[tuple, list[float]]:
    """(r, scale, dropout, lr) → losses of its finished runs, read without Tandem."""
    found: dict[tuple, list[float]] = {}
    for line in map(json.loads, (sweep / "plan.jsonl").read_text().splitlines()):
        adapter, lr = line["values"]["model.adapter"], line["values"]["model.optimisation.lr"]
        losses = found.setdefault((adapter["r"], adapter["lora_alpha"] / adapter["r"], adapter["lora_dropout"], lr), [])
        path = sweep / line["point"] / "metrics.json"
        if path.exists() and "pruned" not in (metrics := json.loads(path.read_text())):
            losses.append(metrics["metrics"]["loss"])
    return found


def test_the_same_arguments_write_the_same_sweep(sweep, tmp_path):
    for seed in (0, 1):
        write_study(tmp_path / str(seed) / "sixty", 60, outputs=2, seed=seed)
    first, again, other = (
        {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (sweep, tmp_path / "0/sixty", tmp_path / "1/sixty")
    )
    assert first == again
    assert first.keys() == other.keys()
    assert {path.name for path in first if first[path] != other[path]} == {"curves.jsonl", "metrics.json"}


def test_sixty_points_have_numpy_s_means(sweep, tmp_path, research):
    result = research("report", sweep, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert result.json["states"] == {"done": 56, "failed": 2, "pruned": 1, "missing": 1}
    known = oracle(sweep)
    assert Counter(map(len, known.values())) == {3: 16, 2: 4}
    rows = list(csv.DictReader((tmp_path / "out/tables/results.csv").read_text().splitlines()))
    assert len(rows) == len(known) == 20
    baseline = None
    for row in rows:
        values = known[tuple(float(row[name]) for name in ("r", "lora_alpha/r", "lora_dropout", "lr"))]
        baseline = baseline or values
        assert float(row["val/loss"]) == pytest.approx(np.mean(values), rel=1e-12)
        assert int(row["seeds"]) == len(values)
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert [float(row["95% interval low"]), float(row["95% interval high"])] == pytest.approx([low, high])
    tests = [stats.ttest_ind(known[key], baseline, equal_var=False).pvalue for key in list(known)[1:]]
    order = np.argsort(tests)
    holm = np.empty(len(tests))
    holm[order] = np.maximum.accumulate(np.minimum(1, np.sort(tests) * np.arange(len(tests), 0, -1)))
    assert [float(row["p (Holm)"]) for row in rows[1:]] == pytest.approx(holm, rel=1e-9)


def test_every_point_is_a_row_of_the_tidy_table(sweep, tmp_path, research):
    assert research("report", sweep, "--out", tmp_path / "out").code == 0
    tidy = list(csv.DictReader((tmp_path / "out/runs.csv").read_text().splitlines()))
    assert len(tidy) == 60
    assert {row["error"] for row in tidy if row["state"] == "failed"} == {"CUDA out of memory"}
    assert all(row["val/loss"] == "" for row in tidy if row["state"] in ("failed", "missing"))


def test_a_study_s_report_does_not_wait_for_torch(sweep, tmp_path):
    """Learning curves are read by the report, not through the trainer's room, whose imports take seconds."""
    code = (
        "import sys; from research.cli import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'transformers', 'lightning', 'datasets'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, "report", str(sweep), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
