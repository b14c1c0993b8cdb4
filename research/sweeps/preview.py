"""`sweep plan`: every point through the parser and the adapters' guard, and what the sweep would cost."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence

from research.errors import UserError
from research.progress import say
from research.runs.ledger import AGAIN
from research.runs.options import options_of
from research.runs.plan import FILE as PLAN
from research.runs.plan import PlannedPoint, write_plan
from research.sweeps.configs import kept_points, refuse_changed
from research.sweeps.cost import measured, say_measuring
from research.sweeps.folder import as_text, claimed, folder_of, refuse_other_sweep, with_earlier_ids
from research.sweeps.plan import Describe, describer, plan, watched
from research.sweeps.points import plan_key
from research.sweeps.sampling import count_of, count_text, settings_and_seeds
from research.sweeps.spec import COPY, Sweep
from research.sweeps.standing import counted, standings_now
from research.sweeps.trainer import Description, Program
from research.types import Json


def show_plan(
    sweep: Sweep, program: Program, seed: int = 0, measure: int | None = None, kinds: int | None = None, as_json: bool = False
) -> int:
    """Check every point, write the plan and print it; return the exit code.

    Args:
        sweep: see spec.
        program: see there.
        seed: of a random sweep's draws.
        measure: steps to time of each kind of point; None times none.
        kinds: how many kinds of points are timed, with `measure`; None: all.
        as_json: print one JSON line.

    Raises:
        UserError: a point cannot be run, or the folder is another sweep's.
    """
    if measure is not None and measure < 1:
        raise UserError(f"--measure {measure}; expected 1 step or more. Correct it.")
    if kinds is not None and (measure is None or kinds < 1):
        raise UserError(f"--kinds {kinds}; expected 1 or more, together with --measure. Correct it, or leave it out.")
    folder = folder_of(sweep)
    refuse_other_sweep(folder, sweep, seed)
    seconds: list[float] = []
    points = with_earlier_ids(folder, plan(sweep, _timed(describer(sweep, program), seconds), seed, watched))
    refuse_changed(sweep, folder, points)
    for a, b in equivalents(points):
        say(f"warning: {as_text(b.values)} computes what {as_text(a.values)} computes, spelled otherwise")
    if note := scale_varies([planned.values for planned in points]):
        say(note)
    cost = None
    if measure is not None:
        say_measuring(points, measure, kinds)
        # the first point also paid for the imports, which every new process pays
        start = max(0.0, seconds[0] - statistics.median(seconds))
        points, cost = measured(points, measure, start, program, None if sweep.is_exhaustive else sweep.run_cap, kinds)
    if sweep.is_exhaustive or sweep.overlay:  # a sweep with an overlay lies in its folder alone
        with claimed(folder, sweep, seed):
            if sweep.is_exhaustive:
                points = kept_points(points, sweep, folder)
                write_plan(folder, points, plan_key(sweep, seed))
    if as_json:
        # `written` has no variables
        rows = [{"point": planned.point, "values": planned.values, **planned.facts} for planned in points]
        settings, seeds = settings_and_seeds([planned.values for planned in points])
        counts = {"settings": settings, "seeds": seeds, "states": counted(standings_now(folder, points, sweep))}
        facts = {"sweep": sweep.name, "method": sweep.method, "points": rows, **counts, "cost": cost, "out": str(folder)}
        print(json.dumps(facts))
        return 0
    standings = standings_now(folder, points, sweep)
    for planned in points:
        state = standings[planned.point].state
        texts = [*_facts(planned.facts), *([] if state == "missing" else [state])]
        print("  ".join([planned.point, as_text(planned.values), *texts]))
    most = "without end" if sweep.run_cap is None else f"of at most {sweep.run_cap} points"
    if sweep.is_exhaustive:
        states = counted(standings)
        stand = ", ".join(f"{count} {state}" for state, count in states.items() if state != "missing")
        to_run = sum(count for state, count in states.items() if state in AGAIN)
        print(f"\n{count_text([planned.values for planned in points])}; all can be run")
        print(f"{stand or 'none is begun'}, {to_run} to run; {folder / PLAN}")
    else:
        print(f"\n{count_of(len(points), 'sample')} of a {sweep.method} sweep {most}, all can be run")
    if sweep.overlay:
        print(f"for W&B's agents: wandb sweep {folder / COPY}")
    if cost is not None:
        print(
            f"about {cost['hours']:.2f} device-hours for {count_of(cost['trials'], 'point')} with a process each, "
            f"{cost['hours_in_kept_workers']:.2f} in workers that are kept ({count_of(cost['measured'], 'point')} timed now, "
            f"{cost['steps']} steps each, on {cost['device']}; other load or another device takes another time)"
        )
    return 0


def scale_varies(points: Sequence[Mapping[str, Json]]) -> str:
    """Write a note where LoRA's r varies and lora_alpha is not swept with it, so that two things change at once; else ""."""
    swept = [{name.replace(".init_args", ""): value for name, value in options_of(values).items()} for values in points]
    for name in {name for options in swept for name in options if name.endswith("adapter.r")}:
        several = len({str(options[name]) for options in swept if name in options}) > 1
        alpha = f"{name.removesuffix('r')}lora_alpha"
        if several and not any({alpha, alpha.replace("lora_", "")} & options.keys() for options in swept):  # LoHa's, LoKr's
            return (
                f"note: {name} varies and lora_alpha does not, so the update's scale, lora_alpha / r, varies with it. To "
                f"change r alone, sweep {alpha} with it, as sweeps/src/lora_r_alpha.yaml does"
            )
    return ""


def equivalents(points: list[PlannedPoint]) -> list[tuple[PlannedPoint, PlannedPoint]]:
    """Pair different points that compute the same function of the data: another spelling of one update's scale, say."""
    first: dict[str, PlannedPoint] = {}
    pairs = []
    for planned in points:
        key = planned.facts.get("computes", planned.point)
        if key in first and first[key].point != planned.point:
            pairs.append((first[key], planned))
        first.setdefault(key, planned)
    return pairs


def _timed(describe: Describe, seconds: list[float]) -> Describe:
    """Wrap `describe` so that it notes how long it takes."""

    def timed(argv: list[str]) -> Description:
        started = time.perf_counter()
        try:
            return describe(argv)
        finally:
            seconds.append(time.perf_counter() - started)

    return timed


def _facts(facts: dict[str, Json]) -> list[str]:
    if "trained_parameters" not in facts:
        return []
    texts = [f"{facts['trained_parameters']:,} parameters"]
    if facts.get("adapter_bytes"):
        texts.append(f"adapter {facts['adapter_bytes'] / 2**20:.2f} MiB")
    texts.append(f"≥ {facts['memory'] / 2**30:.2f} GiB")
    return [*texts, f"about {facts['seconds']:.0f} s"] if "seconds" in facts else texts
