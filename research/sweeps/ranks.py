"""Whether the processes and GPUs that a cluster gives to a point are those that its configuration trains with."""

from collections.abc import Sequence

from research.errors import UserError
from research.progress import say
from research.runs.plan import PlannedPoint
from research.sweeps.folder import as_text
from research.types import Json

ON_GPUS = ("gpu", "cuda")


def check_ranks(points: Sequence[PlannedPoint], nodes: int, tasks_per_node: int, gpus: int | None, starts: bool = True) -> None:
    """Refuse processes that would not be the ranks of one training; warn of GPUs that would idle.

    Lightning takes each process that SLURM starts for a rank: with too many of them each would train the whole point, with too
    few it ends or waits for ever.

    Args:
        points: of a plan; those that are no training of ours are not looked at.
        nodes, tasks_per_node: that a point gets; a process a task.
        gpus: of each node; None: not said.
        starts: the cluster starts the ranks; False: Lightning starts those of a node itself.

    Raises:
        UserError: a point trains with another number of processes, or with more GPUs.
    """
    warnings: dict[str, int] = {}
    for planned in points:
        trainer = planned.facts.get("trainer")
        if not isinstance(trainer, dict):  # not a training of ours
            continue
        num_nodes, devices, kind = trainer["num_nodes"], _count(trainer["devices"]), trainer["accelerator"]
        given = tasks_per_node if starts else devices
        if num_nodes != nodes or (devices is not None and devices != given):
            options = f"--nodes {num_nodes}" + ("" if devices is None else f" --tasks-per-node {devices}")
            expected = "one node" if not starts else "as many processes on as many nodes"
            cure = f"Pass {options}, or --set" if starts and (num_nodes, devices or 1) != (1, 1) else "Leave them out, or --set"
            raise UserError(
                f"{as_text(planned.values)} trains with trainer.num_nodes: {num_nodes} and trainer.devices: "
                f"{trainer['devices']}, and would get {nodes} × {tasks_per_node} processes (--nodes {nodes} --tasks-per-node "
                f"{tasks_per_node}); expected {expected}. {cure} trainer.num_nodes={nodes} --set trainer.devices="
                f"{tasks_per_node}."
            )
        if gpus and devices is not None and kind in ON_GPUS and gpus < devices:
            raise UserError(
                f"--gpus-per-node {gpus}, and {as_text(planned.values)} has trainer.devices: {devices}; expected a GPU for "
                f"each. Pass --gpus-per-node {devices}."
            )
        used = 0 if kind == "cpu" else devices
        if gpus and used is not None and gpus > used:
            why = f"trainer.accelerator: {kind}" if kind == "cpu" else f"trainer.devices: {devices}"
            text = f"--gpus-per-node {gpus} beside {why}: {gpus - used} of the GPUs of each node would idle"
            warnings[text] = warnings.get(text, 0) + 1
    for text, count in warnings.items():
        say(f"warning: {text} ({count} of {len(points)} points)")


def _count(devices: Json) -> int | None:
    """Return how many devices a node of a training uses; None where that is left to what is there."""
    if isinstance(devices, list):
        return len(devices)
    return devices if isinstance(devices, int) and devices > 0 else None
