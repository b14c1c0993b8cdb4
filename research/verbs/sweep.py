"""W&B sweeps: compiled from sources, checked point by point, run here, each point once.

  research sweep compile sweeps/src/lora_r_alpha.yaml       # ties and conditions → sweeps/lora_r_alpha.yaml, a plain W&B sweep
  research sweep plan sweeps/lora_r_alpha.yaml              # every point through the parser and the adapters' guard
  research sweep run sweeps/lora_r_alpha.yaml --workers 2   # what is missing, failed or was stopped, and nothing twice
  research sweep submit sweeps/lora_r_alpha.yaml --throttle 8 --time 2:00:00      # to SLURM
  research sweep submit sweeps/lora_r_alpha.yaml --wandb ME/PROJECT/SWEEP_ID      # W&B's agents, on SLURM
  research sweep submit sweeps/lora_r_alpha.yaml --kubernetes --image IMAGE --claim NAME:/path
  research sweep status sweeps/lora_r_alpha.yaml

The same file serves W&B: `wandb sweep sweeps/lora_r_alpha.yaml`, then `wandb agent`.
"""

import argparse
import functools
from pathlib import Path

STEPS = ("compile", "plan", "run", "submit", "status", "worker", "trial", "finish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("step", choices=STEPS, metavar="STEP", help="compile | plan | run | submit | status")
    parser.add_argument("file", type=Path, metavar="FILE", help="a sweep's YAML")
    parser.add_argument("--out", type=Path, metavar="DIR", help="compile: where the plain sweeps go (sweeps/ beside src/)")
    parser.add_argument(
        "--check", action="store_true", help="compile: say what differs from the files there, and write nothing"
    )
    parser.add_argument(
        "--measure",
        nargs="?",
        type=int,
        const=8,
        metavar="STEPS",
        help="plan: time some steps of each kind of point (8), and say what the sweep costs",
    )
    parser.add_argument("--workers", type=int, default=1, help="run: processes at a time (1)")
    parser.add_argument("--gpus", default="", metavar="IDS", help="run: GPUs to share out among them, as 0,1")
    parser.add_argument("--threads", type=int, help="run: threads of each worker on a CPU (the processors, shared out)")
    parser.add_argument("--seed", type=int, default=0, help="of a random sweep's draws (0)")
    parser.add_argument("--rerun-stale", action="store_true", help="run: points that were done by other code, again")
    parser.add_argument("--retry", action="store_true", help="run: points that have failed three times, again")
    _add_submit(parser)
    for name in ("--plan", "--of", "--folder", "--options"):  # of the scripts that submit writes
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--index", "--round"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def _add_submit(parser: argparse.ArgumentParser) -> None:
    common = parser.add_argument_group("submit")
    common.add_argument("--dry-run", action="store_true", help="print the scripts, and submit nothing")
    common.add_argument("--throttle", type=int, default=0, help="tasks at a time (as many as there is room for)")
    common.add_argument("--cpus", type=int, help="of a task")
    common.add_argument("--gpus-per-node", type=int, dest="slurm_gpus", help="of a point, on each of its nodes")
    common.add_argument("--mem", help="of a point, on each of its nodes: 16G")
    common.add_argument(
        "--warning", type=int, default=120, help="seconds before the limit or the end at which a point saves (120)"
    )
    common.add_argument("--setup", action="append", default=[], metavar="LINE", help="a shell line before the command")
    cluster = parser.add_argument_group("submit, to SLURM")
    cluster.add_argument("--time", help="limit of a point, as SLURM writes it: 2:00:00")
    cluster.add_argument("--partition")
    cluster.add_argument("--account")
    cluster.add_argument("--nodes", type=int, default=1, help="of a point that DDP trains (1)")
    cluster.add_argument("--tasks-per-node", type=int, default=1, help="processes of DDP on a node (1)")
    cluster.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="a further #SBATCH line, such as --qos=x"
    )
    agents = "W&B's agents instead, one trial a task: the server chooses. A stopped task goes on with its trial and W&B run"
    cluster.add_argument("--wandb", metavar="ENTITY/PROJECT/SWEEP_ID", help=agents)
    cluster.add_argument("--count", type=int, metavar="N", help="trials, with --wandb (the sweep's grid or run_cap)")
    pods = parser.add_argument_group("submit, to Kubernetes")
    pods.add_argument("--kubernetes", action="store_true", help="write an Indexed Job, one point an index, for kubectl apply")
    pods.add_argument("--image", help="with this package; `python -m research` runs there")
    pods.add_argument("--claim", metavar="NAME:/path", help="PersistentVolumeClaim (NAME/folder: of it) that holds this folder")
    pods.add_argument("--namespace")
    pods.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the pods")
    pods.add_argument("--secret", action="append", default=[], metavar="NAME", help="a Secret, as variables: W&B's key")
    pods.add_argument("--max-failed", type=int, metavar="N", help="points that may fail before the others are given up (all)")


def run(args: argparse.Namespace) -> int:
    # here: the help needs none of it
    from research import cli
    from research.sweeps import agents, compile, finish, preview, run, status, submit, worker
    from research.sweeps.trainer import Trainer

    if args.step == "worker":
        from research.models.base_cache import cache_bases  # loads torch

        cache_bases()
    trainer = Trainer(_describe, cli.main, functools.partial(_time_steps, threads=args.threads))
    steps = {
        "compile": compile.compile_file,
        "plan": functools.partial(preview.show_plan, trainer=trainer),
        "run": functools.partial(run.run_sweep, trainer=trainer),
        "submit": functools.partial(submit.submit_sweep, trainer=trainer),
        "status": status.show_status,
        "worker": functools.partial(worker.run_worker, trainer=trainer),
        "trial": agents.resume_trial,
        "finish": functools.partial(finish.finish_array, trainer=trainer),
    }
    return steps[args.step](args)


# these two load torch when they are called: a sweep of other programs needs none


def _describe(arguments: list[str], metric: str | None, goal: str | None) -> dict:
    from research import cli
    from research.training.describe import describe

    return describe(arguments, metric, goal, cli._parse)


def _time_steps(arguments: list[str], steps: int, threads: int | None) -> dict:
    from research import cli
    from research.training.describe import time_steps

    return time_steps(arguments, steps, threads, cli._parse)
