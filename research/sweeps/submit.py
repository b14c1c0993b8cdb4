"""`sweep submit`: a sweep as a SLURM array, as W&B's agents on SLURM, or as a Kubernetes Job."""

import argparse
import json
from pathlib import Path

from research.errors import UserError
from research.sweeps import kubernetes, slurm
from research.sweeps.agents import copy_of_sweep, target
from research.sweeps.folder import as_text, folder_of
from research.sweeps.plan import describer, plan, watched
from research.sweeps.points import Again, planned_points, tasks_to_submit
from research.sweeps.spec import Sweep, read_sweep
from research.sweeps.submission import submission
from research.sweeps.trainer import Trainer

SLURM, JOBS = ("time", "partition", "account", "sbatch"), ("image", "claim", "namespace", "env", "secret", "max_failed")
RANKS, POINTS, TRIALS = ("nodes", "tasks_per_node"), ("rerun_stale", "retry"), ("count",)
OTHERS = {"--kubernetes": (*SLURM, *RANKS, *TRIALS), "--wandb": (*JOBS, *RANKS, *POINTS), "SLURM": (*JOBS, *TRIALS)}
"""Where the points go → options that would change nothing there."""
NEUTRAL = dict.fromkeys(RANKS, 1)
LEAST = {"throttle": 0, "nodes": 1, "tasks_per_node": 1, "warning": 1, "cpus": 1, "slurm_gpus": 0}


def submit_sweep(args: argparse.Namespace, trainer: Trainer) -> int:
    """Hand what is to be run to a cluster; the exit code."""
    _refuse_other_options(args)
    for name, least in LEAST.items():
        if (value := getattr(args, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}; expected {least} or more. Correct it.")
    options = slurm.Options(**_chosen(args, slurm.Options._fields))
    slurm.check(options)
    sweep = read_sweep(args.file)
    if args.kubernetes:
        return _write_job(args, sweep, trainer)
    if args.wandb:
        return _submit_agents(args, sweep, options, trainer)
    return _submit_array(args, sweep, options, trainer)


def _refuse_other_options(args: argparse.Namespace) -> None:
    """Refuse options of another place than the one that is asked for.

    Raises:
        UserError: there is one.
    """
    if args.kubernetes and args.wandb:
        raise UserError(f"--kubernetes with --wandb {args.wandb}; expected one of them: agents run on SLURM. Leave one out.")
    place = "--kubernetes" if args.kubernetes else "--wandb" if args.wandb else "SLURM"
    for name in OTHERS[place]:
        if getattr(args, name) not in (None, False, [], NEUTRAL.get(name)):
            why = "a trial is one process there" if place == "--wandb" and name in RANKS else "it would change nothing"
            raise UserError(f"--{name.replace('_', '-')} with {place}; expected options of {place}: {why}. Leave it out.")


def _chosen(args: argparse.Namespace, names: tuple[str, ...]) -> dict:
    """Name → the option's value; --gpus itself is how `run` shares GPUs out."""
    values = {name: getattr(args, "slurm_gpus" if name == "gpus" else name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


# ---- SLURM ----------------------------------------------------------------------------------------------------------


def _submit_array(args: argparse.Namespace, sweep: Sweep, options: slurm.Options, trainer: Trainer) -> int:
    folder = folder_of(sweep).resolve()
    slurm.directive(str(folder))  # before anything is written
    points = planned_points(sweep, args.seed, trainer)
    if sweep.is_searched and options.nodes * options.tasks_per_node > 1:
        raise UserError(
            f"{args.file}: bayes with --nodes {options.nodes} --tasks-per-node {options.tasks_per_node}: each task "
            "would propose a point of its own; expected one task a point. Use the GPUs of one task, or a grid or "
            "random sweep."
        )
    tasks = tasks_to_submit(sweep, folder, points, Again(args.rerun_stale, args.retry), args.dry_run)
    if not tasks:
        print(f"all {len(points)} points are done or running")
        return 0
    slurm.check_array(len(tasks), f"the points of {args.file}")
    copies = submission(sweep.name, args.file, folder, args.seed, write=not args.dry_run)
    if args.dry_run:
        print(slurm.array_script(copies, tasks, options))
        print(slurm.finish_script(copies, "ARRAY", 1, options))
        return 0
    array, after = slurm.submit(copies, tasks, options)
    facts = {"array": array, "finish": after, "points": len(tasks), "out": str(folder)}
    text = f"{len(tasks)} points are array {array}; job {after} follows it; "
    print(json.dumps(facts) if args.json else f"{text}`research sweep status {args.file}` shows where they stand")
    return 0


# ---- W&B's agents ---------------------------------------------------------------------------------------------------


def _submit_agents(args: argparse.Namespace, sweep: Sweep, options: slurm.Options, trainer: Trainer) -> int:
    """Submit as many agents as the sweep has trials; the exit code."""
    of = target(args.wandb)
    count = _trials(args, sweep)
    _check_trials(args, sweep, trainer)
    slurm.check_array(count, f"the trials of {args.file}")
    folder = folder_of(sweep).resolve()
    if args.dry_run:
        print(slurm.agents_script(sweep.name, copy_of_sweep(folder, of), folder, of, count, options))
        return 0
    array = slurm.submit_agents(sweep.name, args.file, folder, of, count, options)
    facts = {"array": array, "trials": count, "sweep": str(of), "out": str(folder)}
    print(json.dumps(facts) if args.json else f"{count} trials of {of} are array {array}; W&B shows where they stand")
    return 0


def _trials(args: argparse.Namespace, sweep: Sweep) -> int:
    if args.count is None:
        if sweep.size is None:
            raise UserError(
                f"{args.file}: {sweep.method} without run_cap has no end; expected a number of trials. Pass "
                "--count N, or write run_cap."
            )
        return sweep.size
    if args.count < 1 or args.count > (sweep.size or args.count):
        most = "or more" if sweep.size is None else f"to {sweep.size}, the trials of {args.file}"
        raise UserError(f"--count {args.count}; expected 1 {most}. Correct it.")
    return args.count


def _check_trials(args: argparse.Namespace, sweep: Sweep, trainer: Trainer) -> None:
    """Check the trials before any of them costs compute: all points, or samples of a sweep without a list of them.

    Raises:
        UserError: one of them cannot be run.
    """
    decided = sweep.early_terminate is not None or sweep.target is not None  # by the server, whatever the command is
    if sweep.is_exhaustive and not decided:
        planned_points(sweep, args.seed, trainer)
        return
    _, problems = plan(sweep, describer(sweep, trainer, decided_elsewhere=True), args.seed, watched)
    if problems:
        first = f"the first {as_text(problems[0].values)}: {problems[0].reason}"
        raise UserError(f"{args.file}: {len(problems)} samples cannot be run, {first}")


# ---- Kubernetes -----------------------------------------------------------------------------------------------------


def _write_job(args: argparse.Namespace, sweep: Sweep, trainer: Trainer) -> int:
    """Write the Job of what is to be run, for `kubectl apply`; the exit code."""
    for name, example in (("image", "IMAGE"), ("claim", "NAME:/path")):
        if not getattr(args, name):
            raise UserError(
                f"--kubernetes without --{name}; expected --{name} {example}: a pod has no file of this machine. Name it."
            )
    if args.max_failed is not None and args.max_failed < 0:
        raise UserError(f"--max-failed {args.max_failed}; expected 0 or more. Correct it.")
    values = _chosen(args, kubernetes.Options._fields)
    options = kubernetes.Options(**values | {"claim": kubernetes.claim(args.claim)})
    file, folder = _from_here(args.file), _from_here(folder_of(sweep))
    points = planned_points(sweep, args.seed, trainer)
    tasks = tasks_to_submit(sweep, folder, points, Again(args.rerun_stale, args.retry), args.dry_run)
    if not tasks:
        print(f"all {len(points)} points are done or running")
        return 0
    copies = submission(sweep.name, file, folder, args.seed, write=not args.dry_run)
    job = kubernetes.job(kubernetes.name_of(sweep.name, folder), copies, tasks, options)
    if args.dry_run:
        print(kubernetes.text_of(job), end="")
        return 0
    path = kubernetes.write(folder, job)
    apply = f"kubectl apply -f {path}"
    facts = {"job": job["metadata"]["name"], "file": str(path), "points": len(tasks), "apply": apply, "out": str(folder)}
    print(json.dumps(facts) if args.json else f"{len(tasks)} points are in {path}; start them: {apply}")
    return 0


def _from_here(path: Path) -> Path:
    """The path from the folder that the command is typed in, which is what pods see of it.

    Raises:
        UserError: it is elsewhere.
    """
    try:
        return path.resolve().relative_to(Path.cwd().resolve())
    except ValueError:
        raise UserError(
            f"{path} is not in {Path.cwd()}, which the claim holds; expected a path that pods can see. Move it, or "
            "type the command in a folder above it."
        ) from None
