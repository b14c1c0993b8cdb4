"""Rows of one file of a table: JSON lines, a JSON array, CSV, TSV, Parquet, or a folder of save_to_disk.

Text formats are read here, so that a row has exactly its own keys and values; the others by `datasets`, which is imported only
for them.
"""

import csv
import glob
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from research.data.rows import BadRows, datasets_library, open_unpacked, read_jsonl, read_lines, short
from research.data.splits import Rows, whole_or_slice
from research.errors import UserError
from research.progress import say
from research.types import Json

LINES, ARRAY, SEPARATED, PARQUET = (".jsonl", ".ndjson"), ".json", {".csv": ",", ".tsv": "\t"}, ".parquet"
ENDINGS = (*LINES, ARRAY, *SEPARATED, PARQUET)
EXPECTED = "a .jsonl, .json, .csv, .tsv (each also .gz) or .parquet file, a folder of them or of save_to_disk, or hf:NAME"


def read_file(path: Path, bad: BadRows, arrays: bool) -> Rows:
    """Read the rows of one file, in the format of its ending."""
    name = path.name.lower().removesuffix(".gz")
    ending = next((known for known in ENDINGS if name.endswith(known)), None)
    if not path.exists() or ending in LINES:
        return read_jsonl(path, bad, arrays)  # which says what stands beside a missing file
    if ending == ARRAY:
        return _json(path, bad, arrays)
    if ending in SEPARATED:
        return _separated(path, SEPARATED[ending], bad)
    if ending == PARQUET and not path.name.lower().endswith(".gz"):
        return _parquet(path)
    raise UserError(f"{path} is of no known format; expected {EXPECTED}. Rename or convert it.")


def _json(path: Path, bad: BadRows, arrays: bool) -> Rows:
    """Read a JSON array of objects, or JSON lines, which are as common under this ending."""
    text, blank, decode = read_text(path), re.compile(r"[ \t\n\r]*").match, json.JSONDecoder().raw_decode
    at = blank(text).end()
    lines = arrays and text[blank(text, at + 1).end() :][:1] == '"'  # each line an array of texts
    if text[at : at + 1] != "[" or lines:
        if (whole := _one_object(text)) is not None:
            yield f"{path}:1", whole
        else:
            yield from read_jsonl(path, bad, arrays)
        return
    at = blank(text, at + 1).end()
    number, line, counted, more = 0, 1, 0, text[at : at + 1] != "]"
    while more:
        number, line, counted = number + 1, line + text.count("\n", counted, at), at
        where = f"{path}:{line} (row {number})"
        try:
            row, end = decode(text, at)
        except (ValueError, RecursionError) as error:  # where the next row begins, nobody knows
            raise UserError(
                f"{where}: {short(text[at : at + 61])} is not JSON ({error}); expected an array of objects. Mend "
                "the file, or write one object a line as .jsonl."
            ) from None
        if isinstance(row, dict | list if arrays else dict):
            yield where, row
        else:
            bad.report(
                where,
                "not an object",
                f"{short(text[at:end])} is a JSON {type(row).__name__}, expected an object",
                "Mend the row",
            )
        at = blank(text, end).end()
        if text[at : at + 1] not in (",", "]"):
            raise UserError(
                f"{where}: {short(text[at : at + 61])} stands after the row; expected a comma or the array's end. "
                "Mend the file."
            )
        if more := text[at] == ",":
            at = blank(text, at + 1).end()
    if rest := text[at + 1 :].strip():
        raise UserError(f"{path}: {short(rest[:61])} stands after the array's end; expected one array. Mend the file.")


def _one_object(text: str) -> dict | None:
    """Return the only object of a file, written over several lines; None for any other file."""
    if "\n" not in text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _separated(path: Path, separator: str, bad: BadRows) -> Rows:
    """Read CSV or TSV with a header; every cell is an unchanged text, also `NA`, `null` and numbers."""
    csv.field_size_limit(2**31 - 1)
    text = read_text(path)
    plain = separator == "\t" and '"' in text and _without_quoting(text)
    if plain:
        say(f"{path}: its quotes are not those of csv, and are read as characters of the texts")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
    )
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                if len({*header}) < len(header):
                    raise UserError(
                        f"{where}: the header names {short(_twice(header))} twice; expected one column a name. Rename one."
                    )
            elif len(cells) != len(header):
                bad.report(
                    where,
                    "wrong number of cells",
                    f"the row has {len(cells)} cells, expected {len(header)}: {', '.join(header)}",
                    "Mend the row",
                )
            else:
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(
            f"{path}:{line}: not {separator!r}-separated text ({error}); expected quotes around cells that hold a "
            "quote, a separator or a line's end, and quotes within doubled. Mend the file."
        ) from None


def _without_quoting(text: str) -> bool:
    """Return whether the quotes of a TSV file are characters of its texts, as in GLUE's files.

    It is so where each line has all cells as it stands, and by the rules of csv some would swallow a separator or a line's
    end, or be no cells at all.
    """
    lines = [line for line in re.split(r"\r?\n", text) if line]
    count = lines[0].count("\t") if lines else 0
    if any(line.count("\t") != count for line in lines):
        return False
    try:
        cells = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
        return any("\t" in cell or "\n" in cell for row in cells for cell in row)
    except csv.Error:
        return True


def _twice(names: list[str]) -> str:
    return next(name for i, name in enumerate(names) if name in names[:i])


def read_text(path: Path) -> str:
    """Return a file's text, with the same errors as `read_lines`."""
    try:
        with open_unpacked(path) as stream:
            return stream.read().decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        for _ in read_lines(path):  # says which line, and why
            pass
        raise


def _parquet(path: Path) -> Rows:
    datasets = datasets_library(str(path))
    name = glob.escape(str(path.absolute()))
    yield from _arrow(str(path), lambda: datasets.load_dataset("parquet", data_files=[name], split="train", streaming=True))


def read_saved(folder: Path, split: str | None) -> Rows:
    """Read the rows of a folder that save_to_disk wrote."""
    datasets = datasets_library(str(folder))
    return whole_or_slice(_arrow(str(folder), lambda: datasets.load_from_disk(str(folder))), split, folder)


def _arrow(name: str, load: Callable[[], Iterable[dict]]) -> Rows:
    import pyarrow  # here: datasets has loaded it, and help does not wait for it

    number = 0
    try:
        for number, row in enumerate(load(), 1):
            yield f"{name} row {number}", without_nulls(row)
    except (OSError, ValueError, TypeError, KeyError, ImportError, pyarrow.ArrowException) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"{name} cannot be read after row {number} ({type(error).__name__}: {reason}); expected what datasets "
            "writes. Make the file again."
        ) from None


def without_nulls(value: Json, depth: int = 0) -> Json:
    """Drop the nulls that Arrow writes for keys which only other rows have.

    A null of a message itself stays: it says the same as no key, and is part of fingerprints that were made before.
    """
    if isinstance(value, dict):
        message = depth == 1 and ("role" in value or "from" in value)
        return {key: without_nulls(inner, depth + 1) for key, inner in value.items() if inner is not None or message}
    return [without_nulls(inner, depth) for inner in value] if isinstance(value, list) and depth else value
