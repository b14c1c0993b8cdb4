"""Instruction data for supervised fine-tuning: rows in any of the field's shapes → TRL's forms; the DataModule."""

from typing import Literal

from torch import nn
from transformers import PreTrainedTokenizerBase

from research import prompts
from research.data.chunks import CHUNK_TOKENS
from research.data.instruction_shapes import read_instruction
from research.data.instruction_tokens import InstructionCollate, Tokenised, tokenise
from research.data.language import (
    BUILTIN,
    REFERENCE,
    LanguageData,
    Source,
    builtin_pairs,
    check_columns_used,
    held_out,
    name_of,
    table_rows,
    to_examples,
)
from research.data.language_shapes import check_columns, shape_rows
from research.data.rows import SKIPPING_IN_TRAINING, BadRows, evenly_spaced
from research.data.stdlib import reference_pages
from research.errors import UserError
from research.ranges import NonNegativeInt, PositiveInt, TwoOrMore
from research.types import Examples, InstructionBatch


def read_examples(
    source: Source,
    split: str | None,
    limit: int | None = None,
    skip_bad_rows: bool = False,
    columns: dict[str, str] | None = None,
    option: str | None = SKIPPING_IN_TRAINING,
) -> Examples:
    """Read the instruction rows of a source.

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
        located = [("", {"text": text}) for text in reference_pages()]
    elif isinstance(source, str) and source in BUILTIN:
        located = [
            ("", {"prompt": prompts.docstring(pair.code), "completion": [prompts.assistant(pair.query)]})
            for pair in builtin_pairs(source, split)
        ]
    else:
        bad = BadRows(skip_bad_rows, option)
        rows = table_rows(source, split, bad, "instruction", (*BUILTIN, REFERENCE))
        located = list(shape_rows(rows, read_instruction, bad, name_of(source), columns))
    return to_examples(source, split, located if limit is None else evenly_spaced(located, limit), "row")


def reference(row: dict) -> str:
    """Return the text of a row's completion."""
    completion = row["completion"]
    return completion if isinstance(completion, str) else completion[-1].get("content") or ""


class InstructionData(LanguageData):
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
    lost = "have no label left"

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
        other_limit: PositiveInt | None = 64,
        max_length: TwoOrMore = 512,
        loss_on: Literal["completion", "assistant", "all"] = "completion",
        packing: bool = False,
        batch_size: PositiveInt = 8,
        chunk_overhead: NonNegativeInt | None = CHUNK_TOKENS,
        limit: PositiveInt | None = None,
        val_limit: PositiveInt | None = None,
        drop_last: bool = True,
        workers: NonNegativeInt = 0,
        skip_bad_rows: bool = False,
        seed: int = 0,
        columns: dict[str, str] | None = None,
    ):
        super().__init__(batch_size, chunk_overhead, drop_last, workers, skip_bad_rows, seed)
        check_columns_used(columns, train, val, test)
        self.source, self.test, self.test_split = val or train, test, test_split
        self.max_length, self.loss_on, self.packing, self.columns = max_length, loss_on, packing, columns
        self.examples = self.read(train, train_split, limit)
        if (source := held_out(train, val, val_split)) is not None:
            self.collections["val"] = self.read(source, val_split, val_limit)
        if other is not None:
            self.collections["other"] = read_examples(other, other_split, other_limit, skip_bad_rows)
        self.shared = self.count_shared(self.collections)

    def describe(self) -> dict:
        """Describe what the training reads, for provenance."""
        facts = {"train": self.examples.fingerprint, "examples": len(self.examples.rows)}
        return facts | {name: data.fingerprint for name, data in self.collections.items()}

    def read(self, source: Source, split: str | None, limit: int | None) -> Examples:
        """Read the examples of a split, as `read_examples` does."""
        return read_examples(source, split, limit, self.skip_bad_rows, self.columns)

    def tokenise(self, name: str, examples: Examples, tokenizer: PreTrainedTokenizerBase) -> Tokenised:
        """Tokenise a collection, as `instruction_tokens.tokenise` does."""
        loss_on = self.loss_on
        if name == "other":  # whatever is learned of the training text
            loss_on = "completion" if "prompt" in examples.rows[0] else "all"
        return tokenise(examples, tokenizer, self.max_length, loss_on, self.packing and name == "train")

    def collate(self, model: nn.Module) -> InstructionCollate:
        """Return what makes batches; packed rows are joined end to end if the model's attention kernel supports it."""
        self.prepare(model.tokenizer)
        room = model.positions - model.virtual_tokens
        flat = "flash" in str(getattr(model.base.config, "_attn_implementation", None))
        return InstructionCollate(model.pad_token_id, self.chunk_overhead, self.packing, room, flat)

    def questions(self, name: str, count: int) -> list[tuple[str, str | list[dict], str]]:
        """Return (example, prompt, reference) of up to `count` of the named examples, spread evenly.

        Only examples that fit max_length and whose completion has a text are taken.

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
        return [(str(i), prompts.asked(rows[i]), reference(rows[i])) for i in evenly_spaced(worded, count)]
