"""W&B's agents on a real SLURM: one trial a task, each handed out once; the one that is stopped goes on as the same W&B run."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.test_slurm import place, steps_of  # noqa: F401 (a fixture)
from tests.e2e.test_sweep import CONFIG
from tests.e2e.test_wandb_agent import COMMAND, StandIn, agents_environment, serve  # noqa: F401 (a fixture)
from tests.slow import CALLBACK

STEPS = 30


@pytest.mark.thorough
def test_an_array_of_agents_runs_each_trial_to_its_end(slurm, place, research, serve, monkeypatch):  # noqa: F811
    text = CONFIG.replace("max_steps: 2", f"max_steps: {STEPS}\n  max_epochs: -1{CALLBACK}").replace("disabled", "offline")
    Path("sft.yaml").write_text(text)
    value = {"method": "grid", "name": "agents", "parameters": {"seed_everything": {"values": [0, 1]}}, "command": COMMAND}
    Path("sweep.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    points = [one["point"] for one in research("sweep", "plan", "sweep.yaml", "--json").json["points"]]
    server = StandIn(Path("sweep.yaml"))
    for name, setting in agents_environment(serve(server)).items():
        monkeypatch.setenv(name, setting)
    submitted = research("sweep", "submit", "sweep.yaml", "--wandb", "me/project/sw", "--throttle", "2", "--json")
    assert submitted.code == 0, submitted.err
    assert submitted.json["trials"] == 2
    array = submitted.json["array"]
    script = Path("agent/submit/agents-sw.sh")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0

    def logs() -> str:
        return "\n".join(path.read_text() for path in sorted(Path("agent/logs").glob("slurm-*")))

    def begun() -> list[str]:
        return [point for point in points if 2 < steps_of(Path("agent", point)) < STEPS - 5]

    slurm.until(begun, 90, f"no trial has begun: {logs()}")
    (stopped,) = begun()[:1]
    files = Path("agent/agents/sw").glob("*/wandb/sweep-sw/config-*.yaml")
    seeds = {path.parts[3]: yaml.safe_load(path.read_text())["seed_everything"]["value"] for path in files}
    (task,) = [task for task, seed in seeds.items() if seed == points.index(stopped)]
    slurm.ask("scancel", "--signal=USR1", "--batch", task)

    def done() -> bool:
        slurm.hurry()
        states = slurm.states(array)
        return len(states) == 2 and set(states.values()) == {"COMPLETED"}

    slurm.until(done, 180, "the array has not ended")
    assert server.points == []  # each trial was handed out, and no agent asked for more than one
    for i, point in enumerate(points):
        folder = Path("agent", point)
        assert json.loads((folder / "metrics.json").read_text())["finished"], logs()
        assert json.loads((folder / "wandb.json").read_text())["id"] == f"server{i}"
        lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, STEPS + 1))
        # a start a process: the stopped one has two, and both are the run that the server has made
        assert len(list(folder.glob(f"wandb/offline-run-*-server{i}"))) == (2 if point == stopped else 1), logs()
        assert len(list(folder.glob("wandb/offline-run-*"))) == (2 if point == stopped else 1)
    assert "signal SIGUSR1: stopping after this step" in logs()
    assert f"agent/{stopped}: going on from" in logs()
    assert sorted(path.name for path in Path("agent/agents/sw").iterdir()) == [f"{array}_{i}" for i in range(2)]
