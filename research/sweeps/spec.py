"""A W&B sweep YAML, read and checked: what is swept, and the command of a point as W&B's agent would write it."""

import itertools
import json
import math
import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError, suggest
from research.runs.hashes import hash_json
from research.runs.layout import is_name
from research.sweeps.compile import OWN, read_mapping
from research.sweeps.distributions import Parameter, assembled, parameters_of

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
COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]  # W&B's own
MACROS = (
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_hyphens",
    "args_no_equals",
    "args_no_boolean_flags",
    "args_json",
    "args_json_file",
    "args_append_hydra",
    "args_override_hydra",
)
VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
JSON_FILE = "${args_json_file}"
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
"""Keys that hand the sweep to another program → what it would do."""
CONTENT = ("method", "program", "command", "parameters")
DRAWS = 100  # for each point of a random sweep
HYPERBAND = {"type", "min_iter", "max_iter", "s", "eta", "strict"}

Point = dict[str, Any]
"""Parameter → value."""


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

    @property
    def content(self) -> str:
        """Hash of what is swept, whatever it is called and however far it goes."""
        return hash_json({name: self.facts.get(name) for name in CONTENT})

    @property
    def varied(self) -> list[str]:
        """Parameters with more than one value."""
        return [one.name for one in self.parameters if one.values is None or len(one.values) > 1]

    @property
    def size(self) -> int | None:
        """Points of a grid; trials of the others, where they are limited."""
        if self.method != "grid":
            return self.run_cap
        count = 1
        for one in self.parameters:
            count *= len(one.values)
        return count if self.run_cap is None else min(count, self.run_cap)


def read_sweep(path: Path) -> Sweep:
    """
    Raises:
        UserError: no W&B sweep, or one that cannot be run.
    """
    facts = read_mapping(path)
    if own := [key for key in OWN if key in facts]:
        raise UserError(
            f"{path} has {own[0]!r}: it is a source; expected a plain W&B sweep. Run `research sweep compile "
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
        parameters = tuple(_listed(one, path) for one in parameters)
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
        _command(facts, path),
        cap,
        _hyperband(facts, metric, path),
        facts,
    )


def _check_choices(facts: dict, within: str, path: Path) -> None:
    for key, known in CHOICES.items():
        if key in facts and str(facts[key]).lower() not in known:
            raise UserError(f"{path}: {within}{key} is {facts[key]!r}; {suggest(str(facts[key]), known)}. Correct it.")


def _listed(one: Parameter, path: Path) -> Parameter:
    """As a list.

    Raises:
        UserError: W&B's grid does not take it.
    """
    if (listed := one.listed()) is not None:
        return listed
    if one.distribution == "categorical_w_probabilities":
        raise UserError(
            f"{path}: {one.name} has probabilities, and a grid takes every value once; expected `values` alone. "
            "Leave them out, or choose method: random."
        )
    raise UserError(
        f"{path}: {one.name} is {one.distribution}, and a grid has no end over it; expected `values: […]`. List "
        "them, or choose method: random."
    )


def _command(facts: dict, path: Path) -> tuple[str, ...]:
    command = facts.get("command") or COMMAND
    if not isinstance(command, list):
        raise UserError(f"{path}: command is {str(command)[:60]!r}; expected a list of words. Correct it.")
    words = [str(word) for word in [*command, facts.get("program", "")]]
    if "${program}" in words and not facts.get("program"):
        raise UserError(
            f"{path}: the command has ${{program}} and there is no program; expected one of them. Name the "
            "program, or write the command out."
        )
    for word in words:
        whole = word[2:-1] if word.startswith("${") and word.endswith("}") else None
        if whole is not None and whole not in MACROS and not VARIABLE.search(word):
            known = [*MACROS, "envvar:NAME"]  # W&B's agent leaves such a word out; NAME has capitals, digits and _
            raise UserError(f"{path}: command has {word}; {suggest(whole, known)}. Correct it.")
        if whole is None and (macro := re.search(r"\$\{(" + "|".join(MACROS[1:]) + r")\}", word)):
            raise UserError(
                f"{path}: the command has {macro[0]} within the word {word[:60]!r}, where W&B's agent does not "
                "fill it in; expected a word of its own. Write it as one: in a shell, [bash, -c, "
                '\'python "$0" "$@"\', "${program}", "${args}"].'
            )
        if lost := re.search(r"[\0\ud800-\udfff]", word):
            raise UserError(f"{path}: the command has {lost[0]!r} in a word; expected text. Leave that character out.")
    if not any(word.startswith("${args") for word in words[:-1]):
        raise UserError(f"{path}: the command has no ${{args}}: every point would be the same; expected it at its end. Add it.")
    return tuple(words[:-1])


def _hyperband(facts: dict, metric: dict, path: Path) -> dict | None:
    rule = facts.get("early_terminate")
    if rule is None:
        return None
    if not isinstance(rule, dict) or rule.get("type") != "hyperband":
        given = rule.get("type") if isinstance(rule, dict) else rule
        raise UserError(f"{path}: early_terminate.type is {given!r}; expected hyperband. Correct it.")
    if unknown := rule.keys() - HYPERBAND:
        raise UserError(
            f"{path}: early_terminate has {sorted(unknown)[0]!r}; expected {', '.join(sorted(HYPERBAND))}. Correct it."
        )
    if "min_iter" not in rule and "max_iter" not in rule:
        raise UserError(
            f"{path}: early_terminate has neither min_iter nor max_iter; expected one of them (max_iter with s). Add it."
        )
    numbers = {"min_iter": 1, "max_iter": 1, "s": 1, "eta": 1}
    for name, least in numbers.items():
        value = rule.get(name, least + 1)
        whole = isinstance(value, int) or (name == "eta" and isinstance(value, float))
        if isinstance(value, bool) or not whole or value < least or (name == "eta" and value <= 1):
            raise UserError(
                f"{path}: early_terminate.{name}={value!r}; expected "
                f"{'above 1' if name == 'eta' else 'a whole number of 1 or more'}. Correct it."
            )
    if "max_iter" in rule and "s" not in rule:
        raise UserError(f"{path}: early_terminate has max_iter without s; expected how many bands lie below it. Add s: 2.")
    if "max_iter" in rule and rule["max_iter"] < rule.get("eta", 3):
        raise UserError(
            f"{path}: early_terminate.max_iter={rule['max_iter']} is below eta={rule.get('eta', 3)}: there would "
            "be no band; expected eta or more. Raise it."
        )
    if not isinstance(rule.get("strict", True), bool):
        raise UserError(f"{path}: early_terminate.strict={rule['strict']!r}; expected true or false. Correct it.")
    if not metric.get("name"):
        raise UserError(
            f"{path}: early_terminate without a metric; expected metric: {{name: val/loss, goal: minimize}}. Add it."
        )
    return dict(rule)


# ---- points ---------------------------------------------------------------------------------------------------------


def grid(sweep: Sweep) -> Iterator[Point]:
    """Every combination, the last parameter fastest; no more than run_cap."""
    product = itertools.product(*(one.values for one in sweep.parameters))
    for values in itertools.islice(product, sweep.run_cap):
        yield assembled(sweep.parameters, values)


def drawn(sweep: Sweep, seed: int, count: int) -> list[Point]:
    """The seeded static plan of a random sweep, each point once; a longer one begins with a shorter one."""
    points: list[Point] = []
    seen = set()
    for i in range(DRAWS * count):  # of lists alone there may be fewer points than that
        draw = random.Random(f"sweep {sweep.name} {seed} {i}")
        point = assembled(sweep.parameters, [one.quantile(draw.random()) for one in sweep.parameters])
        if (text := repr(point)) not in seen:
            seen.add(text)
            points.append(point)
        if len(points) == count:
            break
    return points


def probes(sweep: Sweep, seed: int, count: int = 8) -> list[Point]:
    """Points that show what a sweep without an end can ask for: each parameter's extremes, and some draws."""
    middle = [one.quantile(0.5) for one in sweep.parameters]
    points = [assembled(sweep.parameters, middle)]
    for i, one in enumerate(sweep.parameters):
        points += [assembled(sweep.parameters, [*middle[:i], value, *middle[i + 1 :]]) for value in one.extremes()]
    points += drawn(sweep, seed, count)
    unique: list[Point] = []
    for point in points:
        if point not in unique:
            unique.append(point)
    return unique


# ---- commands -------------------------------------------------------------------------------------------------------


def command_of(sweep: Sweep, point: Point) -> tuple[list[str], list[int]]:
    """The command of a point as W&B's agent renders it: values by Python's str(), in the sweep's order.

    Returns:
        The words, and the numbers of those that only the machine that starts the command can fill in: variables of its
        environment, which may be secrets, and a file for ${args_json_file}. `filled` does it.
    """
    flags = [f"{name}={value}" for name, value in point.items()]
    booleans = [name if value is True else f"{name}={value}" for name, value in point.items() if value is not False]
    expanded = {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [str(sweep.facts.get("program", ""))],
        "args": [f"--{flag}" for flag in flags],
        "args_no_hyphens": flags,
        "args_no_equals": [part for name, value in point.items() for part in (f"--{name}", str(value))],
        "args_no_boolean_flags": [f"--{flag}" for flag in booleans],
        "args_json": [json.dumps(point)],
        "args_append_hydra": [f"+{flag}" for flag in flags],
        "args_override_hydra": [f"++{flag}" for flag in flags],
    }
    argv: list[str] = []
    later: list[int] = []
    for word in sweep.command:
        if word == JSON_FILE or VARIABLE.search(word):
            later.append(len(argv))
            argv.append(word)
        else:
            argv += expanded.get(word[2:-1], [word]) if word.startswith("${") and word.endswith("}") else [word]
    return argv, later


def filled(argv: list[str], later: Iterable[int], json_file: str) -> list[str]:
    """A command with the variables of this process's environment; one that is not there is its name, as for W&B's agent.

    Args:
        argv, later: as command_of returns them.
        json_file: what stands for ${args_json_file}.
    """
    words = list(argv)
    for i in later:
        words[i] = json_file if argv[i] == JSON_FILE else VARIABLE.sub(lambda m: os.environ.get(m[1], m[1]), argv[i])
    return words


def argv_of(sweep: Sweep, point: Point) -> list[str]:
    """The command of a point as it would start here and now; its values stand for a file that holds them."""
    return filled(*command_of(sweep, point), json.dumps(point))


def ours(argv: list[str]) -> list[str] | None:
    """The arguments of our own verb in a command (`fit -c …`); None of a foreign one."""
    words = argv[1:] if argv and argv[0].endswith("/env") else argv
    if words and Path(words[0]).name == "research":
        return words[1:]
    python = bool(words) and re.fullmatch(r"python[\d.]*", Path(words[0]).name) is not None
    return words[3:] if python and words[1:3] == ["-m", "research"] else None


def lost_in_text(point: Point, command: Sequence[str] = ()) -> list[str]:
    """Parameters whose value is another one once it is a word of the command: None, which becomes the text "None".

    JSON carries it; so does a mapping, whose text our own verbs read again.
    """
    if {"${args_json}", JSON_FILE} & {*command} and not any(
        word.startswith("${args") and word not in ("${args_json}", JSON_FILE) for word in command
    ):
        return []
    return [name for name, value in point.items() if value is None]
