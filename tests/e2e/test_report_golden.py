"""Reports of seeded runs are, byte for byte, the files in tests/fixtures/golden: CSV, LaTeX, Markdown and report.json.

After a wanted change, `TANDEM_GOLDEN=1 python -m pytest tests/e2e/test_report_golden.py` writes them anew; read the difference
before it is committed. Figures and the page are not in them: they have tests of their own.
"""

import html
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import wandb_log
from tests.synthetic_runs import write_study

FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = FIXTURES / "golden"
ENDINGS = {".csv", ".tex", ".md", ".json"}
SPEC = """\
metrics: [val/loss, val/rouge_l]
baseline: r=2 lora_alpha/r=2 lora_dropout=0 lr=0.0001
pair_by_seed: false
title: Three factors
"""
CLAIMS = """\
claims:
  - r=4 lora_alpha/r=1 lora_dropout=0 lr=0.0002 beats r=2 lora_alpha/r=1 lora_dropout=0 lr=0.0001 on val/loss
  - r=4 lora_alpha/r=1 lora_dropout=0 lr=0.0002 is equivalent to r=4 lora_alpha/r=1 lora_dropout=0.05 lr=0.0002 within .2
"""


def study(place: Path) -> list[str]:
    """Forty-two points of four factors: one has failed, one was pruned, one was never begun."""
    write_study(Path("runs/points"), 42)
    Path("report.yaml").write_text(SPEC)
    Path("claims.yaml").write_text(CLAIMS)
    return ["runs/points", "--spec", "report.yaml", "--claims", "claims.yaml"]


def factorial(place: Path) -> list[str]:
    """A grid of an earlier state of the code, and its baseline's seeds as pairs."""
    _head(place)
    Path("report.yaml").write_text("pair_by_seed: true\n")
    return ["runs/sweeps/grid", "--spec", "report.yaml"]


def head(place: Path) -> list[str]:
    """Retrieval runs and trainings of an earlier state of the code on one page."""
    _head(place)
    return ["runs/retrieve", "runs/dual", "runs/cross", "runs/sft", "runs/dpo"]


def wandb(place: Path) -> list[str]:
    """Offline logs of another program: nested options, a seed under another name, a run that failed and one that was killed."""
    for i, (rate, seed) in enumerate((rate, seed) for rate in (0.1, 0.01, 0.001) for seed in (1, 2, 3)):
        loss = 2 + math.log10(rate) ** 2 / 7 + seed / 100
        options = {"optim": {"lr": rate, "betas": [0.9, 0.95]}, "random_state": seed, "note": "=1+1"}
        history = [{"_step": step, "loss": loss + 1 / (step + 1), "acc": step / (9 + rate)} for step in range(5)]
        code = {4: 1, 8: None}.get(i, 0)
        records = wandb_log.run_records(
            f"id{i}", options, history, {"score": 1 / loss}, exit_code=code, started=1_700_000_000 + i, commit="c" * 40
        )
        wandb_log.write_log(place / f"wandb/offline-run-20250101_00000{i}-id{i}/run-id{i}.wandb", records)
    Path("report.yaml").write_text("metric: score\ngoal: maximize\nseed: random_state\n")
    return ["wandb", "--spec", "report.yaml"]


def diff(place: Path) -> list[str]:
    """What changed between two sweeps that differ by their noise."""
    for seed in (0, 1):
        write_study(place / f"runs/{seed}", 6, seed=seed)
    return ["--diff", "runs/0", "runs/1"]


CASES: list[Callable[[Path], list[str]]] = [study, factorial, head, wandb, diff]


def _head(place: Path) -> None:
    shutil.copytree(FIXTURES / "head", place, dirs_exist_ok=True)
    for path in place.rglob("*"):
        if path.suffix in {".json", ".jsonl", ".yaml"} and "@ROOT@" in (text := path.read_text(encoding="utf-8")):
            path.write_text(text.replace("@ROOT@", "/runs"), encoding="utf-8")


def tables(out: Path) -> dict[str, bytes]:
    """The report's files by name; report.json without the list of them, which names figures too."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.suffix not in ENDINGS or name.startswith("figures/"):
            continue
        found[name] = path.read_bytes()
        if path.suffix == ".json":
            value = json.loads(found[name])
            value["files"] = [one for one in value["files"] if not one.startswith("figures/")]
            found[name] = (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_report_is_its_golden_files(case, tmp_path, research, monkeypatch):
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setitem(sys.modules, "vl_convert", None)  # figures take seconds, and are not compared
    result = research("report", *case(place), "--out", "out")
    assert result.code in (0, 1), result.err
    made, golden = tables(place / "out"), GOLDEN / case.__name__
    if os.environ.get("TANDEM_GOLDEN"):
        shutil.rmtree(golden, ignore_errors=True)
        for name, content in made.items():
            (golden / name).parent.mkdir(parents=True, exist_ok=True)
            (golden / name).write_bytes(content)
    known = {path.relative_to(golden).as_posix(): path.read_bytes() for path in golden.rglob("*") if path.is_file()}
    assert made.keys() == known.keys()
    different = [name for name in known if made[name] != known[name]]
    assert not different, "\n".join(
        f"{name}: {old!r} is now {new!r}"
        for name in different[:3]
        for old, new in [
            next((a, b) for a, b in zip(known[name].splitlines(), [*made[name].splitlines(), b""], strict=False) if a != b)
        ]
    )


@pytest.mark.parametrize("case", [study, head], ids=lambda case: case.__name__)
def test_the_wandb_report_has_every_table_and_figure_of_the_local_one(case, tmp_path, monkeypatch, research):
    monkeypatch.chdir(tmp_path)
    assert research("report", *case(tmp_path), "--out", "out", "--wandb", "me/project", "--dry-run").code in (0, 1)
    local = Path("out/report.md").read_text(encoding="utf-8")
    blocks = json.loads(Path("out/wandb_report.json").read_text(encoding="utf-8"))["spec"]["blocks"]
    there = json.dumps(blocks, ensure_ascii=False).replace("\\\\$", "$")
    headings = [line.removeprefix("## ").replace("\\_", "_") for line in local.splitlines() if line.startswith("## ")]
    headings.remove("Notes")  # "Before the numbers" there
    assert len(headings) > 3
    assert [heading for heading in headings if heading not in there] == []
    rows = [line for line in local.splitlines() if line.startswith("| ")]
    assert [row for row in rows if json.dumps(row, ensure_ascii=False)[1:-1] not in there] == []
    grids = [block["metadata"]["panelBankSectionConfig"]["panels"] for block in blocks if block["type"] == "panel-grid"]
    media = [panel["config"] for panels in grids for panel in panels if panel["viewType"] == "Media Browser"]
    figures = {path.stem for path in Path("out/figures").glob("*.svg") if not path.stem.endswith("-column")}
    assert {key.removeprefix("figures/") for config in media for key in config["mediaKeys"]} == figures
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert [title for config in media if html.escape(title := config["chartTitle"]) not in page] == []
    assert page.count("<figure") == len(figures)
    assert ("training-dual-loss" in figures) == (case is head)  # the curves of trainings that are shown one by one
