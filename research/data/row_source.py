"""Training rows as a data source: `rows:faq.csv` is a corpus, queries and judgements, with splits to train and to measure on.

`rows:faq.csv,query=Frage,positive=Antwort` names columns. A folder or several files that are named after splits (train.csv,
dev.csv, test.csv) have those; the queries of all other rows are divided 70/10/20 by a hash of their text, so that rows which
are added later move no query from one split to another. Queries of equal text, and texts that are query and answer, stay
together.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from research.data.equality import normalise
from research.data.folds import assign_folds
from research.data.rows import BadRows, refuse_missing
from research.data.shapes.columns import ROLES, SEVERAL, Columns
from research.data.shapes.reading import read_training
from research.data.tables import parts_of, split_in, splits_of
from research.errors import UserError, suggest
from research.progress import say
from research.types import Corpus, Document, Qrels, Queries, Triplets

SETTINGS = (*ROLES, "positive_from", "corpus_file", "queries_file", "split")
TENTHS = {"train": 7, "dev": 1, "test": 2}
"""Split → its share of rows that have no splits of their own."""
USUAL = {"validation": "dev"}


class RowSource(NamedTuple):
    """What a name says of rows.

    Attributes:
        name: as the user wrote it, with `rows:`.
        parts: files and folders, as `tables.read_table` takes them.
        columns: role → column(s), where the shape is not known by names.
        positive_from, corpus_file, queries_file: see `shapes.reading.read_training`.
        split: the one that all rows belong to; None where file names or a hash decide.
    """

    name: str
    parts: list[str]
    columns: Columns | None = None
    positive_from: float | None = None
    corpus_file: str | None = None
    queries_file: str | None = None
    split: str | None = None

    @property
    def files(self) -> dict[str, tuple[str, str | None]] | None:
        """Split → its source and the split's name there, as `tables.read_table` takes them; None where a hash divides the rows.

        Raises:
            UserError: some files are named after a split and some are not.
        """
        if self.split is not None:
            return {self.split: (",".join(self.parts), None)}
        if len(self.parts) == 1 and (inside := splits_of(self.parts[0])):
            return {USUAL.get(split, split): (self.parts[0], split) for split in inside}
        by_split: dict[str, list[str]] = {}
        for part in self.parts:
            split = split_in(Path(part).name) or ""
            by_split.setdefault(USUAL.get(split, split), []).append(part)
        if (rest := by_split.pop("", [])) and by_split:
            raise UserError(
                f"{self.name}: {next(iter(by_split.values()))[0]} is named after a split and {rest[0]} is not; expected all of "
                "them to be, or none. Rename one, or name one alone, with ,split=NAME behind it."
            )
        return {split: (",".join(parts), None) for split, parts in by_split.items()} or None

    @property
    def splits(self) -> list[str]:
        """Names of its splits, known without reading a row."""
        return list(self.files or TENTHS)


def parse_rows(name: str) -> RowSource:
    """Parse `rows:FILE[,FILE…][,ROLE=COLUMN…]`, checked as far as possible without reading rows.

    Raises:
        UserError: no such file, an unknown setting, or a query's column without a positive's.
    """
    files: list[str] = []
    given: dict[str, list[str]] = {}
    for item in name.removeprefix("rows:").split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or Path(item).exists():
            files.append(item.strip())
        elif key not in SETTINGS or not value:
            raise UserError(
                f"{name}: {item!r} is not known; {suggest(key, SETTINGS)}. Write it as rows:FILE,query=COLUMN,positive=COLUMN."
            )
        elif key in given and key not in SEVERAL:
            raise UserError(f"{name} names {key} twice; expected once. Leave one out.")
        else:
            given.setdefault(key, []).append(value)
    joined = ",".join(str(Path(file).expanduser()) for file in files if file)
    parts = parts_of(joined) or [joined]
    for part in parts:
        if part.startswith("hf:"):
            raise UserError(
                f"{name}: rows are files and folders of this machine; expected one, not the hub's. Download {part}."
            )
        if not Path(part).exists():
            refuse_missing(Path(part))
    columns: Columns = {role: values[0] if len(values) == 1 else values for role, values in given.items() if role in ROLES}
    if columns and (missing := next((role for role in ("query", "positive") if role not in columns), None)):
        raise UserError(
            f"{name} names columns and none for {missing}; expected query and positive. Add ,{missing}=COLUMN to the name."
        )
    others = {key: values[0] for key, values in given.items() if key not in ROLES}
    number = others.pop("positive_from", None)
    try:
        positive_from = None if number is None else float(number)
    except ValueError:
        raise UserError(f"{name}: positive_from={number}; expected a number. Correct it.") from None
    return RowSource(name, parts, columns or None, positive_from, **others)


def read_splits(name: str, bad: BadRows) -> dict[str, list[Triplets]]:
    """Read the rows of each split.

    Args:
        name: `rows:…`.
        bad: what to do with malformed rows.

    Raises:
        UserError: as `parse_rows` and `read_training`.
    """
    source = parse_rows(name)
    named = [Path(file) for file in (*source.parts, source.corpus_file, source.queries_file) if file is not None]
    paths = sorted(path for file in named for path in ([file, *file.rglob("*")] if file.is_dir() else [file]) if path.is_file())
    stamps = tuple((str(path), (facts := path.stat()).st_mtime_ns, facts.st_size) for path in paths)
    splits, counts, kept = _read_once(name, bad.skip, bad.option, stamps)
    bad.counts.update(counts)
    bad.kept.update(kept)
    return splits


@functools.lru_cache(maxsize=2)
def _read_once(
    name: str, skip: bool, option: str | None, stamps: tuple
) -> tuple[dict[str, list[Triplets]], Counter[str], Counter[str]]:
    """Read the rows, and report about them, once a process while they are unchanged: fit asks for each split.

    Args:
        name, skip, option: of the source and of BadRows.
        stamps: of every file that is read; others make it read again.

    Returns:
        Each split's rows, and what was skipped and kept as `BadRows` counts it.
    """
    source, bad = parse_rows(name), BadRows(skip, option)
    options = source.columns, source.positive_from, source.corpus_file, source.queries_file
    try:
        if (files := source.files) is not None:
            splits = {split: read_training(*file, bad, *options) for split, file in files.items()}
            return splits, bad.counts, bad.kept
        rows = read_training(",".join(source.parts), None, bad, *options)
    except UserError as error:
        raise UserError(_as_settings(str(error))) from None
    divided = divide(rows)
    counts = ", ".join(f"{split} {len(part):,}" for split, part in divided.items())
    say(f"{name}: {len(rows):,} queries, divided by a hash of their text: {counts}")
    return divided, bad.counts, bad.kept


def _as_settings(message: str) -> str:
    """Turn the options of `fit` in a reader's message into settings of a source's name, which every verb takes."""
    message = re.sub(r"--data\.(\w+) ([\w./]+\w)", r",\1=\2 behind the name of the source", message)
    columns = re.compile(r"--data\.columns '\{(.*?)\}'")
    message = columns.sub(lambda found: f"rows:FILE,{found[1].replace(': ', '=').replace(', ', ',')}", message)
    return message.replace("data.columns", "the columns that the name of the source has")


def divide(rows: Sequence[Triplets]) -> dict[str, list[Triplets]]:
    """Divide queries into train, dev and test, about 70/10/20, the same way on every machine.

    Queries of equal text (words in lower case), and those whose text is relevant to another one, are in the same split.
    """
    texts = {row.query_id: normalise(row.query) for row in rows}
    asked = {*texts.values()}
    linked = {
        row.query_id: [texts[row.query_id], *(asked & {normalise(doc.content) for doc in row.positives.values()})]
        for row in rows
    }
    tenths = assign_folds(linked, texts, 10)
    names = [split for split, share in TENTHS.items() for _ in range(share)]
    divided: dict[str, list[Triplets]] = {split: [] for split in TENTHS}
    for row in rows:
        divided[names[tenths[row.query_id]]].append(row)
    return divided


def collection(name: str, bad: BadRows) -> tuple[Corpus, Queries, dict[str, Qrels]]:
    """Read rows as one corpus of all their texts, all queries, and each split's judgements: a row's positives, grade 1.

    Raises:
        UserError: as `read_splits`; or an id that stands for two texts.
    """
    splits = read_splits(name, bad)
    corpus, queries = {}, {}
    for rows in splits.values():
        for row in rows:
            add_documents(corpus, row, name)
            if queries.setdefault(row.query_id, row.query) != row.query:
                raise UserError(f"{name}: query id {row.query_id!r} has two texts; expected one. Give them different ids.")
    qrels = {split: {row.query_id: dict.fromkeys(row.positives, 1) for row in rows} for split, rows in splits.items()}
    return corpus, queries, qrels


def add_documents(corpus: dict[str, Document], row: Triplets, source: str) -> None:
    """Add a row's passages to a corpus.

    Raises:
        UserError: an id that stands for another text already.
    """
    for doc_id, doc in (row.positives | row.negatives).items():
        if corpus.setdefault(doc_id, doc) != doc:
            raise UserError(
                f"{source}: document {doc_id!r} has another text in query {row.query_id!r} than before; expected "
                "one text an id. Give different texts different ids."
            )


def queries_trained_on(options: Mapping[str, object]) -> set[str]:
    """Return the query texts of a training's rows; none if they are not from files that still exist.

    Args:
        options: of its data section.
    """
    train, split, bad = options.get("train"), options.get("train_split"), BadRows(skip=True)
    if not isinstance(train, str) or not (train.startswith("rows:") or Path(train).is_file()):
        return set()
    given = {name: options.get(name) for name in ("columns", "positive_from", "corpus_file", "queries_file")}
    try:
        if train.startswith("rows:"):
            return {row.query for row in read_splits(train, bad)[str(split or "train")]}
        return {row.query for row in read_training(train, split if split and "[" in split else None, bad, **given)}
    except (UserError, KeyError) as error:
        say(f"{train}, which a model here was trained on, cannot be read any more ({error}): its queries are not compared")
        return set()
