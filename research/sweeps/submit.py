"""`sweep submit`: a sweep as a SLURM array, as W&B's agents on SLURM, or as a Kubernetes Job."""

import json
from pathlib import Path

from research.errors import UserError
from research.progress import say
from research.runs.plan import PlannedPoint
from research.sweeps import directives, kubernetes, slurm
from research.sweeps.agents import parse_target, sweep_copy
from research.sweeps.folder import folder_of
from research.sweeps.limits import note_resumptions
from research.sweeps.plan import describer, plan, watched
from research.sweeps.points import Again, planned_points, tasks_to_submit, without_queued
from research.sweeps.ranks import check_ranks
from research.sweeps.sampling import are
from research.sweeps.spec import Sweep
from research.sweeps.submission import submission, withdraw
from research.sweeps.submit_options import Options, refuse_other_options
from research.sweeps.trainer import Program
from research.types import Json


def submit_sweep(sweep: Sweep, program: Program, options: Options) -> int:
    """Hand what is to be run to a cluster; return the exit code.

    Raises:
        UserError: options that do not go together, a point that cannot be run, or a cluster that refuses.
    """
    refuse_other_options(options)
    directives.check(options.cluster)
    if options.kubernetes:
        return _write_job(sweep, program, options)
    directives.check_limits(options.cluster)
    if options.wandb:
        return _submit_agents(sweep, program, options)
    return _submit_array(sweep, program, options)


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
    check_ranks(points, cluster.nodes, cluster.tasks_per_node, cluster.gpus)
    tasks = tasks_to_submit(sweep, folder, points, Again(options.rerun_stale, options.retry), options.dry_run)
    tasks, queued = without_queued(sweep, folder, points, tasks)
    if not tasks:
        return _say_nothing(points, queued, folder, options)
    if queued:
        say(f"{_queued(queued)} already, and left out")
    if limit := directives.time_limit(cluster):
        seconds = [planned.facts["seconds"] for planned in points if "seconds" in planned.facts]
        note_resumptions(*limit, cluster.warning, seconds)
    slurm.check_array(len(tasks), f"the points of {sweep.path}")
    copies = submission(sweep, folder, options.seed, write=not options.dry_run)
    facts = {"points": len(tasks), "queued": sum(queued.values()), "out": str(folder)}
    if options.dry_run:
        scripts = {
            "array": slurm.array_script(copies, tasks, cluster),
            "finish": slurm.finish_script(copies, "ARRAY", 1, cluster),
        }
        return _show(scripts, facts, options)
    try:
        names = () if sweep.is_searched else [planned.point for planned in points]
        array, after = slurm.submit(copies, tasks, cluster, points=names)
    except UserError:
        withdraw(copies)
        raise
    facts = {"array": array, "finish": after, **facts}
    status = f"research sweep status {folder if sweep.overlay else sweep.path}"
    text = (
        f"{are(len(tasks), 'point')} array {array}; job {after} follows it; `{status}` shows where they stand, "
        f"`scancel {array} {after}` ends them"
    )
    print(json.dumps(facts) if options.as_json else text)
    return 0


def _queued(queued: dict[str, int]) -> str:
    """Write how many points are in which arrays."""
    return f"{are(sum(queued.values()), 'point')} queued in array {', '.join(queued)}"


def _say_nothing(points: list[PlannedPoint], queued: dict[str, int], folder: Path, options: Options) -> int:
    """Say why nothing is submitted; return 0."""
    which = "the only point is" if len(points) == 1 else f"all {len(points)} points are"
    text = f"{_queued(queued)} already; nothing to submit" if queued else f"{which} done or running"
    facts = {"points": 0, "queued": sum(queued.values()), "out": str(folder)}
    print(json.dumps(facts) if options.as_json else text)
    return 0


def _show(scripts: dict[str, str], facts: dict[str, Json], options: Options) -> int:
    """Print what would be submitted; return 0."""
    print(json.dumps({"scripts": scripts, **facts}) if options.as_json else "\n".join(scripts.values()))
    return 0


# ---- W&B's agents ---------------------------------------------------------------------------------------------------


def _submit_agents(sweep: Sweep, program: Program, options: Options) -> int:
    """Submit as many agents as the sweep has trials; return the exit code."""
    target = parse_target(options.wandb)
    count = _trials(sweep, options.count)
    check_ranks(_checked_trials(sweep, program, options.seed), 1, 1, options.cluster.gpus)
    slurm.check_array(count, f"the trials of {sweep.path}")
    folder = folder_of(sweep).resolve()
    if options.dry_run:
        script = slurm.agents_script(sweep.name, sweep_copy(folder, target), folder, target, count, options.cluster)
        return _show({"array": script}, {"trials": count, "sweep": str(target), "out": str(folder)}, options)
    array = slurm.submit_agents(sweep, folder, target, count, options.cluster)
    facts = {"array": array, "trials": count, "sweep": str(target), "out": str(folder)}
    text = f"{are(count, 'trial')} array {array} for {target}; W&B shows where they stand, `scancel {array}` ends them"
    print(json.dumps(facts) if options.as_json else text)
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


def _checked_trials(sweep: Sweep, program: Program, seed: int) -> list[PlannedPoint]:
    """Return the trials, checked before any of them costs compute: all points, or samples of a sweep without a list of them.

    Raises:
        UserError: one of them cannot be run.
    """
    decided = sweep.early_terminate is not None or sweep.target is not None  # by the server, whatever the command is
    if sweep.is_exhaustive and not decided:
        return planned_points(sweep, seed, program)
    return plan(sweep, describer(sweep, program, decided_elsewhere=True), seed, watched)


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
    check_ranks(points, 1, 1, options.cluster.gpus, starts=False)
    tasks = tasks_to_submit(sweep, folder, points, Again(options.rerun_stale, options.retry), options.dry_run)
    if not tasks:
        return _say_nothing(points, {}, folder, options)
    copies = submission(sweep, folder, options.seed, write=not options.dry_run)
    job = kubernetes.job(kubernetes.name_of(sweep.name, folder), copies, tasks, options.cluster, options.pods)
    if options.dry_run:
        shown = {"job": kubernetes.text_of(job).removesuffix("\n")}
        return _show(shown, {"points": len(tasks), "out": str(folder)}, options)
    path = kubernetes.write(folder, job)
    apply = f"kubectl apply -f {path}"
    facts = {"job": job["metadata"]["name"], "file": str(path), "points": len(tasks), "apply": apply, "out": str(folder)}
    print(json.dumps(facts) if options.as_json else f"{are(len(tasks), 'point')} in {path}; start: {apply}")
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
