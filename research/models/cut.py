"""Counts the texts that are longer than what a model reads of them: the tokenizer knows it, and nobody else would say it."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from research.models.folder import NO_LIMIT
from research.progress import say

MANY = 0.1  # of the texts: more are a warning


class CutRow(list):
    """Token ids of a text that goes on beyond them."""

    cut = True


@dataclasses.dataclass
class CutCount:
    """How many texts of one kind were read, how many of them in part, and which (numbers in the order of reading)."""

    texts: int = 0
    cut: int = 0
    which: list[int] = dataclasses.field(default_factory=list)

    def add(self, rows: Sequence) -> None:
        """Count rows that a model has tokenised; a StackEncoder's or StackReranker's only after their batch was made."""
        found = [self.texts + i for i, row in enumerate(rows) if getattr(row, "cut", False)]
        self.texts, self.cut, self.which = self.texts + len(rows), self.cut + len(found), self.which + found

    def say(self, kind: str, model: str, limit: int | None, option: str, most: int | None = None) -> None:
        """Report the texts that are not read to their end, if there are any.

        Args:
            kind: "documents" | "queries" | "pairs of query and document", and of what.
            model: its name.
            limit: tokens that it reads of each.
            option: sets that limit.
            most: tokens that the model can read; None or NO_LIMIT where that is not known.
        """
        if not self.cut or not limit:
            return
        more = f"{option} reads more" + (f", up to {most:,}" if most and most < NO_LIMIT else "")
        if most == limit:
            more = "more the model cannot read"
        shorter = "" if kind.startswith("queries") else "; files are cut to shorter passages by search --passage-words"
        say(
            f"{'warning: ' if self.cut > MANY * self.texts else ''}{self.cut:,} of {self.texts:,} {kind} are longer than the "
            f"{limit:,} tokens that {model} reads of them; what lies beyond is not seen ({more}{shorter})"
        )


def mark_cut(rows: list[list[int]], encodings: Sequence | None, limit: int | None, whole: Callable[[int], int]) -> list:
    """Return the rows, those of texts that were cut as CutRow.

    Args:
        rows: token ids.
        encodings: of a fast tokenizer, which keeps what it cut off; None of another.
        limit: tokens at which they were cut.
        whole: (row number) → tokens of the whole text, for tokenizers without encodings; asked of full rows alone.
    """
    for i, row in enumerate(rows):
        if len(row) == limit and (encodings[i].overflowing if encodings else whole(i) > limit):
            rows[i] = CutRow(row)
    return rows


def full_rows(features: dict, limit: int | None) -> Iterable[int]:
    """Return the numbers of a library's batch that fill `limit` tokens; () where its features do not say it."""
    mask = features.get("attention_mask")
    if limit is None or mask is None or mask.ndim != 2:
        return ()
    return (mask.sum(1) >= limit).nonzero().flatten().tolist()
