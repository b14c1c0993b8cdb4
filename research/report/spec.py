"""report.yaml: what a study's report compares; all of it may be left out."""

from pathlib import Path
from typing import NamedTuple

from research.errors import UserError, suggest
from research.runs.reading import read_yaml

GOALS = ("maximize", "minimize")
LATEX = ("booktabs", "plain")
CHOICES = {"goal": GOALS, "latex": LATEX}


class Spec(NamedTuple):
    """What to compare.

    Attributes:
        title: of the page.
        metric: val/… or test/…; None: what the trainings were monitored by.
        goal: maximize | minimize; None: by the metric's name.
        baseline: label of the setting or system that the others are compared with; None: the first; of systems the row above.
        pair_by_seed: whether runs of one seed share what it fixes, so that differences are taken seed by seed.
        metrics: of the main table, one a column; the first is the metric, where that is not named.
        factors: options that tell groups apart, in this order; None: all that differ.
        labels: option (whole or short) or metric → the words for it in tables, figures and page.
        latex: booktabs | plain, a bare tabular that needs no package.
        seed: the option of W&B's runs that holds the seed; None: seed_everything or seed.
    """

    title: str | None = None
    metric: str | None = None
    metrics: tuple[str, ...] = ()
    goal: str | None = None
    baseline: str | None = None
    pair_by_seed: bool = False
    factors: tuple[str, ...] | None = None
    seed: str | None = None
    latex: str = LATEX[0]
    labels: dict[str, str] = {}  # noqa: RUF012 (never changed)


TYPES: dict[str, tuple[type, str]] = {
    "title": (str, "a text"),
    "metric": (str, "a metric, such as val/loss"),
    "goal": (str, "maximize or minimize"),
    "baseline": (str, "the label of a setting"),
    "pair_by_seed": (bool, "true or false"),
    "factors": (list, "a list of options"),
    "metrics": (list, "a list of metrics"),
    "seed": (str, "the option that holds the seed"),
    "labels": (dict, "names of options or metrics, each with its words"),
    "latex": (str, "booktabs or plain"),
}


def read_spec(path: Path | None) -> Spec:
    """Read report.yaml; without a file everything is left to the runs.

    Raises:
        UserError: not there, no YAML, or a key or value that a spec has not.
    """
    if path is None:
        return Spec()
    value = read_yaml(path, "spec") or {}
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}; expected a mapping such as `metric: val/loss`. Correct it.")
    for name, setting in value.items():
        if name not in TYPES:
            raise UserError(f"{path} has {str(name)!r}; {suggest(str(name), list(TYPES))}. Correct it.")
        kind, expected = TYPES[name]
        if not isinstance(setting, kind) or setting not in CHOICES.get(name, (setting,)):
            raise UserError(f"{path}: {name} is {str(setting)[:60]!r}; expected {expected}. Correct it.")
    if bad := [name for name, label in (value.get("labels") or {}).items() if not isinstance(label, str) or not label.strip()]:
        raise UserError(f"{path}: labels: {bad[0]} is {str(value['labels'][bad[0]])[:60]!r}; expected words. Correct it.")
    for name in ("factors", "metrics"):
        if name in value:
            value[name] = tuple(dict.fromkeys(map(str, value[name])))
    if value.get("metrics"):
        value.setdefault("metric", value["metrics"][0])
    return Spec(**value)
