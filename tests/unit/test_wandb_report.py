"""A study → a W&B Report, on made-up run folders: under the names that W&B has, and the same bytes each time.

After a wanted change: TANDEM_GOLDEN=1 python -m pytest tests/unit/test_wandb_report.py writes the golden file anew; read
its diff.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from research.errors import UserError
from research.report.factors import factors, with_scale
from research.report.groups import make_study
from research.report.sheets import Cell, Sheet
from research.report.wandb import Content, Place, keys, provenance
from research.report.wandb import panels as wandb_panels
from research.report.wandb.content import run_ids
from research.report.wandb.report import build, serialised
from research.runs.table import read_runs
from tests.conftest import ROOT

GOLDEN = Path(__file__).with_name("wandb_report.golden.json")
NOISE = (-0.01, 0.0, 0.01)


def folder(place: Path, r: int | None, alpha: int | None, seed: int, loss: float, summary: bool = True, **more) -> Path:
    """A finished training, as `research fit` leaves it."""
    name = more.get("name", f"r{r}a{alpha}s{seed}")
    path = place / name
    path.mkdir(parents=True)
    adapter = {"class_path": "peft.LoraConfig", "init_args": {"r": r, "lora_alpha": alpha}} if r else None
    init = {"adapter": adapter, "train_pattern": more.get("pattern"), "optimisation": {"lr": more.get("lr", 0.001)}}
    config = {
        "out": str(path),
        "monitor": "val/loss",
        "seed_everything": seed,
        "trainer": {"max_steps": 2},
        "model": {"class_path": "research.training.sft.SFTModule", "init_args": init},
    }
    files = {
        "provenance.json": {
            "command": ["research", "fit"],
            "git_commit": "c" * 40,
            "git_dirty": False,
            "made_of": "m",
            "model_hash": "b" * 64,
            "fingerprint": more.get("code", "code"),
            "data": {"train": "t" * 64},
            "packages": {"torch": "2.13.0"},
        },
        "metrics.json": {
            "kind": "fit",
            "monitor": "val/loss",
            "step": 2,
            "metrics": {"loss": loss},
            "finished": True,
            "trained": {"trained_parameters": 100 * (r or 5)},
        },
        "wandb.json": {"id": f"id-{name}"} | ({"summary": ["val/loss", "trained_parameters"]} if summary else {}),
    }
    for file, value in files.items():
        (path / file).write_text(json.dumps(value))
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [{"step": 0, "val/loss": 3.0}, {"step": 1, "train/loss": 2.5}, {"step": 2, "val/loss": loss}]
    (path / "curves.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "val/l')
    return path


def grid(place: Path, **more) -> list[Path]:
    return [
        folder(place, r, alpha, seed, round(2 - r / 10 - alpha / 50 + NOISE[seed], 4), **more)
        for r, alpha in ((4, 4), (4, 8), (8, 8), (8, 16))
        for seed in range(3)
    ]


def content(paths: list[Path], metric: str = "val/loss", **more) -> Content:
    runs, names = with_scale(read_runs(paths), factors(read_runs(paths)))
    sheet = Sheet("results", "val/loss by setting", ["r", "cost"], [[Cell("4"), Cell("$1")]], ["a note"])
    long = Sheet("runs", "Every run", ["run"], [[Cell("x")]], [])
    claims = Sheet("claims", "Claims", ["claim", "verdict"], [[Cell("r=8 beats r=4"), Cell("held")]], [])
    values = {
        "title": "My study",
        "finding": "r=8 is best.",
        "notes": ["2 runs are missing"],
        "tables": [],
        "sheets": [(sheet, "| r | cost |\n| :-- | --: |\n| 4 | $1 |"), (long, "| run |"), (claims, "| claim |")],
        "figures": [("by_r", "val/loss by r", "Mean over seeds")],
        "study": make_study(runs, metric, names),
        "folders": paths,
        "metrics": ["val/loss", "train/loss"],
    }
    return Content(**(values | more))


def grids(made: dict) -> list[dict]:
    return [block["metadata"] for block in made["spec"]["blocks"] if block["type"] == "panel-grid"]


def panels(made: dict) -> dict[str, dict]:
    """Kind → the last panel's configuration."""
    return {panel["viewType"]: panel["config"] for one in grids(made) for panel in one["panelBankSectionConfig"]["panels"]}


def test_the_specification_is_the_golden_file(tmp_path):
    made = json.dumps(serialised(build(content(grid(tmp_path)), Place("", "tandem"))), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("TANDEM_GOLDEN"):
        GOLDEN.write_text(made, encoding="utf-8")
    assert made == GOLDEN.read_text(encoding="utf-8")


def test_another_process_and_place_give_the_same_bytes(tmp_path):
    """The client draws ids at random, once a process for some of them."""
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.unit.test_wandb_report import *\n"
        "print(json.dumps(serialised(build(content(grid(Path(sys.argv[2]))), Place('', 'tandem')))))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code, ROOT, tmp_path / name], capture_output=True, text=True, check=True)
        for name in ("a", "b")
    ]
    assert runs[0].stdout == runs[1].stdout


def test_run_sets_filter_the_study_s_runs_and_group_them_by_w_and_b_s_paths(tmp_path):
    made = serialised(build(content(grid(tmp_path)), Place("", "tandem")))
    figures, settings, every = grids(made)
    ids = sorted(f"id-r{r}a{a}s{s}" for r, a in ((4, 4), (4, 8), (8, 8), (8, 16)) for s in range(3))
    for one in (settings, every):
        (run_set,) = one["runSets"]
        (where,) = run_set["filters"]["filters"]
        assert (where["key"], where["op"], where["value"]) == ({"section": "run", "name": "name"}, "IN", ids)
    place = "model.value.init_args.adapter.init_args"
    keys = [{"section": "config", "name": f"{place}.{name}"} for name in ("r", "lora_alpha")]
    assert settings["runSets"][0]["grouping"] == keys
    assert every["runSets"][0]["grouping"] == []
    assert figures["runSets"][0]["filters"]["filters"][0]["value"][0].startswith("report-")
    # ids that a browser tells panels by are unlike each other
    numbers = [
        part.get("id") or part.get("__id__")
        for one in (figures, settings, every)
        for part in [*one["runSets"], *one["panelBankSectionConfig"]["panels"]]
    ]
    assert len({*numbers}) == len(numbers)


def test_panels_name_what_w_and_b_was_sent(tmp_path):
    found = panels(serialised(build(content(grid(tmp_path)), Place("", "tandem"))))
    assert found["Bar Chart"]["metrics"] == ["val/loss"]
    assert found["Parameter Importance"]["targetKey"] == "val/loss"
    axes = [found["Scatter Plot"][name] for name in ("xAxis", "yAxis")]
    assert axes == ["summary:trained_parameters", "summary:val/loss"]
    assert [one["accessor"] for one in found["Parallel Coordinates Plot"]["columns"]] == [
        "config:model.value.init_args.adapter.init_args.r",
        "config:model.value.init_args.adapter.init_args.lora_alpha",
        "summary:val/loss",
    ]
    assert found["Run History Line Plot"]["groupArea"] == "stddev"


def test_runs_that_sent_no_summary_are_shown_by_their_last_validation(tmp_path):
    paths = [*grid(tmp_path, summary=False)]
    made = serialised(build(content(paths), Place("", "tandem")))
    assert panels(made)["Bar Chart"]["metrics"] == ["val/loss"]
    assert panels(made)["Bar Chart"]["chartTitle"] == "val/loss of the last validation"
    assert "Scatter Plot" not in panels(made)
    assert "Not every run has told W&B how many parameters" in json.dumps(made)


def test_a_metric_that_is_only_in_the_folders_is_replaced_and_it_is_said(tmp_path):
    paths = grid(tmp_path)
    for path in paths:
        (path / "test.json").write_text(json.dumps({"metrics": {"rouge_l": 0.5}}))
    made = serialised(build(content(paths, "test/rouge_l"), Place("", "tandem")))
    assert panels(made)["Bar Chart"]["metrics"] == ["val/loss"]
    assert "test/rouge_l is in the run folders and not in W&B; the panels show val/loss" in json.dumps(made)


def test_what_is_in_no_mean_is_in_no_mean_there(tmp_path):
    """A run that is not finished is among all runs, and a copy of one counts once."""
    paths = grid(tmp_path)
    shutil.copytree(paths[0], tmp_path / "copy")
    (tmp_path / "copy" / "wandb.json").write_text('{"id": "id-copy"}')
    (paths[1] / "metrics.json").unlink()
    _, settings, every = grids(serialised(build(content([*paths, tmp_path / "copy"]), Place("", "tandem"))))
    (shown,), (everything,) = (
        [run_set["filters"]["filters"][0]["value"] for run_set in one["runSets"]] for one in (settings, every)
    )
    assert {*everything} - {*shown} == {"id-copy", "id-r4a4s1"}
    assert len(everything) == 13


def test_runs_of_other_code_are_not_averaged_there_either(tmp_path):
    paths = [
        folder(tmp_path / code, 4, 8, seed, 1.5 + NOISE[seed], code=code, name=f"{code}{seed}")
        for code in ("old", "new")
        for seed in range(3)
    ]
    _, settings, _ = grids(serialised(build(content(paths), Place("", "tandem"))))
    sets = [run_set["filters"]["filters"][0]["value"] for run_set in settings["runSets"]]
    assert sets == [["id-old0", "id-old1", "id-old2"], ["id-new0", "id-new1", "id-new2"]]


def test_no_adapter_is_told_by_what_is_trained_instead(tmp_path):
    paths = [
        folder(tmp_path, r, alpha, seed, 1.5 + NOISE[seed], pattern=pattern, name=f"{r}{pattern}{seed}")
        for r, alpha, pattern in ((4, 8, None), (None, None, "a"), (None, None, "b"))
        for seed in range(3)
    ]
    made = content(paths)
    configs = {run.path: keys.config_of(run) for group in made.study.groups for run in group.runs}
    by = keys.factor_keys(list(configs.values()), made.study.factors)
    assert list(by)[:2] == ["model.init_args.adapter.class_path", "model.init_args.train_pattern"]
    groups = [group.runs for group in made.study.groups]
    assert len(groups) == 3
    assert wandb_panels.layers(groups, configs, by) == [[run for group in groups for run in group]]


def test_wide_ranges_are_logarithmic(tmp_path):
    paths = [folder(tmp_path, 4, 8, seed, 1.5, lr=lr, name=f"{lr}-{seed}") for lr in (0.0001, 0.01) for seed in range(3)]
    columns = panels(serialised(build(content(paths), Place("", "tandem"))))["Parallel Coordinates Plot"]["columns"]
    assert columns[0] == {"accessor": "config:model.value.init_args.optimisation.lr", "displayName": "lr", "log": True}


def test_words_and_tables(tmp_path):
    blocks = serialised(build(content(grid(tmp_path), title="t" * 200), Place("", "tandem")))
    assert len(blocks["displayName"]) == 128
    texts = [block["content"] for block in blocks["spec"]["blocks"] if block["type"] == "markdown-block"]
    assert r"\$1" in texts[1]  # $ would begin a formula
    heads = [block for block in blocks["spec"]["blocks"] if block["type"] == "heading"]
    names = [head["children"][0]["text"] for head in heads]
    assert names == [
        "Before the numbers",
        "Claims",
        "val/loss by setting",
        "Every run",
        "Figures",
        "Settings, over their seeds",
        "Runs, one by one",
        "Provenance",
    ]
    assert [len(head.get("collapsedChildren", [])) for head in heads] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert "c" * 40 in texts[-1]


def test_trainings_without_a_study_are_shown_by_their_curves(tmp_path):
    path = folder(tmp_path, 4, 8, 0, 1.5)
    made = serialised(build(content([path])._replace(study=None, sheets=[], figures=[]), Place("", "tandem")))
    (one,) = grids(made)
    assert one["runSets"][0]["filters"]["filters"][0]["value"] == ["id-r4a8s0"]
    kinds = [panel["viewType"] for panel in one["panelBankSectionConfig"]["panels"]]
    assert kinds == ["Run History Line Plot", "Run History Line Plot", "Run Comparer"]


def test_ids_come_from_the_folders(tmp_path):
    path = tmp_path / "eval"
    for time, id in (("20260101_000000", "old"), ("20260301_000000", "with-dash")):
        (path / "wandb" / f"offline-run-{time}-{id}").mkdir(parents=True)
    (path / "wandb" / "run-20260201_000000-online").mkdir()
    assert keys.run_id(path) == "with-dash"
    assert keys.run_id(tmp_path) is None
    assert list(run_ids([path, tmp_path])) == ["with-dash"]


def test_provenance_says_each_value_once(tmp_path):
    paths = grid(tmp_path)
    marker = json.loads((paths[0] / "provenance.json").read_text())
    (paths[0] / "provenance.json").write_text(json.dumps(marker | {"git_dirty": True}))
    found = provenance(paths)
    assert (found["runs"], len(found["run_ids"])) == (12, 12)
    assert found["git_commits"] == ["c" * 40 + "+", "c" * 40]
    assert found["models"] == ["b" * 64]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dry-run"], "--dry-run without --wandb"),
        (["--wandb", "tests"], "is a path"),
        (["--wandb", "me"], "is no project"),
        (["--wandb", "a/b/c"], "expected ENTITY/PROJECT"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything(options, says, research, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = research("report", folder(tmp_path, 4, 8, 0, 1.5), "--out", tmp_path / "out", *options)
    assert (result.code, says in result.err) == (2, True), result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["wandb", "wandb_workspaces"])
def test_a_package_that_is_missing_is_named_with_its_extra(package, research, tmp_path, monkeypatch):
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == package else find(name, *more))
    result = research("report", folder(tmp_path, 4, 8, 0, 1.5), "--out", tmp_path / "out", "--wandb", "--dry-run")
    assert result.code == 2
    assert f"needs {package.replace('_', '-')}" in result.err
    assert "tandem-research[report]" in result.err


def test_a_damaged_wandb_json_is_an_error(tmp_path):
    path = folder(tmp_path, 4, 8, 0, 1.5)
    (path / "wandb.json").write_text("{")
    with pytest.raises(UserError, match="not readable JSON"):
        run_ids([path])
