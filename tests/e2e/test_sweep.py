"""sweep plan, run and status as a user types them, on a tiny language model."""

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e.fitting import process
from tests.lm import rows, save_tiny
from tests.slow import CALLBACK

CONFIG = """
seed_everything: 0
out: run
monitor: val/loss
wandb: disabled
model:
  class_path: research.training.sft.SFTModule
  init_args:
    model: ./lm
    adapter:
      class_path: peft.LoraConfig
      init_args:
        task_type: CAUSAL_LM
        r: 2
        lora_alpha: 4
        target_modules: all-linear
    optimisation:
      lr: 1.0e-2
data:
  class_path: research.data.instructions.InstructionData
  init_args:
    train: rows.jsonl
    val: val.jsonl
    val_split: null
    batch_size: 4
    max_length: 128
trainer:
  accelerator: cpu
  max_steps: 2
"""
COMMAND = ["research", "fit", "-c", "sft.yaml", "--out", "runs/{point}", "${args}"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of workers
    save_tiny(tmp_path / "lm")
    Path("sft.yaml").write_text(CONFIG)
    for name, count in (("rows", 16), ("val", 5)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    return tmp_path


def sweep(parameters: dict, **more) -> str:
    value = {"method": "grid", "name": "tiny", "command": COMMAND, "parameters": parameters} | more
    Path("sweep.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return "sweep.yaml"


R_ALPHA = {"model.adapter": {"values": [{"r": r, "lora_alpha": 2 * r} for r in (2, 4)]}, "seed_everything": {"values": [0, 1]}}


def metrics(folder: Path) -> dict:
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name != "seconds"}


def test_a_sweep_without_validation_is_finished_and_has_a_page(place):
    """Nothing was measured, and everything trained: the page shows each training, and says why none is compared."""
    Path("sft.yaml").write_text(CONFIG.replace("    val: val.jsonl\n", "").replace("monitor: val/loss\n", ""))
    result = process("sweep", "run", sweep({"model.adapter.r": {"values": [2, 4]}}), "--threads", "1", "--json")
    assert (result.code, result.json["states"]) == (0, {"done": 2}), result.err
    assert "2 finished runs have no metrics" in result.err
    assert Path(result.json["report"]).read_text().count('<article class="training">') == 2
    asked = process("report", "runs", "--metric", "val/loss", "--out", "out")
    assert asked.code == 2
    assert "2 finished runs have no metrics" in asked.err
    assert not Path("out").exists()
    for config in sorted(Path("runs").glob("*/config.yaml")):  # the cure that was named
        tested = process("test", "-c", str(config), "--data.test", "val.jsonl", "--data.test_split", "null")
        assert tested.code == 0, tested.err
    assert process("report", "runs", "--metric", "test/loss", "--out", "out").code == 0


def test_points_are_planned_run_once_and_are_those_of_fit(place, research):
    file = sweep(R_ALPHA, metric={"name": "val/loss", "goal": "minimize"})
    planned = research("sweep", "plan", file, "--json").json["points"]
    assert [p["values"]["model.adapter"]["r"] for p in planned] == [2, 2, 4, 4]
    result = research("sweep", "run", file, "--workers", "2", "--threads", "1", "--json")
    assert result.code == 0, result.err
    assert result.json["states"] == {"done": 4}
    for one in planned:
        folder = Path("runs") / one["point"]
        facts = json.loads((folder / "provenance.json").read_text())
        assert facts["point"] == one["point"]
        found = metrics(folder)
        assert found["trained"]["trained_parameters"] == one["trained_parameters"]  # the built model's, exactly
        assert found["trained"]["adapter_bytes"] == one["adapter_bytes"]
        adapter, seed = one["values"]["model.adapter"], one["values"]["seed_everything"]
        if seed == 0:
            continue  # one seed of each adapter: a training alone is a process of its own
        options = [f"--model.adapter.{name}={value}" for name, value in adapter.items()] + [f"--seed_everything={seed}"]
        alone = process("fit", "-c", "sft.yaml", "--out", f"alone/{one['point']}", *options, env={"OMP_NUM_THREADS": "1"})
        assert alone.code == 0, alone.err
        assert metrics(Path("alone") / one["point"]) == found
        name = "model/adapter_model.safetensors"
        assert (Path("alone") / one["point"] / name).read_bytes() == (
            folder / name
        ).read_bytes()  # a kept process changes nothing
    again = research("sweep", "run", file, "--json")
    assert again.json["states"] == {"done": 4}
    states = research("sweep", "status", file, "--json").json
    assert {p["attempts"] for p in states["points"]} == {1}
    assert "4" in research("sweep", "status", file).out
    # the same runs brought to another machine, without their models and without the ledger
    Path("runs/ledger.jsonl").unlink()
    for one in planned:
        shutil.rmtree(Path("runs") / one["point"] / "model")
    brought = research("sweep", "run", file, "--json")
    assert (brought.code, brought.json["states"]) == (0, {"done": 4}), brought.err
    rows = research("sweep", "status", file, "--json").json["points"]
    assert {row["attempts"] for row in rows} == {0}
    assert {row["last"]["value"] for row in rows} == {row["last"]["value"] for row in states["points"]}


@pytest.mark.thorough
def test_rows_that_are_left_out_are_said_before_and_after(place, research):
    """A mean over 3 of 5 rows is another number than one over 5: the plan, the status and the report say so."""
    turns = [{"role": "user", "content": "again and again " * 200}, {"role": "assistant", "content": "never"}]
    long = {"prompt": turns[:1], "completion": turns[1:]}
    with open("val.jsonl", "a", encoding="utf-8") as stream:
        stream.write((json.dumps(long) + "\n") * 2)
    file = sweep({"model.adapter.r": {"values": [2, 4]}})
    plan = research("sweep", "plan", file)
    said = (
        "warning: val: 2 of 7 have no label left at max_length=128 and are dropped, so what is measured on val is a mean over 5"
    )
    assert f"2 of 2 points: {said}; raise data.max_length" in plan.err
    assert research("sweep", "run", file).code == 0
    assert "2 of 2 points: 2 of 7 rows of val are left out" in research("sweep", "status", file).out
    for one in json.loads(research("sweep", "status", file, "--json").out)["points"]:
        assert metrics(Path("runs") / one["point"])["lost_rows"] == {"val": {"rows": 7, "dropped": 2}}
    assert research("report", "runs", "--out", "page").code == 0
    note = "Left out, since data.max_length leaves them no label or room, and not part of any mean: 2 of 7 rows of val"
    assert note in Path("page/index.html").read_text()
    # whatever is wrong with a length is found by the plan, and before a folder is begun
    for length, says in ((4, "max_length=4 leaves no label"), (9999, "does not fit the model's context")):
        text = sweep({"model.adapter.r": {"values": [2]}}, command=[*COMMAND[:-1], f"--data.max_length={length}", "${args}"])
        refused = research("sweep", "plan", text)
        assert refused.code == 2
        assert says in refused.err
        fit = research("fit", "-c", "sft.yaml", "--data.max_length", length, "--out", "runs/never")
        assert fit.code == 2
        assert says in fit.err
        assert not Path("runs/never").exists()


def test_a_configuration_that_changed_since_the_plan_is_named(place, research):
    """What was trained with the earlier one stays, and is not taken for lost."""
    Path("mine.yaml").write_text("data: {init_args: {max_length: 128}}\n")
    options = ("--config", "mine.yaml", "--out", "mine", "--threads", "1")
    file = sweep({"seed_everything": {"values": [0]}})
    assert research("sweep", "run", file, *options).code == 0
    Path("mine.yaml").write_text("# shorter\ndata: {init_args: {max_length: 96}}\n")
    said = "mine.yaml (data.max_length 128 → 96) changed since the points of mine were planned, and 1 of them is begun"
    plan = research("sweep", "plan", file, *options[:4])
    assert (plan.code, said in plan.err) == (2, True), plan.err
    Path("mine.yaml").write_text("# a note alone\ndata: {init_args: {max_length: 128}}\n")
    again = research("sweep", "plan", file, *options[:4])
    assert "changed" not in again.err
    assert "1 done, 0 to run" in again.out


@pytest.mark.thorough
def test_what_has_failed_or_is_gone_is_run_again_alone(place, research):
    file = sweep({"seed_everything": {"values": [0, 1, 2]}})
    points = [p["point"] for p in research("sweep", "plan", file, "--json").json["points"]]
    Path("runs").mkdir(exist_ok=True)
    (Path("runs") / points[1]).write_text("in the way")  # --out is a file: wrong input, not tried again
    first = research("sweep", "run", file, "--threads", "1")
    assert first.code == 1
    states = {p["point"]: p for p in research("sweep", "status", file, "--json").json["points"]}
    assert [states[p]["state"] for p in points] == ["done", "failed", "done"]
    assert "is a file" in states[points[1]]["last"]["error"]
    (Path("runs") / points[1]).unlink()
    shutil.rmtree(Path("runs") / points[2])
    second = research("sweep", "run", file, "--threads", "1", "--retry", "--json")
    assert second.code == 0, second.err
    assert second.json["states"] == {"done": 3}
    states = {p["point"]: p for p in research("sweep", "status", file, "--json").json["points"]}
    assert [states[p]["attempts"] for p in points] == [1, 2, 2]


@pytest.mark.thorough
def test_points_of_other_code_are_stale_and_kept(place, research, monkeypatch):
    file = sweep({"seed_everything": {"values": [0]}})
    assert research("sweep", "run", file, "--threads", "1").code == 0
    (folder,) = [path for path in Path("runs").iterdir() if len(path.name) == 16]
    facts = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(facts | {"fingerprint": "0" * 16}))
    assert research("sweep", "status", file, "--json").json["points"][0]["state"] == "stale"
    assert "--rerun-stale" in research("sweep", "run", file, "--threads", "1").err
    assert research("sweep", "run", file, "--threads", "1", "--rerun-stale").code == 0
    assert research("sweep", "status", file, "--json").json["points"][0]["state"] == "done"
    assert Path(f"{folder}.stale-1/metrics.json").exists()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"model.adapter.rr": {"values": [1]}}, "'rr'|rr"),
        ({"model.adapter.r": {"values": ["many"]}}, "many"),
        ({"model.adapter.r": {"values": [0]}}, "adapter.r=0; expected 1 or more"),
        ({"data.limit": {"values": [None, 4]}}, "carries as the text None"),
        ({"seed_everything": {"values": [1, 1]}}, "expected each point once"),
        (
            {
                "model.adapter": {
                    "values": [
                        {
                            "class_path": "peft.PromptTuningConfig",
                            "init_args": {"task_type": "CAUSAL_LM", "num_virtual_tokens": 600},
                        }
                    ]
                }
            },
            "does not fit",
        ),
        ({"model.train_layers": {"values": [1]}}, r"an adapter \(LORA\) with train_layers"),
    ],
)
def test_each_planted_fault_is_refused_by_the_plan(parameters, says, place, research):
    import re

    result = research("sweep", "plan", sweep(parameters))
    assert result.code == 2
    assert re.search(says, result.err), result.err
    assert not Path("runs/plan.jsonl").exists()


def test_another_spelling_of_one_scale_is_warned_of(place, research):
    values = [{"r": 4, "lora_alpha": 4, "use_rslora": False}, {"r": 4, "lora_alpha": 2, "use_rslora": True}]
    result = research("sweep", "plan", sweep({"model.adapter": {"values": values}}))
    assert result.code == 0
    assert "computes what model.adapter={'r': 4, 'lora_alpha': 4, 'use_rslora': False} computes" in result.err
    Path("runs").rename("first")
    orders = [["q_proj", "v_proj"], ["v_proj", "q_proj"]]  # PEFT has no order of them
    result = research("sweep", "plan", sweep({"model.adapter.target_modules": {"values": orders}}))
    assert (result.code, "computes what model.adapter.target_modules=['q_proj', 'v_proj'] computes" in result.err) == (0, True)


def test_a_plan_of_36_points_is_quick(place, research):
    file = sweep({"model.adapter.r": {"values": [1, 2, 3, 4, 5, 6]}, "seed_everything": {"values": list(range(6))}})
    started = time.monotonic()
    assert len(research("sweep", "plan", file, "--json").json["points"]) == 36
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_two_hundred_points_in_a_kept_worker_cost_little_each(place, research):
    """Beside what the training itself takes: less than .3 s a point."""
    Path("sft.yaml").write_text(CONFIG.replace("max_steps: 2", "max_steps: 1"))
    file = sweep({"seed_everything": {"values": list(range(200))}})
    assert research("sweep", "plan", file).code == 0
    started = time.monotonic()
    result = process("sweep", "run", file, "--threads", "1", "--json", env={"TANDEM_CACHE": "cache"}, timeout=600)
    total = time.monotonic() - started
    assert result.json["states"] == {"done": 200}
    trained = sum(json.loads(path.read_text())["seconds"] for path in Path("runs").glob("*/metrics.json"))
    print(f"200 points: {total:.1f} s, of which training {trained:.1f} s: {(total - trained) / 200:.3f} s overhead a point")
    assert (total - trained) / 200 < 0.3


@pytest.mark.thorough
def test_data_that_changed_since_the_plan_are_not_trained_on(place, research):
    """While the sweep runs, say: a worker has its plan already."""
    file = sweep({"seed_everything": {"values": [0]}})
    assert research("sweep", "plan", file).code == 0
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(20)))
    process("sweep", "worker", file, env={"TANDEM_CACHE": "cache"})
    (one,) = research("sweep", "status", file, "--json").json["points"]
    assert (one["state"], one["attempts"], one["last"]["code"]) == ("failed", 1, 2)
    assert "have changed since; expected what was planned" in one["last"]["error"]
    result = research("sweep", "run", file, "--threads", "1", "--json")
    assert result.json["states"] == {"done": 1}  # planned anew


@pytest.mark.thorough
def test_a_random_sweep_with_four_workers_has_exactly_run_cap_trials(place, research):
    rates = {"model.optimisation.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}}
    file = sweep(rates | {"seed_everything": {"values": [0, 1]}}, method="random", run_cap=6)
    planned = research("sweep", "plan", file, "--json").json["points"]
    assert planned == research("sweep", "plan", file, "--json").json["points"]  # a function of the seed
    other = research("sweep", "plan", file, "--seed", 1, "--json").json["points"]
    assert not {p["point"] for p in planned} & {p["point"] for p in other}
    assert research("sweep", "plan", file, "--json").code == 0
    result = research("sweep", "run", file, "--workers", "4", "--threads", "1", "--json")
    assert result.json["states"] == {"done": 6}
    assert sorted(path.parent.name for path in Path("runs").glob("*/metrics.json")) == sorted(p["point"] for p in planned)
    for one in planned:
        config = yaml.safe_load((Path("runs") / one["point"] / "config.yaml").read_text())
        assert config["model"]["init_args"]["optimisation"]["lr"] == one["values"]["model.optimisation.lr"]


RATES = {
    "model.optimisation.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    "model.adapter.r": {"values": [1, 2, 4]},
}
BAYES = {"method": "bayes", "metric": {"name": "val/loss", "goal": "minimize"}}


def searched(research, folder: str, workers: int, **more) -> list[dict]:
    """The points of a bayes sweep, run in a folder of its own."""
    file = sweep(RATES, **BAYES, **more, command=[word.replace("runs", folder) for word in COMMAND], name=folder)
    result = research("sweep", "run", file, "--workers", str(workers), "--threads", "1", "--json")
    assert result.code == 0, result.err
    lines = (Path(folder) / "plan.jsonl").read_text().splitlines()
    assert result.json["states"] == {"done": len(lines)}
    return [json.loads(line) for line in lines]


@pytest.mark.thorough
def test_bayes_with_four_workers_has_exactly_run_cap_trials(place, research):
    points = searched(research, "four", 4, run_cap=6)
    assert len({one["point"] for one in points}) == 6
    assert sorted(path.parent.name for path in Path("four").glob("*/metrics.json")) == sorted(one["point"] for one in points)
    rows = research("sweep", "status", "sweep.yaml", "--json").json["points"]
    for one in rows:  # what the search learned from is what the run has measured
        history = [json.loads(line) for line in (Path("four") / one["point"] / "curves.jsonl").read_text().splitlines()]
        trained = [line["val/loss"] for line in history if "val/loss" in line and line["step"]]
        assert one["last"]["value"] == min(trained)  # the untrained model's is none of this point's doing
        assert one["attempts"] == 1


@pytest.mark.thorough
def test_bayes_with_one_worker_is_reproducible(place, research):
    first = searched(research, "first", 1, run_cap=4)
    again = [one["values"] for one in searched(research, "again", 1, run_cap=4)]
    assert [one["values"] for one in first] == again
    assert len({json.dumps(values) for values in again}) == 4
    longer = [
        one["values"] for one in searched(research, "first", 1, run_cap=5)
    ]  # a longer search goes on with the shorter one
    assert longer[:4] == again
    assert len(longer) == 5


def test_hyperband_prunes_what_lags_behind_and_says_so(place, research):
    Path("sft.yaml").write_text(CONFIG.replace("max_steps: 2", "max_steps: 8\n  val_check_interval: 1"))
    rates = [3e-2, 1e-2, 1e-9, 1e-8]  # the last two do not learn
    file = sweep(
        {"model.optimisation.lr": {"values": rates}},
        metric={"name": "val/loss", "goal": "minimize"},
        early_terminate={"type": "hyperband", "min_iter": 3, "eta": 2},
    )
    result = research("sweep", "run", file, "--threads", "1", "--json")
    assert result.code == 0, result.err
    assert result.json["states"] == {"pruned": 2, "done": 2}
    rows = research("sweep", "status", file, "--json").json["points"]
    assert [one["state"] for one in rows] == ["done", "done", "pruned", "pruned"]
    # the third is behind the second at three values (the untrained model's is the first); the fourth is as good as the third
    # there, and behind both others at six
    steps, pruned = [8, 8, 2, 5], [None, None, {"step": 2, "values": 3}, {"step": 5, "values": 6}]
    for one, taken, why in zip(rows, steps, pruned, strict=True):
        facts = json.loads((Path("runs") / one["point"] / "metrics.json").read_text())
        said = facts.get("pruned") and {name: facts["pruned"][name] for name in ("step", "values")}
        assert (facts["finished"], facts["steps"], said) == (True, taken, why)
    assert "is worse than" in facts["pruned"]["why"]
    assert research("sweep", "run", file, "--threads", "1", "--json").json["states"] == {"pruned": 2, "done": 2}
    assert {one["attempts"] for one in research("sweep", "status", file, "--json").json["points"]} == {1}


def test_a_sweep_ends_where_a_point_reaches_its_target(place, research):
    metric = {"name": "val/loss", "goal": "minimize", "target": 100.0}
    file = sweep({"seed_everything": {"values": [0, 1, 2]}}, metric=metric)
    assert research("sweep", "plan", file).code == 0
    assert research("sweep", "worker", file).code == 0
    assert states(research, file) == ["done", "missing", "missing"]
    result = research("sweep", "run", file, "--threads", "1", "--json")  # its workers find nothing to do
    assert (result.code, result.json["states"]) == (0, {"done": 1, "missing": 2})
    assert "metric.target=100 is reached: 2 points are not begun" in result.err
    sweep({"seed_everything": {"values": [0, 1, 2]}}, metric=metric | {"target": 0.0})
    assert research("sweep", "plan", file).code == 0
    assert research("sweep", "worker", file, "--index", "2").code == 0  # as a task of an array
    assert states(research, file) == ["done", "missing", "done"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({**BAYES}, "bayes without run_cap has no end"),
        ({**BAYES, "run_cap": 2, "metric": {"name": "val/lss"}}, r"metric 'val/lss' is not computed; expected one of val/loss"),
        (
            {
                "metric": {"name": "val/lss"},
                "method": "random",
                "run_cap": 2,
                "early_terminate": {"type": "hyperband", "min_iter": 2},
            },
            r"metric 'val/lss' is not computed",
        ),
        ({**BAYES, "run_cap": 2, "command": ["python", "train.py", "${args}"]}, "need to see val/loss while the command runs"),
        ({"method": "random"}, "random without run_cap has no end"),
        ({**BAYES, "run_cap": 2, "early_terminate": {"type": "hyperband", "max_iter": 9}}, "max_iter without s"),
        ({**BAYES, "run_cap": 2, "early_terminate": {"type": "hyperband", "min_iter": 0}}, "early_terminate.min_iter=0"),
    ],
)
def test_a_search_that_cannot_be_run_here_is_refused(more, says, place, research):
    import re

    result = research("sweep", "run", sweep(RATES, **more))
    assert result.code == 2
    assert re.search(says, result.err), result.err
    assert not Path("runs/plan.jsonl").exists()


def test_measured_steps_say_what_the_sweep_costs(place, research):
    values = [{"r": r, "lora_alpha": alpha} for r in (2, 4) for alpha in (2, 4)]
    file = sweep({"model.adapter": {"values": values}, "seed_everything": {"values": [0, 1]}})
    found = research("sweep", "plan", file, "--measure", "1", "--json").json
    assert found["cost"]["measured"] == 2  # alpha and seed cost nothing
    seconds = [one["seconds"] for one in found["points"]]
    assert len({*seconds}) <= 2
    assert found["cost"]["hours_in_kept_workers"] == pytest.approx(sum(seconds) / 3600)
    assert found["cost"]["hours"] == pytest.approx((sum(seconds) + 8 * found["cost"]["start_seconds"]) / 3600)
    assert not Path("runs").exists() or not list(Path("runs").glob("*/metrics.json"))
    assert "device-hours" in research("sweep", "plan", file, "--measure").out
    assert research("sweep", "plan", file, "--measure", "0").code == 2
    one = research("sweep", "plan", file, "--measure", "1", "--kinds", "1", "--json").json
    assert one["cost"]["measured"] == 1
    assert len({row["seconds"] for row in one["points"]}) == 1  # r of the other kind was not timed
    assert research("sweep", "plan", file, "--kinds", "1").code == 2
    assert "--kinds 0" in research("sweep", "plan", file, "--measure", "--kinds", "0").err
    foreign = research("sweep", "plan", sweep({"a": {"values": [1]}}, command=["true", "${args}"]), "--measure")
    assert foreign.code == 2
    assert "is no `research fit`" in foreign.err


@pytest.mark.slow
def test_the_measured_cost_of_twelve_points_is_theirs_within_a_quarter(place, research):
    """r × alpha × seed, 400 steps a point, a validation every 40."""
    Path("sft.yaml").write_text(
        CONFIG.replace("max_steps: 2", "max_steps: 400\n  max_epochs: -1\n  check_val_every_n_epoch: 10")
    )
    values = [{"r": r, "lora_alpha": alpha} for r in (2, 4) for alpha in (2, 4, 8)]
    file = sweep({"model.adapter": {"values": values}, "seed_everything": {"values": [0, 1]}})
    env = {"TANDEM_CACHE": "cache"}
    cost = process("sweep", "plan", file, "--measure", "20", "--threads", "1", "--json", env=env, timeout=300).json["cost"]
    result = process("sweep", "run", file, "--threads", "1", "--json", env=env, timeout=600)
    assert result.json["states"] == {"done": 12}
    rows = research("sweep", "status", file, "--json").json["points"]
    taken = sum(one["last"]["seconds"] for one in rows)
    expected = cost["hours_in_kept_workers"] * 3600 + cost["start_seconds"]
    print(f"12 points: {taken:.1f} s, expected {expected:.1f} s")
    assert abs(expected / taken - 1) < 0.25


@pytest.mark.thorough
def test_a_sweep_goes_on_without_w_and_b_s_process(place, research):
    """The service that wandb starts beside a training is killed on the way: the point is done, with the same numbers."""
    import os
    import signal
    import subprocess
    import sys

    killed: list[int] = []

    def services() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if b"wandb-core" in (path / "cmdline").read_bytes() and (path / "cwd").resolve() == place:
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def run(folder: str, tracked: str) -> list[dict]:
        steps = f"max_steps: 150\n  max_epochs: -1\nwandb: {tracked}"
        Path("sft.yaml").write_text(CONFIG.replace("wandb: disabled\n", "").replace("max_steps: 2", steps))
        file = sweep(
            {"seed_everything": {"values": [0]}}, name=folder, command=[word.replace("runs", folder) for word in COMMAND]
        )
        child = subprocess.Popen(
            [sys.executable, "-m", "research", "sweep", "run", file, "--threads", "1"],
            env=os.environ | {"TANDEM_CACHE": "cache"},
            stderr=subprocess.DEVNULL,
        )
        while tracked == "offline" and child.poll() is None:
            begun = [path for path in Path(folder).glob("*/curves.jsonl") if len(path.read_text().splitlines()) > 5]
            for service in services() if begun else []:
                os.kill(service, signal.SIGKILL)
                killed.append(service)
            time.sleep(0.02)
        assert child.wait(200) == 0
        plan = [json.loads(line)["point"] for line in (Path(folder) / "plan.jsonl").read_text().splitlines()]
        return [metrics(Path(folder) / point) for point in plan]

    quiet, disturbed = run("quiet", "disabled"), run("killed", "offline")
    assert killed
    assert disturbed == quiet


@pytest.mark.thorough
def test_a_search_that_was_refused_may_be_corrected(place, research):
    wrong = {"model.adapter.r": {"values": [0, 2]}}
    assert research("sweep", "run", sweep(wrong, **BAYES, run_cap=1)).code == 2
    assert not Path("runs").exists()
    result = run_sweep(research, sweep({"model.adapter.r": {"values": [1, 2]}}, **BAYES, run_cap=1))
    assert result.code == 0, result.err


def states(research, file: str) -> list[str]:
    return [one["state"] for one in research("sweep", "status", file, "--json").json["points"]]


def run_sweep(research, file: str):
    """In this process: only the workers start anew."""
    return research("sweep", "run", file, "--threads", "1", "--json")


@pytest.mark.thorough
def test_points_of_two_processes_are_those_of_fit(place, research):
    """DDP's second rank is started by the worker's own process: it must train the worker's point, not a point of its own."""
    Path("sft.yaml").write_text(CONFIG.replace("accelerator: cpu", "accelerator: cpu\n  devices: 2\n  strategy: ddp"))
    result = run_sweep(research, sweep({"seed_everything": {"values": [0, 1]}}))
    assert result.json["states"] == {"done": 2}, result.err
    for seed, line in enumerate(Path("runs/plan.jsonl").read_text().splitlines()):
        point = json.loads(line)["point"]
        options = ("-c", "sft.yaml", "--out", f"alone/{point}", f"--seed_everything={seed}")
        assert process("fit", *options, env={"OMP_NUM_THREADS": "1"}).code == 0
        assert metrics(Path("alone") / point) == metrics(Path("runs") / point)


@pytest.mark.thorough
def test_a_done_point_over_other_data_is_another_point(place, research):
    file = sweep({"seed_everything": {"values": [0]}})
    assert run_sweep(research, file).json["states"] == {"done": 1}
    first = json.loads(Path("runs/plan.jsonl").read_text())["point"]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(20)))
    again = run_sweep(research, file)
    assert again.json["states"] == {"done": 1}
    assert "changed since the plan" in again.err
    second = json.loads(Path("runs/plan.jsonl").read_text())["point"]
    assert second != first
    assert (Path("runs") / second / "metrics.json").exists()


def test_a_variable_of_the_environment_is_part_of_the_plan(place, research):
    value = sweep({"a": {"values": [1]}}, command=["sh", "-c", "echo $0 >> said.txt", "${envvar:WHAT}", "${args}"])
    for what in ("one", "two"):
        assert process("sweep", "run", value, env={"WHAT": what}).code == 0
    assert Path("said.txt").read_text().split() == ["one", "two"]


@pytest.mark.parametrize("out", [["--out", "runs/{point}/fit"], ["--out", "runs/exp-{point}"], ["--out", "runs"], []])
def test_a_command_without_a_folder_for_each_point_is_refused(out, place, research):
    result = research(
        "sweep",
        "plan",
        sweep({"seed_everything": {"values": [0]}}, command=["research", "fit", "-c", "sft.yaml", *out, "${args}"]),
    )
    assert result.code == 2
    assert "expected a folder for each point: --out runs/sweeps/tiny/{point}" in result.err


def test_a_folder_has_one_sweep(place, research):
    assert research("sweep", "plan", sweep({"seed_everything": {"values": [0]}})).code == 0
    result = research("sweep", "run", sweep({"seed_everything": {"values": [1]}}, name="other"))
    assert result.code == 2
    assert "is the folder of the sweep tiny" in result.err
    assert research("sweep", "plan", sweep({"seed_everything": {"values": [2]}})).code == 0  # the same, changed


@pytest.mark.thorough
def test_hyperband_compares_points_of_this_plan_alone(place, research):
    Path("sft.yaml").write_text(CONFIG.replace("max_steps: 2", "max_steps: 4\n  val_check_interval: 1"))
    rule = {"metric": {"name": "val/loss"}, "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 2}}
    assert run_sweep(research, sweep({"model.optimisation.lr": {"values": [3e-2, 2e-2]}}, **rule)).json["states"] == {"done": 2}
    result = run_sweep(research, sweep({"model.optimisation.lr": {"values": [1e-9]}}, **rule))
    assert result.json["states"] == {"done": 1}


@pytest.mark.thorough
def test_a_dry_run_changes_nothing(place, research):
    file = sweep({"seed_everything": {"values": [0]}})
    assert run_sweep(research, file).code == 0
    (folder,) = [path for path in Path("runs").iterdir() if len(path.name) == 16]
    facts = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(facts | {"fingerprint": "0" * 16}))
    before = sorted(Path().rglob("*")), Path("runs/ledger.jsonl").read_text()
    shown = research("sweep", "submit", file, "--rerun-stale", "--dry-run", "--seed", "7")
    assert "\nseed=7\n" in shown.out
    assert "array=0" in shown.out
    assert (sorted(Path().rglob("*")), Path("runs/ledger.jsonl").read_text()) == before


@pytest.mark.thorough
def test_a_pruned_point_whose_folder_is_gone_is_made_again(place, research):
    import shutil

    file = sweep({"seed_everything": {"values": [0]}})
    assert run_sweep(research, file).code == 0
    point = json.loads(Path("runs/plan.jsonl").read_text())["point"]
    from research.runs.ledger import Ledger

    Ledger(Path("runs")).append(point, "pruned")
    shutil.rmtree(Path("runs") / point)
    assert states(research, file) == ["missing"]
    assert run_sweep(research, file).json["states"] == {"done": 1}


def test_an_error_with_brackets_does_not_end_the_table(place, research):
    file = sweep({"seed_everything": {"values": [0]}})
    assert research("sweep", "plan", file).code == 0
    from research.runs.ledger import Ledger

    point = json.loads(Path("runs/plan.jsonl").read_text())["point"]
    Ledger(Path("runs")).append(point, "failed", error="[/__w/pytorch/gloo/pair.cc:534] [bold]Connection closed")
    shown = research("sweep", "status", file)
    assert shown.code == 0
    assert "/__w/pytorch/gloo/pair.cc:534]" in shown.out
    assert "[bold]Connection closed" in shown.out


@pytest.mark.thorough
def test_a_mapping_that_is_an_option_s_own_value_can_be_swept(place, research):
    values = [{"r": 2, "alpha_pattern": {"q_proj": 64}}, {"r": 2, "target_modules": [r".*\.q_proj", "v_proj"]}]
    found = research("sweep", "plan", sweep({"model.adapter": {"values": values[:1]}}), "--json")
    assert found.code == 0, found.err
    result = run_sweep(research, "sweep.yaml")
    assert result.code == 0, result.err
    point = found.json["points"][0]["point"]
    config = yaml.safe_load((Path("runs") / point / "config.yaml").read_text())
    assert config["model"]["init_args"]["adapter"]["init_args"]["alpha_pattern"] == {"q_proj": 64}


@pytest.mark.thorough
def test_what_one_point_sets_for_its_process_is_not_there_for_the_next(place, research):
    Path("told.py").write_text(
        "import lightning as L, torch\n\n\nclass Told(L.Callback):\n    def on_train_start(self, trainer, module):\n"
        "        with open('flags.txt', 'a') as stream:\n"
        "            print(torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, file=stream)\n"
    )
    text = CONFIG.replace("accelerator: cpu", "accelerator: cpu\n  callbacks: [{class_path: told.Told}]")
    Path("sft.yaml").write_text(text)
    values = [{"max_steps": 1}, {"deterministic": True, "benchmark": True, "max_steps": 2}, {"max_steps": 3}]
    result = process(
        "sweep",
        "run",
        sweep({"trainer": {"values": values}}),
        "--threads",
        "1",
        env={"TANDEM_CACHE": "cache", "PYTHONPATH": f"{place}:{Path(__file__).parents[2]}"},
    )
    assert result.code == 0, result.err
    assert Path("flags.txt").read_text().splitlines() == ["False False", "True True", "False False"]


@pytest.mark.thorough
def test_a_point_that_other_code_finished_is_stale(place, research):
    import signal
    import subprocess
    import sys

    Path("sft.yaml").write_text(CONFIG.replace("max_steps: 2", f"max_steps: 20\n  max_epochs: -1{CALLBACK}"))
    file = sweep({"seed_everything": {"values": [0]}})
    child = subprocess.Popen(
        [sys.executable, "-m", "research", "sweep", "run", file, "--threads", "1"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not list(Path("runs").glob("*/curves.jsonl")):
        time.sleep(0.1)
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    assert child.wait(120) == 85
    assert states(research, file) == ["preempted"]
    (folder,) = [path for path in Path("runs").iterdir() if len(path.name) == 16]
    facts = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(facts | {"fingerprint": "0" * 16}))
    # and the data, spelled otherwise, are the same data
    Path("sft.yaml").write_text(Path("sft.yaml").read_text().replace("train: rows.jsonl", f"train: {place}/rows.jsonl"))
    result = run_sweep(research, file)
    assert result.code == 0, result.err
    assert "counts as stale" in next(Path("runs/logs").glob("????????????????.log")).read_text()
    assert states(research, file) == ["stale"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("parameters: {a: {values: [2024-01-01]}}", "has the value 2024-01-01"),
        ("metric: loss", "metric is 'loss'"),
        ("early_terminate: 3", "early_terminate.type is 3"),
        ("run_cap: true", "run_cap=True"),
        ("name: ../../evil", "expected a name"),
        ("parameters: {a: {values: [1], probabilities: 3}}", "probabilities=3"),
        ("parameters: {a: {distribution: [x]}}", r"the distribution \['x'\]"),
        ("parameters: {a: {distribution: int_uniform, min: 0.5, max: 2}}", "expected whole numbers"),
    ],
)
def test_malformed_sweeps_are_refused_in_words(text, says, place, research):
    import re

    value = {"method": "grid", "name": "tiny", "command": COMMAND, "parameters": {"a": {"values": [1]}}}
    Path("sweep.yaml").write_text(yaml.safe_dump(value | yaml.safe_load(text)))
    result = research("sweep", "plan", "sweep.yaml")
    assert result.code == 2
    assert re.search(says, result.err), result.err


@pytest.mark.thorough
def test_a_point_that_is_stopped_after_its_last_step_is_validated_when_it_goes_on(place):
    """As straight: the same best model and metrics."""
    Path("stop.py").write_text(
        "import os, signal, lightning as L\n\n\nclass Stop(L.Callback):\n    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 2 and os.environ.get('STOP'):\n            os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    Path("sft.yaml").write_text(CONFIG.replace("accelerator: cpu", "accelerator: cpu\n  callbacks: [{class_path: stop.Stop}]"))
    path = {"PYTHONPATH": f"{place}:{Path(__file__).parents[2]}"}
    assert process("fit", "-c", "sft.yaml", "--out", "straight", env=path).code == 0
    assert process("fit", "-c", "sft.yaml", "--out", "stopped", env=path | {"STOP": "1"}).code == 85
    assert "going on from" in process("fit", "-c", "sft.yaml", "--out", "stopped", env=path).err
    assert metrics(Path("stopped")) == metrics(Path("straight"))
    assert metrics(Path("stopped"))["metrics"]


@pytest.mark.thorough
def test_a_sweep_says_what_its_points_were_warned_of(place, research):
    Path("sft.yaml").write_text(CONFIG.replace("max_length: 128", "max_length: 34"))
    result = run_sweep(research, sweep({"seed_everything": {"values": [0, 1]}}))
    assert result.code == 0, result.err
    assert "2 of 2 points: warning: train" in result.err
    assert "2 of 2 points are to be run, by 1 process;" in result.err


def test_a_plan_says_a_warning_of_all_its_points_once(place, research):
    planned = research("sweep", "plan", sweep({"seed_everything": {"values": [0, 1, 2]}}))
    assert (planned.code, planned.err.count("warning:")) == (0, 1), planned.err
    assert "3 of 3 points: warning: 5 of the 5 rows of val.jsonl (val) are trained on too" in planned.err


def test_a_run_says_which_point_ended_with_what_and_how_long_the_rest_takes(place, research):
    import re

    file = sweep({"model.adapter": R_ALPHA["model.adapter"]}, metric={"name": "val/loss", "goal": "minimize"})
    fresh = research("sweep", "plan", file).out
    assert "2 points, a seed each (seed_everything is not swept); all can be run" in fresh
    assert "none is begun, 2 to run; " in fresh
    ran = process("sweep", "run", file, "--threads", "1", env={"TANDEM_CACHE": "cache"})
    assert ran.code == 0, ran.err
    first, second = [json.loads(line)["point"] for line in Path("runs/plan.jsonl").read_text().splitlines()]
    ended = r" \({}\) done in [\d.]+ s, val/loss=\d\.\d{{4}}$"
    assert f"r=2 ({first}) is running" in ran.err or "1 of 2" in ran.err
    assert re.search(r"^1 of 2, about [\d.]+ s left: r=2" + ended.format(first), ran.err, re.MULTILINE), ran.err
    assert re.search(r"^2 of 2: r=4" + ended.format(second), ran.err, re.MULTILINE), ran.err
    told = research("sweep", "plan", file, "--json").json
    assert (told["settings"], told["seeds"], told["states"]) == (2, 0, {"done": 2})
    assert "2 done, 0 to run; " in research("sweep", "plan", file).out
    lines = research("sweep", "status", file).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "2 done"
    assert "{'r': 2, 'lora_alpha': 4}" in research("sweep", "status", file, "--wide").out


def test_a_point_that_another_command_has_finished_is_done(place, research):
    """As W&B's agents finish them: `fit --out …/{point}`, which notes nothing in the ledger."""
    file = sweep({"model.adapter.r": {"values": [2, 4]}}, metric={"name": "val/loss", "goal": "minimize"})
    first, second = [one["point"] for one in research("sweep", "plan", file, "--json").json["points"]]
    assert research("fit", "-c", "sft.yaml", "--out", "runs/{point}", "--model.adapter.r=4").code == 0
    told = research("sweep", "status", file, "--json").json
    assert told["states"] == {"missing": 1, "done": 1}
    assert [one["point"] for one in told["points"] if one["state"] == "done"] == [second]
    (noted,) = [one["last"] for one in told["points"] if one["state"] == "done"]
    loss = json.loads(Path("runs", second, "metrics.json").read_text())["metrics"]["loss"]
    assert noted["value"] == pytest.approx(loss)
    assert not Path("runs/ledger.jsonl").exists()  # to look changes nothing
    assert "1 done, 1 to run; " in research("sweep", "plan", file).out
    assert "#SBATCH --array=0\n" in research("sweep", "submit", file, "--dry-run").out
    assert not Path("runs/ledger.jsonl").exists()
    facts = json.loads(Path("runs", second, "provenance.json").read_text())
    Path("runs", second, "provenance.json").write_text(json.dumps(facts | {"fingerprint": "0" * 16}))
    assert research("sweep", "status", file, "--json").json["states"] == {"missing": 1, "stale": 1}
    Path("runs", second, "provenance.json").write_text(json.dumps(facts))
    # `run` and `submit` note it, and leave it alone
    from research.runs.locks import exclusive
    from research.runs.plan import read_plan
    from research.sweeps.points import Again, begin_again
    from research.sweeps.spec import read_sweep

    assert begin_again(read_sweep(Path(file)), Path("runs"), read_plan(Path("runs")), Again(False, False)) == []
    (event,) = map(json.loads, Path("runs/ledger.jsonl").read_text().splitlines())
    assert (event["point"], event["state"], event["reason"]) == (second, "done", "finished by another command")
    with exclusive(Path("runs", first)):  # as a command that trains it now does
        assert research("sweep", "status", file, "--json").json["states"] == {"running": 1, "done": 1}
        left = research("sweep", "worker", file)
        assert (left.code, f"{first} is being trained by another command" in left.err) == (0, True), left.err
    assert research("sweep", "status", file, "--json").json["states"] == {"missing": 1, "done": 1}
    assert research("sweep", "worker", file).code == 0
    assert research("sweep", "status", file, "--json").json["states"] == {"done": 2}
    assert [p["attempts"] for p in research("sweep", "status", file, "--json").json["points"]] == [1, 0]


def test_status_of_points_that_w_and_b_s_server_chooses_counts_the_runs(place, research):
    choosing = {"method": "random", "parameters": {"model.optimisation.lr": {"min": 1e-4, "max": 1e-2}}}
    Path("sweep.yaml").write_text(yaml.safe_dump(choosing | {"command": COMMAND}))
    assert "runs holds 0 runs" in research("sweep", "status", "sweep.yaml").out
    assert research("fit", "-c", "sft.yaml", "--out", "runs/{point}", "--model.optimisation.lr=3e-3").code == 0
    told = research("sweep", "status", "sweep.yaml")
    assert (told.code, "runs holds 1 run, 1 of them finished; `research report runs`" in told.out) == (0, True), told.err
    assert research("sweep", "status", "sweep.yaml", "--json").json["states"] == {"done": 1}


def test_status_says_that_the_sweep_has_changed(place, research):
    assert research("sweep", "plan", sweep({"seed_everything": {"values": [0]}})).code == 0
    assert "have changed since the plan" not in research("sweep", "status", "sweep.yaml").err
    sweep({"seed_everything": {"values": [1]}})
    assert "have changed since the plan" in research("sweep", "status", "sweep.yaml").err


def test_what_a_source_makes_is_checked_before_it_is_written(tmp_path, research, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sweeps/src").mkdir(parents=True)
    source = Path("sweeps/src/a.yaml")
    source.write_text("method: bayes\nrun_cap: 3\nconfigs: [c.yaml]\nparameters: {lr: {values: [1]}}\n")
    result = research("sweep", "compile", source)
    assert result.code == 2
    assert "sweeps/src/a.yaml: bayes without a metric" in result.err
    assert not Path("sweeps/a.yaml").exists()
    source.write_text(source.read_text().replace("method: bayes", "method: grid"))
    assert research("sweep", "compile", source).code == 0
    assert "was made by compile itself" in research("sweep", "compile", "sweeps/a.yaml").err
    Path("b.yaml").write_text(source.read_text())
    assert "is in no folder src/" in research("sweep", "compile", "b.yaml").err
    refused = research("sweep", "compile", "b.yaml", "--out", ".")
    assert (refused.code, "which would be overwritten" in refused.err) == (2, True)
    assert Path("b.yaml").read_text() == source.read_text()


STEPS = {
    "compile": ("--check", "--workers"),
    "plan": ("--measure", "--partition"),
    "run": ("--workers", "--partition"),
    "submit": ("--partition", "--workers"),
    "status": ("--json", "--seed_everything"),
}


@pytest.mark.parametrize("step", STEPS)
def test_each_step_has_a_page_and_options_of_its_own(step, research, capsys):
    theirs, others = STEPS[step]
    with pytest.raises(SystemExit, match="0"):
        research("sweep", step, "--help")
    page = capsys.readouterr().out
    assert f"usage: research sweep {step} " in page
    assert theirs in page
    assert others not in page
    refused = research("sweep", step, "sweep.yaml", others)
    assert (refused.code, f"unknown option {others}" in refused.err) == (2, True)
    assert f"See `research sweep {step} --help`" in refused.err


def test_the_step_comes_first(research, capsys):
    with pytest.raises(SystemExit, match="0"):
        research("sweep", "--help")
    assert "research sweep STEP --help" in capsys.readouterr().out
    assert "expected `research sweep STEP FILE`" in research("sweep", "--json", "plan", "sweep.yaml").err
    assert "did you mean 'plan'" in research("sweep", "plann", "sweep.yaml").err
