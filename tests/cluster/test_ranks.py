"""A point that DDP trains, over tasks of one node and over nodes: stopped and gone on, it is what two devices compute."""

import json
from pathlib import Path

import pytest
import yaml

from tests.cluster.test_slurm import place, result, steps_of  # noqa: F401 (a fixture)
from tests.e2e.fitting import process
from tests.e2e.test_sweep import CONFIG
from tests.slow import CALLBACK

STEPS = 20
CASES = {"tasks": (1, 2), "nodes": (2, 1)}


def written(folder: str, nodes: int, devices: int) -> str:
    """A sweep of one point that `nodes` × `devices` processes train."""
    trainer = f"max_steps: {STEPS}\n  max_epochs: -1\n  strategy: ddp\n  num_nodes: {nodes}\n  devices: {devices}"
    trainer += CALLBACK
    text = CONFIG.replace("max_steps: 2", trainer)
    Path(f"{folder}-sft.yaml").write_text(text)
    value = {
        "method": "grid",
        "name": folder,
        "parameters": {"seed_everything": {"values": [0]}},
        "command": ["research", "fit", "-c", f"{folder}-sft.yaml", "--out", f"{folder}/{{point}}", "${args}"],
    }
    Path(f"{folder}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return f"{folder}.yaml"


def events(folder: str) -> list[dict]:
    path = Path(folder, "ledger.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def curve(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.thorough
def test_a_stopped_point_of_two_ranks_is_that_of_two_local_devices(slurm, place, research):  # noqa: F811
    written("alone", 1, 2)
    local = process("fit", "-c", "alone-sft.yaml", "--out", "alone/run", "--seed_everything=0")
    assert local.code == 0, local.err
    for name, (nodes, tasks) in CASES.items():
        options = ("--nodes", nodes, "--tasks-per-node", tasks, "--json")
        submitted = research("sweep", "submit", written(name, nodes, tasks), *options)
        assert submitted.code == 0, submitted.err
        (planned,) = [json.loads(line) for line in Path(name, "plan.jsonl").read_text().splitlines()]
        folder = Path(name, planned["point"])
        slurm.until(lambda folder=folder: steps_of(folder) > 2, 90, "no step was taken")
        if name == "tasks":  # the script gets TERM alone: srun would make KILL of it
            slurm.ask("scancel", "--signal=TERM", "--batch", f"{submitted.json['array']}_0")
        else:  # a job of higher priority takes both nodes
            Path("high.sh").write_text("#!/bin/bash\nsleep 1\n")
            slurm.ask("sbatch", "--partition=high", "--nodes=2", "--exclusive", "high.sh")
        slurm.until(lambda name=name: slurm.hurry() or Path(name, "finished.json").exists(), 120, f"{name} has not ended")
        finished = json.loads(Path(name, "finished.json").read_text())
        assert (finished["states"], finished["rounds"]) == ({"done": 1}, 1)
        # the first rank keeps the books, alone
        found = [event["state"] for event in events(name)]
        assert found == ["running", "preempted", "running", "done"], Path(name, f"logs/{planned['point']}.log").read_text()
        assert curve(folder) == curve(Path("alone/run"))  # each step once, with the numbers of both ranks
        assert result(folder) == result(Path("alone/run"))
        weights = "model/adapter_model.safetensors"
        assert (folder / weights).read_bytes() == Path("alone/run", weights).read_bytes()
