"""A sweep on a real SLURM: killed, preempted, out of time, requeued by hand; each point is done once all the same."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.e2e.fitting import process
from tests.e2e.test_sweep import CONFIG
from tests.lm import rows, save_tiny


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    save_tiny(tmp_path / "lm")
    for name, count in (("rows", 64), ("val", 5)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    return tmp_path


def written(steps: int, folder: str, points: list[dict]) -> str:
    """A sweep of r × alpha × seed whose points take `steps` steps, slow enough to be interrupted."""
    Path("sft.yaml").write_text(
        CONFIG.replace("max_steps: 2", f"max_steps: {steps}\n  max_epochs: -1")
        .replace("out: run\n", "out: run\nsave_every: 20\n")
        .replace("wandb: disabled", "wandb: offline")
    )
    value = {
        "method": "grid",
        "name": f"tiny-{folder}",
        "parameters": {"model.adapter": {"values": points}, "seed_everything": {"values": [0, 1]}},
        "command": ["research", "fit", "-c", "sft.yaml", "--out", f"{folder}/{{point}}", "${args}"],
    }
    Path(f"{folder}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return f"{folder}.yaml"


POINTS = [{"r": r, "lora_alpha": alpha} for r in (2, 4) for alpha in (2, 4, 8)]


def result(folder: Path) -> dict:
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name != "seconds"}


def steps_of(folder: Path) -> int:
    path = folder / "curves.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def kill_with_script(folder: Path, task: str) -> None:
    """As a node that fails for a moment: nobody requeues the task."""
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    worker = [event["pid"] for event in map(json.loads, lines) if event["job"] == task][-1]
    script = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    for process_id in (script, worker):
        os.kill(process_id, signal.SIGKILL)


@pytest.mark.thorough
def test_twelve_points_disturbed_are_those_of_an_undisturbed_run(slurm, place, research):
    steps = 400
    local, cluster = written(steps, "local", POINTS), written(steps, "cluster", POINTS)
    quiet = process("sweep", "run", local, "--workers", "2", "--threads", "1", "--json", timeout=500)
    assert quiet.code == 0, quiet.err
    submitted = research("sweep", "submit", cluster, "--throttle", "3", "--time", "1:30", "--warning", "30", "--json")
    assert submitted.code == 0, submitted.err
    array = submitted.json["array"]
    points = [json.loads(line)["point"] for line in Path("cluster/plan.jsonl").read_text().splitlines()]

    def running(at_least: int = 1) -> list[str]:
        found = [task for task, state in slurm.states(array).items() if state == "RUNNING"]
        return [task for task in found if steps_of(Path("cluster") / points[int(task)]) >= at_least]

    def preemptions() -> list[str]:
        events = [json.loads(line) for line in Path("cluster/ledger.jsonl").read_text().splitlines()]
        return [event["point"] for event in events if event["state"] == "preempted"]

    slurm.until(lambda: len(running()) >= 2, 120, "no task runs")
    killed, by_hand = running()[:2]
    kill_with_script(Path("cluster"), f"{array}_{killed}")  # not by `scancel`, which is the user's wish to end it
    slurm.ask("scontrol", "requeue", f"{array}_{by_hand}")
    # a job of higher priority takes both nodes: what runs is preempted, unless it ends in the seconds before
    told = len(preemptions())
    Path("high.sh").write_text("#!/bin/bash\nsleep 5\n")

    def preempted() -> bool:
        slurm.hurry()
        if running() and not slurm.ask("squeue", "-h", "--name=high.sh", "-t", "PD,R,CG").strip():
            slurm.ask("sbatch", "--partition=high", "--nodes=2", "--exclusive", "high.sh")
        return len(preemptions()) > told

    slurm.until(preempted, 240, "nothing was preempted")

    def finished() -> bool:
        slurm.hurry()
        return Path("cluster/finished.json").exists()

    slurm.until(finished, 480, "the last job has not come")
    assert json.loads(Path("cluster/finished.json").read_text())["states"] == {"done": 12}
    report = json.loads(Path("cluster/report/report.json").read_text())  # after the last point, and of all of them
    assert [one["point"] for one in report["trainings"]] == points
    status = research("sweep", "status", cluster, "--json").json
    assert [p["state"] for p in status["points"]] == ["done"] * 12
    events = [json.loads(line) for line in Path("cluster/ledger.jsonl").read_text().splitlines()]
    for i, point in enumerate(points):
        assert result(Path("cluster") / point) == result(Path("local") / point), point  # bitwise
        name = "model/adapter_model.safetensors"
        assert (Path("cluster") / point / name).read_bytes() == (Path("local") / point / name).read_bytes()
        states = [event["state"] for event in events if event["point"] == point]
        assert states.count("done") == 1, states
        assert json.loads((Path("cluster") / point / "wandb.json").read_text())["id"] == point  # one W&B run a point
        if str(i) in (killed, by_hand) or point in preemptions():
            assert states.count("running") > 1, (i, states)
    starts = {point: [e["job"] for e in events if e["point"] == point and e["state"] == "running"] for point in points}
    assert len({job for jobs in starts.values() for job in jobs}) >= 12


@pytest.mark.thorough
def test_a_point_out_of_time_saves_and_goes_on(slurm, place, research):
    """A limit of one minute, a training of more: the warning saves, the task is requeued, no step is lost or repeated."""
    file = written(5000, "long", POINTS[:1])
    submitted = research("sweep", "submit", file, "--time", "1", "--warning", "40", "--json")
    assert submitted.code == 0, submitted.err
    points = [json.loads(line)["point"] for line in Path("long/plan.jsonl").read_text().splitlines()]
    folder = Path("long") / points[0]

    def preempted() -> bool:
        path = Path("long/ledger.jsonl")
        events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return any(event["state"] == "preempted" for event in events)

    slurm.until(preempted, 150, "no warning has come")
    before = steps_of(folder)
    slurm.until(lambda: slurm.hurry() or steps_of(folder) > before + 50, 150, "it has not gone on")
    slurm.ask("scancel", "--user=root")
    time.sleep(3)
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    train = [line["step"] for line in lines if "train/loss" in line]
    assert train == list(range(1, len(train) + 1))  # each step once


@pytest.mark.thorough
def test_a_cancelled_sweep_stays_so_and_a_queued_point_is_submitted_once(slurm, place, research):
    """A task that runs when `scancel` comes saves and is not requeued; the job after the array submits nothing again."""
    file = written(5000, "ended", POINTS[:2])
    submitted = research("sweep", "submit", file, "--throttle", "1", "--json")
    assert submitted.code == 0, submitted.err
    array = submitted.json["array"]
    again = research("sweep", "submit", file)
    assert again.out == f"4 points are queued in array {array} already; nothing to submit\n"
    points = [json.loads(line)["point"] for line in Path("ended/plan.jsonl").read_text().splitlines()]
    slurm.until(lambda: steps_of(Path("ended") / points[0]) > 2, 120, "no step was taken")
    slurm.ask("scancel", array)
    slurm.until(lambda: Path("ended/finished.json").exists(), 120, "the last job has not come")
    assert {*slurm.states(array).values()} == {"CANCELLED"}
    facts = json.loads(Path("ended/finished.json").read_text())
    assert (facts["states"], facts["rounds"]) == ({"missing": 3, "preempted": 1}, 1)
    assert (Path("ended") / points[0] / "checkpoints.json").exists()
    assert f"4 tasks of array {array} were cancelled" in "".join(
        p.read_text() for p in Path("ended/logs").glob("slurm-finish*")
    )
    third = research("sweep", "submit", file, "--json").json  # it may go on
    assert (third["points"], third["queued"]) == (4, 0)
    slurm.ask("scancel", third["array"], third["finish"])


@pytest.mark.thorough
def test_a_search_through_an_array_has_exactly_run_cap_points(slurm, place, research):
    """Tasks propose their points themselves, two at a time."""
    Path("sft.yaml").write_text(CONFIG)
    value = {
        "method": "bayes",
        "name": "search",
        "run_cap": 4,
        "metric": {"name": "val/loss"},
        "parameters": {"model.optimisation.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1}},
        "command": ["research", "fit", "-c", "sft.yaml", "--out", "search/{point}", "${args}"],
    }
    Path("search.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    refused = research("sweep", "submit", "search.yaml", "--nodes", "2")
    assert refused.code == 2
    assert "expected one task a point" in refused.err
    submitted = research("sweep", "submit", "search.yaml", "--throttle", "2", "--json")
    assert submitted.json["points"] == 4, submitted.err
    slurm.until(lambda: slurm.hurry() or Path("search/finished.json").exists(), 240, "the last job has not come")
    facts = json.loads(Path("search/finished.json").read_text())
    assert (facts["states"], facts["rounds"]) == ({"done": 4}, 1)
    rows = research("sweep", "status", "search.yaml", "--json").json["points"]
    assert len({one["last"]["job"] for one in rows}) == 4
    assert research("sweep", "submit", "search.yaml").out.startswith("all 4 points")


def test_submit_shows_its_scripts_and_refuses_what_slurm_refuses(slurm, place, research):
    file = written(2, "dry", POINTS)
    Path("sft.yaml").write_text(f"{Path('sft.yaml').read_text()}  num_nodes: 2\n")
    options = ("--throttle 4 --time 2:00:00 --gpus-per-node 1 --nodes 2 --tasks-per-node 1 --sbatch=--qos=x").split()
    shown = research("sweep", "submit", file, "--dry-run", *options, "--setup", "module load cuda").out
    head = ("array=0-11%4", "time=2:00:00", "gres=gpu:1", "nodes=2", "qos=x", "dependency=afterany:ARRAY", "signal=B:USR1@120")
    for line in (*(f"#SBATCH --{option}" for option in head), "module load cuda", "srun --kill-on-bad-exit=1"):
        assert line in shown
    assert not Path("dry/submit").exists()
    result = research("sweep", "submit", file, "--partition", "nowhere", "--nodes", "2")
    assert result.code == 2
    assert "sbatch refuses" in result.err
    assert "--partition" in result.err
