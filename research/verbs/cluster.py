"""`sweep submit` and `sweep finish`: a sweep as a SLURM array, and what follows it; or as agents, or a Kubernetes Job."""

import argparse
import json
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.progress import say
from research.verbs.agents import submit_trials
from research.verbs.kubernetes import submit_job
from research.verbs.points import folder_of, planned_points, task_numbers, to_do, write_report
from research.verbs.searching import ended, is_reached

SLURM, JOBS = ("time", "partition", "account", "sbatch"), ("image", "claim", "namespace", "env", "secret", "max_failed")
RANKS, POINTS, TRIALS = ("nodes", "tasks_per_node"), ("rerun_stale", "retry"), ("count",)
OTHERS = {"--kubernetes": (*SLURM, *RANKS, *TRIALS), "--wandb": (*JOBS, *RANKS, *POINTS), "SLURM": (*JOBS, *TRIALS)}
"""Where the points go → options that would change nothing there."""
NEUTRAL = dict.fromkeys(RANKS, 1)


def cluster_options(args: argparse.Namespace) -> Any:
    from research.sweeps.slurm import Options, check

    for name, least in {"throttle": 0, "nodes": 1, "tasks_per_node": 1, "warning": 1, "cpus": 1, "slurm_gpus": 0}.items():
        if (value := getattr(args, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}; expected {least} or more. Correct it.")
    options = Options(
        args.throttle,
        args.time,
        args.partition,
        args.account,
        args.cpus,
        args.slurm_gpus,
        args.mem,
        args.nodes,
        args.tasks_per_node,
        tuple(args.sbatch),
        tuple(args.setup),
        args.warning,
    )
    check(options)
    return options


def _refuse_others(args: argparse.Namespace) -> None:
    """
    Raises:
        UserError: options of two places.
    """
    if args.kubernetes and args.wandb:
        raise UserError(f"--kubernetes with --wandb {args.wandb}; expected one of them: agents run on SLURM. Leave one out.")
    place = "--kubernetes" if args.kubernetes else "--wandb" if args.wandb else "SLURM"
    for name in OTHERS[place]:
        if getattr(args, name) not in (None, False, [], NEUTRAL.get(name)):
            why = "a trial is one process there" if place == "--wandb" and name in RANKS else "it would change nothing"
            raise UserError(f"--{name.replace('_', '-')} with {place}; expected options of {place}: {why}. Leave it out.")


def submit_points(args: argparse.Namespace) -> int:
    from research.sweeps.slurm import array_script, check_array, directive, finish_script, submission, submit
    from research.sweeps.spec import read_sweep

    _refuse_others(args)
    options = cluster_options(args)
    if args.kubernetes:
        return submit_job(args)
    if args.wandb:
        return submit_trials(args, options)
    sweep = read_sweep(args.file)
    folder = folder_of(sweep).resolve()
    directive(str(folder))  # before anything is written
    points = planned_points(args, sweep)
    if sweep.is_searched and options.nodes * options.tasks_per_node > 1:
        raise UserError(
            f"{args.file}: bayes with --nodes {options.nodes} --tasks-per-node {options.tasks_per_node}: each task "
            "would propose a point of its own; expected one task a point. Use the GPUs of one task, or a grid or "
            "random sweep."
        )
    todo = to_do(args, sweep, points, folder)
    if not todo:
        print(f"all {len(points)} points are done or running")
        return 0
    check_array(len(todo), f"the points of {args.file}")
    kept = submission(sweep.name, args.file, folder, args.seed, write=not args.dry_run)
    if args.dry_run:
        print(array_script(kept, todo, options))
        print(finish_script(kept, "ARRAY", 1, options))
        return 0
    array, after = submit(kept, todo, options)
    facts = {"array": array, "finish": after, "points": len(todo), "out": str(folder)}
    print(
        json.dumps(facts)
        if args.json
        else f"{len(todo)} points are array {array}; job {after} follows it; `research sweep "
        f"status {args.file}` shows where they stand"
    )
    return 0


def finish(args: argparse.Namespace) -> int:
    """After an array: again what is missing, a few times; then what there is."""
    from research.runs.files import write_json
    from research.runs.ledger import Ledger
    from research.runs.plan import points_so_far, read_plan
    from research.sweeps.executors import count
    from research.sweeps.slurm import ROUNDS, Options, Submission, submit
    from research.sweeps.spec import read_sweep
    from research.sweeps.worker import is_due

    if None in (args.folder, args.plan, args.round, args.options):
        raise UserError(
            f"sweep finish {args.file} without what `sweep submit` tells it; expected the job after an array. Run "
            f"`research sweep run` or `submit`."
        )
    sweep, folder, round = read_sweep(args.file), Path(args.folder), args.round
    points = points_so_far(folder) if sweep.is_searched else read_plan(folder, Path(args.plan))
    ledger = Ledger(folder)
    standings = ledger.standings([one.point for one in points])
    todo = task_numbers(sweep, points, lambda one: is_due(standings[one.point]))
    if todo and round < ROUNDS and not is_reached(folder, sweep, points):
        try:
            values = json.loads(args.options)
            options = Options(**values | {"sbatch": tuple(values["sbatch"]), "setup": tuple(values["setup"])})
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"--options {args.options[:60]!r} are not read ({error}); expected those that `sweep submit` "
                "wrote. Submit again."
            ) from None
        kept = Submission(sweep.name, args.file, Path(args.plan), folder, args.seed)
        array, _ = submit(kept, todo, options, round + 1)
        say(f"{len(todo)} of {len(points)} points are missing: submitted again as array {array}")
        return 0
    counts = count(ledger, points)
    page = write_report(folder, points)
    write_json(folder / "finished.json", {"states": counts, "rounds": round, "report": page and str(page)})
    say(", ".join(f"{n} {state}" for state, n in counts.items()) + (f"; {page}" if page else ""))
    return 0 if set(counts) <= {"done", "pruned"} else ended(folder, sweep, points, 1, counts)
