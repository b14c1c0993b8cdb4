"""Rows → tables of ready-made cells, which Markdown and HTML only lay out; and as sheets, for a paper and programs."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from research.metrics.families import holm
from research.metrics.significance import Comparison, bootstrap_interval, compare
from research.report import sheets as sheet
from research.report.numbers import column, p_value, share, signed
from research.report.row_notes import LEAK, row_notes
from research.report.systems import Row, Systems

TITLES = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP", "recall": "Recall", "precision": "Precision"}
NOTHING = sheet.NOTHING
ALPHA = 0.05
MOMENTS = "Times are those of the machine while each run was made: runs made beside other work do not compare."
MOST_PAIRED = 20  # systems; more make a table that nobody reads


class Line(NamedTuple):
    """A row, and the numbers computed from its per-query values of the tested metric."""

    row: Row
    mean: float
    low: float
    high: float
    against: Comparison | None  # the baseline, else the row above; None in the baseline and in the first
    p_holm: float | None = None  # its p, after Holm over the page's rows
    baseline: str | None = None  # the label of the row that all are tested against


class Cell(NamedTuple):
    """`detail` stands smaller below `text` and its `mark`; `best` is the column's best value; `value` the number behind it."""

    text: str
    detail: str = ""
    best: bool = False
    value: float | None = None
    mark: str = ""


class Table(NamedTuple):
    """`body` has one list of cells a row, in the order of the page's rows; `columns` are their headings."""

    title: str
    columns: list[str]
    body: list[list[Cell]]


def measure(runs: Systems) -> list[Line]:
    """Compute mean, 95% bootstrap interval and paired test against the baseline or the row above, on the first metric."""
    base = next((row for row in runs.rows if row.label == runs.baseline), None)
    lines: list[Line] = []
    for i, row in enumerate(runs.rows):
        values = row.per_query[runs.metric]
        low, high = bootstrap_interval(np.array(list(values.values())))
        other = base or (runs.rows[i - 1] if i else row)
        against = None if other is row else compare(other.per_query[runs.metric], values)
        lines.append(Line(row, row.means[runs.metric], low, high, against, baseline=runs.baseline))
    adjusted = iter(holm([line.against.p for line in lines if line.against]))
    return [line._replace(p_holm=next(adjusted)) if line.against else line for line in lines]


def compare_pairs(lines: list[Line], metric: str) -> dict[tuple[int, int], tuple[Comparison, float]]:
    """Map (i, j) of rows, i above j, to the comparison of i against j, and its p after Holm over all pairs."""
    pairs = list(itertools.combinations(range(len(lines)), 2))
    tests = [compare(lines[j].row.per_query[metric], lines[i].row.per_query[metric]) for i, j in pairs]
    return dict(zip(pairs, zip(tests, holm([test.p for test in tests]), strict=True), strict=True))


def pairs_sheet(lines: list[Line], metric: str, pairs: dict[tuple[int, int], tuple[Comparison, float]]) -> sheet.Sheet | None:
    """Show every system against every other; None of fewer than three, whose one pair the first table has, or of too many."""
    if not 3 <= len(lines) <= MOST_PAIRED:
        return None

    def cell(i: int, j: int) -> sheet.Cell:
        if i == j:
            return sheet.Cell(NOTHING)
        test, p = pairs[min(i, j), max(i, j)]
        if i > j:
            return sheet.Cell(p_value(p), p)
        return sheet.Cell(signed(test.difference), test.difference, mark=sheet.MARK if p < ALPHA else "")

    numbered = [f"{i + 1}" for i in range(len(lines))]
    rows = [
        [sheet.Cell(f"{i + 1} {line.row.label}", line.row.label), *(cell(i, j) for j in range(len(lines)))]
        for i, line in enumerate(lines)
    ]
    note = (
        f"Above the diagonal: {title(metric)} of the row less that of the column; {sheet.MARK} p < .05. Below it: p of the "
        f"paired permutation test over queries, after Holm over all {len(pairs)} pairs. It speaks of these trained models "
        "on queries like these."
    )
    return sheet.Sheet("pairs", f"{title(metric)}, every pair of systems", ["system", *numbered], rows, [note])


def title(metric: str) -> str:
    """Write a metric's name as papers do: `ndcg@10` → `nDCG@10`."""
    kind, _, cut = metric.partition("@")
    return f"{TITLES.get(kind, kind)}@{cut}"


def systems_table(lines: list[Line], metric: str) -> Table:
    """Make the page's first table: quality with its interval, the test against the row above, and the time."""
    means = [
        cell._replace(detail=f"[{share(line.low)}, {share(line.high)}]", mark=LEAK if line.row.leaks else "")
        for cell, line in zip(_share_cells([line.mean for line in lines]), lines, strict=True)
    ]
    tests = [_test_columns(line) for line in lines]
    times = _number_cells([line.row.facts.get("ms_per_query") for line in lines], least_is_best=True)
    columns = [title(metric), f"Difference from {_reference_label(lines)}", "p (Holm)", "Queries better / worse", "ms a query"]
    return Table("Systems", columns, [[a, *b, c] for a, b, c in zip(means, tests, times, strict=True)])


def metrics_table(rows: list[Row]) -> Table:
    """Show every metric that some row has."""
    names = list(dict.fromkeys(name for row in rows for name in row.means))
    columns = [_share_cells([row.means.get(name) for row in rows]) for name in names]
    return Table("Every metric", [title(name) for name in names], [list(cells) for cells in zip(*columns, strict=True)])


def cost_table(rows: list[Row]) -> Table | None:
    """Show where the time goes, and what an approximate index gives up; only the columns that some row has."""
    columns = {
        "ms a query": _number_cells([row.facts.get("ms_per_query") for row in rows], least_is_best=True),
        "of which search": _number_cells([row.facts.get("search_ms_per_query") for row in rows], least_is_best=True),
        "Index build, s": _number_cells([row.facts.get("index_seconds") for row in rows], least_is_best=True),
        "Encoding, documents/s": _number_cells([row.facts.get("documents_per_second") for row in rows], decimals=1),
    }
    recalls = list(dict.fromkeys(name for row in rows for name in row.facts if name.startswith("ann_recall@")))
    columns |= {
        name.replace("ann_recall", "ANN recall"): _share_cells([row.facts.get(name) for row in rows]) for name in recalls
    }
    columns = {name: cells for name, cells in columns.items() if any(cell.text != NOTHING for cell in cells)}
    if not columns:
        return None
    return Table("Cost", list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)])


def sheets(lines: list[Line], metric: str) -> list[sheet.Sheet]:
    """Make the page's tables for a paper and for programs: systems, metrics, cost."""
    rows = [line.row for line in lines]
    name_cells, count = [sheet.Cell(row.label, row.label) for row in rows], len(rows[0].per_query[metric])
    means, *_, times = zip(*systems_table(lines, metric).body, strict=True)
    columns: dict[str, list[sheet.Cell]] = {
        "system": name_cells,
        title(metric): [_sheet_cell(cell) for cell in means],
        "95% interval": [sheet.Cell(f"[{share(line.low)}, {share(line.high)}]", [line.low, line.high]) for line in lines],
    }
    tests = zip(*map(_test_cells, lines), strict=True)
    columns |= zip(("difference", "its 95% interval", "p (Holm)", "better", "worse"), map(list, tests), strict=True)
    columns["ms a query"] = [_sheet_cell(cell) for cell in times]
    columns = {name: cells for name, cells in columns.items() if any(cell.text != NOTHING for cell in cells)}
    notes = [f"Means over {count:,} {'query' if count == 1 else 'queries'} with 95% bootstrap intervals. Best bold."]
    if len(lines) > 1:
        comparisons = "1 comparison" if len(lines) == 2 else f"{len(lines) - 1} comparisons"
        notes.append(
            f"Difference from {_reference_label(lines, 'the row above')} by the paired permutation test over queries, on "
            f"so many of which the system is better or worse; p after Holm over {comparisons}. It speaks of these trained "
            "models on queries like these."
        )
    tables = [
        sheet.Sheet(
            "systems",
            f"{title(metric)} by system",
            list(columns),
            [list(cells) for cells in zip(*columns.values(), strict=True)],
            notes + row_notes(rows),
        )
    ]
    for name, table, note in (
        ("metrics", metrics_table(rows), notes[0].replace(" with 95% bootstrap intervals", "")),
        ("cost", cost_table(rows), "Best bold." + (f" {MOMENTS}" if len({row.run for row in rows}) > 1 else "")),
    ):
        if table is not None:
            body = [[name_cell, *map(_sheet_cell, cells)] for name_cell, cells in zip(name_cells, table.body, strict=True)]
            tables.append(sheet.Sheet(name, table.title, ["system", *table.columns], body, [note]))
    return tables


def _reference_label(lines: list[Line], above: str = "row above") -> str:
    """Name what the rows are tested against."""
    return lines[0].baseline or above


def _sheet_cell(cell: Cell) -> sheet.Cell:
    return sheet.Cell(cell.text, cell.value, int(cell.best), cell.mark)


def _test_cells(line: Line) -> list[sheet.Cell]:
    """Show difference from the baseline or the row above, its interval, p, and how many queries are better and worse."""
    against = line.against
    if against is None:
        return [sheet.Cell("baseline" if line.baseline else NOTHING), *[sheet.Cell(NOTHING)] * 4]
    values: list[tuple[str, float | list[float] | None]] = [
        (signed(against.difference), against.difference),
        (f"[{signed(against.low)}, {signed(against.high)}]", [against.low, against.high]),
        (p_value(line.p_holm), line.p_holm),
        (f"{against.better:,}", against.better),
        (f"{against.worse:,}", against.worse),
    ]
    return [sheet.Cell(*value) for value in values]


def _test_columns(line: Line) -> list[Cell]:
    against = line.against
    if against is None:
        return [Cell("baseline" if line.baseline else NOTHING), *[Cell(NOTHING)] * 2]
    interval = f"[{signed(against.low)}, {signed(against.high)}]"
    counts = f"{against.better:,} / {against.worse:,}"
    return [Cell(signed(against.difference), interval), Cell(p_value(line.p_holm)), Cell(counts)]


def _share_cells(values: list[float | None]) -> list[Cell]:
    return _mark_best([NOTHING if value is None else share(value) for value in values], values, max)


def _number_cells(values: list[float | None], least_is_best: bool = False, decimals: int = 2) -> list[Cell]:
    texts = iter(column([value for value in values if value is not None], decimals))
    return _mark_best([NOTHING if value is None else next(texts) for value in values], values, min if least_is_best else max)


def _mark_best(texts: list[str], values: list[float | None], choose: Callable[[list[float]], float]) -> list[Cell]:
    """Mark the best of cells: what looks equal to it is as good, and a column of one value has no best."""
    known = [value for value in values if value is not None]
    best = texts[values.index(choose(known))] if known else None
    compared = len({text for text in texts if text != NOTHING}) > 1
    return [Cell(text, best=compared and text == best, value=value) for text, value in zip(texts, values, strict=True)]
