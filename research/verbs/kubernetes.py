"""`sweep submit --kubernetes`: a sweep as an Indexed Job, written down for `kubectl apply`."""

import argparse
import json
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.verbs.points import folder_of, planned_points, to_do


def submit_job(args: argparse.Namespace) -> int:
    """Render the Job of what is to be run; the exit code."""
    from research.sweeps.kubernetes import job, name_of, text_of, write
    from research.sweeps.slurm import submission
    from research.sweeps.spec import read_sweep

    options = _options(args)
    sweep = read_sweep(args.file)
    file, folder = _inside(args.file), _inside(folder_of(sweep))
    points = planned_points(args, sweep)
    todo = to_do(args, sweep, points, folder)
    if not todo:
        print(f"all {len(points)} points are done or running")
        return 0
    kept = submission(sweep.name, file, folder, args.seed, write=not args.dry_run)
    rendered = job(name_of(sweep.name, folder), kept, todo, options)
    if args.dry_run:
        print(text_of(rendered), end="")
        return 0
    path = write(folder, rendered)
    apply = f"kubectl apply -f {path}"
    facts = {"job": rendered["metadata"]["name"], "file": str(path), "points": len(todo), "apply": apply, "out": str(folder)}
    print(json.dumps(facts) if args.json else f"{len(todo)} points are in {path}; start them: {apply}")
    return 0


def _options(args: argparse.Namespace) -> Any:
    from research.sweeps.kubernetes import Options, claim

    for name, example in (("image", "IMAGE"), ("claim", "NAME:/path")):
        if not getattr(args, name):
            raise UserError(
                f"--kubernetes without --{name}; expected --{name} {example}: a pod has no file of this machine. Name it."
            )
    if args.max_failed is not None and args.max_failed < 0:
        raise UserError(f"--max-failed {args.max_failed}; expected 0 or more. Correct it.")
    return Options(
        args.image,
        claim(args.claim),
        args.throttle,
        args.cpus,
        args.slurm_gpus,
        args.mem,
        args.namespace,
        tuple(args.env),
        tuple(args.secret),
        tuple(args.setup),
        args.warning,
        args.max_failed,
    )


def _inside(path: Path) -> Path:
    """The path from here, which is what pods see of it.

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
