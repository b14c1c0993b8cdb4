"""`sweep plan`: every point through the parser and the adapters' guard, and what the sweep would cost."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from research.errors import UserError
from research.progress import say
from research.verbs.measuring import measure
from research.verbs.points import as_begun, folder_of, plan_key, refuse_other, taken, watched
from research.verbs.searching import describe_for


def plan_points(args: argparse.Namespace) -> int:
    from research.runs.plan import write_plan
    from research.sweeps.plan import equivalents, plan, shown
    from research.sweeps.spec import read_sweep

    if args.measure is not None and args.measure < 1:
        raise UserError(f"--measure {args.measure}; expected 1 step or more. Correct it.")
    sweep = read_sweep(args.file)
    refuse_other(folder_of(sweep), sweep, args.seed)
    described: list[float] = []
    points, problems = plan(sweep, _clocked(describe_for(sweep), described), args.seed, watched)
    points = as_begun(folder_of(sweep), points)
    if problems:
        for problem in problems[:10]:
            say(f"{shown(problem.values)}: {problem.reason}")
        first = problems[0]
        raise UserError(
            f"{args.file}: {len(problems)} of {len(points) + len(problems)} points cannot be run, the first "
            f"{shown(first.values)}: {first.reason}"
        )
    for a, b in equivalents(points):
        say(f"warning: {shown(b.values)} computes what {shown(a.values)} computes, spelled otherwise")
    folder, cost = folder_of(sweep), None
    if args.measure is not None:
        if args.threads:  # as the workers will have
            import torch

            torch.set_num_threads(args.threads)
        # the first point also paid for the imports, which every new process pays
        trials = None if sweep.is_exhaustive else sweep.run_cap
        points, cost = measure(points, args.measure, max(0.0, described[0] - statistics.median(described)), trials)
    if sweep.is_exhaustive:
        with taken(folder, sweep, args.seed):
            write_plan(folder, points, plan_key(args, sweep))
    if args.json:
        rows = [{"point": one.point, "values": one.values, **one.facts} for one in points]  # `written` has no variables
        print(json.dumps({"sweep": sweep.name, "method": sweep.method, "points": rows, "cost": cost, "out": str(folder)}))
        return 0
    for one in points:
        print(f"{one.point}  {shown(one.values)}" + "".join(f"  {text}" for text in _facts(one.facts)))
    most = "without end" if sweep.run_cap is None else f"of at most {sweep.run_cap} points"
    what = f"{len(points)} points" if sweep.is_exhaustive else f"{len(points)} samples of a {sweep.method} sweep {most}"
    print(f"\n{what}, all can be run" + (f"; {folder / 'plan.jsonl'}" if sweep.is_exhaustive else ""))
    if cost is not None:
        print(
            f"at most {cost['hours']:.2f} device-hours for {cost['trials']} points with a process each, "
            f"{cost['hours_in_kept_workers']:.2f} in workers that are kept ({cost['measured']} points timed, "
            f"{cost['steps']} steps each)"
        )
    return 0


def _clocked(describe: Callable, seconds: list[float]) -> Callable:
    """`describe`, noting how long it takes."""

    def clocked(argv: list[str]) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            return describe(argv)
        finally:
            seconds.append(time.perf_counter() - started)

    return clocked


def _facts(facts: dict[str, Any]) -> list[str]:
    if "trained_parameters" not in facts:
        return []
    out = [f"{facts['trained_parameters']:,} parameters"]
    if facts.get("adapter_bytes"):
        out.append(f"adapter {facts['adapter_bytes'] / 2**20:.2f} MiB")
    out.append(f"≥ {facts['memory'] / 2**30:.2f} GiB")
    return [*out, f"about {facts['seconds']:.0f} s"] if "seconds" in facts else out
