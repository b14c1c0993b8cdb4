"""Preference pairs for DPO: rows in TRL's forms, and the DataModule."""

import json
import os
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from research import prompts
from research.data.chunks import CHUNK_TOKENS
from research.data.instruction_tokens import TokenRows
from research.data.instructions import BUILTIN, SPLITS, held_out, is_file, is_message, say_cut, say_form
from research.data.preference_tokens import SIDES, PreferenceCollate, PreferenceRows, tokenise_preferences
from research.data.rows import BadRows, broken, read_jsonl
from research.data.stdlib import cut_once, normalise, split_of
from research.data.training import ResumableData, check_counts, spread, training_loader
from research.errors import UserError, suggest
from research.progress import say
from research.runfolder import hash_json
from research.types import Examples, PreferenceBatch

ROW_FORMS = "prompt, chosen and rejected, or chosen and rejected conversations with a common beginning"


def read_preferences(
    source: str, split: str | None, limit: int | None = None, skip_bad_rows: bool = False, noise: float = 0.0, seed: int = 0
) -> Examples:  # fmt: skip
    """Preference rows of a source.

    Args:
        source: a JSONL file, hf:NAME[@REVISION], builtin:stdlib or builtin:packages (a function's docstring against the
            most similar docstring of its module).
        split: of a hub dataset or a builtin source; a file has none.
        limit: keep this many, spread evenly; None keeps all.
        skip_bad_rows: leave malformed rows out, counted.
        noise: share of the pairs whose sides are swapped; .5 leaves nothing to learn.
        seed: of that draw.

    Raises:
        UserError: the source or split is not there, a row is not a preference, or nothing is left.
    """
    if source in BUILTIN:
        if split not in SPLITS:
            raise UserError(f"{source} has no split {split!r}; {suggest(str(split), list(SPLITS))}. Name one of them.")
        rows = _builtin(source, split)
    else:
        bad = BadRows(skip_bad_rows)
        if source.startswith("hf:"):
            from research.data.hub import read_rows

            found = read_rows(source.removeprefix("hf:"), split)
        elif is_file(source):
            found = read_jsonl(Path(source), bad)
        else:
            raise UserError(f"{source!r} is not preference data; expected a .jsonl file, hf:NAME, or {' or '.join(BUILTIN)}. "
                            "Name one.")  # fmt: skip
        rows = []
        for where, row in found:
            if problem := _problem(row):
                bad.report(where, "no preference", problem, "Mend the row")
                continue
            rows.append({name: row[name] for name in ("prompt", *SIDES) if name in row})
        if bad.counts:
            say(f"{source}: skipped rows: " + ", ".join(f"{n} {reason}" for reason, n in bad.counts.items()))
    rows = rows if limit is None else spread(rows, limit)
    if not rows:
        raise UserError(f"{source}{f' split {split!r}' if split else ''} has no usable pair; expected one or more. Name "
                        "another.")  # fmt: skip
    if noise:
        # so many exactly: a coin for each pair would leave one order in the majority, which is something to learn
        swapped = {*random.Random(f"noise {seed}").sample(range(len(rows)), round(noise * len(rows)))}
        rows = [
            row | {"chosen": row["rejected"], "rejected": row["chosen"]} if i in swapped else row
            for i, row in enumerate(rows)
        ]
    return Examples(source, split, rows, hash_json(rows))


def _builtin(source: str, split: str) -> list[dict]:
    """The true docstring against the one that shares most words with it, of the same module where it has another."""
    pairs = [pair for pair in cut_once(BUILTIN[source]()) if split_of(pair.module) == split]
    words = {pair.id: {*normalise(pair.query).split()} for pair in pairs}
    modules = defaultdict(list)
    for pair in pairs:
        modules[pair.module].append(pair)
    rows = []
    for pair in pairs:
        others = [other for other in modules[pair.module] if other.id != pair.id] or [
            o for o in pairs if o.id != pair.id
        ]
        own = words[pair.id]
        near = max(others, key=lambda other: (len(own & words[other.id]) / len(own | words[other.id]), other.id))
        rows.append({"prompt": prompts.docstring(pair.code), "chosen": [prompts.assistant(pair.query)],
                     "rejected": [prompts.assistant(near.query)]})  # fmt: skip
    return rows


def _problem(row: dict) -> str | None:
    if missing := [side for side in SIDES if side not in row]:
        return f"the row has {', '.join(map(repr, row)) or 'no keys'} and no {missing[0]}, expected {ROW_FORMS}"
    kinds = set()
    for name in ("prompt", *SIDES) if "prompt" in row else SIDES:
        value = row[name]
        talk = isinstance(value, list) and bool(value) and all(is_message(m) for m in value)
        if not talk and not isinstance(value, str):
            return f"{name} is {str(value)[:60]!r}, expected a text or a list of {{role, content}}"
        if name != "prompt" and not (value.strip() if isinstance(value, str) else value[-1]["content"].strip()):
            return f"{name} is empty, expected an answer"
        if broken(json.dumps(value, ensure_ascii=False)):
            return f"{name} has half a surrogate pair (\\ud800 to \\udfff), expected Unicode text"
        kinds.add(talk)
    if len(kinds) > 1:
        return "prompt, chosen and rejected are of two kinds, expected all texts or all lists of messages"
    return "chosen and rejected are the same, expected two answers" if row["chosen"] == row["rejected"] else None


class PreferenceData(ResumableData):
    """Training and validation pairs for DPO.

    Args:
        train: JSONL file, hf:NAME[@REVISION], builtin:stdlib or builtin:packages.
        train_split: of a hub dataset or a builtin source; null for a file.
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
        seed: of the order and the noise.
    """

    gives = PreferenceBatch
    packing = False

    def __init__(
        self, train: str = "builtin:stdlib", train_split: str | None = "train", val: str | None = None,
        val_split: str | None = "dev", test: str | None = None, test_split: str | None = "test",
        max_length: int = 512, batch_size: int = 8,
        share_prompt: bool | None = None, chunk_overhead: int | None = CHUNK_TOKENS, noise: float = 0.0,
        limit: int | None = None, val_limit: int | None = None, drop_last: bool = True, workers: int = 0,
        skip_bad_rows: bool = False, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        check_counts(batch_size=(batch_size, 1), max_length=(max_length, 2), workers=(workers, 0),
                     limit=(1 if limit is None else limit, 1), chunk_overhead=(chunk_overhead or 0, 0),
                     val_limit=(1 if val_limit is None else val_limit, 1))  # fmt: skip
        if not 0 <= noise <= 1:
            raise UserError(f"noise={noise}; expected 0 to 1, a share of the pairs. Correct it in the configuration.")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or tokenizers warns of every fork
        self.source, self.val_split = val or train, val_split
        self.test, self.test_split = test, test_split
        self.max_length, self.share_prompt, self.noise = max_length, share_prompt, noise
        self.batch_size, self.chunk_overhead, self.drop_last, self.workers = (
            batch_size,
            chunk_overhead,
            drop_last,
            workers,
        )
        self.skip_bad_rows, self.seed = skip_bad_rows, seed
        self.examples = read_preferences(train, train_split, limit, skip_bad_rows, noise, seed)
        if (source := held_out(train, val, val_split)) is not None:
            self.collections["val"] = read_preferences(source, val_split, val_limit, skip_bad_rows)
        self.tokens: dict[str, PreferenceRows] = {}

    def describe(self) -> dict:
        """What the training reads, for provenance."""
        facts = {"train": self.examples.fingerprint, "pairs": len(self.examples.rows)}
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
                        "have no room for a completion",
                    )
        self.dataset = TokenRows(self.tokens["train"].rows)

    def collate(self, model: Any) -> PreferenceCollate:
        """For a CausalLM.

        Raises:
            UserError: share_prompt with virtual tokens.
        """
        shared = self.share_prompt if self.share_prompt is not None else not model.virtual_tokens
        if shared and model.virtual_tokens:
            raise UserError(f"share_prompt=true with {model.virtual_tokens} virtual tokens; expected false or null: they "
                            "stand before a row, and a row would hold two texts. Leave data.share_prompt out.")  # fmt: skip
        room = model.positions - model.virtual_tokens
        return PreferenceCollate(model.pad_token_id, self.chunk_overhead, shared, room)

    def train_dataloader(self) -> DataLoader:
        return training_loader(self, self.collate(self.trainer.lightning_module.model))

    def load_test(self) -> Examples:
        if self.test is None and (self.test_split is None or is_file(self.source)):
            raise UserError(f"{self.source} has no test split {self.test_split!r}; expected a file or a source to test on. "
                            "Name one: --data.test FILE.jsonl.")  # fmt: skip
        return read_preferences(self.test or self.source, self.test_split, None, self.skip_bad_rows)
