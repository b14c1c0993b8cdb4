"""MS MARCO's triples and pairs: tab-separated, without a header: query, positive, negative, as texts or as ids."""

import re
from collections.abc import Iterator
from pathlib import Path

from research.data.rows import BadRows, read_lines
from research.data.shapes.tevatron import LATER
from research.data.shapes.texts import BadRow, by_text, checked
from research.errors import UserError
from research.types import Triplets

ROLES = ("query", "positive", "negative")


def is_triples(path: Path, columns: list[str]) -> bool:
    """Return whether a .tsv file begins with a row instead of a header.

    Args:
        path: of the file.
        columns: names that a header could have.
    """
    if not path.name.lower().removesuffix(".gz").endswith(".tsv") or not path.is_file():
        return False
    _, first = next(read_lines(path), ("", ""))
    fields = first.split("\t")
    return len(fields) in (2, 3) and not {field.strip('"') for field in fields} & {*columns}


def read_triples(path: Path, bad: BadRows) -> Iterator[tuple[str, dict]]:
    """Yield (`file:line`, row) of a file; the first row decides the number of columns."""
    count = 0
    for where, line in read_lines(path):
        fields = line.split("\t")  # MS MARCO writes no quotes around its texts
        count = count or len(fields)
        if len(fields) != count:
            bad.report(
                where,
                "wrong number of cells",
                f"the row has {len(fields)} cells, expected {count}: {', '.join(ROLES[:count])}",
                "Mend the row",
            )
        else:
            yield where, dict(zip(ROLES, fields, strict=False))


def refuse_header(first: tuple[str, dict] | None) -> None:
    """Refuse a first row that seems to be a header of names that no shape has.

    Raises:
        UserError: as said.
    """
    if first is not None and all(re.fullmatch(r"[^\W\d][\w-]*", field) for field in first[1].values()):
        names = list(first[1].values())
        roles = ", ".join(f"{role}: {name}" for role, name in zip(ROLES, names, strict=False))
        raise UserError(
            f"{first[0]}: {', '.join(names)} seem to name columns; expected usual names, or texts. Name their "
            f"roles: --data.columns '{{{roles}}}'; or, if they are texts, put the "
            f"line {'TAB'.join(ROLES[: len(names)])} before them."
        )


def are_ids(row: dict) -> bool:
    """Return whether a row holds only numbers, which are ids."""
    return all(isinstance(value, str) and value.isdecimal() for value in row.values())


def read_ids(row: dict) -> Triplets:
    """Read one row of three ids, whose texts data.queries_file and data.corpus_file have.

    Raises:
        BadRow: a document that is positive and negative, or a text among the ids.
    """
    if not are_ids(row):
        raise BadRow(
            "wrong type",
            f"{', '.join(map(repr, row.values()))} are not ids, as those of the first row are, expected whole numbers",
            "Mend the row",
        )
    if row["positive"] == row.get("negative"):
        raise BadRow("contradiction", f"document {row['positive']} is both positive and negative", "Remove the row")
    negatives = {row["negative"]: LATER} if "negative" in row else {}
    return Triplets(row["query"], "", {row["positive"]: LATER}, negatives)


def read(row: dict) -> Triplets:
    """Read one row of texts.

    Raises:
        BadRow: a blank one.
    """
    for role, text in row.items():
        if not text.strip():
            raise BadRow("no text", f"the {role} is blank, expected a text", "Remove the row")
        if role != "query" and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text.strip(), re.IGNORECASE):
            raise BadRow(
                "number",
                f"the {role} is {text}, expected a text",
                "Write a first line that names the columns, such as sentence1, sentence2 and score",
            )
        checked(text, role)
    return by_text(row["query"], [row["positive"]], [row["negative"]] if "negative" in row else [])
