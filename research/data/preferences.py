"""Preference pairs for DPO: rows in TRL's forms → token ids by TRL's preparation → batches that hold each prompt once."""

import os
import random
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from research import prompts
from research.data.chunks import CHUNK_TOKENS, chunked
from research.data.instructions import BUILTIN, SPLITS, Examples, TokenRows, is_message
from research.data.rows import BadRows, read_jsonl
from research.data.sampler import StatefulBatchSampler
from research.data.stdlib import cut, normalise, split_of
from research.data.training import check_counts, spread, training_loader
from research.errors import UserError, suggest
from research.progress import say
from research.runfolder import hash_json
from research.types import PreferenceBatch

ROW_FORMS = "prompt, chosen and rejected, or chosen and rejected conversations with a common beginning"
SIDES = ("chosen", "rejected")


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
        elif source.endswith((".jsonl", ".json")):
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
        draw = random.Random(f"noise {seed}")
        rows = [
            row | {"chosen": row["rejected"], "rejected": row["chosen"]} if draw.random() < noise else row
            for row in rows
        ]
    return Examples(source, split, rows, hash_json(rows))


def _builtin(source: str, split: str) -> list[dict]:
    """The true docstring against the one that shares most words with it, of the same module where it has another."""
    pairs = [pair for pair in cut(BUILTIN[source]()) if split_of(pair.module) == split]
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
        kinds.add(talk)
    if len(kinds) > 1:
        return "prompt, chosen and rejected are of two kinds, expected all texts or all lists of messages"
    return "chosen and rejected are the same, expected two answers" if row["chosen"] == row["rejected"] else None


class PreferenceRows(NamedTuple):
    """Token rows and what was lost on the way.

    Attributes:
        rows: {"prompt_ids", "chosen_ids", "rejected_ids"}.
        index: which example each row is of.
        truncated: pairs with a completion cut at max_length.
        dropped: pairs whose prompt leaves no room.
        fingerprint: sha256 of the rows.
    """

    rows: list[dict]
    index: list[int]
    truncated: int
    dropped: int
    fingerprint: str


def tokenise_preferences(examples: Examples, tokenizer: Any, max_length: int) -> PreferenceRows:
    """Token ids of prompts and completions, by TRL's own preparation of preference data.

    Args:
        examples: rows.
        tokenizer: of the model; conversational rows need its chat template.
        max_length: tokens of prompt and completion; longer completions are cut at the end, and counted.

    Raises:
        UserError: the template is missing or fails, or nothing is left.
    """
    from datasets import Dataset as Table
    from datasets.utils.logging import disable_progress_bar
    from trl.trainer.dpo_trainer import DPOTrainer

    if any(isinstance(value, list) for value in examples.rows[0].values()) and not tokenizer.chat_template:
        raise UserError(f"{examples.source} holds conversations and the tokenizer has no chat template; expected one, or rows "
                        "of plain texts. Name an instruction-tuned model, or write the prompts out.")  # fmt: skip
    disable_progress_bar()
    stub = SimpleNamespace(_tokenizer=tokenizer)
    options = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    table = Table.from_list([{**row, "example": i} for i, row in enumerate(examples.rows)])
    try:
        table = DPOTrainer._prepare_dataset(stub, table, tokenizer, options, "the")
    except Exception as error:  # jinja's errors, KeyError of a template's own fields
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"rows of {examples.source} cannot be tokenised ({type(error).__name__}: {reason}); expected what the "
                        "model's chat template takes. Correct the rows or the template.") from error  # fmt: skip
    rows, index, truncated = [], [], 0
    for row in table:
        room = max_length - len(row["prompt_ids"])
        if room < 1 or not row["prompt_ids"] or not all(row[f"{side}_ids"] for side in SIDES):
            continue
        truncated += any(len(row[f"{side}_ids"]) > room for side in SIDES)
        rows.append({"prompt_ids": row["prompt_ids"]} | {f"{side}_ids": row[f"{side}_ids"][:room] for side in SIDES})
        index.append(row["example"])
    if not rows:
        raise UserError(f"max_length={max_length} leaves no completion in any of the {len(table):,} pairs of "
                        f"{examples.source}; expected room for prompt and completion. Raise data.max_length.")  # fmt: skip
    return PreferenceRows(rows, index, truncated, len(table) - len(rows), hash_json(rows))


class PreferenceCollate:
    """Token rows → PreferenceBatch, in chunks of similar length.

    Args:
        pad_token_id: what padding is filled with; the attention mask hides it.
        chunk_overhead: see `chunked`.
        shared: a row is prompt, chosen, rejected, the prompt computed once; the rejected completion does not see the chosen
            one, and its positions begin where the prompt ends. Else each completion has a row of its own with the prompt.
        multiple: rows are padded to a multiple of this.
    """

    def __init__(self, pad_token_id: int, chunk_overhead: int | None, shared: bool, multiple: int = 16):
        self.pad, self.chunk_overhead, self.shared, self.multiple = pad_token_id, chunk_overhead, shared, multiple

    def __call__(self, rows: list[dict]) -> PreferenceBatch:
        sizes = [{name: len(row[f"{name}_ids"]) for name in ("prompt", *SIDES)} for row in rows]
        lengths = [s["prompt"] + (s["chosen"] + s["rejected"] if self.shared else max(s["chosen"], s["rejected"]))
                   for s in sizes]  # fmt: skip
        # rows and their places in the batch, so that a cached reference finds them
        numbered = list(zip(range(len(rows)), rows, strict=True))
        batch = chunked(numbered, lambda item: lengths[item[0]], self.collate, self.chunk_overhead)
        tokens = sum(s["prompt"] * (1 if self.shared else 2) + s["chosen"] + s["rejected"] for s in sizes)
        return PreferenceBatch(batch.chunks, tokens, sum(2 * s["prompt"] + s["chosen"] + s["rejected"] for s in sizes))

    def collate(self, numbered: list[tuple[int, dict]]) -> dict[str, Tensor]:
        rows = [row for _, row in numbered]
        chunk = self._shared(rows) if self.shared else self._apart(rows)
        chunk["number"] = torch.tensor([number for number, _ in numbered])
        for side in SIDES:
            if f"reference_{side}" in rows[0]:
                chunk[f"reference_{side}"] = torch.tensor(
                    [row[f"reference_{side}"] for row in rows], dtype=torch.float64
                )
        return chunk

    def _apart(self, rows: list[dict]) -> dict[str, Tensor]:
        """Two rows a pair, chosen first."""
        layout = [(row["prompt_ids"], row[f"{side}_ids"]) for row in rows for side in SIDES]
        texts = [prompt + answer for prompt, answer in layout]
        at = [
            (i, len(prompt) - 1 + k, token, i)
            for i, (prompt, answer) in enumerate(layout)
            for k, token in enumerate(answer)
        ]
        ids, lengths = self._padded(texts)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return {"input_ids": ids, "attention_mask": mask, **_targets(at)}

    def _shared(self, rows: list[dict]) -> dict[str, Tensor]:
        """One row a pair."""
        ids, lengths = self._padded([row["prompt_ids"] + row["chosen_ids"] + row["rejected_ids"] for row in rows])
        total = ids.shape[1]
        prompt = torch.tensor([len(row["prompt_ids"]) for row in rows])[:, None]
        second = (
            prompt + torch.tensor([len(row["chosen_ids"]) for row in rows])[:, None]
        )  # where the rejected one begins
        place = torch.arange(total)[None]  # (1, T)
        rejected = place >= second  # (b, T), padding too
        positions = torch.where(rejected, place - second + prompt, place)
        hidden = (
            rejected[:, :, None] & ((place >= prompt) & ~rejected)[:, None, :]
        )  # (b, T, T): the chosen from the rejected
        real = place < lengths[:, None]
        mask = (place[:, :, None] >= place[:, None, :]) & ~hidden & real[:, None, :]
        mask |= torch.eye(total, dtype=torch.bool)  # padding sees itself: a row of no key has no softmax
        at = []
        for i, row in enumerate(rows):
            p, c = len(row["prompt_ids"]), len(row["chosen_ids"])
            at += [(i, p - 1 + k, token, 2 * i) for k, token in enumerate(row["chosen_ids"])]
            at += [(i, p + c - 1 + k if k else p - 1, token, 2 * i + 1) for k, token in enumerate(row["rejected_ids"])]
        return {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": positions, **_targets(at)}

    def _padded(self, texts: list[list[int]]) -> tuple[Tensor, Tensor]:
        longest = -(-max(map(len, texts)) // self.multiple) * self.multiple
        ids = torch.tensor([text + [self.pad] * (longest - len(text)) for text in texts])
        return ids, torch.tensor([len(text) for text in texts])


def _targets(at: list[tuple[int, int, int, int]]) -> dict[str, Tensor]:
    columns = torch.tensor(at).T
    return {"row": columns[0], "place": columns[1], "label": columns[2], "sequence": columns[3]}


class PreferenceData(L.LightningDataModule):
    """Training and validation pairs for DPO.

    Args:
        train: JSONL file, hf:NAME[@REVISION], builtin:stdlib or builtin:packages.
        train_split: of a hub dataset or a builtin source; null for a file.
        val: source of validation and test; null takes `train`.
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
        self.collections: dict[str, Examples] = {}
        if val_split is not None or (val is not None and val.endswith(".jsonl")):
            self.collections["val"] = read_preferences(self.source, val_split, val_limit, skip_bad_rows)
        self.tokens: dict[str, PreferenceRows] = {}
        self.place: dict | None = None
        self.sampler: StatefulBatchSampler | None = None

    def describe(self) -> dict:
        """What the training reads, for provenance."""
        facts = {"train": self.examples.fingerprint, "pairs": len(self.examples.rows)}
        return facts | {name: data.fingerprint for name, data in self.collections.items()}

    def prepare(self, tokenizer: Any) -> None:
        """Tokenise what is read and not tokenised yet, and say what was cut.

        Raises:
            UserError: as `tokenise_preferences`.
        """
        for name, examples in {"train": self.examples, **self.collections}.items():
            if name not in self.tokens:
                done = self.tokens[name] = tokenise_preferences(examples, tokenizer, self.max_length)
                if done.truncated or done.dropped:
                    say(f"{name}: {done.truncated:,} of {len(examples.rows):,} pairs are cut at max_length={self.max_length}, "
                        f"{done.dropped:,} have no room for a completion and are dropped")  # fmt: skip
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
        return PreferenceCollate(model.tokenizer.pad_token_id, self.chunk_overhead, shared)

    def train_dataloader(self) -> DataLoader:
        return training_loader(self, self.collate(self.trainer.lightning_module.model))

    def val_dataloader(self) -> list[str]:
        """One batch, the name of the pairs: the module evaluates all of them."""
        return ["val"] if "val" in self.collections else []

    def test_dataloader(self) -> list[str]:
        if self.test is None and (self.test_split is None or self.source.endswith((".jsonl", ".json"))):
            raise UserError(f"{self.source} has no test split {self.test_split!r}; expected a file or a source to test on. "
                            "Name "
                            "one: --data.test FILE.jsonl.")  # fmt: skip
        self.collections["test"] = read_preferences(self.test or self.source, self.test_split, None, self.skip_bad_rows)
        return ["test"]

    def state_dict(self) -> dict:
        return self.sampler.state_dict() if self.sampler else {}

    def load_state_dict(self, state_dict: dict) -> None:
        self.place = state_dict or None
