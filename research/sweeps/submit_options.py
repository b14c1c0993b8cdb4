"""What the user says to `sweep submit`: where the points go, and which options belong there."""

from collections.abc import Mapping
from typing import NamedTuple

from research.errors import UserError
from research.sweeps import directives
from research.sweeps.kubernetes import Options as Pods

SLURM = ("time", "partition", "account", "qos", "sbatch", "finish_sbatch")
JOBS = ("image", "claim", "namespace", "env", "secret", "max_failed")
RANKS, POINTS, TRIALS = ("nodes", "tasks_per_node"), ("rerun_stale", "retry", "finish_sbatch"), ("count",)
OTHERS = {"--kubernetes": (*SLURM, *RANKS, *TRIALS), "--wandb": (*JOBS, *RANKS, *POINTS), "SLURM": (*JOBS, *TRIALS)}
"""Where the points go → options that would change nothing there."""
NEUTRAL = dict.fromkeys(RANKS, 1)
LEAST = {"throttle": 0, "nodes": 1, "tasks_per_node": 1, "warning": 1, "cpus": 1, "gpus": 0}


class Options(NamedTuple):
    """What is submitted, and where to: to SLURM unless `kubernetes` or `wandb` says otherwise.

    Attributes:
        dry_run: print the scripts, and submit nothing.
        as_json: print one JSON line.
        seed: of a random sweep's draws.
        rerun_stale, retry: see Again.
        wandb: a sweep on W&B's server, ENTITY/PROJECT/SWEEP_ID, whose trials its agents run on SLURM.
        count: trials of `wandb`; None: the sweep's grid or its run_cap.
        kubernetes: write a Job.
        cluster: of a task, on SLURM and on Kubernetes.
        pods: of Kubernetes alone.
    """

    dry_run: bool = False
    as_json: bool = False
    seed: int = 0
    rerun_stale: bool = False
    retry: bool = False
    wandb: str | None = None
    count: int | None = None
    kubernetes: bool = False
    cluster: directives.Options = directives.Options()
    pods: Pods = Pods()


def options_from(values: Mapping[str, object]) -> Options:
    """Sort the options that were typed by what they are of."""
    left = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    parts = {
        part: kind(**{name: left.pop(name) for name in kind._fields if name in left})
        for part, kind in (("cluster", directives.Options), ("pods", Pods))
    }
    return Options(**left, **parts)


def refuse_other_options(options: Options) -> None:
    """Refuse options of another place than the one that is asked for, and numbers that are too small.

    Raises:
        UserError: there is one.
    """
    if options.kubernetes and options.wandb:
        raise UserError(f"--kubernetes with --wandb {options.wandb}; expected one of them: agents run on SLURM. Leave one out.")
    place = "--kubernetes" if options.kubernetes else "--wandb" if options.wandb else "SLURM"
    values = options._asdict() | options.cluster._asdict() | options.pods._asdict()
    for name in OTHERS[place]:
        if values[name] not in (None, False, (), NEUTRAL.get(name)):
            why = "a trial is one process there" if place == "--wandb" and name in RANKS else "it would change nothing"
            raise UserError(f"{_flag(name)} with {place}; expected options of {place}: {why}. Leave it out.")
    for name, least in LEAST.items():
        if (value := getattr(options.cluster, name)) is not None and value < least:
            raise UserError(f"{_flag(name)} {value}; expected {least} or more. Correct it.")


def _flag(name: str) -> str:
    return {"gpus": "--gpus-per-node", "cpus": "--cpus-per-task"}.get(name, f"--{name.replace('_', '-')}")
