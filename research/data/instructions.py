"""Instruction data for supervised fine-tuning: rows in any of the field's shapes → TRL's forms; the DataModule."""

import os
from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader

from research import prompts
from research.data.chunks import CHUNK_TOKENS
from research.data.instruction_shapes import read_instruction
from research.data.instruction_tokens import InstructionCollate, Tokenised, TokenRows, tokenise
from research.data.language_shapes import check_columns, shape_rows
from research.data.rows import SKIPPING_IN_TRAINING, BadRows
from research.data.stdlib import cut_once, packages_root, reference_pages, split_of, stdlib_root
from research.data.tables import EXPECTED, Rows, is_table, read_table, splits_of
from research.data.trained_on import count_trained
from research.data.training import ResumableData, check_counts, spread, training_loader
from research.errors import UserError, suggest
from research.progress import say
from research.runs.hashes import hash_json
from research.types import Examples, InstructionBatch

BUILTIN = {"builtin:stdlib": stdlib_root, "builtin:packages": packages_root}
REFERENCE = "builtin:reference"
SPLITS = ("train", "dev", "test")
LOSS_ON = ("completion", "assistant", "all")

Source = str | list[str]
"""A table, several of them, or a built-in source."""


def read_examples(
    source: Source,
    split: str | None,
    limit: int | None = None,
    skip_bad_rows: bool = False,
    columns: dict[str, str] | None = None,
    option: str | None = SKIPPING_IN_TRAINING,
) -> Examples:
    """Instruction rows of a source.

    Args:
        source: a table (data/tables.py), builtin:stdlib or builtin:packages (code → first docstring paragraph, splits by
            module), or builtin:reference (plain text: the pages of Python's language reference; no split).
        split: of a hub dataset, a folder of splits or a builtin source; a file has none, but slices (train[:10%]).
        limit: keep this many, spread evenly; None keeps all.
        skip_bad_rows: leave malformed rows out, counted.
        columns: role → the column that has it, where the shape is not known by its names.
        option: see BadRows.

    Raises:
        UserError: the source or split is not there, a row is in none of the forms, or nothing is left.
    """
    check_columns(columns)
    if source == REFERENCE:
        found = [("", {"text": text}) for text in reference_pages()]
    elif isinstance(source, str) and source in BUILTIN:
        found = [("", row) for row in _builtin(source, split)]
    else:
        bad = BadRows(skip_bad_rows, option)
        rows = table_rows(source, split, bad, "instruction", (*BUILTIN, REFERENCE))
        found = list(shape_rows(rows, read_instruction, bad, name_of(source), columns))
    return kept(source, split, found if limit is None else spread(found, limit), "row")


def check_columns_used(columns: dict[str, str] | None, *sources: Source | None, option: str = "data.columns") -> None:
    """
    Raises:
        UserError: columns are named, and none of the sources has any.
    """
    if columns and all(one is None or (isinstance(one, str) and one.startswith("builtin:")) for one in sources):
        raise UserError(
            f"{option} names columns of a table, and {sources[0]} is built in; expected a file or a hub set of "
            "rows. Leave it out."
        )


def table_rows(source: Source, split: str | None, bad: BadRows, kind: str, builtin: Iterable[str]) -> Rows:
    """Rows of a table.

    Raises:
        UserError: the source is none, or as `read_table`.
    """
    if isinstance(source, str) and not source.startswith("hf:") and not is_table(source):
        raise UserError(f"{source!r} is not {kind} data; expected {EXPECTED}, or {', '.join(builtin)}. Name one.")
    return read_table(source, split, bad)


def kept(source: Source, split: str | None, found: list[tuple[str, dict]], what: str) -> Examples:
    """Rows with their fingerprint, from (where, row).

    Raises:
        UserError: there is none.
    """
    places, rows = [where for where, _ in found], [row for _, row in found]
    if not rows:
        raise UserError(
            f"{name_of(source)}{f' split {split!r}' if split else ''} has no usable {what}; expected one or more. Name another."
        )
    return Examples(name_of(source), split, rows, hash_json(rows), places if all(places) else ())


def name_of(source: Source) -> str:
    return source if isinstance(source, str) else ", ".join(source)


def _builtin(source: str, split: str | None) -> list[dict]:
    if split not in SPLITS:
        raise UserError(f"{source} has no split {split!r}; {suggest(str(split), list(SPLITS))}. Name one of them.")
    return [
        {"prompt": prompts.docstring(pair.code), "completion": [prompts.assistant(pair.query)]}
        for pair in cut_once(BUILTIN[source]())
        if split_of(pair.module) == split
    ]


class InstructionData(ResumableData):
    """Training and validation examples of a causal language model.

    Args:
        train: file, folder, pattern or list of files (JSON lines or array, CSV, TSV, Parquet, save_to_disk),
            hf:NAME[:CONFIG][@REVISION], builtin:stdlib or builtin:packages. docs/language-data.md has the shapes of rows.
        train_split: of a hub dataset, a folder or a builtin source, or a slice of it (train[:90%]); a file has none.
        val: source of validation and test; null takes `train`, unless that is a file, whose rows are all trained on.
        val_split: of `val`; null trains without validation, unless `val` is a file.
        test, test_split: for `research test`; null takes `val`, unless that is a file.
        other: text that is not trained, to measure forgetting on (metric other_loss; with a prompt its completions, else all
            tokens count): as `train`, or builtin:reference.
        other_split: of it.
        other_limit: that many of its examples, spread evenly.
        max_length: tokens of prompt and completion; longer rows are cut at the end, and counted.
        loss_on: completion | assistant | all: the tokens that are learned.
        packing: whole texts fill rows of max_length (LoRA and full fine-tuning only; exact).
        batch_size: examples (rows, where packed) a process and step.
        chunk_overhead: a batch is run in chunks of similar length; what one more costs, in tokens. Exact, only faster or
            slower. null: the whole batch at once.
        limit: train on that many examples, spread evenly.
        val_limit: validate on that many examples, spread evenly.
        drop_last: leave out the last, smaller batch of an epoch.
        workers: processes that collate ahead; 0 collates between steps.
        skip_bad_rows: leave malformed rows out, counted.
        columns: role → the column that has it (prompt: question), where the shape of train, val and test is not known by its
            names.
        seed: of the order.
    """

    gives = InstructionBatch

    def __init__(
        self,
        train: Source = "builtin:stdlib",
        train_split: str | None = "train",
        val: Source | None = None,
        val_split: str | None = "dev",
        test: Source | None = None,
        test_split: str | None = "test",
        other: Source | None = None,
        other_split: str | None = None,
        other_limit: int | None = 64,
        max_length: int = 512,
        loss_on: str = "completion",
        packing: bool = False,
        batch_size: int = 8,
        chunk_overhead: int | None = CHUNK_TOKENS,
        limit: int | None = None,
        val_limit: int | None = None,
        drop_last: bool = True,
        workers: int = 0,
        skip_bad_rows: bool = False,
        seed: int = 0,
        columns: dict[str, str] | None = None,
    ):
        super().__init__()
        check_counts(
            batch_size=(batch_size, 1),
            max_length=(max_length, 2),
            workers=(workers, 0),
            limit=(_or_one(limit), 1),
            chunk_overhead=(chunk_overhead or 0, 0),
            val_limit=(_or_one(val_limit), 1),
            other_limit=(_or_one(other_limit), 1),
        )
        if loss_on not in LOSS_ON:
            raise UserError(f"loss_on={loss_on!r}; expected {' | '.join(LOSS_ON)}. Correct it in the configuration.")
        check_columns_used(columns, train, val, test)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or tokenizers warns of every fork
        self.source, self.val_split = val or train, val_split
        self.test, self.test_split = test, test_split
        self.max_length, self.loss_on, self.packing = max_length, loss_on, packing
        self.batch_size, self.chunk_overhead, self.drop_last, self.workers = (batch_size, chunk_overhead, drop_last, workers)
        self.skip_bad_rows, self.seed, self.columns = skip_bad_rows, seed, columns
        self.examples = read_examples(train, train_split, limit, skip_bad_rows, columns)
        if (source := held_out(train, val, val_split)) is not None:
            self.collections["val"] = read_examples(source, val_split, val_limit, skip_bad_rows, columns)
        if other is not None:
            self.collections["other"] = read_examples(other, other_split, other_limit, skip_bad_rows)
        self.shared = count_trained(self.examples, self.collections)
        self.tokens: dict[str, Tokenised] = {}

    def describe(self) -> dict:
        """What the training reads, for provenance."""
        facts = {"train": self.examples.fingerprint, "examples": len(self.examples.rows)}
        return facts | {name: data.fingerprint for name, data in self.collections.items()}

    def prepare(self, tokenizer: Any) -> None:
        """Tokenise what is read and not tokenised yet, and say what was cut.

        Raises:
            UserError: as `tokenise`.
        """
        first = getattr(self.trainer, "is_global_zero", True)
        if not self.tokens and first:
            say_form(self.examples, tokenizer)
        for name, examples in {"train": self.examples, **self.collections}.items():
            if name not in self.tokens:
                loss_on = self.loss_on
                if name == "other":  # whatever is learned of the training text
                    loss_on = "completion" if "prompt" in examples.rows[0] else "all"
                done = tokenise(examples, tokenizer, self.max_length, loss_on, self.packing and name == "train")
                self.tokens[name] = done
                if (done.truncated or done.dropped) and first:
                    say_cut(name, done.truncated, done.dropped, len(examples.rows), self.max_length, "have no label left")
        self.dataset = TokenRows(self.tokens["train"].rows)

    def questions(self, name: str, count: int) -> list[tuple[str, str | list[dict], str]]:
        """(example, prompt, reference) of up to `count` of the named examples, spread evenly over those that fit max_length and
        whose completion has a text.

        Raises:
            UserError: rows without a prompt, or without such a text.
        """
        rows = self.collections[name].rows
        if "prompt" not in rows[0]:
            raise UserError(
                f"rows of {self.collections[name].source} have no prompt ({', '.join(rows[0])}); expected prompt "
                "and completion to measure answers. Leave rouge_l, token_f1 and exact_match out of "
                "model.metrics."
            )
        # a completion that is a call of a tool has no text, which an empty answer would equal
        worded = [i for i in self.tokens[name].index if reference(rows[i])]
        if not worded:
            raise UserError(
                f"no completion of {self.collections[name].source} has a text that an answer can be compared with; "
                "expected some. Leave rouge_l, token_f1 and exact_match out of model.metrics."
            )
        return [(str(i), prompts.asked(rows[i]), reference(rows[i])) for i in spread(worded, count)]

    def train_dataloader(self) -> DataLoader:
        model = self.trainer.lightning_module.model
        self.prepare(model.tokenizer)
        room = model.positions - model.virtual_tokens
        flat = "flash" in str(getattr(model.base.config, "_attn_implementation", None))
        collate = InstructionCollate(model.pad_token_id, self.chunk_overhead, self.packing, room, flat)
        return training_loader(self, collate)

    def load_test(self) -> Examples:
        source = tested_on(self)
        found = read_examples(source, self.test_split, None, self.skip_bad_rows, self.columns)
        self.shared |= count_trained(self.examples, {"test": found})
        return found


def tested_on(data: Any) -> Source:
    """The source of `research test`.

    Raises:
        UserError: none is named.
    """
    if data.test is None and (data.test_split is None or (is_file(data.source) and "[" not in data.test_split)):
        raise UserError(
            f"{name_of(data.source)} has no test split {data.test_split!r}; expected a file or a source to test "
            "on. Name one: --data.test FILE.jsonl."
        )
    return data.test or data.source


def say_form(examples: Examples, tokenizer: Any) -> None:
    """Say where texts are trained as they stand although the model has a chat template: it answers another form then."""
    texts = [value for value in examples.rows[0].values() if isinstance(value, str)]
    if texts and "prompt" in examples.rows[0] and getattr(tokenizer, "chat_template", None):
        prompt, answer = texts[:2]
        between = prompt[len(prompt.rstrip()) :] + answer[: len(answer) - len(answer.lstrip())]
        begin, end = repr(" ".join(prompt.split())[-40:]), repr(" ".join(answer.split())[:40])
        say(
            f"prompts are raw text, without the model's chat template: {repr(between) if between else 'nothing'} stands "
            f"between {begin} and {end}; for the template write them as messages "
            '("prompt": [{"role": "user", "content": …}]), or as instruction and response'
        )


def say_cut(name: str, cut: int, dropped: int, count: int, max_length: int, why: str) -> None:
    """What max_length does to the rows of `name`; a warning where it is most of what is learned."""
    parts = [f"{cut:,} of {count:,} are cut at max_length={max_length}"] if cut else []
    parts += [f"{dropped:,} of {count:,} {why} at max_length={max_length} and are dropped"] if dropped else []
    most = "warning: " if name != "other" and 2 * (cut + dropped) > count else ""
    say(f"{most}{name}: {', '.join(parts)}" + ("; raise data.max_length" if most else ""))


def is_file(source: Source) -> bool:
    """Whether it is a local table without splits."""
    return is_table(source) and not splits_of(source)


def held_out(train: Source, val: Source | None, val_split: str | None) -> Source | None:
    """The source to validate on; None where there is none: rows that are trained on would choose the best model by heart."""
    source = val or train
    if val is None and (is_file(train) or train == REFERENCE) and not (is_file(train) and val_split and "[" in val_split):
        if val_split is not None:
            say(
                f"no validation: {name_of(train)} has no splits, and its own rows are trained on. Name others by --data.val "
                "FILE.jsonl, or slices: --data.train_split train[:90%] --data.val_split train[90%:]"
            )
        return None
    return source if val_split is not None or is_file(source) or source == REFERENCE else None


def reference(row: dict) -> str:
    """The text of a row's completion."""
    completion = row["completion"]
    return completion if isinstance(completion, str) else completion[-1].get("content") or ""


def _or_one(value: int | None) -> int:
    return 1 if value is None else value
