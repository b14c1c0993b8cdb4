"""Preference pairs for DPO: rows in TRL's forms, and the DataModule."""

import os
import random
from collections import defaultdict
from typing import Any

from torch.utils.data import DataLoader

from research import prompts
from research.data.chunks import CHUNK_TOKENS
from research.data.instruction_tokens import TokenRows
from research.data.instructions import (
    BUILTIN,
    SPLITS,
    Source,
    check_columns_used,
    held_out,
    kept,
    name_of,
    say_cut,
    say_form,
    table_rows,
    tested_on,
)
from research.data.language_shapes import check_columns, shape_rows
from research.data.preference_shapes import read_preference
from research.data.preference_tokens import PreferenceCollate, PreferenceRows, tokenise_preferences
from research.data.rows import SKIPPING_IN_TRAINING, BadRows
from research.data.stdlib import cut_once, normalise, split_of
from research.data.trained_on import count_trained
from research.data.training import ResumableData, check_counts, spread, training_loader
from research.errors import UserError, suggest
from research.progress import say
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
    """Preference rows of a source.

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
        if split not in SPLITS:
            raise UserError(f"{source} has no split {split!r}; {suggest(str(split), list(SPLITS))}. Name one of them.")
        found = [("", row) for row in _builtin(source, split)]
    else:
        bad = BadRows(skip_bad_rows, SKIPPING_IN_TRAINING)
        rows = table_rows(source, split, bad, "preference", BUILTIN)
        found = list(shape_rows(rows, read_preference, bad, name_of(source), columns))
    found = found if limit is None else spread(found, limit)
    if noise:
        # so many exactly: a coin for each pair would leave one order in the majority, which is something to learn
        swapped = {*random.Random(f"noise {seed}").sample(range(len(found)), round(noise * len(found)))}
        found = [
            (where, row | {"chosen": row["rejected"], "rejected": row["chosen"]} if i in swapped else row)
            for i, (where, row) in enumerate(found)
        ]
    return kept(source, split, found, "pair")


def _builtin(source: str, split: str) -> list[dict]:
    """The true docstring against the one that shares most words with it, of the same module where it has another."""
    pairs = [pair for pair in cut_once(BUILTIN[source]()) if split_of(pair.module) == split]
    words = {pair.id: {*normalise(pair.query).split()} for pair in pairs}
    modules = defaultdict(list)
    for pair in pairs:
        modules[pair.module].append(pair)
    rows = []
    for pair in pairs:
        others = [other for other in modules[pair.module] if other.id != pair.id] or [o for o in pairs if o.id != pair.id]
        own = words[pair.id]
        near = max(others, key=lambda other: (len(own & words[other.id]) / len(own | words[other.id]), other.id))
        rows.append(
            {
                "prompt": prompts.docstring(pair.code),
                "chosen": [prompts.assistant(pair.query)],
                "rejected": [prompts.assistant(near.query)],
            }
        )
    return rows


class PreferenceData(ResumableData):
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
    packing = False

    def __init__(
        self,
        train: Source = "builtin:stdlib",
        train_split: str | None = "train",
        val: Source | None = None,
        val_split: str | None = "dev",
        test: Source | None = None,
        test_split: str | None = "test",
        max_length: int = 512,
        batch_size: int = 8,
        share_prompt: bool | None = None,
        chunk_overhead: int | None = CHUNK_TOKENS,
        noise: float = 0.0,
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
            limit=(1 if limit is None else limit, 1),
            chunk_overhead=(chunk_overhead or 0, 0),
            val_limit=(1 if val_limit is None else val_limit, 1),
        )
        if not 0 <= noise <= 1:
            raise UserError(f"noise={noise}; expected 0 to 1, a share of the pairs. Correct it in the configuration.")
        check_columns_used(columns, train, val, test)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or tokenizers warns of every fork
        self.source, self.val_split = val or train, val_split
        self.test, self.test_split = test, test_split
        self.max_length, self.share_prompt, self.noise = max_length, share_prompt, noise
        self.batch_size, self.chunk_overhead, self.drop_last, self.workers = (batch_size, chunk_overhead, drop_last, workers)
        self.skip_bad_rows, self.seed, self.columns = skip_bad_rows, seed, columns
        self.examples = read_preferences(train, train_split, limit, skip_bad_rows, noise, seed, columns)
        if (source := held_out(train, val, val_split)) is not None:
            self.collections["val"] = read_preferences(source, val_split, val_limit, skip_bad_rows, columns=columns)
        self.shared = count_trained(self.examples, self.collections)
        self.tokens: dict[str, PreferenceRows] = {}

    def describe(self) -> dict:
        """What the training reads, for provenance."""
        rows = self.examples.rows
        facts = {"train": self.examples.fingerprint, "pairs": len(rows)}
        if equal := sum(row["chosen"] == row["rejected"] for row in rows):  # left out, since they teach nothing
            facts["equal_pairs"] = equal
        return facts | {name: data.fingerprint for name, data in self.collections.items()}

    def prepare(self, tokenizer: Any) -> None:
        """Tokenise what is read and not tokenised yet, and say what was cut.

        Raises:
            UserError: as `tokenise_preferences`.
        """
        first = getattr(self.trainer, "is_global_zero", True)
        if not self.tokens and first:
            say_form(self.examples, tokenizer)
        for name, examples in {"train": self.examples, **self.collections}.items():
            if name not in self.tokens:
                done = self.tokens[name] = tokenise_preferences(examples, tokenizer, self.max_length)
                if (done.truncated or done.dropped) and first:
                    say_cut(
                        name,
                        done.truncated,
                        done.dropped,
                        len(examples.rows),
                        self.max_length,
                        "have no prompt or no room for a completion",
                    )
                if done.equal and first:
                    say(
                        f"{name}: {done.equal:,} of {len(examples.rows):,} pairs have the same tokens on both sides and are "
                        "left out: nothing can be learned of them"
                    )
        self.dataset = TokenRows(self.tokens["train"].rows)

    def collate(self, model: Any) -> PreferenceCollate:
        """For a CausalLM.

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

    def train_dataloader(self) -> DataLoader:
        return training_loader(self, self.collate(self.trainer.lightning_module.model))

    def load_test(self) -> Examples:
        source = tested_on(self)
        found = read_preferences(source, self.test_split, None, self.skip_bad_rows, columns=self.columns)
        self.shared |= count_trained(self.examples, {"test": found})
        return found
