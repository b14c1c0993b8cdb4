"""Tables of training rows by name: a file, a folder, a pattern, several of them, or a set of the hub.

`read_table` gives (where, row) pairs of any of them.
"""

import glob
import json
import re
from collections.abc import Sequence
from pathlib import Path

from research.data.hub import read_rows
from research.data.rows import BadRows
from research.data.splits import SPLIT_WORDS, Rows, split_names, take_slice, whole_or_slice
from research.data.table_files import ENDINGS, EXPECTED, read_file, read_saved
from research.errors import UserError, suggest

BESIDE_ROWS = ("dataset_infos.json", "dataset_info.json")  # what tools write about the tables beside them


def read_table(source: str | Sequence[str], split: str | None = None, bad: BadRows | None = None, arrays: bool = False) -> Rows:
    """Yield (where, row) of each row; `where` is `file:line`, or `file row N` if a format has no lines.

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
        return read_rows(source.removeprefix("hf:"), split)
    if isinstance(source, str) and (Path(source) / "state.json").is_file():
        _check_usual(source, split)
        return read_saved(Path(source), split)
    if (several := parts_of(source)) is not None:
        return _of_several(several, source, split, bad, arrays)
    if splits_of(source):
        return _of_splits(source, split, bad, arrays)
    if Path(source).is_dir():
        _check_usual(source, split)
    rows = (row for path in local_files(source) for row in read_file(path, bad, arrays))
    return whole_or_slice(rows, split, source)


def is_table(source: str | Sequence[str]) -> bool:
    """Return whether a name means a table on this machine: neither the hub's nor a built-in one."""
    if not isinstance(source, str):
        return True
    named = source.lower().removesuffix(".gz").endswith(ENDINGS) or glob.has_magic(source) or Path(source).is_dir()
    if "," in source and not named:
        named = all(is_table(name.strip()) for name in source.split(",") if name.strip())
    return named and not source.startswith(("hf:", "builtin:", "beir:", "rows:"))


def splits_of(source: str | Sequence[str]) -> list[str]:
    """Splits of a local folder (saved by save_to_disk, or with files named after splits), or those that all of several
    folders have; none for everything else."""
    if (several := parts_of(source)) is not None:
        known = [splits_of(item) for item in several]
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


def parts_of(source: str | Sequence[str]) -> list[str] | None:
    """Return the parts of a list, a pattern or names with commas between, in a fixed order; None for one file or folder.

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
    items = [item.strip() for item in source.split(",")] if isinstance(source, str) else list(source)
    if not (items := [item for item in items if item]):
        raise UserError(f"no file is named; expected {EXPECTED}. Name one or more.")
    return items


def _of_several(items: list[str], source: str | Sequence[str], split: str | None, bad: BadRows, arrays: bool) -> Rows:
    """Yield the rows of all sources, one after the other; a slice is taken from all of them together."""
    if not split or "[" not in split:
        return (row for item in items for row in read_table(item, split, bad, arrays))
    names = [*dict.fromkeys(split_names(split))]
    if len(names) > 1 and (without := [item for item in items if not item.startswith("hf:") and not splits_of(item)]):
        raise UserError(
            f"split {split!r} of {source} cannot be taken: {without[0]} has no splits; expected slices of one "
            f"split, {names[0]}[:100] say. Correct it."
        )
    return take_slice(
        {name: [row for item in items for row in read_table(item, name, bad, arrays)] for name in names}, split, source
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
    """List the files that a file's or folder's name means, in a fixed order.

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
    """Group files by the split in their names; empty if the names have none, and all files are one table.

    Raises:
        UserError: some names say a split and some do not.
    """
    by_split: dict[str, list[Path]] = {}
    for path in _inside(folder):
        by_split.setdefault(split_in(path.name) or "", []).append(path)
    if (rest := by_split.pop("", [])) and by_split:
        raise UserError(
            f"{folder}: {next(iter(by_split.values()))[0].name} is named after a split and {rest[0].name} is not; "
            "expected all of them to be, or none. Name the files that are meant, with commas between."
        )
    return by_split


def split_in(file: str) -> str | None:
    """Return the split that a file is named after (train, validation, test), as datasets tells them; None without one."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", file).lower()
    words = SPLIT_WORDS.items()
    return next((s for s, word in words if re.search(rf"(^|[-._ 0-9])({word})(set|data|split)?([-._ 0-9]|$)", name)), None)


def _of_splits(folder: str, split: str | None, bad: BadRows, arrays: bool) -> Rows:
    known = splits_of(folder)
    if split is None and len(known) > 1:
        raise UserError(f"{folder} has {len(known)} splits and none is named; known: {', '.join(known)}. Name one of them.")
    saved = (Path(folder) / "dataset_dict.json").is_file()
    files = {} if saved else _by_split(Path(folder))
    for kind, pattern in SPLIT_WORDS.items():  # the split of dev.jsonl is "validation", and "dev" too
        files |= dict.fromkeys(pattern.split("|"), files[kind]) if kind in files else {}
    names = split_names(split) if split else known
    for name in names:
        if name not in (known if saved else files):
            raise UserError(f"{folder} has no split {name!r}; {suggest(name, known)}. Name one of them.")
    if saved:
        parts = {name: list(read_saved(Path(folder) / name, None)) for name in names}
    else:
        parts = {name: [row for path in files[name] for row in read_file(path, bad, arrays)] for name in names}
    return take_slice(parts, split or names[0], folder)
