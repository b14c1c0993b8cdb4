"""A study on the disk: the tidy table, and each sheet for a paper, a README and a program."""

import csv
import importlib.util
import io
import string
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from research.report import latex
from research.report.markdown import escape
from research.report.sheets import Cell, Sheet, slug
from research.runs.files import atomic_write
from research.runs.record import RunRecord
from research.runs.table import as_frame, plain_cell
from research.types import Json


def inert(value: Json) -> Json:
    """Return a cell that no spreadsheet takes for a formula: users name options, and `=HYPERLINK(…)` would run."""
    if not isinstance(value, str):
        return value
    value = value.replace("\r\n", "\n").replace("\r", "\n")  # csv does not quote a lone one, which ends the line
    # a spreadsheet of East Asia takes the wide forms too; what is not seen does not hide a formula
    if value.lstrip(f"{string.whitespace}\xa0\u200b\ufeff")[:1] not in {*"=+-@＝＋－＠"} and value[:1] not in {"\t", "\n"}:
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_tidy(out: Path, runs: Sequence[RunRecord]) -> None:
    """Write runs.csv, and runs.parquet where pyarrow is installed."""
    frame = as_frame(runs)
    with atomic_write(out / "runs.csv") as stream:
        frame.rename(columns=inert).map(_csv_cell).to_csv(stream, index=False, lineterminator="\n")
    if importlib.util.find_spec("pyarrow") is None:
        return
    with atomic_write(out / "runs.parquet", "wb") as stream:
        frame.apply(_one_type).to_parquet(stream, engine="pyarrow", index=False)


def _csv_cell(value: Json) -> str:
    """Write a cell of the CSV file, as text: pandas would write a 2 beside a gap as 2.0."""
    return "" if value is None else str(inert(value))


def _one_type(column: pd.Series) -> pd.Series:
    """Give a column one type, as Parquet wants it: an option that is 2 here and "auto" there becomes text."""
    values = [value for value in column if value is not None]
    kinds = {type(value) for value in values}
    if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in values):
        kinds = {int, str}  # wider than the file's integers
    return column if len(kinds) < 2 or kinds <= {int, float} else column.map(str, na_action="ignore")


def write_sheets(out: Path, sheets: list[Sheet], title: str = "", plain: bool = False) -> None:
    """Write tables/NAME.tex, .csv and .md; the labels of LaTeX tables hold the report's title, unless they are plain."""
    for sheet in sheets:
        name = slug(sheet.name)
        tex = latex.render_plain(sheet) if plain else latex.render(sheet, title)
        forms = {"tex": tex, "csv": as_csv(sheet), "md": as_markdown(sheet) + "\n"}
        for ending, text in forms.items():
            with atomic_write(out / "tables" / f"{name}.{ending}") as stream:
                stream.write(text)


def as_csv(sheet: Sheet) -> str:
    """Return the numbers behind the cells; an interval has two columns, and a mean is followed by its standard deviation."""
    columns = [[row[i] for row in sheet.rows] for i in range(len(sheet.columns))]
    pairs = [any(isinstance(cell.value, list) for cell in column) for column in columns]
    spreads = [any(cell.sd is not None for cell in column) for column in columns]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            inert(name)
            for heading, pair, spread in zip(sheet.columns, pairs, spreads, strict=True)
            for name in _headings(heading, pair, spread)
        ]
    )
    for row in sheet.rows:
        writer.writerow(
            [
                inert(value)
                for cell, pair, spread in zip(row, pairs, spreads, strict=True)
                for value in _values(cell, pair, spread)
            ]
        )
    return stream.getvalue()


def _headings(name: str, pair: bool, spread: bool) -> list[str]:
    if pair:
        return [f"{name} low", f"{name} high"]
    return [name, f"{name} sd"] if spread else [name]


def _values(cell: Cell, pair: bool, spread: bool) -> list[Json]:
    if pair:
        return cell.value if isinstance(cell.value, list) else ["", ""]
    values = [plain_cell(cell.value), *([cell.sd] if spread else [])]
    return ["" if value is None else value for value in values]


def as_markdown(sheet: Sheet) -> str:
    """Return the table in Markdown, with its notes below."""
    align = [":--"] * sheet.texts + ["--:"] * (len(sheet.columns) - sheet.texts)
    rows = [[_marked(cell) for cell in row] for row in sheet.rows]
    lines = ["| " + " | ".join(row) + " |" for row in [[escape(name) for name in sheet.columns], align, *rows]]
    return "\n".join([*lines, *(["", *map(escape, sheet.notes)] if sheet.notes else [])])


def _marked(cell: Cell) -> str:
    value, plus, spread = escape(cell.text).partition(" ±")
    value = f"**{value}**" if cell.rank == 1 else f"<u>{value}</u>" if cell.rank == 2 else value
    return value + plus + spread + cell.mark
