"""`sweep submit --wandb` and `sweep trial`: W&B's agents as a SLURM array, one trial a task."""

import argparse
import json
import os
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from research.errors import UserError
from research.verbs.describing import describe
from research.verbs.points import folder_of, planned_points, watched


def submit_trials(args: argparse.Namespace, options: Any) -> int:
    """Submit as many agents as the sweep has trials; the exit code."""
    from research.sweeps.agents import kept_sweep, target
    from research.sweeps.slurm import agents_script, check_array, submit_agents
    from research.sweeps.spec import read_sweep

    of, sweep = target(args.wandb), read_sweep(args.file)
    count = _count(args, sweep)
    _check(args, sweep)
    check_array(count, f"the trials of {args.file}")
    folder = folder_of(sweep).resolve()
    if args.dry_run:
        print(agents_script(sweep.name, kept_sweep(folder, of), folder, of, count, options))
        return 0
    array = submit_agents(sweep.name, args.file, folder, of, count, options)
    facts = {"array": array, "trials": count, "sweep": str(of), "out": str(folder)}
    print(json.dumps(facts) if args.json else f"{count} trials of {of} are array {array}; W&B shows where they stand")
    return 0


def go_on(args: argparse.Namespace) -> NoReturn:
    """Become the trial that this task's agent was handed.

    Raises:
        UserError: it was handed none.
    """
    from research.sweeps.agents import handed_out, target
    from research.sweeps.spec import read_sweep

    if args.wandb is None or args.folder is None:
        raise UserError(
            f"sweep trial {args.file} without what `sweep submit --wandb` tells it; expected a task of its array. "
            "Run `research sweep submit` with --wandb."
        )
    of = target(args.wandb)
    trial = handed_out(Path(args.folder), of, read_sweep(args.file))
    # the run is in its sweep already; with WANDB_SWEEP_ID wandb would ask the server for a place there again
    variables = {
        "WANDB_ENTITY": of.entity,
        "WANDB_PROJECT": of.project,
        "WANDB_RUN_ID": trial.run,
        "WANDB_RESUME": "allow",
        "TANDEM_TRIAL": of.sweep,
    }
    theirs = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # as the agent leaves it out
    try:
        os.execvpe(trial.argv[0], trial.argv, theirs | variables)
    except OSError as error:
        raise UserError(
            f"{trial.argv[0]} cannot be started ({error.strerror}); expected a command. Correct the sweep's."
        ) from None


def _count(args: argparse.Namespace, sweep: Any) -> int:
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


def _check(args: argparse.Namespace, sweep: Any) -> None:
    """The trials, before any of them costs compute: all points, or samples of a sweep without a list of them.

    Raises:
        UserError: one of them cannot be run.
    """
    from research.sweeps.plan import plan, shown

    decided = sweep.early_terminate is not None or sweep.target is not None  # by the server, whatever the command is
    if sweep.is_exhaustive and not decided:
        planned_points(args, sweep)
        return
    metric = sweep.metric if str(sweep.metric).startswith("val/") else None
    _, problems = plan(sweep, partial(describe, shown=metric), args.seed, watched)
    if problems:
        raise UserError(
            f"{args.file}: {len(problems)} samples cannot be run, the first {shown(problems[0].values)}: {problems[0].reason}"
        )
