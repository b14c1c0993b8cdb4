"""Rows of a table as people keep it: JSON lines, JSON arrays, CSV, TSV, Parquet, saved data sets, folders, hub sets.

`read_table` gives (where, row) pairs of any of them. Text formats are read here, so that a row has exactly its own keys and
values; the others by `datasets`, which is imported only for them.
"""

import contextlib
import csv
import glob
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from research.data.rows import BadRows, open_unpacked, read_jsonl, read_lines, short
from research.errors import UserError, suggest
from research.progress import say

LINES, ARRAY, SEPARATED, PARQUET = (".jsonl", ".ndjson"), ".json", {".csv": ",", ".tsv": "\t"}, ".parquet"
ENDINGS = (*LINES, ARRAY, *SEPARATED, PARQUET)
EXPECTED = "a .jsonl, .json, .csv, .tsv (each also .gz) or .parquet file, a folder of them or of save_to_disk, or hf:NAME"
# as datasets tells splits by file names; in any case, and with what people put behind: Train, testset, devData
SPLIT_WORDS = {"train": "train|training", "validation": "validation|valid|dev|val", "test": "test|testing|eval|evaluation"}
BESIDE_ROWS = ("dataset_infos.json", "dataset_info.json")  # what tools write about the tables beside them

Rows = Iterator[tuple[str, dict]]


def read_table(source: str | Sequence[str], split: str | None = None, bad: BadRows | None = None, arrays: bool = False) -> Rows:
    """(where, row) of each row; `where` is `file:line`, or `file row N` where a format has no lines.

    Args:
        source: a file, a folder, a pattern (`data/*.jsonl`), several of them (a list, or with commas between), or
            hf:ORG/NAME[:CONFIG][@REVISION].
        split: `train`, or a slice of one, as `datasets` writes it (`train[:10%]`). A file has no splits: a plain name is
            ignored there, and a slice is taken of all of its rows; so it is with a folder without splits, for usual names.
        bad: what to do with rows that cannot be read; None refuses the first.
        arrays: a row of a JSON file may be an array as well.

    Raises:
        UserError: the source, split or slice is not there, cannot be read, or (unless skipped) a row is malformed.
    """
    bad = bad or BadRows()
    if isinstance(source, str) and source.startswith("hf:"):
        from research.data.hub import read_rows

        return read_rows(source.removeprefix("hf:"), split)
    if isinstance(source, str) and (Path(source) / "state.json").is_file():
        _check_usual(source, split)
        return _saved(Path(source), split)
    if (several := _items(source)) is not None:
        return _of_several(several, source, split, bad, arrays)
    if splits_of(source):
        return _of_splits(source, split, bad, arrays)
    if Path(source).is_dir():
        _check_usual(source, split)
    rows = (row for path in local_files(source) for row in _read_file(path, bad, arrays))
    return whole_or_slice(rows, split, source)


def is_table(source: str | Sequence[str]) -> bool:
    """Whether it is a table on this machine, by its name: not the hub's, and no built-in one."""
    if not isinstance(source, str):
        return True
    named = source.lower().removesuffix(".gz").endswith(ENDINGS) or glob.has_magic(source) or Path(source).is_dir()
    if "," in source and not named:
        named = all(is_table(one.strip()) for one in source.split(",") if one.strip())
    return named and not source.startswith(("hf:", "builtin:", "beir:"))


def splits_of(source: str | Sequence[str]) -> list[str]:
    """Splits of a local folder (saved by save_to_disk, or with files named after splits), or those that all of several
    folders have; none for everything else."""
    if (several := _items(source)) is not None:
        known = [splits_of(one) for one in several]
        return [split for split in known[0] if all(split in others for others in known)]
    if not Path(source).is_dir():
        return []
    saved = Path(source) / "dataset_dict.json"
    if saved.is_file():
        try:
            return [str(name) for name in json.loads(saved.read_text(encoding="utf-8"))["splits"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{saved} is damaged; expected the list of splits that save_to_disk writes. Save the data set again."
            ) from None
    return list(_by_split(Path(source)))


def _items(source: str | Sequence[str]) -> list[str] | None:
    """The parts of a list, a pattern or names with commas between, in a fixed order; None for one file or folder.

    Raises:
        UserError: there are none.
    """
    if isinstance(source, str) and (Path(source).exists() or source.startswith("hf:")):
        return None
    if isinstance(source, str) and glob.has_magic(source):
        if not (items := sorted(glob.glob(source, recursive=True))):
            raise UserError(f"{source!r} matches no file; expected {EXPECTED}. Check the pattern.")
        return items
    if isinstance(source, str) and "," not in source:
        return None
    items = [one.strip() for one in source.split(",")] if isinstance(source, str) else list(source)
    if not (items := [one for one in items if one]):
        raise UserError(f"no file is named; expected {EXPECTED}. Name one or more.")
    return items


def _of_several(items: list[str], source: str | Sequence[str], split: str | None, bad: BadRows, arrays: bool) -> Rows:
    """The rows of each, one after the other; a slice is taken of all of them together."""
    if not split or "[" not in split:
        return (row for one in items for row in read_table(one, split, bad, arrays))
    names = [*dict.fromkeys(split_names(split))]
    if len(names) > 1 and (without := [one for one in items if not one.startswith("hf:") and not splits_of(one)]):
        raise UserError(
            f"split {split!r} of {source} cannot be taken: {without[0]} has no splits; expected slices of one "
            f"split, {names[0]}[:100] say. Correct it."
        )
    return _sliced(
        {name: [row for one in items for row in read_table(one, name, bad, arrays)] for name in names}, split, source
    )


def _check_usual(folder: str, split: str | None) -> None:
    """Refuse a split of a folder without splits, unless it is one of the names that mean all rows of a table.

    Raises:
        UserError: another name, which is a mistake, or meant for files that are not told apart.
    """
    usual = "|".join(SPLIT_WORDS.values()).split("|")
    for name in split_names(split) if split else ():
        if name not in usual:
            raise UserError(
                f"{folder} has no split {name!r}: none of its files is named after a split; expected "
                f"{', '.join(SPLIT_WORDS)}, which take all of its rows. Name one, or the files that are meant."
            )


def local_files(source: str) -> list[Path]:
    """The files of a file's or folder's name, in a fixed order.

    Raises:
        UserError: a folder without any.
    """
    path = Path(source)
    if not path.is_dir():
        return [path]
    if not (files := _inside(path)):
        raise UserError(
            f"{source} holds no table; expected {EXPECTED}. Name another folder, or hf:{source} where it is a "
            "repository of the hub."
        )
    return files


def _inside(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.name.lower().removesuffix(".gz").endswith(ENDINGS) and p.name[0] not in "._" and p.name not in BESIDE_ROWS
    )


def _by_split(folder: Path) -> dict[str, list[Path]]:
    """Files of each split, where their names say one; else nothing, and all of them are one table.

    Raises:
        UserError: some names say a split and some do not.
    """
    found: dict[str, list[Path]] = {}
    for path in _inside(folder):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path.name).lower()
        for split, words in SPLIT_WORDS.items():
            if re.search(rf"(^|[-._ 0-9])({words})(set|data|split)?([-._ 0-9]|$)", name):
                found.setdefault(split, []).append(path)
                break
        else:
            found.setdefault("", []).append(path)
    if (rest := found.pop("", [])) and found:
        raise UserError(
            f"{folder}: {next(iter(found.values()))[0].name} is named after a split and {rest[0].name} is not; "
            "expected all of them to be, or none. Name the files that are meant, with commas between."
        )
    return found


def _of_splits(folder: str, split: str | None, bad: BadRows, arrays: bool) -> Rows:
    known = splits_of(folder)
    if split is None and len(known) > 1:
        raise UserError(f"{folder} has {len(known)} splits and none is named; known: {', '.join(known)}. Name one of them.")
    saved = (Path(folder) / "dataset_dict.json").is_file()
    files = {} if saved else _by_split(Path(folder))
    for one, words in SPLIT_WORDS.items():  # the split of dev.jsonl is "validation", and "dev" too
        files |= dict.fromkeys(words.split("|"), files[one]) if one in files else {}
    names = split_names(split) if split else known
    for name in names:
        if name not in (known if saved else files):
            raise UserError(f"{folder} has no split {name!r}; {suggest(name, known)}. Name one of them.")
    if saved:
        parts = {name: list(_saved(Path(folder) / name, None)) for name in names}
    else:
        parts = {name: [row for path in files[name] for row in _read_file(path, bad, arrays)] for name in names}
    return _sliced(parts, split or names[0], folder)


def split_names(split: str) -> list[str]:
    """Names of the splits in a slice or sum of slices: `train[:10%]+test` → train, test."""
    return [part.strip().split("[")[0] for part in split.split("+")]


def whole_or_slice(rows: Iterable[tuple[str, dict]], split: str | None, source: str | Path) -> Rows:
    """Of what has no splits: all rows, or a slice of them."""
    return _sliced({"train": list(rows)}, split, source) if split and "[" in split else iter(rows)


def _sliced(parts: dict[str, list[tuple[str, dict]]], split: str, source: str | Path | Sequence[str]) -> Rows:
    """Rows of `train`, `train[:10%]`, `train[5:]+test`, by the rules of `datasets`."""
    if split in parts:
        return iter(parts[split])
    if set(parts) == {"train"} and (names := split_names(split)) != ["train"] and len({*names}) == 1:
        parts = {names[0]: parts["train"]}  # a file is all of one split, whatever it is called
    with importing("a slice of a split"):
        from datasets import ReadInstruction
    try:
        chosen = ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in parts.items()})
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"split {split!r} of {source} cannot be taken ({error}); expected NAME, NAME[:100], NAME[10%:20%] or a "
            f"sum of them, of {', '.join(parts)}. Correct it."
        ) from None
    return (row for part in chosen for row in parts[part.splitname][part.from_ : part.to])


def _read_file(path: Path, bad: BadRows, arrays: bool) -> Rows:
    name = path.name.lower().removesuffix(".gz")
    ending = next((one for one in ENDINGS if name.endswith(one)), None)
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
    """A JSON array of objects; JSON lines under this ending too, as they are as common."""
    text, blank, decode = _text(path), re.compile(r"[ \t\n\r]*").match, json.JSONDecoder().raw_decode
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
    """The only object of a file, over several lines; None of any other file."""
    if "\n" not in text.strip():
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _separated(path: Path, separator: str, bad: BadRows) -> Rows:
    """CSV or TSV with a header; every cell is a text as it stands, `NA`, `null` and numbers too."""
    csv.field_size_limit(2**31 - 1)
    text = _text(path)
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
    """Whether the quotes of a TSV file are characters of its texts, as in GLUE's files: each line has all cells as it stands,
    and by the rules of csv some would swallow a separator or a line's end, or be no cells at all."""
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


def _text(path: Path) -> str:
    """A file's text; its errors are those of `read_lines`."""
    try:
        with open_unpacked(path) as stream:
            return stream.read().decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        for _ in read_lines(path):  # says which line, and why
            pass
        raise


def _parquet(path: Path) -> Rows:
    with importing(str(path)):
        from datasets import load_dataset
    name = glob.escape(str(path.absolute()))
    yield from _arrow(str(path), lambda: load_dataset("parquet", data_files=[name], split="train", streaming=True))


def _saved(folder: Path, split: str | None) -> Rows:
    with importing(str(folder)):
        from datasets import load_from_disk
    return whole_or_slice(_arrow(str(folder), lambda: load_from_disk(str(folder))), split, folder)


def _arrow(name: str, load: Any) -> Rows:
    import pyarrow

    number = 0
    try:
        for number, row in enumerate(load(), 1):
            yield f"{name} row {number}", own_keys(row)
    except (OSError, ValueError, TypeError, KeyError, ImportError, pyarrow.ArrowException) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"{name} cannot be read after row {number} ({type(error).__name__}: {reason}); expected what datasets "
            "writes. Make the file again."
        ) from None


def own_keys(value: Any, depth: int = 0) -> Any:
    """Without the nulls that Arrow writes for keys which only other rows have.

    A null of a message itself stays: it says the same as no key, and is part of fingerprints that were made before.
    """
    if isinstance(value, dict):
        message = depth == 1 and ("role" in value or "from" in value)
        return {key: own_keys(one, depth + 1) for key, one in value.items() if one is not None or message}
    return [own_keys(one, depth) for one in value] if isinstance(value, list) and depth else value


@contextlib.contextmanager
def importing(what: str) -> Iterator[None]:
    """Say which package is missing where `datasets` is."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{what} is read by the package datasets, which is not installed here ({error}); expected it, or a "
            ".jsonl, .json or .csv file. pip install datasets, or convert the data."
        ) from None
