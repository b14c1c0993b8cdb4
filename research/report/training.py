"""Run folders of `research fit` → what a page shows of a training. Its validation numbers never meet the test tables."""

import json
import math
import shlex
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from research.errors import UserError
from research.report.goals import is_lower
from research.report.printable import is_deep
from research.runs.layout import MARKER
from research.runs.reading import read_json

Curve = list[tuple[int, float]]  # (optimizer steps taken, value), finite values only
CURVES = "curves.jsonl"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is there: a thousand configurations in 2 s, not 18
CURE = "Copy the run folder again, make the run again, or leave it out"


class Training(NamedTuple):
    """One training run.

    Attributes:
        name, path: the folder, by the shortest end of its path and resolved.
        config, provenance: as the run recorded them.
        monitor: the validation metric that chose the model, `mrr@10`.
        loss, values: training loss, and the monitored metric from the untrained model at step 0 on.
        best: (step, value) of the model that was kept; None before the first validation.
        steps: taken; of an unfinished run, so far.
        drawn: the last step of the curves; below `steps` where a full disk lost some.
        seconds: until the last step, over all processes of a run that was stopped and went on.
        per_second: examples a second while training, validation left out; None where the configuration does not say.
        lr: the peak.
        temperature: of the first and of the last step; None where there is none.
        not_finite: steps whose loss was nan or inf.
        lower: whether the lowest value of the monitor is the best.
    """

    name: str
    path: Path
    config: dict
    provenance: dict
    finished: bool
    monitor: str
    loss: Curve
    values: Curve
    best: tuple[int, float] | None
    steps: int
    drawn: int
    seconds: float
    per_second: float | None
    lr: float | None
    temperature: tuple[float, float] | None
    not_finite: int
    lower: bool

    @property
    def untrained(self) -> float | None:
        return self.values[0][1] if self.values and self.values[0][0] == 0 else None

    def setting(self, section: str, name: str) -> Any:
        """A value of config.yaml's `model` or `data`, None where it has none."""
        part = self.config.get(section)
        values = part.get("init_args", part) if isinstance(part, dict) else None
        return values.get(name) if isinstance(values, dict) else None


def is_training(path: Path) -> bool:
    """Whether the folder is one of `research fit`: the only verb whose provenance says what the run is made of."""
    if not (path / MARKER).is_file():
        return False
    provenance = read_json(path / MARKER)
    return isinstance(provenance, dict) and "made_of" in provenance and "verb" not in provenance


def read_training(path: Path, name: str) -> Training:
    """Read a folder of `research fit`, finished or not.

    Raises:
        UserError: config, curves or metrics are missing, damaged, or of different runs.
    """
    provenance = read_json(path / MARKER)
    config = read_config(path / "config.yaml")
    metrics = _metrics(path / "metrics.json")
    finished = bool(metrics.get("finished"))
    lines = _lines(path, finished, shlex.join(provenance.get("command") or ["research", "fit", "…"]))
    monitor = str(metrics.get("monitor") or config.get("monitor") or "").removeprefix("val/")
    values = _curve(lines, f"val/{monitor}")
    last = lines[-1]["step"]
    lower = is_lower(monitor, metrics.get("directions"))
    training = Training(
        name,
        path.resolve(),
        config,
        provenance,
        finished,
        monitor,
        loss=_curve(lines, "train/loss"),
        values=values,
        best=_best(path, metrics, monitor, values, finished, lower),
        steps=metrics.get("steps", last) if finished else last,
        drawn=last,
        seconds=_seconds(lines, metrics),
        per_second=None,
        lr=max((value for _, value in _curve(lines, "train/lr")), default=None),
        temperature=_ends(_curve(lines, "train/temperature")),
        not_finite=sum(not math.isfinite(line.get("train/loss", 0)) for line in lines),
        lower=lower,
    )
    return training._replace(per_second=_per_second(training, lines))


# ---- files ----------------------------------------------------------------------------------------------------------


def read_config(path: Path) -> dict:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except FileNotFoundError:
        raise UserError(f"training {path.parent} has no {path.name}; expected what `research fit` wrote. {CURE}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not readable YAML ({str(error).splitlines()[0]}); expected the configuration that "
            f"`research fit` wrote. {CURE}."
        ) from None
    except RecursionError:
        config = None
    if is_deep(config):
        raise UserError(f"{path} is nested too deeply; expected the configuration that `research fit` wrote. {CURE}.")
    if not isinstance(config, dict):
        raise UserError(f"{path} holds {_shown(config)}; expected the configuration that `research fit` wrote. {CURE}.")
    return config


def _metrics(path: Path) -> dict:
    """metrics.json, or {} of a training that has not been validated yet."""
    if not path.exists():
        return {}
    metrics = read_json(path)
    kind = metrics.get("kind") if isinstance(metrics, dict) else metrics
    if kind != "fit" or not isinstance(metrics.get("metrics"), dict) or not isinstance(metrics.get("step"), int):
        raise UserError(
            f'{path} has kind {_shown(kind)}; expected "fit" with the best step and its metrics, as '
            f"`research fit` writes it. {CURE}."
        )
    return metrics


def _lines(path: Path, finished: bool, again: str) -> list[dict]:
    """The lines of curves.jsonl; the last one of an unfinished training may be cut short, and is left out."""
    file = path / CURVES
    try:
        texts = file.read_text(encoding="utf-8").split("\n") if file.exists() else [""]
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 ({error}); expected lines of JSON. {CURE}.") from None
    cut = texts.pop()  # "" after the last line's end
    if cut and finished:
        texts.append(cut)
    lines = [_line(file, number, text) for number, text in enumerate(texts, 1)]
    if not lines:
        cure = CURE if finished else f"Let it go on: {again}; or leave it out"
        raise UserError(f"training {path} has no lines in {CURVES}, so nothing to show; expected one a step. {cure}.")
    for number, (before, line) in enumerate(pairwise(lines), 2):
        if line["step"] < before["step"]:
            raise UserError(
                f"{file}:{number}: step {line['step']} after step {before['step']}; expected steps in order. {CURE}."
            )
    return lines


def _line(file: Path, number: int, text: str) -> dict:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        line = text
    return _checked(file, number, line)


def _checked(file: Path, number: int, line: Any) -> dict:
    if isinstance(line, dict) and None in line.values():  # a number that JSON has no word for
        line = {name: math.nan if value is None and name != "step" else value for name, value in line.items()}
    good = isinstance(line, dict) and isinstance(line.get("step"), int) and line["step"] >= 0
    if not good or not all(isinstance(value, int | float) for value in line.values()):
        raise UserError(f"{file}:{number}: {_shown(line)} is damaged; expected an object of a step and its numbers. {CURE}.")
    return line


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def read_lines(path: Path, about: str = "") -> list[dict[str, Any]]:
    """The lines of a run's curves, in order; one that a killed process left unfinished is dropped.

    Args:
        path: the run folder.
        about: a name; only the lines that have it, without parsing the others.

    Raises:
        UserError: no UTF-8, or a whole line that is something else than a step and its numbers.
    """
    file, key = path / CURVES, json.dumps(about) if about else ""
    try:
        texts = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 ({error}); expected lines of JSON. {CURE}.") from None
    chosen = [(number, text) for number, text in enumerate(texts, 1) if key in text]
    lines = _parsed([text for _, text in chosen])
    found = [_checked(file, number, line) for (number, _), line in zip(chosen, lines, strict=True) if line is not DAMAGED]
    return [line for line in found if not about or about in line]


DAMAGED = object()


def _parsed(texts: list[str]) -> list[Any]:
    """Each line's value, DAMAGED of one that is no JSON; all at once where none is: a call a line takes twice as long."""
    try:
        whole = json.loads(f"[{','.join(texts)}]")
    except (ValueError, RecursionError):
        whole = []
    return whole if len(whole) == len(texts) else [_parsed_alone(text) for text in texts]


def _parsed_alone(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return DAMAGED


def history(path: Path, name: str) -> Curve:
    """(step, value) of one logged number of a run."""
    return [(line["step"], line[name]) for line in read_lines(path, name)]


# ---- values ---------------------------------------------------------------------------------------------------------


def _curve(lines: list[dict], name: str) -> Curve:
    return [(line["step"], line[name]) for line in lines if name in line and math.isfinite(line[name])]


def _best(path: Path, metrics: dict, monitor: str, values: Curve, finished: bool, lower: bool) -> tuple[int, float] | None:
    """The best of the curve, the first of equals; a finished run's metrics.json has the last word on which it is.

    Raises:
        UserError: metrics.json and the curve hold different values for one step.
    """
    if not finished:  # a resumed run's metrics.json may be ahead of its curves
        choose: Any = min if lower else max
        return choose((point for point in values if point[0] > 0), key=lambda point: point[1], default=None)
    value = metrics["metrics"].get(monitor)
    if not isinstance(value, int | float):
        return None
    there = [other for step, other in values if step == metrics["step"]]
    if there and not any(math.isclose(value, other, abs_tol=1e-5) for other in there):
        raise UserError(
            f"training {path} has {monitor} {there[0]:.4f} at step {metrics['step']} in {CURVES} and "
            f"{value:.4f} in metrics.json; expected the files of one run. {CURE}."
        )
    return metrics["step"], value


def _seconds(lines: list[dict], metrics: dict) -> float:
    """Each process counts from its own start: the clock's last value before every fall, summed."""
    clock = [line["seconds"] for line in lines if "seconds" in line]
    falls = [before for before, after in pairwise(clock) if after < before]
    alone = metrics.get("finished") and not falls and "seconds" in metrics
    return metrics["seconds"] if alone else sum(falls) + (clock[-1] if clock else 0)


def _per_second(training: Training, lines: list[dict]) -> float | None:
    """Examples of a step over the median time between two steps, which no validation or checkpoint moves."""
    optimisation = training.setting("model", "optimisation")
    accumulate = optimisation.get("accumulate", 1) if isinstance(optimisation, dict) else 1
    trainer = training.config.get("trainer")
    devices = trainer.get("devices") if isinstance(trainer, dict) else None
    factors = [training.setting("data", "batch_size"), accumulate, devices]
    clock = [(line["step"], line["seconds"]) for line in lines if "train/loss" in line and "seconds" in line]
    times = [t - s for (i, s), (k, t) in pairwise(clock) if k == i + 1 and t > s]
    if not times or not all(isinstance(factor, int) for factor in factors):
        return None
    return math.prod(factors) / statistics.median(times)


def _ends(curve: Curve) -> tuple[float, float] | None:
    return (curve[0][1], curve[-1][1]) if curve else None
