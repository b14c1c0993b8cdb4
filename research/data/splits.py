"""Splits of a table by name (train, validation, test) and slices of them (`train[:10%]`), as `datasets` has them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from research.data.rows import datasets_library
from research.errors import UserError

# as datasets tells splits by file names; in any case, and with what people put behind: Train, testset, devData
SPLIT_WORDS = {"train": "train|training", "validation": "validation|valid|dev|val", "test": "test|testing|eval|evaluation"}
Rows = Iterator[tuple[str, dict]]


def split_names(split: str) -> list[str]:
    """Return the names of the splits in a slice or sum of slices: `train[:10%]+test` → train, test."""
    return [part.strip().split("[")[0] for part in split.split("+")]


def whole_or_slice(rows: Iterable[tuple[str, dict]], split: str | None, source: str | Path) -> Rows:
    """Return all rows of a source without splits, or a slice of them."""
    return take_slice({"train": list(rows)}, split, source) if split and "[" in split else iter(rows)


def take_slice(parts: dict[str, list[tuple[str, dict]]], split: str, source: str | Path | Sequence[str]) -> Rows:
    """Take the rows of `train`, `train[:10%]`, `train[5:]+test`, by the rules of `datasets`."""
    if split in parts:
        return iter(parts[split])
    if set(parts) == {"train"} and (names := split_names(split)) != ["train"] and len({*names}) == 1:
        parts = {names[0]: parts["train"]}  # a file is all of one split, whatever it is called
    datasets = datasets_library("a slice of a split")
    try:
        chosen = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in parts.items()})
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"split {split!r} of {source} cannot be taken ({error}); expected NAME, NAME[:100], NAME[10%:20%] or a "
            f"sum of them, of {', '.join(parts)}. Correct it."
        ) from None
    return (row for part in chosen for row in parts[part.splitname][part.from_ : part.to])
