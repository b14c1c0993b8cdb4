"""Turns rows of instructions and preferences, in any known shape, into TRL's forms, which all later code reads.

docs/language-data.md has the table, with an example of each; instruction_shapes.py and preference_shapes.py have a function for
each. A column of a row is part of its shape, or is named once as not read, or is refused where it would change what is learned.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from research.data.beside import OTHER_COLUMNS, named, refuse_other_columns, says_nothing
from research.data.conversations import Malformed, is_conversation
from research.data.rows import BadRows
from research.errors import UserError, suggest
from research.progress import say
from research.types import Json

SIDES = ("chosen", "rejected")
ROLES = (
    "prompt",
    "completion",
    "messages",
    "text",
    "instruction",
    "context",
    "response",
    "question",
    "answer",
    "system",
    "history",
    "tools",
    *SIDES,
)

Shaped = tuple[dict, set[str]]
"""A row in one of TRL's forms, and the columns that it is made of."""


def shape_rows(
    rows: Iterator[tuple[str, dict]],
    read: Callable[[dict], Shaped],
    bad: BadRows,
    source: str | Path,
    columns: dict[str, str] | None = None,
) -> Iterator[tuple[str, dict]]:
    """Yield (where, row in one of TRL's forms), all in the form of the first row.

    Args:
        rows: (where, row).
        read: read_instruction or read_preference.
        bad: what to do with a row that is in no shape.
        source: for messages.
        columns: role → the column that has it; see ROLES.

    Raises:
        UserError: a row in no shape, or of another form than the first; a column of `columns` that no row has.
    """
    first, unread, missing = None, {}, dict(columns or {})
    seen: dict[str, None] = {}  # all columns
    filled: set[str] = set()  # roles whose columns say something
    taken: set[str] = set()  # what rows are made of
    for where, row in rows:
        missing = {role: column for role, column in missing.items() if column not in row}
        seen |= dict.fromkeys(row)
        cells = {key: value for key, value in row.items() if not is_absent(value)}
        if columns:
            mapped = {role: cells[column] for role, column in columns.items() if column in cells}
            unread |= {
                f"{role} ({columns[role]} is read)": None for role in mapped if role in cells and role not in columns.values()
            }
            cells = {key: value for key, value in cells.items() if key not in columns.values()} | mapped
        try:
            shaped, used = read(cells)
            refuse_other_columns(cells, shaped, used)
        except Malformed as error:
            if missing:
                role, column = next(iter(missing.items()))
                raise UserError(
                    f"{bad.columns}: {where} has no column {column!r} ({role}); {suggest(column, row)}. Correct it."
                ) from None
            kind, cure = error.args[1:] or ("bad value", "Mend the row")
            bad.report(where, kind, str(error.args[0]), cure.replace("data.columns", bad.columns))
            continue
        if columns:
            filled |= {role for role, value in mapped.items() if not says_nothing(value)}
            taken |= used
        form = {name: is_conversation(value) for name, value in shaped.items() if name not in OTHER_COLUMNS}
        first = first or form
        # one row of preferences may say its prompt, and the next one begin with it
        if _kind(form) != _kind(first):
            bad.report(
                where, "mixed forms", f"the row has {named(form)} where the first has {named(first)}", "Give all rows one form"
            )
            continue
        unread |= dict.fromkeys(key for key in cells if key not in used and not says_nothing(cells[key]))
        yield where, shaped
    if missing and first:
        role, column = next(iter(missing.items()))
        raise UserError(
            f"{bad.columns}: no row of {source} has the column {column!r} ({role}); {suggest(column, seen)}. Correct it."
        )
    for role in sorted(filled - taken):
        raise UserError(
            f"{bad.columns} names {role} ({columns[role]!r}), and no row of {source} is made of it; expected roles "
            f"of its shape ({', '.join(sorted(taken & {*ROLES}))}). Leave it out, or name the others by their "
            "roles."
        )
    if unread:
        say(f"{source}: columns that are not read: {', '.join(key or repr(key) for key in sorted(unread))}")
    if bad.counts:
        say(f"{source}: skipped rows: " + ", ".join(f"{n} {reason}" for reason, n in bad.counts.items()))


def is_absent(value: Json) -> bool:
    """Return whether a value is JSON's null, or the NaN that pandas writes for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def check_columns(columns: dict[str, str] | None) -> None:
    """Refuse roles and columns that are no names.

    Raises:
        UserError: a role that there is not.
    """
    for role, column in (columns or {}).items():
        if role not in ROLES:
            raise UserError(
                f"data.columns has the role {role!r}; {suggest(role, ROLES)}. Write our name before the colon and "
                "the column after it."
            )
        if not isinstance(column, str):
            raise UserError(f"data.columns.{role} is {column!r}; expected the name of a column. Correct it.")


def _kind(form: dict[str, bool]) -> tuple[set[str], bool]:
    return {*form} - {"prompt"}, any(form.values())
