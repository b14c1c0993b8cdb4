"""Run folders of `research fit` → what a page shows of a training. Its validation numbers never meet the test tables."""

import math
import statistics
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.report.goals import is_lower
from research.runs.curves import CURE, Curve, whole_lines
from research.runs.folder import RunFolder
from research.runs.layout import CURVES
from research.runs.record import FINISHED, RunRecord, read_record
from research.types import Json


class Training(NamedTuple):
    """What curves and words of one training are made from, beside its record.

    Attributes:
        run: the record.
        loss, values: training loss, and the monitored metric from the untrained model at step 0 on.
        best: (step, value) of the model that was saved; None before the first validation.
        steps: taken; of an unfinished run, so far.
        drawn: the last step of the curves; below `steps` where a full disk lost some.
        seconds: until the last step, over all processes of a run that was stopped and went on.
        per_second: examples a second while training, validation left out; None where the configuration does not say.
        lr: the peak.
        temperature: of the first and of the last step; None where there is none.
        not_finite: steps whose loss was nan or inf.
        labels: metric → the words of the report's spec for it.
    """

    run: RunRecord
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
    labels: Mapping[str, str] = {}

    @property
    def monitor(self) -> str:
        """Name the validation metric that chose the model, `mrr@10`."""
        return self.run.monitor.removeprefix("val/")

    @property
    def finished(self) -> bool:
        """Return whether it came to its end, or was pruned."""
        return self.run.state in FINISHED

    @property
    def lower(self) -> bool:
        """Return whether the lowest value of the monitor is the best."""
        return is_lower(self.monitor, self.run.directions)

    @property
    def untrained(self) -> float | None:
        """Return the metric before the first step; None where it was not measured."""
        return self.values[0][1] if self.values and self.values[0][0] == 0 else None


def record_of_fit(path: Path, name: str) -> RunRecord:
    """Read the record of a training that is drawn by itself.

    Raises:
        UserError: a file is damaged, or its metrics.json is no training's.
    """
    folder = RunFolder(path, name)
    folder.check_fit()
    return read_record(folder)


def read_training(run: RunRecord, labels: Mapping[str, str] = {}) -> Training:
    """Read the curves of a folder of `research fit`, finished or not.

    Args:
        run: its record.
        labels: metric → the words of the report's spec for it.

    Raises:
        UserError: config, curves or metrics are missing, damaged, or of different runs.
    """
    folder = RunFolder(run.path, run.name)
    _ = folder.config  # refused where it is missing
    metrics, finished = folder.metrics, run.state in FINISHED
    lines = whole_lines(run.path, finished, folder.command("fit"))
    last, lr = lines[-1]["step"], _curve(lines, "train/lr")
    training = Training(
        run,
        loss=_curve(lines, "train/loss"),
        values=_curve(lines, f"val/{run.monitor.removeprefix('val/')}"),
        best=None,
        steps=metrics.get("steps", last) if finished else last,
        drawn=last,
        seconds=_seconds(lines, metrics),
        per_second=_per_second(run, lines),
        lr=max((value for _, value in lr), default=None),
        temperature=_ends(_curve(lines, "train/temperature")),
        not_finite=sum(not math.isfinite(line.get("train/loss", 0)) for line in lines),
        labels=labels,
    )
    return training._replace(best=_best(training, metrics))


# ---- values ---------------------------------------------------------------------------------------------------------


def _curve(lines: list[dict[str, float]], name: str) -> Curve:
    return [(line["step"], line[name]) for line in lines if name in line and math.isfinite(line[name])]


def _best(training: Training, metrics: dict[str, Json]) -> tuple[int, float] | None:
    """Find the best of the curve, the first of equals; a finished run's metrics.json has the last word on which it is.

    Raises:
        UserError: metrics.json and the curve hold different values for one step.
    """
    if not training.finished:  # a resumed run's metrics.json may be ahead of its curves
        choose = min if training.lower else max
        return choose((point for point in training.values if point[0] > 0), key=lambda point: point[1], default=None)
    value = metrics["metrics"].get(training.monitor)
    if not isinstance(value, int | float):
        return None
    in_curve = [other for step, other in training.values if step == metrics["step"]]
    if in_curve and not any(math.isclose(value, other, abs_tol=1e-5) for other in in_curve):
        raise UserError(
            f"training {training.run.path} has {training.monitor} {in_curve[0]:.4f} at step {metrics['step']} in {CURVES} and "
            f"{value:.4f} in metrics.json; expected the files of one run. {CURE}."
        )
    return metrics["step"], value


def _seconds(lines: list[dict[str, float]], metrics: dict[str, Json]) -> float:
    """Sum the clock's last value before every fall: each process counts from its own start."""
    clock = [line["seconds"] for line in lines if "seconds" in line]
    falls = [before for before, after in pairwise(clock) if after < before]
    one_process = metrics.get("finished") and not falls and "seconds" in metrics
    return metrics["seconds"] if one_process else sum(falls) + (clock[-1] if clock else 0)


def _per_second(run: RunRecord, lines: list[dict[str, float]]) -> float | None:
    """Divide the examples of a step by the median time between two steps, which no validation or checkpoint moves."""
    accumulate = run.options.get("model.optimisation.accumulate", 1)
    factors = [run.options.get("data.batch_size"), accumulate, run.options.get("trainer.devices")]
    clock = [(line["step"], line["seconds"]) for line in lines if "train/loss" in line and "seconds" in line]
    times = [t - s for (i, s), (k, t) in pairwise(clock) if k == i + 1 and t > s]
    if not times or not all(isinstance(factor, int) for factor in factors):
        return None
    return math.prod(factors) / statistics.median(times)


def _ends(curve: Curve) -> tuple[float, float] | None:
    return (curve[0][1], curve[-1][1]) if curve else None
