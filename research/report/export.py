"""A study on the disk: the tidy table, and each sheet for a paper, a README and a program."""

import csv
import io
import json
import string
from pathlib import Path
from typing import Any

from research.report import latex
from research.report.markdown import escape
from research.report.sheets import Cell, Sheet
from research.report.study import Run
from research.runs.files import atomic_write


def tidy(runs: list[Run]) -> dict[str, list[Any]]:
    """A column for each option, metric and fact; a row for each run, whatever has become of it."""
    options = list(dict.fromkeys(name for run in runs for name in run.options))
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    facts = list(dict.fromkeys(name for run in runs for name in run.facts))
    columns: dict[str, list[Any]] = {
        "run": [run.name for run in runs],
        "sweep": [run.sweep for run in runs],
        "point": [run.point for run in runs],
        "state": [run.state for run in runs],
        "error": [run.error for run in runs],
        "seed": [run.seed for run in runs],
    }
    columns |= {f"option.{name}": [_plain(run.options.get(name)) for run in runs] for name in options}
    columns |= {name if name not in columns else f"metric.{name}": [run.metrics.get(name) for run in runs] for name in metrics}
    columns |= {f"fact.{name}": [run.facts.get(name) for run in runs] for name in facts}
    for i, name in enumerate(("data", "code", "base")):
        columns[f"made_of.{name}"] = [run.made_of[i] for run in runs]
    if any(run.host for run in runs):  # only W&B says it
        columns["host"] = [run.host for run in runs]
    return columns


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)


def inert(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: texts are of whoever named an option, and `=HYPERLINK(…)` would run."""
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


def write_tidy(out: Path, runs: list[Run]) -> None:
    """runs.csv and runs.parquet."""
    import pyarrow
    import pyarrow.parquet

    columns = tidy(runs)
    with atomic_write(out / "runs.csv") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(map(inert, columns))
        writer.writerows(
            ["" if value is None else inert(value) for value in row] for row in zip(*columns.values(), strict=True)
        )
    arrays = {}
    for name, values in columns.items():
        kinds = {type(value) for value in values if value is not None}
        if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in values):
            kinds = {int, str}  # wider than the file's integers
        # one type a column: an option that is 2 here and "auto" there is a text
        arrays[name] = values if len(kinds) < 2 or kinds <= {int, float} else [v if v is None else str(v) for v in values]
    with atomic_write(out / "runs.parquet", "wb") as stream:
        pyarrow.parquet.write_table(pyarrow.table(arrays), stream)


def write_sheets(out: Path, sheets: list[Sheet], title: str = "") -> None:
    """tables/NAME.tex, .csv and .md; the title of the report is in the labels."""
    for sheet in sheets:
        name = latex.slug(sheet.name)
        forms = {"tex": latex.render(sheet, title), "csv": as_csv(sheet), "md": as_markdown(sheet) + "\n"}
        for ending, text in forms.items():
            with atomic_write(out / "tables" / f"{name}.{ending}") as stream:
                stream.write(text)


def as_csv(sheet: Sheet) -> str:
    """The numbers behind the cells; an interval is two columns, and a mean's standard deviation one behind it."""
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


def _values(cell: Cell, pair: bool, spread: bool) -> list[Any]:
    if pair:
        return cell.value if isinstance(cell.value, list) else ["", ""]
    values = [_plain(cell.value), *([cell.sd] if spread else [])]
    return ["" if value is None else value for value in values]


def as_markdown(sheet: Sheet) -> str:
    align = [":--"] * sheet.texts + ["--:"] * (len(sheet.columns) - sheet.texts)
    rows = [[_marked(cell) for cell in row] for row in sheet.rows]
    lines = ["| " + " | ".join(row) + " |" for row in [[escape(name) for name in sheet.columns], align, *rows]]
    return "\n".join([*lines, *(["", *map(escape, sheet.notes)] if sheet.notes else [])])


def _marked(cell: Cell) -> str:
    value, plus, spread = escape(cell.text).partition(" ±")
    value = f"**{value}**" if cell.rank == 1 else f"<u>{value}</u>" if cell.rank == 2 else value
    return value + plus + spread + cell.mark
