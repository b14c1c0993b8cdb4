"""A sweep's points, each through the real parser and the adapters' guard, before any of them costs compute."""

import contextlib
import io
import json
import re
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
from research.sweeps.sampling import count_of, sampled_points
from research.sweeps.spec import Sweep
from research.sweeps.trainer import Description, Program

Describe = Callable[[list[str]], Description]
"""A command → what it would compute; raises UserError where the command would end in one."""


WARNING = "warning:"  # how a warning of a point begins
ALIKE = 8  # points, all of them, that end in one error: the others will too
REASONS = 5  # that are listed
OPTION = re.compile(
    r"--((?:data|model|trainer)\.[\w.]*\w)(?:[ =]('[^']*'|[A-Z]+(?:\.\w+)?\b|true|false|null|[^\s,;)]*[\d\[\]/:=][^\s,;)]*))?"
)
"""An option of `fit` in a message, with its value."""


class _Problem(NamedTuple):
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
) -> list[PlannedPoint]:
    """Plan every point of a grid or a random sweep; of bayes, or of random without run_cap, points at the extremes.

    Args:
        sweep: see spec.
        describe: a command → {"point": its id, …}.
        seed: of a random sweep's draws.
        watch: wraps the points, to show progress.

    Raises:
        UserError: some of them cannot be run.
    """
    points: list[PlannedPoint] = []
    problems: list[_Problem] = []
    warnings: Counter[str] = Counter()
    heard: set[str] = set()
    everything, unseen = list(sampled_points(sweep, seed)), 0
    for values in watch(everything):
        stderr = io.StringIO()
        try:
            with contextlib.redirect_stderr(stderr):
                points.append(plan_point(sweep, values, describe))
        except UserError as error:
            problems.append(_Problem(values, as_setting(str(error))))
            if not points and len(problems) == ALIKE and len({problem.reason for problem in problems}) == 1:
                unseen = len(everything) - ALIKE
                break
        finally:  # every point says the same of the same data
            lines = dict.fromkeys(line.strip() for line in stderr.getvalue().splitlines() if line.strip())
            warnings.update(line for line in lines if WARNING in line)
            for line in [line for line in lines if WARNING not in line and line not in heard]:
                heard.add(line)
                say(as_setting(line))
    say_counted(warnings, len(points) + len(problems))
    first: dict[str, Point] = {}
    for planned in points if sweep.is_exhaustive else ():
        if planned.point in first:
            same = f"it computes what {as_text(first[planned.point])} computes (point {planned.point})"
            problems.append(_Problem(planned.values, f"{same}; expected each point once. Leave one out."))
        first.setdefault(planned.point, planned.values)
    if problems:
        raise UserError(_refusal(sweep, problems, len(everything), unseen))
    return points


def _refusal(sweep: Sweep, problems: list[_Problem], total: int, unseen: int) -> str:
    """Write why points cannot be run; the reasons after the first are said before it."""
    by_reason: dict[str, list[Point]] = {}
    for problem in problems:
        by_reason.setdefault(problem.reason, []).append(problem.values)
    for reason, values in list(by_reason.items())[1:REASONS]:
        say(f"{len(values)} of {total} points, the first {as_text(values[0])}: {reason}")
    what = "points" if sweep.is_exhaustive else "samples"
    few = f", and the other {unseen} were not looked at" if unseen else ""
    first = problems[0]
    return (
        f"{sweep.path}: {len(problems)} of {total} {what} cannot be run{few}, the first {as_text(first.values)}: {first.reason}"
    )


def as_setting(message: str) -> str:
    """Turn options of `fit` in a message into what a sweep takes: `--data.val FILE` into `--set data.val=FILE`."""

    def setting(option: re.Match[str]) -> str:
        value = option[2] or "…"
        return f"--set {option[1]}={value.rstrip('.')}" + "." * value.endswith(".")

    return OPTION.sub(setting, message)


def say_counted(warnings: Mapping[str, int], points: int) -> None:
    """Print each warning once, with the number of points that it concerns."""
    for line, times in warnings.items():
        say(f"{times} of {count_of(points, 'point')}: {as_setting(line)}")


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
