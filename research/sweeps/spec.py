"""A W&B sweep YAML, read and checked: what is swept, and the command of a point as W&B's agent would write it."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError, suggest
from research.runs.hashes import hash_json
from research.runs.layout import is_name
from research.runs.plan import fill_in
from research.runs.reading import read_yaml
from research.sweeps.command import Point, checked_command, rendered
from research.sweeps.distributions import Parameter
from research.sweeps.hyperband import checked_rule
from research.sweeps.parameters import listed, parameters_of
from research.types import Json

SOURCE_KEYS = ("let", "tie", "zip", "cases", "sizes", "configs")
"""Keys of a source, from which `compile` makes a plain sweep."""
KEYS = (
    "apiVersion",
    "kind",
    "controller",
    "description",
    "program",
    "job",
    "image_uri",
    "entity",
    "project",
    "method",
    "command",
    "name",
    "run_cap",
    "metric",
    "metrics",
    "scheduler",
    "early_terminate",
    "parameters",
)
METHODS = ("grid", "random", "bayes")
METRIC = ("name", "goal", "target", "impute", "impute_while_running")
CHOICES = {
    "kind": ("sweep",),
    "impute": ("latest", "best", "worst"),
    "impute_while_running": ("latest", "best", "worst", "false"),
}
ELSEWHERE = {
    "job": "W&B Launch starts",
    "image_uri": "W&B Launch starts",
    "scheduler": "a scheduler of W&B's chooses",
    "metrics": "W&B's method custom weighs",
}
"""Keys by which W&B gives a sweep to another program → what that program would do."""
COPY = "sweep.yaml"  # the sweep, in its folder
CONTENT = ("method", "program", "command", "parameters")


class Sweep(NamedTuple):
    """A W&B sweep.

    Attributes:
        path: its file.
        name: of the sweep, and of its folder.
        method: grid | random | bayes.
        parameters: in the YAML's order.
        metric, goal: what bayes and early termination look at; goal is minimize or maximize.
        target: value of the metric at which no more points are begun.
        command: with W&B's macros.
        run_cap: trials at most.
        early_terminate: W&B's hyperband settings.
        facts: the whole YAML.
        overlay: words that options have added to its command, which is then not that of the file.
        text: its YAML as it is copied for workers and clusters.
    """

    path: Path
    name: str
    method: str
    parameters: tuple[Parameter, ...]
    metric: str | None
    goal: str
    target: float | None
    command: tuple[str, ...]
    run_cap: int | None
    early_terminate: dict | None
    facts: dict
    overlay: tuple[str, ...] = ()
    text: str = ""

    def command_of(self, point: Point) -> tuple[list[str], list[int]]:
        """Render the command of a point; return also the numbers of the words that are filled in where it starts."""
        return rendered(self.command, str(self.facts.get("program", "")), point)

    def argv_of(self, point: Point) -> list[str]:
        """Return the command of a point as it would start here and now; its values stand for a file that holds them."""
        return fill_in(*self.command_of(point), json.dumps(point))

    @property
    def is_searched(self) -> bool:
        """Return whether the points depend on what became of others."""
        return self.method == "bayes"

    @property
    def is_exhaustive(self) -> bool:
        """Return whether a plan is what will be run, and not a sample of it."""
        return self.method == "grid" or (self.method == "random" and self.run_cap is not None)

    @property
    def content(self) -> str:
        """Hash what is swept, without the sweep's name and its number of trials."""
        return hash_json({name: self.facts.get(name) for name in CONTENT})

    @property
    def varied(self) -> list[str]:
        """List the parameters with more than one value."""
        return [parameter.name for parameter in self.parameters if parameter.values is None or len(parameter.values) > 1]

    @property
    def size(self) -> int | None:
        """Count the points of a grid; the trials of the others, where they are limited."""
        if self.method != "grid":
            return self.run_cap
        count = 1
        for parameter in self.parameters:
            count *= len(parameter.values)
        return count if self.run_cap is None else min(count, self.run_cap)


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's YAML, or that of a sweep's folder.

    Raises:
        UserError: no W&B sweep, or one that cannot be run.
    """
    path = path / COPY if (path / COPY).is_file() else path
    facts = read_mapping(path)
    return sweep_of(facts, path)._replace(text=path.read_text(encoding="utf-8"))


def sweep_of(facts: dict[str, Json], path: Path) -> Sweep:
    """Check a sweep.

    Args:
        facts: its YAML.
        path: of it, for messages.

    Raises:
        UserError: no W&B sweep, or one that cannot be run.
    """
    if source := [key for key in SOURCE_KEYS if key in facts]:
        raise UserError(
            f"{path} has {source[0]!r}: it is a source; expected a plain W&B sweep. Run `research sweep compile "
            f"{path}` and name the file that it makes."
        )
    if unknown := [key for key in facts if key not in KEYS]:
        raise UserError(f"{path}: unknown key {unknown[0]!r}; {suggest(unknown[0], KEYS)}. Correct it.")
    for key, does in ELSEWHERE.items():
        if key in facts:
            raise UserError(
                f"{path} has {key}, by which {does}; expected a sweep that is begun here, point by point, or by "
                "`wandb agent`. Leave it out, and write program or command."
            )
    for key in ("program", "name"):
        if isinstance(facts.get(key), dict | list):
            raise UserError(f"{path}: {key} is {str(facts[key])[:60]!r}; expected a text. Correct it.")
    _check_choices(facts, "", path)
    method = facts.get("method")
    if method not in METHODS:
        raise UserError(f"{path}: method is {method!r}; expected {', '.join(METHODS)}. Correct it.")
    if not isinstance(facts.get("parameters"), dict) or not facts["parameters"]:
        raise UserError(f"{path} has no parameters; expected dotted names with values or distributions. Add some.")
    name = str(facts.get("name") or Path(path).stem)
    if not is_name(name):
        raise UserError(f"{path}: name {name!r}; expected a name that a folder can have, of 240 bytes at most. Correct it.")
    parameters = tuple(parameters_of(facts["parameters"], str(path)))
    if method == "grid":
        parameters = tuple(listed(parameter, str(path)) for parameter in parameters)
    cap = facts.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
        raise UserError(f"{path}: run_cap={cap!r}; expected 1 trial or more. Correct it.")
    metric = facts.get("metric") or {}
    if not isinstance(metric, dict) or not isinstance(metric.get("name", ""), str):
        raise UserError(f"{path}: metric is {str(metric)[:60]!r}; expected {{name: val/loss, goal: minimize}}. Correct it.")
    if unknown := [str(key) for key in metric if key not in METRIC]:
        raise UserError(f"{path}: metric has {unknown[0]!r}; {suggest(unknown[0], METRIC)}. Correct it.")
    if facts.get("metric") is not None and not metric.get("name"):
        raise UserError(f"{path}: metric has no name; expected {{name: val/loss, goal: minimize}}. Add it.")
    _check_choices(metric, "metric.", path)
    target = metric.get("target")
    if target is not None and (not isinstance(target, int | float) or isinstance(target, bool) or not math.isfinite(target)):
        raise UserError(f"{path}: metric.target={target!r}; expected a number. YAML reads 1e-4 as a text: write 1.0e-4.")
    goal = metric.get("goal", "minimize")
    if method == "bayes" and not metric.get("name"):
        raise UserError(f"{path}: bayes without a metric; expected metric: {{name: val/loss, goal: minimize}}. Add it.")
    if goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: metric.goal is {goal!r}; expected minimize or maximize. Correct it.")
    return Sweep(
        Path(path),
        name,
        method,
        parameters,
        metric.get("name"),
        goal,
        target,
        checked_command(facts, path),
        cap,
        checked_rule(facts, metric, path),
        facts,
    )


def read_mapping(path: Path) -> dict:
    """Read a YAML file of names and values.

    Raises:
        UserError: not there, or no mapping.
    """
    return check_mapping(read_yaml(path, "sweep"), "the file", path)


def check_mapping(value: Json, what: str, path: Path) -> dict:
    """Return the value if it is a mapping.

    Raises:
        UserError: it is none.
    """
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: {what} is {'nothing' if value is None else type(value).__name__}; expected a mapping. Correct it."
        )
    return value


def _check_choices(facts: dict, within: str, path: Path) -> None:
    for key, known in CHOICES.items():
        if key in facts and str(facts[key]).lower() not in known:
            raise UserError(f"{path}: {within}{key} is {facts[key]!r}; {suggest(str(facts[key]), known)}. Correct it.")
