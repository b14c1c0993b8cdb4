"""Processes of a cluster and devices of a configuration: what goes together, and what would train a point twice."""

import pytest

from research.errors import UserError
from research.runs.plan import PlannedPoint
from research.sweeps.ranks import check_ranks


def point(num_nodes: int, devices: object, accelerator: str = "auto") -> PlannedPoint:
    return PlannedPoint(
        "a", {"r": 4}, [], {"trainer": {"num_nodes": num_nodes, "devices": devices, "accelerator": accelerator}}
    )


@pytest.mark.parametrize(
    ("trained", "given"),
    [
        ((1, 1), (1, 1, None)),
        ((1, 1), (1, 1, 1)),
        ((1, "auto"), (1, 1, 1)),
        ((1, "auto"), (1, 4, 4)),
        ((1, -1), (1, 4, 4)),
        ((2, 4), (2, 4, 4)),
        ((1, [0, 1]), (1, 2, 2)),
        ((2, 2, "cpu"), (2, 2, None)),
    ],
)
def test_as_many_processes_as_devices_are_taken(trained, given, capsys):
    check_ranks([point(*trained)], *given)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("trained", "given", "cure"),
    [
        ((1, 1), (2, 1, 1), "Leave them out, or --set trainer.num_nodes=2 --set trainer.devices=1."),
        ((1, 1), (1, 2, 2), "Leave them out, or --set trainer.num_nodes=1 --set trainer.devices=2."),
        ((1, "auto"), (2, 1, None), "Leave them out, or --set trainer.num_nodes=2"),
        ((1, 2), (1, 1, 2), "Pass --nodes 1 --tasks-per-node 2, or --set trainer.num_nodes=1 --set trainer.devices=1."),
        ((2, 2), (1, 4, 4), "Pass --nodes 2 --tasks-per-node 2, or"),
        ((1, [0, 1]), (1, 1, 1), "Pass --nodes 1 --tasks-per-node 2, or"),
        ((1, 2, "gpu"), (1, 2, 1), "Pass --gpus-per-node 2."),
    ],
)
def test_other_processes_than_the_ranks_of_one_training_are_refused(trained, given, cure):
    with pytest.raises(UserError, match="r=4") as error:
        check_ranks([point(*trained)], *given)
    assert cure in str(error.value)


def test_a_pod_starts_the_ranks_of_its_one_node():
    check_ranks([point(1, 4)], 1, 1, 4, starts=False)
    with pytest.raises(UserError, match="expected one node"):
        check_ranks([point(2, 4)], 1, 1, 4, starts=False)


@pytest.mark.parametrize(
    ("trained", "gpus", "says"),
    [
        ((1, 1), 2, "--gpus-per-node 2 beside trainer.devices: 1: 1 of the GPUs of each node would idle (3 of 3 points)"),
        ((1, 1, "cpu"), 1, "--gpus-per-node 1 beside trainer.accelerator: cpu: 1 of the GPUs of each node would idle"),
    ],
)
def test_gpus_that_would_idle_are_announced_once(trained, gpus, says, capsys):
    check_ranks([point(*trained)] * 3, 1, 1, gpus)
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {says}")
    assert said.count("\n") == 1
