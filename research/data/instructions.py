"""Instruction data for supervised fine-tuning: rows in any of the field's forms → token ids and labels by TRL's preparation."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import lightning as L
from torch.utils.data import DataLoader, Dataset

from research import prompts
from research.data.chunks import CHUNK_TOKENS, chunked
from research.data.rows import BadRows, read_jsonl
from research.data.sampler import StatefulBatchSampler
from research.data.stdlib import cut, packages_root, split_of, stdlib_root
from research.data.training import check_counts, spread, training_loader
from research.errors import UserError, suggest
from research.progress import say
from research.runfolder import hash_json
from research.types import InstructionBatch

BUILTIN = {"builtin:stdlib": stdlib_root, "builtin:packages": packages_root}
SPLITS = ("train", "dev", "test")
LOSS_ON = ("completion", "assistant", "all")
ROW_FORMS = "prompt and completion, messages, instruction and response, or text"


class Examples(NamedTuple):
    """Rows of one split.

    Attributes:
        source, split: as the user named them.
        rows: TRL's forms: {"prompt", "completion"} (texts, or lists of messages), {"messages"} or {"text"}.
        fingerprint: sha256 of the rows.
    """

    source: str
    split: str | None
    rows: list[dict]
    fingerprint: str

    def __str__(self) -> str:
        return f"{len(self.rows):,} examples"


def read_examples(source: str, split: str | None, limit: int | None = None, skip_bad_rows: bool = False) -> Examples:
    """Instruction rows of a source.

    Args:
        source: a JSONL file, hf:NAME[@REVISION], builtin:stdlib or builtin:packages (code → first docstring paragraph,
            splits by module).
        split: of a hub dataset or a builtin source; a file has none.
        limit: keep this many, spread evenly; None keeps all.
        skip_bad_rows: leave malformed rows out, counted.

    Raises:
        UserError: the source or split is not there, a row is in none of the forms, or nothing is left.
    """
    if source in BUILTIN:
        rows = _builtin(source, split)
    elif source.startswith("hf:"):
        rows = list(_forms(_hub(source, split), skip_bad_rows))
    else:
        if not source.endswith((".jsonl", ".json")):
            raise UserError(f"{source!r} is not instruction data; expected a .jsonl file, hf:NAME, or {' or '.join(BUILTIN)}. "
                            "Name one.")  # fmt: skip
        bad = BadRows(skip_bad_rows)
        rows = list(_forms(read_jsonl(Path(source), bad), skip_bad_rows, bad))
    rows = rows if limit is None else spread(rows, limit)
    if not rows:
        raise UserError(
            f"{source}{f' split {split!r}' if split else ''} has no usable row; expected one or more. Name another."
        )
    return Examples(source, split, rows, hash_json(rows))


def _builtin(source: str, split: str | None) -> list[dict]:
    if split not in SPLITS:
        raise UserError(f"{source} has no split {split!r}; {suggest(str(split), list(SPLITS))}. Name one of them.")
    return [{"prompt": prompts.docstring(pair.code), "completion": [prompts.assistant(pair.query)]}
            for pair in cut(BUILTIN[source]()) if split_of(pair.module) == split]  # fmt: skip


def _hub(source: str, split: str | None) -> Iterator[tuple[str, dict]]:
    from research.data.hub import read_rows

    return read_rows(source.removeprefix("hf:"), split)


def _forms(rows: Iterator[tuple[str, dict]], skip: bool, bad: BadRows | None = None) -> Iterator[dict]:
    """Each row in one of TRL's forms; the first row decides which one all must have."""
    bad = bad or BadRows(skip)
    form = None
    for where, row in rows:
        shaped = _shape(row)
        if shaped is None:
            bad.report(where, "unknown form", f"the row has {', '.join(map(repr, row)) or 'no keys'}, expected {ROW_FORMS}",
                       "Rename the keys")  # fmt: skip
            continue
        if problem := _problem(shaped):
            bad.report(where, "bad value", problem, "Mend the row")
            continue
        kind = (*sorted(shaped), isinstance(shaped.get("prompt"), list))
        form = form or kind
        if kind != form:
            bad.report(where, "mixed forms", f"the row has {', '.join(sorted(shaped))} where the first has "
                       f"{', '.join(map(str, form[:-1]))}", "Give all rows one form")  # fmt: skip
            continue
        yield shaped
    if bad.counts:
        say("skipped rows: " + ", ".join(f"{n} {reason}" for reason, n in bad.counts.items()))


def _shape(row: dict) -> dict | None:
    if "prompt" in row and "completion" in row:
        return {"prompt": row["prompt"], "completion": row["completion"]}
    if "messages" in row:
        return {"messages": row["messages"]}
    response = next((row[key] for key in ("response", "output") if key in row), None)
    if "instruction" in row and response is not None:
        context = next((row[key] for key in ("context", "input") if key in row), "") or ""
        if all(isinstance(text, str) for text in (row["instruction"], response, context)):
            return {
                "prompt": prompts.instruction(row["instruction"], context),
                "completion": [prompts.assistant(response)],
            }
        return {"prompt": row["instruction"], "completion": response}
    return {"text": row["text"]} if "text" in row else None


def _problem(row: dict) -> str | None:
    """What is wrong with a row in one of TRL's forms."""
    for name, value in row.items():
        if isinstance(value, str) and name != "messages":
            empty = not value.strip()
        elif isinstance(value, list) and value and all(is_message(m) for m in value):
            empty = not any(m["content"].strip() for m in value)
        else:
            return f"{name} is {str(value)[:60]!r}, expected a text or a list of {{role, content}}"
        if empty and name != "prompt":
            return f"{name} is empty, expected some text to learn"
    if isinstance(row.get("prompt", ""), str) != isinstance(row.get("completion", ""), str):
        return "prompt and completion are of two kinds, expected both texts or both lists of messages"
    return None


def is_message(value: Any) -> bool:
    return (isinstance(value, dict) and value.get("role") in ("system", "user", "assistant", "tool")
            and isinstance(value.get("content"), str))  # fmt: skip


# ---- tokens ---------------------------------------------------------------------------------------------------------


class Tokenised(NamedTuple):
    """Token rows and what was lost on the way.

    Attributes:
        rows: {"input_ids", "labels"} (and "seq_lengths" where packed).
        index: which example each row is of (not where packed).
        truncated: rows cut at max_length.
        dropped: examples without a label left.
    """

    rows: list[dict]
    index: list[int]
    truncated: int
    dropped: int


def tokenise(examples: Examples, tokenizer: Any, max_length: int, loss_on: str, packing: bool = False) -> Tokenised:
    """Token ids and labels, by TRL's own preparation of SFT data.

    Args:
        examples: rows.
        tokenizer: of the model; conversational rows need its chat template.
        max_length: rows are cut at the end to that many tokens, and counted.
        loss_on: "completion": tokens after the prompt; "assistant": assistant turns, which the template must mark with
            {% generation %}; "all": every token.
        packing: fill rows of max_length with whole texts, best fit first.

    Raises:
        UserError: the template is missing or fails, or cannot do what `loss_on` asks for.
    """
    from datasets import Dataset as Table
    from datasets.utils.logging import disable_progress_bar
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_trainer import SFTTrainer

    first = examples.rows[0]
    conversational = any(isinstance(value, list) for value in first.values())
    if conversational and not getattr(tokenizer, "chat_template", None):
        raise UserError(f"{examples.source} holds conversations and the tokenizer has no chat template; expected one, or rows "
                        "of plain prompt and completion. Name an instruction-tuned model, or write the prompts "
                        "out.")  # fmt: skip
    if loss_on == "completion" and "prompt" not in first:
        raise UserError(f"loss_on='completion', but rows of {examples.source} have no prompt ({', '.join(first)}); expected "
                        "assistant or all for such rows. Set data.loss_on.")  # fmt: skip
    disable_progress_bar()
    stub = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=loss_on == "completion")
    options = SimpleNamespace(dataset_num_proc=None, dataset_text_field="text", assistant_only_loss=loss_on == "assistant",
                              max_length=None, shuffle_dataset=False, seed=0)  # fmt: skip
    table = Table.from_list([{**row, "example": i} for i, row in enumerate(examples.rows)])
    try:
        table = SFTTrainer._prepare_dataset(stub, table, tokenizer, options, False, None, "the")
    except (
        Exception
    ) as error:  # jinja's errors, RuntimeError of a template without marks, KeyError of a template's own fields
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"rows of {examples.source} cannot be tokenised ({type(error).__name__}: {reason}); expected what the "
                        "model's chat template takes. Correct the rows, the template, or data.loss_on.") from error  # fmt: skip
    rows, index, truncated = [], [], 0
    for row in table:
        ids, labels = row["input_ids"][:max_length], row["labels"][:max_length]
        if any(label != -100 for label in labels[1:]):  # the first token is predicted by nothing
            truncated += len(row["input_ids"]) > max_length
            rows.append({"input_ids": ids, "labels": labels})
            index.append(row["example"])
    dropped = len(table) - len(rows)
    if not rows:
        raise UserError(f"max_length={max_length} leaves no label in any of the {len(table):,} rows of {examples.source}; "
                        "expected room for prompt and completion. Raise data.max_length.")  # fmt: skip
    if packing:
        packed = pack_dataset(Table.from_list(rows), max_length, "bfd")
        rows, index = [dict(row) for row in packed], []
    return Tokenised(rows, index, truncated, dropped)


class TokenRows(Dataset):
    """Token rows, by (epoch, index); every epoch has the same."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        return self.rows[key[1]]


class InstructionCollate:
    """Token rows → InstructionBatch, padded by TRL's collator, in chunks of similar length.

    Args:
        pad_token_id: what padding is filled with; the attention mask hides it.
        chunk_overhead: see `chunked`.
        packed: rows hold several texts: one row without padding, its positions begin anew with each text.
    """

    def __init__(self, pad_token_id: int, chunk_overhead: int | None, packed: bool = False):
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        self.chunk_overhead, self.packed = chunk_overhead, packed
        self.collate = DataCollatorForLanguageModeling(pad_token_id, padding_free=packed,
                                                       pad_to_multiple_of=None if packed else 16)  # fmt: skip

    def __call__(self, rows: list[dict]) -> InstructionBatch:
        keep = ("input_ids", "labels", "attention_mask", "position_ids")

        def collate(group: list[dict]) -> dict:
            return {name: value for name, value in self.collate(group).items() if name in keep}

        batch = chunked(rows, lambda row: len(row["input_ids"]), collate, None if self.packed else self.chunk_overhead)
        return InstructionBatch(batch.chunks, batch.rows, sum(len(row["input_ids"]) for row in rows))


class InstructionData(L.LightningDataModule):
    """Training and validation examples of a causal language model.

    Args:
        train: JSONL file, hf:NAME[@REVISION], builtin:stdlib or builtin:packages.
        train_split: of a hub dataset or a builtin source; null for a file.
        val: source of validation and test; null takes `train`.
        val_split: of `val`; null trains without validation, unless `val` is a file.
        test, test_split: for `research test`; null takes `val`, unless that is a file.
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
        seed: of the order.
    """

    gives = InstructionBatch

    def __init__(
        self, train: str = "builtin:stdlib", train_split: str | None = "train", val: str | None = None,
        val_split: str | None = "dev", test: str | None = None, test_split: str | None = "test",
        max_length: int = 512, loss_on: str = "completion",
        packing: bool = False, batch_size: int = 8, chunk_overhead: int | None = CHUNK_TOKENS, limit: int | None = None,
        val_limit: int | None = None, drop_last: bool = True, workers: int = 0, skip_bad_rows: bool = False, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        check_counts(batch_size=(batch_size, 1), max_length=(max_length, 2), workers=(workers, 0), limit=(_or_one(limit), 1),
                     chunk_overhead=(chunk_overhead or 0, 0), val_limit=(_or_one(val_limit), 1))  # fmt: skip
        if loss_on not in LOSS_ON:
            raise UserError(f"loss_on={loss_on!r}; expected {' | '.join(LOSS_ON)}. Correct it in the configuration.")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or tokenizers warns of every fork
        self.source, self.val_split = val or train, val_split
        self.test, self.test_split = test, test_split
        self.max_length, self.loss_on, self.packing = max_length, loss_on, packing
        self.batch_size, self.chunk_overhead, self.drop_last, self.workers = (
            batch_size,
            chunk_overhead,
            drop_last,
            workers,
        )
        self.skip_bad_rows, self.seed = skip_bad_rows, seed
        self.examples = read_examples(train, train_split, limit, skip_bad_rows)
        self.collections: dict[str, Examples] = {}
        if val_split is not None or (val is not None and val.endswith(".jsonl")):
            self.collections["val"] = read_examples(self.source, val_split, val_limit, skip_bad_rows)
        self.tokens: dict[str, Tokenised] = {}
        self.place: dict | None = None
        self.sampler: StatefulBatchSampler | None = None

    def describe(self) -> dict:
        """What the training reads, for provenance."""
        facts = {"train": self.examples.fingerprint, "examples": len(self.examples.rows)}
        return facts | {name: data.fingerprint for name, data in self.collections.items()}

    def prepare(self, tokenizer: Any) -> None:
        """Tokenise what is read and not tokenised yet, and say what was cut.

        Raises:
            UserError: as `tokenise`.
        """
        for name, examples in {"train": self.examples, **self.collections}.items():
            if name not in self.tokens:
                done = tokenise(examples, tokenizer, self.max_length, self.loss_on, self.packing and name == "train")
                self.tokens[name] = done
                if done.truncated or done.dropped:
                    say(f"{name}: {done.truncated:,} of {len(examples.rows):,} examples are cut at "
                        f"max_length={self.max_length}, {done.dropped:,} have no label left and are dropped")  # fmt: skip
        self.dataset = TokenRows(self.tokens["train"].rows)

    def train_dataloader(self) -> DataLoader:
        tokenizer = self.trainer.lightning_module.model.tokenizer
        self.prepare(tokenizer)
        return training_loader(self, InstructionCollate(tokenizer.pad_token_id, self.chunk_overhead, self.packing))

    def val_dataloader(self) -> list[str]:
        """One batch, the name of the examples: the module evaluates all of them."""
        return ["val"] if "val" in self.collections else []

    def test_dataloader(self) -> list[str]:
        if self.test is None and (self.test_split is None or self.source.endswith((".jsonl", ".json"))):
            raise UserError(f"{self.source} has no test split {self.test_split!r}; expected a file or a source to test on. "
                            "Name "
                            "one: --data.test FILE.jsonl.")  # fmt: skip
        self.collections["test"] = read_examples(self.test or self.source, self.test_split, None, self.skip_bad_rows)
        return ["test"]

    def state_dict(self) -> dict:
        return self.sampler.state_dict() if self.sampler else {}

    def load_state_dict(self, state_dict: dict) -> None:
        self.place = state_dict or None


def _or_one(value: int | None) -> int:
    return 1 if value is None else value
