"""Reads the rows of a data file one at a time, and handles bad rows; all readers of files use this.

Longer than most files: what counts as a bad row, and when leaving it out helps, is decided here alone.
"""

import contextlib
import gzip
import itertools
import json
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, NoReturn

from research.errors import UserError, suggest
from research.progress import say
from research.types import Json

SKIPPING = "--skip-bad-rows"  # of the verbs
SKIPPING_IN_TRAINING = "--data.skip_bad_rows true"
LOOKED_AT = 1000  # rows
OF_COLUMNS = ("missing column", "unknown shape", "unknown form", "no preference", "empty document")
"""Reasons that lie in the names of columns: they are mended there where all rows have the same columns."""


class BadRows:
    """What to do with a row that breaks its format: refuse it, or skip and count it.

    Args:
        skip: False raises UserError at the first bad row; True skips bad rows and counts them.
        option: how the user asks for that, which refusals propose; None where nobody can.
        columns: the option that names columns; None follows from `option`.

    Attributes:
        counts: reason → rows that were skipped.
        kept: what → rows that were taken, of which a reader of the numbers must know.
        columns: the option that names the columns of a shape, for messages.
    """

    def __init__(self, skip: bool = False, option: str | None = SKIPPING, columns: str | None = None):
        self.skip, self.option = skip, option
        self.columns = columns or ("data.columns" if option == SKIPPING_IN_TRAINING else "--columns")
        self.counts: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()

    def report(self, where: str, reason: str, detail: str, cure: str, of_columns: bool = False) -> None:
        """Raise, or count under `reason` (the first of each reason is shown).

        Skipping is not offered where it would leave every row out: `of_columns`, or a reason of OF_COLUMNS, where all rows have
        the same columns.
        """
        if not self.skip:
            useless = (of_columns or reason in OF_COLUMNS) and _all_alike(where)
            offer = "" if useless else self.offer("leave such rows out, counted")
            stop = "" if detail.endswith("?") else "."
            raise UserError(f"{where}: {detail}{stop} {cure}{offer}.")
        if reason not in self.counts:
            say(f"skipping {where}: {detail} (further rows of this kind are counted silently)")
        self.counts[reason] += 1

    def offer(self, effect: str) -> str:
        """Return the end of a refusal: the option that skips bad rows, if there is one and it is not set yet."""
        return f", or pass {self.option} to {effect}" if self.option and not self.skip else ""

    def keep(self, where: str, what: str, detail: str) -> None:
        """Count a row that is taken under `what` (the first of each is shown)."""
        if what not in self.kept:
            say(f"{where}: {detail} (further rows of this kind are counted silently)")
        self.kept[what] += 1

    def say_counts(self, name: str) -> None:
        """Report what was skipped and what was kept of a source or file."""
        for title, counts in (("skipped rows", self.counts), ("kept rows", self.kept)):
            if counts:
                say(f"{name}: {title}: " + ", ".join(f"{n:,} {reason}" for reason, n in counts.items()))


def _all_alike(where: str) -> bool:
    """Return whether all rows have this one's columns: in a table with a header, and where it is the first of like rows."""
    file, _, number = where.replace(" row ", ":").rpartition(":")
    if file.startswith("hf:") or re.search(r"\.([ct]sv|parquet)(\.gz)?$", file.lower()):
        return True
    try:
        lines = itertools.islice(read_lines(Path(file)), LOOKED_AT if number == "1" else 0)
        rows = (json.loads(line).items() for _, line in lines)
        return len({frozenset(name for name, value in row if value is not None) for row in rows}) == 1
    except (UserError, ValueError, AttributeError, RecursionError):
        return False


def read_jsonl(path: Path, bad: BadRows, arrays: bool = False) -> Iterator[tuple[str, Json]]:
    """Yield (`file:line`, object) for each non-blank line.

    Args:
        path: of the file.
        bad: what to do with bad lines.
        arrays: a line may be a JSON array as well.

    Raises:
        UserError: the file is missing, not UTF-8, or (unless skipped) a line is not a JSON object.
    """
    for where, line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: not JSON, or a number of thousands of digits
            bad.report(
                where,
                "malformed JSON",
                f"{short(line)} is not JSON ({error})",
                "Expected one JSON object a line; mend the line",
            )
            continue
        if not isinstance(row, dict | list if arrays else dict):
            bad.report(
                where, "not an object", f"{short(line)} is a JSON {type(row).__name__}, expected an object", "Mend the line"
            )
            continue
        yield where, row


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (`file:line`, text) of each line that is not blank, without its end and a byte-order mark.

    A file that gzip packed, whatever its name, is unpacked.

    Raises:
        UserError: the file is missing, cannot be read, is damaged, or is not UTF-8.
    """
    number = 0
    try:
        with open_unpacked(path) as stream:  # decoded line by line, so that an error knows its line
            for number, line in enumerate(stream, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield f"{path}:{number}", text
    except (FileNotFoundError, NotADirectoryError):
        refuse_missing(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged after line {number} ({error}); expected a whole gzip file. Copy it again.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number}: not UTF-8 ({error}); expected UTF-8 text. Convert the file: iconv -f latin1 -t utf-8 "
            f"{shlex.quote(str(path))} > NEW_FILE (if it is Latin-1, the usual other one)."
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; expected a readable file. Check the path and its permissions."
        ) from None


@contextlib.contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open the bytes of a file, unpacked if its first bytes or its name are those of gzip."""
    with open(path, "rb") as stream:
        packed = str(path).lower().endswith(".gz") or stream.peek(2)[:2] == b"\x1f\x8b"
        yield gzip.GzipFile(fileobj=stream) if packed else stream


def refuse_missing(path: Path) -> NoReturn:
    """Raise an error that a file does not exist, with similar names that do exist there.

    Raises:
        UserError: always.
    """
    parent = Path(path).parent
    there = (
        suggest(Path(path).name, [p.name for p in parent.iterdir()], paths=True)
        if parent.is_dir()
        else f"{parent} is missing too"
    )
    raise UserError(f"{path} does not exist; {there}. Check the path.")


def identifier(row: dict, keys: tuple[str, ...], where: str, bad: BadRows) -> str | None:
    """Return the row's id as a string; whole numbers are accepted, since datasets store numeric ids."""
    value: Json = next((row[key] for key in keys if key in row), None)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or value.split() != [value] or broken(value):
        # TREC files separate columns by blanks, so an id with a blank could not be written or read back
        bad.report(
            where,
            "bad id",
            f"{keys[0]} is {value!r}, expected a string without blanks or half surrogate pairs",
            f"Give every row an {keys[0]}",
            of_columns=not any(key in row for key in keys),
        )
        return None
    return value


def string(row: dict, key: str, where: str, bad: BadRows) -> str | None:
    """Return a text of the row, "" if it is absent; None if it is refused."""
    value = row.get(key)
    if value is None:
        value = ""
    if not isinstance(value, str):
        bad.report(where, "wrong type", f"{key} is {short(repr(value))}, expected a string", "Mend the row")
        return None
    if broken(value):
        bad.report(
            where, "broken text", f"{key} has half a surrogate pair (\\ud800 to \\udfff), expected Unicode text", "Mend the row"
        )
        return None
    return value


def broken(text: str) -> bool:
    """Return whether a text has half a surrogate pair, which JSON can write but no tokenizer and no UTF-8 file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def integer(value: Json) -> int | None:
    """Return a whole number from a number or a text; None for anything else."""
    if isinstance(value, float) and value.is_integer():  # the hub keeps some grades as floats
        return int(value)
    if isinstance(value, str) and (whole := re.fullmatch(r"(-?\d+)\.0*", value.strip())):  # and so do some files: 2.0
        value = whole[1]
    try:
        return int(value) if str(value).strip() == str(int(value)) else None
    except (TypeError, ValueError):
        return None


def is_finite(value: object) -> bool:
    """Return whether it is a number, and neither NaN nor too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def short(text: str, limit: int = 60) -> str:
    """Quote and shorten a text for a message."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def datasets_library(what: str) -> ModuleType:
    """Load the package datasets, which reads `what`: here alone, since it takes a second and most sources need none of it.

    Raises:
        UserError: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{what} is read by the package datasets, which is not installed here ({error}); expected it, or a "
            ".jsonl, .json or .csv file. pip install datasets, or convert the data."
        ) from None
    return datasets


def evenly_spaced(items: list, count: int) -> list:
    """Take `count` of the items (all, if there are fewer), evenly spaced in their order."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
