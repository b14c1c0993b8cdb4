"""Preference pairs for DPO: rows in TRL's forms, and the DataModule."""

import random
from collections import defaultdict

from torch import nn
from transformers import PreTrainedTokenizerBase

from research import prompts
from research.data.chunks import CHUNK_TOKENS
from research.data.language import (
    BUILTIN,
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
from research.data.preference_shapes import read_preference
from research.data.preference_tokens import PreferenceCollate, PreferenceRows, tokenise_preferences
from research.data.rows import SKIPPING_IN_TRAINING, BadRows, evenly_spaced
from research.data.stdlib import normalise
from research.errors import UserError
from research.ranges import ClosedUnitInterval, NonNegativeInt, PositiveInt, TwoOrMore
from research.types import Examples, PreferenceBatch


def read_preferences(
    source: Source,
    split: str | None,
    limit: int | None = None,
    skip_bad_rows: bool = False,
    noise: float = 0.0,
    seed: int = 0,
    columns: dict[str, str] | None = None,
) -> Examples:
    """Read the preference rows of a source.

    Args:
        source: a table (data/tables.py), builtin:stdlib or builtin:packages (a function's docstring against the most similar
            docstring of its module).
        split: of a hub dataset, a folder of splits or a builtin source; a file has none, but slices (train[:10%]).
        limit: keep this many, spread evenly; None keeps all.
        skip_bad_rows: leave malformed rows out, counted.
        noise: share of the pairs whose sides are swapped; .5 leaves nothing to learn.
        seed: of that draw.
        columns: role → the column that has it, where the shape is not known by its names.

    Raises:
        UserError: the source or split is not there, a row is not a preference, or nothing is left.
    """
    check_columns(columns)
    if isinstance(source, str) and source in BUILTIN:
        located = [("", row) for row in _builtin(source, split)]
    else:
        bad = BadRows(skip_bad_rows, SKIPPING_IN_TRAINING)
        rows = table_rows(source, split, bad, "preference", BUILTIN)
        located = list(shape_rows(rows, read_preference, bad, name_of(source), columns))
    located = located if limit is None else evenly_spaced(located, limit)
    if noise:
        # so many exactly: a coin for each pair would leave one order in the majority, which is something to learn
        swapped = {*random.Random(f"noise {seed}").sample(range(len(located)), round(noise * len(located)))}
        located = [
            (where, row | {"chosen": row["rejected"], "rejected": row["chosen"]} if i in swapped else row)
            for i, (where, row) in enumerate(located)
        ]
    return to_examples(source, split, located, "pair")


def _builtin(source: str, split: str | None) -> list[dict]:
    """Pair each true docstring with the one most similar in words, of the same module if that has another."""
    pairs = builtin_pairs(source, split)
    word_sets = {pair.id: {*normalise(pair.query).split()} for pair in pairs}
    modules = defaultdict(list)
    for pair in pairs:
        modules[pair.module].append(pair)
    rows = []
    for pair in pairs:
        others = [other for other in modules[pair.module] if other.id != pair.id] or [o for o in pairs if o.id != pair.id]
        pair_words = word_sets[pair.id]
        near = max(
            others, key=lambda other: (len(pair_words & word_sets[other.id]) / len(pair_words | word_sets[other.id]), other.id)
        )
        rows.append(
            {
                "prompt": prompts.docstring(pair.code),
                "chosen": [prompts.assistant(pair.query)],
                "rejected": [prompts.assistant(near.query)],
            }
        )
    return rows


class PreferenceData(LanguageData):
    """Training and validation pairs for DPO.

    Args:
        train: file, folder, pattern or list of files (JSON lines or array, CSV, TSV, Parquet, save_to_disk),
            hf:NAME[:CONFIG][@REVISION], builtin:stdlib or builtin:packages. docs/language-data.md has the shapes of rows.
        train_split: of a hub dataset, a folder or a builtin source, or a slice of it (train[:90%]); a file has none.
        val: source of validation and test; null takes `train`, unless that is a file, whose rows are all trained on.
        val_split: of `val`; null trains without validation, unless `val` is a file.
        test, test_split: for `research test`; null takes `val`, unless that is a file.
        max_length: tokens of prompt and completion; longer completions are cut at the end, and counted.
        batch_size: pairs a process and step.
        share_prompt: compute a prompt once for both of its completions (exact; not with virtual tokens, where null, the
            default, leaves it out).
        chunk_overhead: a batch is run in chunks of similar length; what one more costs, in tokens. Exact, only faster or
            slower. null: the whole batch at once.
        noise: share of the training pairs whose sides are swapped, 0 to 1; .5 is the control that has nothing to learn.
        limit, val_limit: train, validate on that many pairs, spread evenly.
        drop_last: leave out the last, smaller batch of an epoch.
        workers: processes that collate ahead; 0 collates between steps.
        skip_bad_rows: leave malformed rows out, counted.
        columns: role → the column that has it (prompt: question), where a shape is not known by its names.
        seed: of the order and the noise.
    """

    gives = PreferenceBatch
    lost = "have no prompt or no room for a completion"

    def __init__(
        self,
        train: Source = "builtin:stdlib",
        train_split: str | None = "train",
        val: Source | None = None,
        val_split: str | None = "dev",
        test: Source | None = None,
        test_split: str | None = "test",
        max_length: TwoOrMore = 512,
        batch_size: PositiveInt = 8,
        share_prompt: bool | None = None,
        chunk_overhead: NonNegativeInt | None = CHUNK_TOKENS,
        noise: ClosedUnitInterval = 0.0,
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
        self.max_length, self.share_prompt, self.columns = max_length, share_prompt, columns
        self.examples = read_preferences(train, train_split, limit, skip_bad_rows, noise, seed, columns)
        if (source := held_out(train, val, val_split)) is not None:
            self.collections["val"] = self.read(source, val_split, val_limit)
        self.shared = self.count_shared(self.collections)

    def describe(self) -> dict:
        """Describe what the training reads, for provenance."""
        rows = self.examples.rows
        facts = {"train": self.examples.fingerprint, "pairs": len(rows)}
        if equal := sum(row["chosen"] == row["rejected"] for row in rows):  # left out, since they teach nothing
            facts["equal_pairs"] = equal
        return facts | {name: data.fingerprint for name, data in self.collections.items()}

    def read(self, source: Source, split: str | None, limit: int | None) -> Examples:
        """Read the pairs of a split, as `read_preferences` does; validation and test have no noise."""
        return read_preferences(source, split, limit, self.skip_bad_rows, columns=self.columns)

    def tokenise(self, name: str, examples: Examples, tokenizer: PreTrainedTokenizerBase) -> PreferenceRows:
        """Tokenise a collection, as `tokenise_preferences` does."""
        return tokenise_preferences(examples, tokenizer, self.max_length)

    def collate(self, model: nn.Module) -> PreferenceCollate:
        """Return what makes batches for a CausalLM.

        Raises:
            UserError: share_prompt with virtual tokens.
        """
        shared = self.share_prompt if self.share_prompt is not None else not model.virtual_tokens
        if shared and model.virtual_tokens:
            raise UserError(
                f"share_prompt=true with {model.virtual_tokens} virtual tokens; expected false or null: they "
                "stand before a row, and a row would hold two texts. Leave data.share_prompt out."
            )
        room = model.positions - model.virtual_tokens
        return PreferenceCollate(model.pad_token_id, self.chunk_overhead, shared, room)
