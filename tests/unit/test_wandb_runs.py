"""Logs of W&B → rows of a study: state, seed, options, metrics, names; several logs of one run; what cannot be read."""

import json
import math
from pathlib import Path

import pytest

from research.errors import UserError
from research.report.factor_sheets import by_factor
from research.report.factors import factors
from research.report.goals import is_lower
from research.report.groups import make_study
from research.runs.record import RunRecord
from research.runs.table import read_runs
from tests.wandb_log import run_records, write_log

ROWS = [{"_step": step, "_runtime": 10.0 * step, "val/loss": 3.0 - step} for step in range(3)]


def log(place: Path, id: str = "a", config: dict | None = None, history: list | None = None, day: int = 1, **more) -> Path:
    records = run_records(
        id,
        {"seed": 0} if config is None else config,
        ROWS if history is None else history,
        started=1_700_000_000 + 86_400 * day,
        **more,
    )
    return write_log(place / f"wandb/offline-run-202601{day:02}_000000-{id}/run-{id}.wandb", records)


def one(path: Path, **more) -> RunRecord:
    (run,) = read_runs([path], **more)
    return run


def test_a_run_of_another_program_is_a_row(tmp_path):
    config = {
        "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]},
        "seed": 3,
        "output_dir": "out/7",
        "_wandb": {"t": 1},
        "sweep": "x",
    }
    run = one(log(tmp_path, config=config, commit="abc", run_group="g", host="h", display_name="first"))
    assert run.options == {"optimizer.lr": 0.1, "optimizer.betas": [0.9, 0.99], "sweep": "x", "seed_everything": 3}
    assert (run.name, run.point, run.sweep, run.seed, run.state, run.host) == ("first", "a", "g", 3, "done", "h")
    assert (run.metrics, run.facts, run.made_of) == ({"val/loss": 1.0}, {"seconds": 20.0}, ("", "abc", ""))
    assert run.history("val/loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_the_summary_is_what_w_and_b_shows(tmp_path):
    summary = {
        "loss": {"min": 0.5},
        "picture": {"_type": "image-file", "width": 3},
        "flag": True,
        "text": "x",
        "nan": math.nan,
        "huge": "Infinity",
        "best/acc": 1,
        "trainer/global_step": 9,
        "_wandb": {"runtime": 3},
    }
    run = one(log(tmp_path, history=[{"_step": 0, "loss": 0.5}, {"_step": 1, "loss": 9.0}], summary=summary))
    assert run.metrics == {"loss.min": 0.5, "best/acc": 1}
    assert run.history("loss.min") == [(0, 0.5), (1, 9.0)]  # the curve of what is summarised


ENDS = [
    (0, {}, "done", ""),
    (1, {}, "failed", "exit code 1"),
    (130, {}, "killed", "exit code 130"),
    (85, {}, "preempted", "exit code 85"),
    (None, {}, "half-written", "no end: it is running, or was killed"),
    (0, {"tandem": {"pruned": {"step": 4}, "steps": 4}}, "pruned", ""),
]


@pytest.mark.parametrize(("code", "summary", "state", "error"), ENDS)
def test_the_end_of_a_log_is_the_state_of_its_run(tmp_path, code, summary, state, error):
    run = one(log(tmp_path, exit_code=code, summary=summary))
    assert run.state == state
    assert error in run.error
    assert bool(run.metrics) == (state in ("done", "pruned"))


def test_what_research_fit_adds_is_origin_and_facts_and_no_option(tmp_path):
    data = {"train": "t", "examples": 4}
    config = {
        "seed_everything": 1,
        "monitor": "val/loss",
        "wandb": "auto",
        "out": "x",
        "made_of": {"data": data, "code": "f", "base_model": "m"},
        "sweep": {"name": "s", "point": "p"},
        "model": {"class_path": "a.SFT", "init_args": {"adapter": None, "train_layers": 2}},
    }
    run = one(log(tmp_path, config=config, summary={"tandem": {"steps": 9, "seconds": 7.0, "trained_parameters": 100}}))
    assert run.options == {"seed_everything": 1, "model": "SFT", "model.adapter": "last 2 layers", "model.train_layers": 2}
    assert run.facts == {"steps": 9, "seconds": 7.0, "trained_parameters": 100}
    assert run.made_of == (json.dumps(data, sort_keys=True), "f", "m")
    assert (run.sweep, run.point, run.monitor) == ("s", "p", "val/loss")


@pytest.mark.parametrize(
    ("config", "asked", "seed"),
    [
        ({"seed_everything": 4, "seed": 1}, None, 4),
        ({"seed": "7"}, None, 7),
        ({"seed": 2.0}, None, 2),
        ({}, None, None),
        ({"seed": True}, None, None),
        ({"seed": "x"}, None, None),
        ({"seed": 0.5}, None, None),
        ({"train": {"seed": 5}, "seed": 1}, "train.seed", 5),
    ],
)
def test_seeds(tmp_path, config, asked, seed):
    run = one(log(tmp_path, config=config | {"lr": 1}), seed=asked)
    assert run.seed == seed
    assert run.options.get("seed_everything") == seed


def test_a_seed_that_no_run_has_is_refused(tmp_path):
    with pytest.raises(UserError, match="seed 'x' is an option with a whole number in no run"):
        one(log(tmp_path, config={"lr": 1}), seed="x")


def test_runs_without_a_seed_say_how_it_is_named(tmp_path):
    for day, id in enumerate("ab", 1):
        log(tmp_path, id, {"lr": 1, "init": day}, [{"_step": 0, "loss": float(day)}], day)
    with pytest.raises(UserError, match="name it as `seed: OPTION`"):
        make_study(read_runs([tmp_path]), "loss", [])
    runs = read_runs([tmp_path], "init")
    assert [run.seed for run in runs] == [1, 2]
    assert factors(runs) == []


def test_several_logs_of_one_run_are_one_and_the_later_wins(tmp_path, capsys):
    log(tmp_path, "a", {"lr": 1, "seed": 0}, exit_code=None, commit="c1")
    log(tmp_path, "a", {"seed": 0}, [{"_step": 2, "val/loss": 7.0}, {"_step": 3, "val/loss": 6.0}], day=2, commit="c1")
    run = one(tmp_path)
    assert (run.state, run.metrics, run.options) == ("done", {"val/loss": 6.0}, {"lr": 1, "seed_everything": 0})
    assert run.history("val/loss") == [(0, 3.0), (1, 2.0), (2, 7.0), (3, 6.0)]
    folders = sorted((tmp_path / "wandb").iterdir(), reverse=True)
    assert one_of(read_runs(folders)) == one_of([run])  # in whatever order they are named, and the file as well as its folder
    assert one_of(read_runs([*folders, folders[0] / "run-a.wandb"])) == one_of([run])
    assert capsys.readouterr().err == ""


def one_of(runs: list[RunRecord]) -> list[tuple]:
    return [(*run._replace(history=None), run.history("val/loss")) for run in runs]


def test_a_run_that_went_on_with_other_code_is_averaged_with_neither(tmp_path, capsys):
    log(tmp_path, "a", exit_code=None, commit="c1")
    log(tmp_path, "a", day=2, commit="c2")
    log(tmp_path, "b", {"seed": 1}, commit="c2")
    runs = read_runs([tmp_path])
    assert [run.made_of[1] for run in runs] == ["c1 c2", "c2"]
    assert "was begun by code c1 and went on with c2" in capsys.readouterr().err
    found = make_study(runs, "val/loss", [])
    assert [len(group.values) for group in found.groups] == [1, 1]
    assert "other code" in found.warnings[0]


def test_runs_of_one_id_in_two_projects_are_two(tmp_path):
    log(tmp_path / "x", "a", project="p")
    log(tmp_path / "y", "a", {"seed": 1}, project="q")
    runs = read_runs([tmp_path / "x", tmp_path / "y"])
    assert len({run.name for run in runs}) == 2
    assert [run.seed for run in runs] == [0, 1]


def test_names_are_those_of_w_and_b_and_tell_the_rows_apart(tmp_path):
    for day, (id, name) in enumerate([("a", "fox"), ("b", "fox"), ("c", "")], 1):
        log(tmp_path, id, {"seed": day}, day=day, display_name=name)
    assert [run.name for run in read_runs([tmp_path])] == ["fox (a)", "fox (b)", "c"]


def test_what_cannot_be_read_is_a_row_among_others_and_refused_alone(tmp_path, capsys):
    log(tmp_path, "a")
    for day, (id, data) in enumerate([("b", b""), ("c", b"something else")], 2):
        path = log(tmp_path, id, day=day)
        path.write_bytes(data)
    cut = log(tmp_path, "d", day=5)
    cut.write_bytes(cut.read_bytes()[:-9])
    bad = log(tmp_path, "e", day=6)
    data = bytearray(bad.read_bytes())
    data[-20] ^= 8
    bad.write_bytes(data)
    runs = {run.name: run for run in read_runs([tmp_path])}
    assert {name: run.state for name, run in runs.items()} == {"a": "done"} | dict.fromkeys("bcde", "half-written")
    for name, says in (("b", "is empty"), ("c", "begins with"), ("d", "cut off at byte"), ("e", "1 damaged block,")):
        assert says in runs[name].error
    found = make_study(list(runs.values()), "val/loss", factors(runs.values()))
    assert any("4 runs are half-written" in warning for warning in found.warnings)
    with pytest.raises(UserError, match="is empty"):
        read_runs([tmp_path / "wandb/offline-run-20260102_000000-b/run-b.wandb"])
    with pytest.raises(UserError, match=r"none of 1 logs can be read: .*is empty"):
        read_runs([tmp_path / "wandb/offline-run-20260102_000000-b"])


def test_a_folder_of_w_and_b_without_a_log_is_refused(tmp_path):
    (tmp_path / "wandb/offline-run-20260101_000000-a/files").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no log of W&B"):
        read_runs([tmp_path / "wandb"])
    (tmp_path / "plain").mkdir()
    with pytest.raises(UserError, match="is no folder of a run or a sweep, and holds no log"):
        read_runs([tmp_path / "plain"])
    with pytest.raises(UserError, match="does not exist"):
        read_runs([tmp_path / "run-x"])


def test_whole_numbers_are_equal_however_they_are_written(tmp_path):
    """W&B's server gives 1.0 back as 1."""
    for day, (id, dropout) in enumerate([("a", 0.0), ("b", 0)], 1):
        log(tmp_path, id, {"dropout": dropout, "betas": [1.0, 0.5] if day == 1 else [1, 0.5], "seed": day}, day=day)
    assert factors(read_runs([tmp_path])) == []


def test_one_factor_at_a_time_does_not_depend_on_the_order_of_the_runs(tmp_path):
    """Runs of W&B come in the order in which they were begun."""
    order = [(2, 1), (1, 1), (1, 2), (2, 2)]
    for day, (r, lr) in enumerate(order, 1):
        log(tmp_path, f"a{day}", {"r": r, "lr": lr, "seed": 0}, [{"_step": 0, "loss": r + 0.1 * lr}], day)
        log(tmp_path, f"b{day}", {"r": r, "lr": lr, "seed": 1}, [{"_step": 0, "loss": r + 0.2 * lr}], day + 10)
    runs = read_runs([tmp_path])
    found = make_study(runs, "loss", factors(runs))
    assert by_factor(found, "r") is not None
    assert by_factor(found, "lr") is not None


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("val/loss", True),
        ("eval_loss", True),
        ("val.loss", True),
        ("loss.min", True),
        ("test/WER", True),
        ("accuracy", False),
        ("val/mrr@10", False),
        ("val/reward_rejected", True),
        ("reward_margin", False),
        ("glossary", False),
        ("acc.max", False),
    ],
)
def test_which_side_of_a_metric_is_better(metric, lower):
    assert is_lower(metric) == lower
