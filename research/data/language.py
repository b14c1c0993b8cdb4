"""Data of both language-model trainers: tables and built-in rows, their splits, and the held-out rows."""

import abc
import os
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from research.data.base import BaseDataModule
from research.data.instruction_tokens import Tokenised, TokenRows
from research.data.preference_tokens import PreferenceRows
from research.data.rows import BadRows
from research.data.splits import Rows
from research.data.stdlib import Pair, cut_once, packages_root, split_of, stdlib_root
from research.data.table_files import EXPECTED
from research.data.tables import is_table, read_table, splits_of
from research.data.trained_on import count_trained
from research.errors import UserError, suggest
from research.progress import say
from research.runs.hashes import hash_json
from research.types import Examples

BUILTIN = {"builtin:stdlib": stdlib_root, "builtin:packages": packages_root}
REFERENCE = "builtin:reference"
SPLITS = ("train", "dev", "test")
MEASURED = ("val", "test")

Source = str | list[str]
"""A table, several of them, or a built-in source."""


def check_columns_used(columns: dict[str, str] | None, *sources: Source | None, option: str = "data.columns") -> None:
    """Refuse data.columns if no source has columns.

    Raises:
        UserError: columns are named, and none of the sources has any.
    """
    if columns and all(source is None or (isinstance(source, str) and source.startswith("builtin:")) for source in sources):
        raise UserError(
            f"{option} names columns of a table, and {sources[0]} is built in; expected a file or a hub set of "
            "rows. Leave it out."
        )


def table_rows(source: Source, split: str | None, bad: BadRows, kind: str, builtin: Iterable[str]) -> Rows:
    """Read the rows of a table.

    Raises:
        UserError: the source is none, or as `read_table`.
    """
    if isinstance(source, str) and not source.startswith("hf:") and not is_table(source):
        raise UserError(f"{source!r} is not {kind} data; expected {EXPECTED}, or {', '.join(builtin)}. Name one.")
    return read_table(source, split, bad)


def builtin_pairs(source: str, split: str | None) -> list[Pair]:
    """Return docstrings and code of one split of a built-in source.

    Raises:
        UserError: it has no such split.
    """
    if split not in SPLITS:
        raise UserError(f"{source} has no split {split!r}; {suggest(str(split), list(SPLITS))}. Name one of them.")
    return [pair for pair in cut_once(BUILTIN[source]()) if split_of(pair.module) == split]


def to_examples(source: Source, split: str | None, located: list[tuple[str, dict]], what: str) -> Examples:
    """Collect rows with their fingerprint, from (where, row).

    Raises:
        UserError: there is none.
    """
    places, rows = [where for where, _ in located], [row for _, row in located]
    if not rows:
        raise UserError(
            f"{name_of(source)}{f' split {split!r}' if split else ''} has no usable {what}; expected one or more. Name another."
        )
    return Examples(name_of(source), split, rows, hash_json(rows), places if all(places) else ())


def name_of(source: Source) -> str:
    """Return a source as one name, for messages and facts."""
    return source if isinstance(source, str) else ", ".join(source)


def is_file(source: Source) -> bool:
    """Return whether it is a local table without splits."""
    return is_table(source) and not splits_of(source)


def held_out(train: Source, val: Source | None, val_split: str | None) -> Source | None:
    """Return the source to validate on; None if there is none: validating on trained rows would reward memorising."""
    source = val or train
    if val is None and (is_file(train) or train == REFERENCE) and not (is_file(train) and val_split and "[" in val_split):
        if val_split is not None:
            say(
                f"no validation: {name_of(train)} has no splits, and its own rows are trained on. Name others by --data.val "
                "FILE.jsonl, or slices: --data.train_split train[:90%] --data.val_split train[90%:]"
            )
        return None
    return source if val_split is not None or is_file(source) or source == REFERENCE else None


def form_notes(examples: Examples, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return a note if raw texts are trained although the model has a chat template: it then expects another form of prompt."""
    texts = [value for value in examples.rows[0].values() if isinstance(value, str)]
    if texts and "prompt" in examples.rows[0] and getattr(tokenizer, "chat_template", None):
        prompt, answer = texts[:2]
        between = prompt[len(prompt.rstrip()) :] + answer[: len(answer) - len(answer.lstrip())]
        begin, end = repr(" ".join(prompt.split())[-40:]), repr(" ".join(answer.split())[:40])
        return [
            f"prompts are raw text, without the model's chat template: {repr(between) if between else 'nothing'} stands "
            f"between {begin} and {end}; for the template write them as messages "
            '("prompt": [{"role": "user", "content": …}]), or as instruction and response'
        ]
    return []


def lost_notes(name: str, lost: dict[str, int], max_length: int, why: str) -> list[str]:
    """Return how many examples are cut, dropped, or left out as equal.

    It is a warning where these are more than half of what is trained on, or any of what is measured, whose mean is then over
    fewer.

    Args:
        name: of the examples.
        lost: "rows", and of these "cut", "dropped" and "equal".
        max_length: that cuts them.
        why: they are dropped.
    """
    count, cut, dropped, equal = (lost.get(key, 0) for key in ("rows", "cut", "dropped", "equal"))
    notes, parts = [], [f"{cut:,} of {count:,} are cut at max_length={max_length}"] if cut else []
    parts += [f"{dropped:,} of {count:,} {why} at max_length={max_length} and are dropped"] if dropped else []
    most = 2 * (cut + dropped) > count and name != "other"
    if name in MEASURED and dropped:
        parts.append(f"so what is measured on {name} is a mean over {count - dropped:,}")
    if parts:
        warning = "warning: " if most or (name in MEASURED and dropped) else ""
        notes.append(f"{warning}{name}: {', '.join(parts)}" + ("; raise data.max_length" if warning else ""))
    if equal:
        notes.append(
            f"{name}: {equal:,} of {count:,} pairs have the same tokens on both sides and are left out: nothing can be learned "
            "of them"
        )
    return notes


class LanguageData(BaseDataModule):
    """The common part of both language-model DataModules.

    Attributes:
        examples: that are trained on.
        source, test, test_split: what `research test` reads, and where it names nothing what the validation reads.
        max_length: tokens of an example.
        columns: role → the column that has it.
        tokens: name of examples ("train", or a collection's) → token rows.
        lost: why examples are dropped, for messages.
        lost_rows: name → "rows", and how many of them were "cut", "dropped" or "equal"; only of names that lost some.
    """

    examples: Examples
    source: Source
    test: Source | None
    test_split: str | None
    max_length: int
    lost: str

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or tokenizers warns of every fork
        self.tokens: dict[str, Tokenised | PreferenceRows] = {}
        self.lost_rows: dict[str, dict[str, int]] = {}

    @abc.abstractmethod
    def read(self, source: Source, split: str | None, limit: int | None) -> Examples:
        """Read the examples to validate or test on."""

    @abc.abstractmethod
    def tokenise(self, name: str, examples: Examples, tokenizer: PreTrainedTokenizerBase) -> Tokenised | PreferenceRows:
        """Tokenise the examples of that name."""

    def prepare(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Tokenise what is read but not tokenised yet; return what a user must know of it: what was cut and dropped.

        Raises:
            UserError: as `tokenise`.
        """
        notes = [] if self.tokens else form_notes(self.examples, tokenizer)
        for name, examples in {"train": self.examples, **self.collections}.items():
            if name not in self.tokens:
                self.tokens[name] = tokens = self.tokenise(name, examples, tokenizer)
                counts = {"cut": tokens.truncated, "dropped": tokens.dropped, "equal": getattr(tokens, "equal", 0)}
                if lost := {key: count for key, count in counts.items() if count}:
                    self.lost_rows[name] = {"rows": len(examples.rows)} | lost
                    notes += lost_notes(name, self.lost_rows[name], self.max_length, self.lost)
        self.dataset = TokenRows(self.tokens["train"].rows)
        return notes

    def load_test(self) -> Examples:
        """Load the examples of `test`, or of the test split."""
        if self.test is None and (self.test_split is None or (is_file(self.source) and "[" not in self.test_split)):
            raise UserError(
                f"{name_of(self.source)} has no test split {self.test_split!r}; expected a file or a source to test "
                "on. Name one: --data.test FILE.jsonl."
            )
        return self.read(self.test or self.source, self.test_split, None)

    def count_shared(self, collections: dict[str, Examples]) -> dict[str, int]:
        """Count the examples of other collections that are also trained on."""
        return count_trained(self.examples, collections)
