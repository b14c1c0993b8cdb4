"""A sweep's points, each through the real parser and the adapters' guard, before any of them costs compute."""

import contextlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.progress import bar, say
from research.runs.hashes import hash_json
from research.runs.identity import LENGTH
from research.runs.plan import JSON_FILE, LATER, WRITTEN, PlannedPoint, fill_in
from research.sweeps.command import Point, lost_in_text, ours
from research.sweeps.folder import as_text
from research.sweeps.sampling import sampled_points
from research.sweeps.spec import Sweep
from research.sweeps.trainer import Description, Program

Describe = Callable[[list[str]], Description]
"""A command → what it would compute; raises UserError where the command would end in one."""


WARNING = "warning:"  # how a warning of a point begins


class Problem(NamedTuple):
    """A point that cannot run, with the reason."""

    values: Point
    reason: str


def describer(sweep: Sweep, program: Program, decided_elsewhere: bool = False) -> Describe:
    """Return what describes the commands of a sweep.

    A metric that decides something here must be measured by every command; what else a foreign command logs is its own affair.

    Args:
        sweep: with a metric or without.
        program: see there.
        decided_elsewhere: W&B's server looks at the metric.
    """
    decides = sweep.is_searched or sweep.early_terminate is not None or sweep.target is not None
    decides = decides and not decided_elsewhere
    # where it decides, a goal that the sweep leaves out may be the wrong one
    goal = (sweep.facts.get("metric") or {}).get("goal") if decides else sweep.goal
    metric = sweep.metric if decides or str(sweep.metric).startswith("val/") else None

    def describe(argv: list[str]) -> Description:
        arguments = ours(argv)
        if arguments is not None and arguments[:1] == ["fit"]:
            return program.describe(arguments, metric, goal)
        if decides:
            raise UserError(
                f"{argv[0]}: bayes, early_terminate and metric.target need to see {metric} while the command runs; "
                "expected `research fit`. Leave them out, or leave them to W&B's agents."
            )
        return {"point": hash_json(argv)[:LENGTH]}  # somebody else's program: the command is all that is known

    return describe


def plan(
    sweep: Sweep, describe: Describe, seed: int = 0, watch: Callable[[Iterable[Point]], Iterable[Point]] = iter
) -> tuple[list[PlannedPoint], list[Problem]]:
    """Plan every point of a grid or a random sweep; of bayes, or of random without run_cap, points at the extremes.

    Args:
        sweep: see spec.
        describe: a command → {"point": its id, …}.
        seed: of a random sweep's draws.
        watch: wraps the points, to show progress.
    """
    points: list[PlannedPoint] = []
    problems: list[Problem] = []
    warnings: Counter[str] = Counter()
    heard: set[str] = set()
    for values in watch(sampled_points(sweep, seed)):
        stderr = io.StringIO()
        try:
            with contextlib.redirect_stderr(stderr):
                points.append(plan_point(sweep, values, describe))
        except UserError as error:
            problems.append(Problem(values, str(error)))
        finally:  # every point says the same of the same data
            lines = dict.fromkeys(line.strip() for line in stderr.getvalue().splitlines() if line.strip())
            warnings.update(line for line in lines if WARNING in line)
            for line in [line for line in lines if WARNING not in line and line not in heard]:
                heard.add(line)
                say(line)
    say_counted(warnings, len(points) + len(problems))
    first: dict[str, Point] = {}
    for planned in points if sweep.is_exhaustive else ():
        if planned.point in first:
            same = f"it computes what {as_text(first[planned.point])} computes (point {planned.point})"
            problems.append(Problem(planned.values, f"{same}; expected each point once. Leave one out."))
        first.setdefault(planned.point, planned.values)
    return points, problems


def say_counted(warnings: Mapping[str, int], points: int) -> None:
    """Print each warning once, with the number of points that it concerns."""
    for line, times in warnings.items():
        say(f"{times} of {points} points: {line}")


def plan_point(sweep: Sweep, values: Point, describe: Describe) -> PlannedPoint:
    """Describe a point.

    Raises:
        UserError: its command would end in one.
    """
    argv, later = sweep.command_of(values)
    text = json.dumps(values)  # of a foreign command the file's content is what it computes
    command = fill_in(argv, later, text)
    is_ours = ours(command) is not None
    if is_ours and (lost := lost_in_text(values, sweep.command)):  # W&B's agent hands "None" to any program
        raise UserError(
            f"{lost[0]} is null, which the command carries as the text None; expected a value that text can carry. "
            'Write "null" in quotes.'
        )
    if is_ours and any(argv[i] == JSON_FILE for i in later):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "args.json"
            path.write_text(text, encoding="utf-8")
            facts = describe(fill_in(argv, later, str(path)))
    else:
        facts = describe(command)
    return PlannedPoint(facts.pop("point"), values, command, facts | ({LATER: later, WRITTEN: argv} if later else {}))


def is_fit(planned: PlannedPoint) -> bool:
    """Return whether the point is a training of ours."""
    return (ours(planned.argv) or [""])[0] == "fit"


def watched(points: Iterable[Point]) -> Iterable[Point]:
    """Yield the points, with a bar that shows how far the plan is."""
    points = list(points)
    with bar(len(points), "plan", "point") as progress:
        for point in points:
            yield point
            progress.update(1)
