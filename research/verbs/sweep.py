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
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.progress import say
from research.verbs.agents import go_on
from research.verbs.cluster import finish, submit_points
from research.verbs.planning import plan_points
from research.verbs.points import (
    folder_of,
    is_done,
    is_fit,
    plan_key,
    planned_points,
    refuse_other,
    stale_reason,
    tell_again,
    write_report,
)
from research.verbs.searching import due, ended, is_reached, outcome_of, until_target, variables_of

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
    steps = {
        "compile": _compile,
        "plan": plan_points,
        "run": _run,
        "submit": submit_points,
        "status": _status,
        "worker": _worker,
        "trial": go_on,
        "finish": finish,
    }
    return steps[args.step](args)


def _compile(args: argparse.Namespace) -> int:
    from research.runs.files import atomic_write
    from research.sweeps.compile import MADE, compile_source, text_of
    from research.sweeps.spec import read_sweep

    if args.file.is_file() and args.file.read_text(encoding="utf-8", errors="replace").startswith(MADE):
        raise UserError(f"{args.file} was made by compile itself; expected its source, which its first line names.")
    if args.out is None and args.file.resolve().parent.name != "src":
        raise UserError(
            f"{args.file} is in no folder src/, beside which the plain sweeps would go; expected --out DIR. Name it."
        )
    out = args.out or args.file.parent.parent
    made: list[str] = []
    differs: list[str] = []
    for size, sweep in compile_source(args.file).items():
        path = (out / size if size else out) / f"{args.file.stem}.yaml"
        text = text_of(Path(*args.file.parts[-3:]), sweep)
        if args.check:
            differs += [str(path)] if not path.exists() or path.read_text(encoding="utf-8") != text else []
            continue
        _check(text, args.file)
        with atomic_write(path) as stream:
            stream.write(text)
        made.append(str(path))
    if differs:
        say(f"{', '.join(differs)}: not what {args.file} makes; run `research sweep compile {args.file}`")
        return 1
    for path in made:
        count = read_sweep(Path(path)).size
        print(f"{path}  {'no end' if count is None else f'{count} points'}")
    return 0


def _check(text: str, source: Path) -> None:
    """
    Raises:
        UserError: what the source makes is no sweep.
    """
    from research.sweeps.spec import read_sweep

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.name
        path.write_text(text, encoding="utf-8")
        try:
            read_sweep(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), str(source))) from None


def _run(args: argparse.Namespace) -> int:
    from research.runs.ledger import Ledger
    from research.runs.plan import copy_plan, points_so_far
    from research.sweeps.executors import count, run_local
    from research.sweeps.spec import read_sweep
    from research.sweeps.worker import PREEMPTED

    for name in ("workers", "threads"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}; expected 1 or more. Correct it.")
    sweep = read_sweep(args.file)
    folder = folder_of(sweep)
    points = planned_points(args, sweep)
    ledger = Ledger(folder)
    tell_again(args, ledger, points, folder)
    gpus = [gpu for gpu in args.gpus.split(",") if gpu]
    threads = args.threads or max(1, len(os.sched_getaffinity(0)) // args.workers)
    file, kept = copy_plan(folder, args.file, None if sweep.is_searched else points)
    command = [
        sys.executable,
        "-m",
        "research",
        "sweep",
        "worker",
        str(file),
        "--seed",
        str(args.seed),
        "--folder",
        str(folder),
        *(["--plan", str(kept)] if kept else []),
    ]
    now, cap = (partial(points_so_far, folder), sweep.run_cap) if sweep.is_searched else (lambda: points, len(points))
    code = run_local(folder, now, cap, command, args.workers, gpus, threads)
    code = ended(folder, sweep, now(), code, count(ledger, now())) if code == 1 else code
    page = None if code == PREEMPTED else write_report(folder, now())
    if page is not None and not args.json:
        print(page)
    if args.json:
        print(json.dumps({"out": str(folder), "states": count(ledger, now()), "report": page and str(page)}))
    return code


def _worker(args: argparse.Namespace) -> int:
    from research import cli
    from research.models.base_cache import cache_bases
    from research.runs.ledger import Ledger
    from research.runs.plan import points_so_far, read_plan
    from research.sweeps.spec import read_sweep
    from research.sweeps.worker import work

    cache_bases()
    sweep = read_sweep(args.file)
    folder = Path(args.folder) if args.folder else folder_of(sweep)
    if sweep.is_searched:
        points: Iterable = due(folder, sweep, args.seed, once=args.index is not None)
        points = until_target(folder, sweep, partial(points_so_far, folder), points)
        # on a cluster, a task is one point: whichever is to be run, or the next to be proposed
        return work(Ledger(folder), points, cli.main, variables_of(folder, sweep), outcome_of(folder, sweep))
    plan = Path(args.plan) if args.plan else None
    points = everything = read_plan(folder, plan)
    if args.index is not None:
        points = [_numbered(points, args.index, args.of)]
        if is_reached(folder, sweep, everything):
            return 0
        if int(os.environ.get("SLURM_PROCID", "0")):  # another rank of this point: the first one keeps the books
            from research.runs.plan import with_id
            from research.sweeps.command import ours

            own = ours(with_id(points[0].argv, points[0].point))
            done = is_done(folder / points[0].point)
            return 0 if done or own is None else cli.main(own)
    due_now = until_target(folder, sweep, lambda: everything, points)
    code = work(Ledger(folder), due_now, cli.main, variables_of(folder, sweep, plan), outcome_of(folder, sweep))
    if code or args.index is None:
        return code
    last = Ledger(folder).standings([points[0].point])[points[0].point]
    return int(last.last.get("code") or 1) if last.state in ("failed", "diverged") else 0


def _numbered(points: list, index: int, of: str | None) -> Any:
    """The point of a task: `index` counts the plan's points, or those that `of` lists (0-3,7), as Kubernetes numbers them."""
    from research.sweeps.slurm import numbers

    try:
        chosen = list(range(len(points))) if of is None else numbers(of)
        if index < 0:
            raise IndexError(index)
        return points[chosen[index]]
    except (IndexError, ValueError):
        raise UserError(
            f"--index {index}{f' --of {of}' if of else ''}: the plan has {len(points)} points; expected one of "
            "them. It was made anew since: submit again."
        ) from None


def _status(args: argparse.Namespace) -> int:
    from rich.console import Console

    from research.runs.ledger import Ledger
    from research.runs.plan import is_planned, read_plan
    from research.sweeps.executors import counted, table
    from research.sweeps.spec import read_sweep

    sweep = read_sweep(args.file)
    folder = folder_of(sweep)
    refuse_other(folder, sweep, args.seed)
    points, ledger = read_plan(folder), Ledger(folder)
    if not sweep.is_searched and not is_planned(folder, plan_key(args, sweep)):
        say(f"{args.file}, its configurations or the code have changed since the plan that is shown; plan or run it again")
    standings = ledger.standings([one.point for one in points])
    for one in points:
        ended = standings[one.point].state
        if ended in ("done", "pruned") and is_fit(one):
            run, data = folder / one.point, one.facts.get("data")
            state = "stale" if stale_reason(run, data) else ended if is_done(run) else "missing"
            standings[one.point] = standings[one.point]._replace(state=state)
    if args.json:
        rows = [{"point": one.point, "values": one.values, **standings[one.point]._asdict()} for one in points]
        print(json.dumps({"out": str(folder), "states": counted(standings), "points": rows}))
        return 0
    Console(soft_wrap=True).print(table(points, standings))
    return 0
