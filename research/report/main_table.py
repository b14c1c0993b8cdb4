"""The main results of a paper: settings down, several metrics across, one family of comparisons."""

from collections.abc import Sequence

from research.metrics.families import Pair, holm
from research.metrics.seeds import summarise
from research.report.factors import shown
from research.report.numbers import plain
from research.report.sheets import ALPHA, MARK, Cell, Sheet, decimals, mean_cells, ranks, untestable
from research.report.study import Study
from research.report.study_sheets import against


def main_results(studies: Sequence[Study], baseline: str | None = None, paired: bool = False) -> Sheet:
    """Mean ± spread over seeds of every setting on every metric.

    A mark says that the setting differs from the baseline on that metric; p are adjusted over all settings and metrics
    together, since a reader scans the whole table for marks.

    Args:
        studies: of the same runs and factors, one a metric.
        baseline: label; None: the first setting with a value of the first metric.
        paired: runs of one seed belong together.
    """
    first = studies[0]
    names = first.names
    baseline = baseline or next(group.label for group in first.groups if group.values)
    families = [_against(study, baseline, paired) for study in studies]
    places = [(i, label) for i, pairs in enumerate(families) for label in pairs]
    adjusted = dict(zip(places, holm([families[i][label].comparison.p for i, label in places]), strict=True))
    cells: list[dict[str, Cell]] = []
    for i, study in enumerate(studies):
        digits = decimals(study.groups)
        means = {group.label: summarise(list(group.values.values())) for group in study.groups if group.values}
        order = dict(zip(means, ranks([round(mean.mean, digits) for mean in means.values()], study.higher), strict=True))
        cells.append({})
        for group in study.groups:
            mark = MARK if adjusted.get((i, group.label), 1.0) < ALPHA else ""  # NaN is below nothing
            mean = means.get(group.label)
            cells[-1][group.label] = mean_cells(mean, digits, order.get(group.label, 0), mark)[0]
    rows = []
    for group in first.groups:
        factors = [Cell(shown(group.factors[name]), group.factors[name]) for name in first.factors]
        seeds = Cell(str(len(group.values)), len(group.values))
        rows.append([*factors, seeds, *(by_group[group.label] for by_group in cells)])
    arrows = [f"{study.metric_name} {'↑' if study.higher else '↓'}" for study in studies]
    test = "the paired t test" if paired else "Welch's t test"
    notes = [
        "Mean ± standard deviation over seeds; arrows point to the better side. Best bold, second underlined.",
        f"{MARK}: differs from {baseline} by {test} over seeds, p < {plain(ALPHA)} after Holm over the {len(places)} "
        f"comparisons of this table{untestable(adjusted.values())}.",
    ]
    columns = [*(names[name] for name in first.factors), "seeds", *arrows]
    return Sheet("main", "Main results", columns, rows, notes, len(first.factors))


def _against(study: Study, baseline: str, paired: bool) -> dict[str, Pair]:
    """Comparisons on one metric; none where the baseline was not measured by it."""
    known = {group.label for group in study.groups if group.values}
    return against(study, baseline, paired) if baseline in known else {}
