"""Tables of cells, which Markdown, LaTeX, HTML and CSV only lay out; and how a study's numbers look in them."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from research.metrics.families import Pair
from research.metrics.seeds import SeedSummary, summarise
from research.report.numbers import p_value
from research.report.study import Group
from research.types import Json

if TYPE_CHECKING:
    from research.report.figures.theme import Figure

Part = TypeVar("Part", "Sheet", "Figure")
NOTHING = "–"
MARK = "†"
ALPHA = 0.05  # level of the marks, after Holm over a table's comparisons


class Cell(NamedTuple):
    """One cell.

    Attributes:
        text: as it is read; a true minus sign.
        value: the number behind it, for CSV; an interval is a list of two.
        rank: 1 the best of its column, 2 the second; 0 neither.
        mark: of significance, after the text.
        sd: standard deviation where the value is a mean that has one.
    """

    text: str
    value: Json = None
    rank: int = 0
    mark: str = ""
    sd: float | None = None


class Sheet(NamedTuple):
    """One table.

    Attributes:
        name: of its files.
        title: above it.
        columns: headings.
        rows: as many cells as columns each.
        notes: below it: what the numbers are, which test, what the marks mean.
        texts: how many columns from the left hold words.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str]
    texts: int = 1


def decimals(groups: Sequence[Group]) -> int:
    """Choose the decimals, 1 to 5, that show the median standard deviation with two significant digits.

    Of values whose largest is below .01 (an error of 3e-7), as many as show it with four.
    """
    largest = max((abs(value) for g in groups for value in g.values.values()), default=1.0)
    most = 3 - math.floor(math.log10(largest)) if 0 < largest < 0.01 else 5
    spreads = [summarise(list(g.values.values())).sd for g in groups if len(g.values) > 1]
    spreads = [spread for spread in spreads if spread > 0]
    if not spreads:
        return most if largest < 0.01 else 4
    usual = statistics.median_low(spreads) * (1 + 1e-9)  # .00999… is .01
    return min(most, max(1, 1 - math.floor(math.log10(usual))))


def number(value: float, digits: int, plus: bool = False) -> str:
    """Format the number with so many digits after the point, and a true minus sign."""
    return f"{value:{'+' if plus else ''}.{digits}f}".replace("-", "−")


def untestable(p: Iterable[float]) -> str:
    """Write how many comparisons have no p, behind their number: Holm counts them, as a p of 1; "" of none."""
    count = sum(map(math.isnan, p))
    return f" ({count} of them could not be tested, and {'counts' if count == 1 else 'count'} as p = 1)" if count else ""


def mean_cells(mean: SeedSummary | None, digits: int, rank: int = 0, mark: str = "") -> list[Cell]:
    """Show mean ± standard deviation, and the interval of the mean."""
    if mean is None:
        return [Cell(NOTHING)] * 2
    no_spread = math.isnan(mean.sd)
    spread = "" if no_spread else f" ± {number(mean.sd, digits)}"
    interval = NOTHING if no_spread else f"[{number(mean.low, digits)}, {number(mean.high, digits)}]"
    return [
        Cell(f"{number(mean.mean, digits)}{spread}", mean.mean, rank, mark, None if no_spread else mean.sd),
        Cell(interval, None if no_spread else [mean.low, mean.high]),
    ]


def difference_cells(pair: Pair | None, digits: int, is_baseline: bool) -> list[Cell]:
    """Show the difference from the baseline, and its p."""
    if pair is None:
        return [Cell("baseline" if is_baseline else NOTHING), Cell(NOTHING)]
    unknown = math.isnan(pair.p_holm)
    return [
        Cell(number(pair.comparison.difference, digits, plus=True), pair.comparison.difference),
        Cell(NOTHING, None) if unknown else Cell(p_value(pair.p_holm), pair.p_holm),
    ]


def count_cell(value: float | None) -> Cell:
    """Show a count, such as parameters."""
    return Cell(NOTHING) if value is None else Cell(f"{value:,.0f}", round(value))


def ranks(values: Sequence[float | None], higher: bool) -> list[int]:
    """Rank the best value 1, the second 2, others 0; what looks equal is equal, and a column of one value has no best."""
    order = sorted({value for value in values if value is not None}, reverse=higher)
    if len(order) < 2:
        return [0] * len(values)
    return [order.index(value) + 1 if value in order[:2] else 0 for value in values]


def slug(name: str) -> str:
    """Return the name as a file has it."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)


def distinct(parts: list[Part]) -> list[Part]:
    """Rename sheets or figures so that their files are not each other's: by α and by β are `by--` and `by---2`."""
    renamed, taken = [], set()
    for part in parts:
        name, i = part.name, 1
        while slug(name).lower() in taken:  # some disks take A and a for one
            i += 1
            name = f"{part.name}-{i}"
        taken.add(slug(name).lower())
        renamed.append(part._replace(name=name))
    return renamed
