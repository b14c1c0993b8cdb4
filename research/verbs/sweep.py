"""W&B sweeps: compiled from sources, checked point by point, run here, each point once.

  research sweep compile sweeps/src/lora_r_alpha.yaml       # ties and conditions → sweeps/lora_r_alpha.yaml, a plain W&B sweep
  research sweep plan sweeps/lora_r_alpha.yaml              # every point through the parser and the adapters' guard
  research sweep run sweeps/lora_r_alpha.yaml --workers 2   # what is missing, failed or was stopped, and nothing twice
  research sweep submit sweeps/lora_r_alpha.yaml --throttle 8 --time 2:00:00      # to SLURM, to Kubernetes, or to W&B's agents
  research sweep status sweeps/lora_r_alpha.yaml            # where each point stands

`research sweep STEP --help` shows a step's options. The same file serves W&B: `wandb sweep FILE`, then `wandb agent`.
"""

# Longer than most files: the options of eight steps stand beside each other, as their pages of help do.

import argparse
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from research.verbs.options import CHOICES, COMPUTATION, INPUT, OTHER, OUTPUT, WANDB

Main = Callable[[list[str]], int]
Parse = Callable[[list[str]], argparse.Namespace | None]
LINES = ("--sbatch", "--finish-sbatch", "--setup")
SUBMIT = """Hand what is to be run to a cluster: to SLURM, or to Kubernetes, or to W&B's agents on SLURM.

  research sweep submit sweeps/lora_r_alpha.yaml --throttle 8 --time 2:00:00 --gpus-per-node 1
  research sweep submit sweeps/lora_r_alpha.yaml --wandb ME/PROJECT/SWEEP_ID
  research sweep submit sweeps/lora_r_alpha.yaml --kubernetes --image IMAGE --claim NAME:/path

--dry-run prints what would be submitted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what stands before a step's own options."""
    steps = [step for step, (description, _) in STEPS.items() if description]
    parser.add_argument("step", choices=[*STEPS], metavar="STEP", help=" | ".join(steps))


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Read a step and its options; each step has a page of its own."""
    if argv and argv[0] not in STEPS and argv[0] not in ("-h", "--help") and argv[0].startswith("-"):
        parser.error(f"{argv[0]} stands before the step; expected `research sweep STEP FILE`, and options after them")
    if not argv or argv[0] not in STEPS:
        return parser.parse_args(argv[:1])
    description, add_options = STEPS[argv[0]]
    page = type(parser)(
        prog=f"{parser.prog} {argv[0]}", description=description, allow_abbrev=False, formatter_class=parser.formatter_class
    )
    page.add_argument("file", type=Path, metavar="FILE", help="a sweep's YAML, or its folder")
    add_options(page)
    page.set_defaults(step=argv[0], run=parser.get_default("run"))
    return page.parse_args(_with_values(argv[1:]))


def _with_values(argv: list[str]) -> list[str]:
    """`--sbatch --constraint=a100` as `--sbatch=--constraint=a100`: argparse takes a value that begins with - so alone."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in LINES and argument.startswith("-"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _add_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the plain sweeps go (sweeps/ beside src/)")
    parser.add_argument("--check", action="store_true", help="say what differs from the files there, and write nothing")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_overlay(parser)
    group = parser.add_argument_group(CHOICES)
    cost = "time some steps of each kind of point (8), and say what the sweep costs"
    group.add_argument("--measure", nargs="?", type=int, const=8, metavar="STEPS", help=cost)
    group.add_argument("--kinds", type=int, metavar="N", help="of points to time, with --measure; the rest count as their mean")
    _add_seed(group)
    group = parser.add_argument_group(COMPUTATION)
    group.add_argument("--threads", type=int, help="of a worker on a CPU, with --measure (torch's own number)")
    _add_json(parser.add_argument_group(OTHER))


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_overlay(parser)
    _add_again(parser.add_argument_group(CHOICES))
    group = parser.add_argument_group(COMPUTATION)
    group.add_argument("--workers", type=int, default=1, help="processes at a time (1)")
    group.add_argument("--gpus", default="", metavar="IDS", help="GPUs to share out among them, as 0,1")
    group.add_argument("--threads", type=int, help="threads of each worker on a CPU (the processors, shared out)")
    _add_json(parser.add_argument_group(OTHER))


def _add_submit(parser: argparse.ArgumentParser) -> None:
    _add_overlay(parser)
    group = parser.add_argument_group(CHOICES)
    _add_again(group)
    group.add_argument("--throttle", type=int, default=0, help="tasks at a time (as many as there is room for)")
    group.add_argument(
        "--warning", type=int, default=120, help="seconds before the limit or the end at which a point saves (120)"
    )
    group.add_argument("--setup", action="append", default=[], metavar="LINE", help="a shell line before the command")
    group = parser.add_argument_group("on SLURM")
    group.add_argument("--time", help="limit of a point, as SLURM writes it: 2:00:00")
    group.add_argument("--partition")
    group.add_argument("--account")
    group.add_argument("--qos")
    group.add_argument("--nodes", type=int, default=1, help="of a point that DDP trains (1)")
    group.add_argument("--tasks-per-node", type=int, default=1, help="processes of DDP on a node (1)")
    further = "a further #SBATCH line of the points, such as --constraint=a100"
    group.add_argument("--sbatch", action="append", default=[], metavar="LINE", help=further)
    after = "a line of the job after the points, such as --partition=cpu: it submits again, reports, and asks for no GPU"
    group.add_argument("--finish-sbatch", action="append", default=[], metavar="LINE", help=after)
    group = parser.add_argument_group("on Kubernetes")
    group.add_argument("--kubernetes", action="store_true", help="write an Indexed Job, one point an index, for kubectl apply")
    group.add_argument("--image", help="with this package; `python -m research` runs there")
    group.add_argument(
        "--claim", metavar="NAME:/path", help="PersistentVolumeClaim (NAME/folder: of it) that holds this folder"
    )
    group.add_argument("--namespace")
    group.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the pods")
    group.add_argument("--secret", action="append", default=[], metavar="NAME", help="a Secret, as variables: W&B's key")
    group.add_argument("--max-failed", type=int, metavar="N", help="points that may fail before the others are given up (all)")
    group = parser.add_argument_group(COMPUTATION)
    group.add_argument("--cpus-per-task", "--cpus", type=int, dest="cpus", metavar="N", help="processors of a task")
    group.add_argument("--gpus-per-node", type=int, dest="gpus", metavar="N", help="GPUs of a point, on each of its nodes")
    group.add_argument("--mem", help="memory of a point, on each of its nodes: 16G")
    group = parser.add_argument_group(WANDB)
    agents = "W&B's agents on SLURM, one trial a task: the server chooses. A stopped task goes on with its trial and W&B run"
    group.add_argument("--wandb", metavar="ENTITY/PROJECT/SWEEP_ID", help=agents)
    group.add_argument("--count", type=int, metavar="N", help="trials, with --wandb (the sweep's grid or run_cap)")
    group = parser.add_argument_group(OTHER)
    group.add_argument("--dry-run", action="store_true", help="print the scripts, and submit nothing")
    _add_json(group)


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_overlay(parser)
    group = parser.add_argument_group(CHOICES)
    group.add_argument("--wide", action="store_true", help="options by their whole names and values (80 columns)")
    _add_seed(group)
    _add_json(parser.add_argument_group(OTHER))


def _add_worker(parser: argparse.ArgumentParser) -> None:
    _add_seed(parser)
    parser.add_argument("--folder", type=Path, help="of the sweep")
    parser.add_argument("--plan", type=Path, help="a copy of the plan (the folder's own)")
    parser.add_argument("--index", type=int, help="of the one point that is run")
    parser.add_argument("--of", metavar="RANGES", help="points that --index counts (all of the plan)")


def _add_trial(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, required=True, help="where the agent ran")
    parser.add_argument("--wandb", required=True, metavar="ENTITY/PROJECT/SWEEP_ID", help="the sweep on the server")


def _add_finish(parser: argparse.ArgumentParser) -> None:
    _add_seed(parser)
    parser.add_argument("--folder", type=Path, required=True, help="of the sweep")
    parser.add_argument("--plan", type=Path, required=True, help="a copy of the plan")
    parser.add_argument("--array", metavar="ID", help="the array that has ended")
    parser.add_argument("--round", type=int, required=True, help="how often the sweep was submitted")
    parser.add_argument("--options", required=True, metavar="JSON", help="what was said of the cluster")


def _add_overlay(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(INPUT, "data and a model of your own, the same for every point")
    group.add_argument(
        "-c", "--config", action="append", default=[], metavar="YAML", help="a configuration, after those of the command"
    )
    group.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an option of `fit`: data.train=mine.jsonl"
    )
    group = parser.add_argument_group(OUTPUT)
    group.add_argument("--name", help="of the sweep that comes out (the file's, with what --config and --set say)")
    group.add_argument("--out", type=Path, metavar="DIR", help="its folder (beside the sweep's own, by its name)")


def _add_seed(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    group.add_argument("--seed", type=int, default=0, help="of a random sweep's draws (0)")


def _add_again(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--rerun-stale", action="store_true", help="points that were done by other code, again")
    group.add_argument("--retry", action="store_true", help="points that have failed three times, again")
    _add_seed(group)


def _add_json(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json", action="store_true", dest="as_json", help="one JSON line on stdout")


STEPS = {
    "compile": ("Make plain W&B sweeps of a source with ties, conditions and sizes (docs/sweep-sources.md).", _add_compile),
    "plan": (
        "Check every point by the parser and the adapters' guard, and say how many there are and what is done.",
        _add_plan,
    ),
    "run": ("Run what is missing, failed or was stopped, on this machine; then write the sweep's page.", _add_run),
    "submit": (SUBMIT, _add_submit),
    "status": ("Print where each point stands.", _add_status),
    "worker": ("", _add_worker),  # these three are what the scripts of run and submit call
    "trial": ("", _add_trial),
    "finish": ("", _add_finish),
}
"""step → what it does, and what adds its options; these are the names of its function's arguments."""


def run(args: argparse.Namespace, main: Main, parse: Parse) -> int:
    """Run a step of a sweep; the exit code."""
    # here: the help needs none of it
    from research.sweeps import agents, compile, finish, preview, process, run, status, submit, submit_options, worker
    from research.sweeps.command import ours
    from research.sweeps.folder import say_file_changed
    from research.sweeps.overlay import Overlay, overlaid
    from research.sweeps.spec import read_sweep
    from research.sweeps.trainer import Program

    options = {name: value for name, value in vars(args).items() if name not in ("run", "step", "command", "file")}
    if args.step == "compile":
        return compile.compile_file(args.file, **options)
    sweep = read_sweep(args.file)
    if args.step in ("plan", "run", "submit", "status"):
        say_file_changed(sweep)
        sweep = overlaid(sweep, Overlay(*(options.pop(name) for name in ("config", "set", "name", "out"))))
        if sweep.overlay:
            parse(ours(sweep.argv_of({})))  # refuses a misspelt --set before torch is loaded
    stops = contextlib.ExitStack()
    if args.step == "worker":
        if args.index is not None:  # a cluster's task that is told to stop while torch is loaded notes it in the ledger
            stops.enter_context(process.stoppable())
        from research.models.base_cache import cache_bases  # torch: a worker trains here

        cache_bases()
    threads = options.pop("threads", None) if args.step == "plan" else None

    def trainer() -> ModuleType:
        from research.training import describe  # torch, once a point is described: a sweep of other programs needs none

        return describe

    program = Program(
        lambda arguments, metric, goal: trainer().describe(arguments, metric, goal, parse),
        main,
        lambda arguments, steps: trainer().time_steps(arguments, steps, threads, parse),
    )
    if args.step == "submit":
        return submit.submit_sweep(sweep, program, submit_options.options_from(options))
    steps = {
        "plan": functools.partial(preview.show_plan, program=program),
        "run": functools.partial(run.run_sweep, program=program),
        "status": status.show_status,
        "worker": functools.partial(worker.run_worker, program=program),
        "trial": agents.resume_trial,
        "finish": functools.partial(finish.finish_array, program=program),
    }
    with stops:
        return steps[args.step](sweep, **options)
