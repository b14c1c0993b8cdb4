"""A study: groups of runs that differ by their seed alone, with the values that tables, figures and claims are made from."""

from collections.abc import Sequence
from typing import NamedTuple

from research.report.factors import named
from research.runs.record import RunRecord
from research.types import Json


class Group(NamedTuple):
    """Runs of one setting.

    Attributes:
        label: unlike every other group's.
        key: the label with names of options in place of the spec's labels.
        factors: option → value, of the options that differ between groups.
        runs: all of them, finished or not, in the order of the table.
        values: seed → value of the metric, of the runs that are done.
        numbers: run facts that all its runs share or that are averaged (trained_parameters, seconds).
        counted: the runs whose values these are, one a seed: of copies the first.
    """

    label: str
    factors: dict[str, Json]
    runs: list[RunRecord]
    values: dict[int, float]
    numbers: dict[str, float]
    counted: Sequence[RunRecord] = ()
    key: str = ""

    def called(self, run: RunRecord) -> str:
        """Name a run for a reader: by its folder, or by setting and seed where the folder's name is a point's hash."""
        return run.name if run.name != run.point else self.label if run.seed is None else f"{self.label} seed {run.seed}"

    @property
    def missing(self) -> list[RunRecord]:
        """List the runs that have no value in the group."""
        return [run for run in self.runs if run.state != "done" or run.seed not in self.values]


class Study(NamedTuple):
    """Groups of runs, and what a reader must know about them.

    Attributes:
        metric: such as val/loss.
        higher: whether more of it is better.
        groups: in the order of their first runs.
        factors: options that tell them apart, in the order of the configuration.
        warnings: what a reader must know before the numbers.
        aside: what the settings differ in besides their factors, in words; "" where in nothing.
        labels: option or metric → the words that tables and figures have for it.
        guessed: whether the better side is a guess: no run records it, and the name does not tell.
    """

    metric: str
    higher: bool
    groups: list[Group]
    factors: list[str]
    warnings: list[str]
    aside: str = ""
    guessed: bool = False
    labels: dict[str, str] = {}  # noqa: RUF012 (never changed)

    @property
    def names(self) -> dict[str, str]:
        """Map each factor to what tables and figures call it."""
        return named(self.factors, self.labels)

    @property
    def metric_name(self) -> str:
        """Return what tables and figures call the metric."""
        return self.labels.get(self.metric, self.metric)


def marginal(groups: Sequence[Group]) -> dict[int, float]:
    """Map each seed to the mean of these groups' values; of the seeds that all of them have."""
    seeds = [seed for seed in groups[0].values if all(seed in group.values for group in groups)]
    return {seed: sum(group.values[seed] for group in groups) / len(groups) for seed in seeds}
