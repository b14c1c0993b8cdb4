"""`sweep submit`: a sweep as a SLURM array, as W&B's agents on SLURM, or as a Kubernetes Job."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.sweeps import directives, kubernetes, slurm
from research.sweeps.agents import parse_target, sweep_copy
from research.sweeps.folder import folder_of
from research.sweeps.kubernetes import Options as Pods
from research.sweeps.limits import note_resumptions
from research.sweeps.plan import describer, plan, watched
from research.sweeps.points import Again, planned_points, tasks_to_submit
from research.sweeps.spec import Sweep
from research.sweeps.submission import submission
from research.sweeps.trainer import Program

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


def submit_sweep(sweep: Sweep, program: Program, options: Options) -> int:
    """Hand what is to be run to a cluster; return the exit code.

    Raises:
        UserError: options that do not go together, a point that cannot be run, or a cluster that refuses.
    """
    _refuse_other_options(options)
    for name, least in LEAST.items():
        if (value := getattr(options.cluster, name)) is not None and value < least:
            raise UserError(f"{_flag(name)} {value}; expected {least} or more. Correct it.")
    directives.check(options.cluster)
    if options.kubernetes:
        return _write_job(sweep, program, options)
    directives.check_limits(options.cluster)
    if options.wandb:
        return _submit_agents(sweep, program, options)
    return _submit_array(sweep, program, options)


def _refuse_other_options(options: Options) -> None:
    """Refuse options of another place than the one that is asked for.

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


def _flag(name: str) -> str:
    return {"gpus": "--gpus-per-node", "cpus": "--cpus-per-task"}.get(name, f"--{name.replace('_', '-')}")


# ---- SLURM ----------------------------------------------------------------------------------------------------------


def _submit_array(sweep: Sweep, program: Program, options: Options) -> int:
    cluster = options.cluster
    folder = folder_of(sweep).resolve()
    directives.quoted_folder(str(folder))  # before anything is written
    points = planned_points(sweep, options.seed, program)
    if sweep.is_searched and cluster.nodes * cluster.tasks_per_node > 1:
        raise UserError(
            f"{sweep.path}: bayes with --nodes {cluster.nodes} --tasks-per-node {cluster.tasks_per_node}: each task "
            "would propose a point of its own; expected one task a point. Use the GPUs of one task, or a grid or "
            "random sweep."
        )
    tasks = tasks_to_submit(sweep, folder, points, Again(options.rerun_stale, options.retry), options.dry_run)
    if not tasks:
        print(f"all {len(points)} points are done or running")
        return 0
    if limit := directives.time_limit(cluster):
        seconds = [planned.facts["seconds"] for planned in points if "seconds" in planned.facts]
        note_resumptions(*limit, cluster.warning, seconds)
    slurm.check_array(len(tasks), f"the points of {sweep.path}")
    copies = submission(sweep, folder, options.seed, write=not options.dry_run)
    if options.dry_run:
        print(slurm.array_script(copies, tasks, cluster))
        print(slurm.finish_script(copies, "ARRAY", 1, cluster))
        return 0
    array, after = slurm.submit(copies, tasks, cluster)
    facts = {"array": array, "finish": after, "points": len(tasks), "out": str(folder)}
    status = f"research sweep status {folder if sweep.overlay else sweep.path}"
    text = f"{len(tasks)} points are array {array}; job {after} follows it; `{status}` shows where they stand"
    print(json.dumps(facts) if options.as_json else text)
    return 0


# ---- W&B's agents ---------------------------------------------------------------------------------------------------


def _submit_agents(sweep: Sweep, program: Program, options: Options) -> int:
    """Submit as many agents as the sweep has trials; return the exit code."""
    target = parse_target(options.wandb)
    count = _trials(sweep, options.count)
    _check_trials(sweep, program, options.seed)
    slurm.check_array(count, f"the trials of {sweep.path}")
    folder = folder_of(sweep).resolve()
    if options.dry_run:
        print(slurm.agents_script(sweep.name, sweep_copy(folder, target), folder, target, count, options.cluster))
        return 0
    array = slurm.submit_agents(sweep, folder, target, count, options.cluster)
    facts = {"array": array, "trials": count, "sweep": str(target), "out": str(folder)}
    print(json.dumps(facts) if options.as_json else f"{count} trials of {target} are array {array}; W&B shows where they stand")
    return 0


def _trials(sweep: Sweep, count: int | None) -> int:
    if count is None:
        if sweep.size is None:
            raise UserError(
                f"{sweep.path}: {sweep.method} without run_cap has no end; expected a number of trials. Pass "
                "--count N, or write run_cap."
            )
        return sweep.size
    if count < 1 or count > (sweep.size or count):
        most = "or more" if sweep.size is None else f"to {sweep.size}, the trials of {sweep.path}"
        raise UserError(f"--count {count}; expected 1 {most}. Correct it.")
    return count


def _check_trials(sweep: Sweep, program: Program, seed: int) -> None:
    """Check the trials before any of them costs compute: all points, or samples of a sweep without a list of them.

    Raises:
        UserError: one of them cannot be run.
    """
    decided = sweep.early_terminate is not None or sweep.target is not None  # by the server, whatever the command is
    if sweep.is_exhaustive and not decided:
        planned_points(sweep, seed, program)
        return
    plan(sweep, describer(sweep, program, decided_elsewhere=True), seed, watched)


# ---- Kubernetes -----------------------------------------------------------------------------------------------------


def _write_job(sweep: Sweep, program: Program, options: Options) -> int:
    """Write the Job of what is to be run, for `kubectl apply`; return the exit code."""
    for name, example in (("image", "IMAGE"), ("claim", "NAME:/path")):
        if not getattr(options.pods, name):
            raise UserError(
                f"--kubernetes without --{name}; expected --{name} {example}: a pod has no file of this machine. Name it."
            )
    if options.pods.max_failed is not None and options.pods.max_failed < 0:
        raise UserError(f"--max-failed {options.pods.max_failed}; expected 0 or more. Correct it.")
    kubernetes.parse_claim(options.pods.claim)  # before points are checked, which takes longer
    _from_here(sweep.path)
    folder = _from_here(folder_of(sweep))
    points = planned_points(sweep, options.seed, program)
    tasks = tasks_to_submit(sweep, folder, points, Again(options.rerun_stale, options.retry), options.dry_run)
    if not tasks:
        print(f"all {len(points)} points are done or running")
        return 0
    copies = submission(sweep, folder, options.seed, write=not options.dry_run)
    job = kubernetes.job(kubernetes.name_of(sweep.name, folder), copies, tasks, options.cluster, options.pods)
    if options.dry_run:
        print(kubernetes.text_of(job), end="")
        return 0
    path = kubernetes.write(folder, job)
    apply = f"kubectl apply -f {path}"
    facts = {"job": job["metadata"]["name"], "file": str(path), "points": len(tasks), "apply": apply, "out": str(folder)}
    print(json.dumps(facts) if options.as_json else f"{len(tasks)} points are in {path}; start them: {apply}")
    return 0


def _from_here(path: Path) -> Path:
    """Return the path from the folder that the command is typed in, which is what pods see of it.

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
