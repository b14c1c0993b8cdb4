"""Instruction data for supervised fine-tuning: rows in any of the field's forms → TRL's forms; the DataModule."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from research import prompts
from research.data.chunks import CHUNK_TOKENS
from research.data.instruction_tokens import InstructionCollate, Tokenised, TokenRows, tokenise
from research.data.rows import BadRows, broken, read_jsonl
from research.data.stdlib import cut_once, packages_root, reference_pages, split_of, stdlib_root
from research.data.training import ResumableData, check_counts, spread, training_loader
from research.errors import UserError, suggest
from research.progress import say
from research.runfolder import hash_json
from research.types import Examples, InstructionBatch

BUILTIN = {"builtin:stdlib": stdlib_root, "builtin:packages": packages_root}
REFERENCE = "builtin:reference"
SPLITS = ("train", "dev", "test")
LOSS_ON = ("completion", "assistant", "all")
ROW_FORMS = "prompt and completion, messages, instruction and response, or text"


def read_examples(source: str, split: str | None, limit: int | None = None, skip_bad_rows: bool = False) -> Examples:
    """Instruction rows of a source.

    Args:
        source: a JSONL file, hf:NAME[@REVISION], builtin:stdlib or builtin:packages (code → first docstring paragraph,
            splits by module), or builtin:reference (plain text: the pages of Python's language reference; no split).
        split: of a hub dataset or a builtin source; a file has none.
        limit: keep this many, spread evenly; None keeps all.
        skip_bad_rows: leave malformed rows out, counted.

    Raises:
        UserError: the source or split is not there, a row is in none of the forms, or nothing is left.
    """
    if source == REFERENCE:
        rows = [{"text": text} for text in reference_pages()]
    elif source in BUILTIN:
        rows = _builtin(source, split)
    elif source.startswith("hf:"):
        rows = list(_forms(_hub(source, split), skip_bad_rows))
    else:
        if not is_file(source):
            raise UserError(f"{source!r} is not instruction data; expected a .jsonl file, hf:NAME, or "
                            f"{', '.join((*BUILTIN, REFERENCE))}. Name one.")  # fmt: skip
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
            for pair in cut_once(BUILTIN[source]()) if split_of(pair.module) == split]  # fmt: skip


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
        if broken(json.dumps(value, ensure_ascii=False)):
            return f"{name} has half a surrogate pair (\\ud800 to \\udfff), expected Unicode text"
    if isinstance(row.get("prompt", ""), str) != isinstance(row.get("completion", ""), str):
        return "prompt and completion are of two kinds, expected both texts or both lists of messages"
    return None


def is_message(value: Any) -> bool:
    return (isinstance(value, dict) and value.get("role") in ("system", "user", "assistant", "tool")
            and isinstance(value.get("content"), str))  # fmt: skip


class InstructionData(ResumableData):
    """Training and validation examples of a causal language model.

    Args:
        train: JSONL file, hf:NAME[@REVISION], builtin:stdlib or builtin:packages.
        train_split: of a hub dataset or a builtin source; null for a file.
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
        seed: of the order.
    """

    gives = InstructionBatch

    def __init__(
        self, train: str = "builtin:stdlib", train_split: str | None = "train", val: str | None = None,
        val_split: str | None = "dev", test: str | None = None, test_split: str | None = "test",
        other: str | None = None, other_split: str | None = None, other_limit: int | None = 64,
        max_length: int = 512, loss_on: str = "completion",
        packing: bool = False, batch_size: int = 8, chunk_overhead: int | None = CHUNK_TOKENS, limit: int | None = None,
        val_limit: int | None = None, drop_last: bool = True, workers: int = 0, skip_bad_rows: bool = False, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        check_counts(batch_size=(batch_size, 1), max_length=(max_length, 2), workers=(workers, 0), limit=(_or_one(limit), 1),
                     chunk_overhead=(chunk_overhead or 0, 0), val_limit=(_or_one(val_limit), 1),
                     other_limit=(_or_one(other_limit), 1))  # fmt: skip
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
        if (source := held_out(train, val, val_split)) is not None:
            self.collections["val"] = read_examples(source, val_split, val_limit, skip_bad_rows)
        if other is not None:
            self.collections["other"] = read_examples(other, other_split, other_limit, skip_bad_rows)
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
                    say_cut(
                        name, done.truncated, done.dropped, len(examples.rows), self.max_length, "have no label left"
                    )
        self.dataset = TokenRows(self.tokens["train"].rows)

    def questions(self, name: str, count: int) -> list[tuple[str, str | list[dict], str]]:
        """(example, prompt, reference) of up to `count` of the named examples, spread evenly over those that fit max_length.

        Raises:
            UserError: rows without a prompt.
        """
        rows = self.collections[name].rows
        if "prompt" not in rows[0]:
            raise UserError(f"rows of {self.collections[name].source} have no prompt ({', '.join(rows[0])}); expected prompt "
                            "and completion to measure answers. Leave rouge_l, token_f1 and exact_match out of "
                            "model.metrics.")  # fmt: skip
        return [(str(i), rows[i]["prompt"], reference(rows[i])) for i in spread(self.tokens[name].index, count)]

    def train_dataloader(self) -> DataLoader:
        model = self.trainer.lightning_module.model
        self.prepare(model.tokenizer)
        room = model.positions - model.virtual_tokens
        collate = InstructionCollate(model.pad_token_id, self.chunk_overhead, self.packing, room)
        return training_loader(self, collate)

    def load_test(self) -> Examples:
        if self.test is None and (self.test_split is None or is_file(self.source)):
            raise UserError(f"{self.source} has no test split {self.test_split!r}; expected a file or a source to test on. "
                            "Name one: --data.test FILE.jsonl.")  # fmt: skip
        return read_examples(self.test or self.source, self.test_split, None, self.skip_bad_rows)


def say_form(examples: Examples, tokenizer: Any) -> None:
    """Say where texts are trained as they stand although the model has a chat template: it answers another form then."""
    texts = [value for value in examples.rows[0].values() if isinstance(value, str)]
    if texts and "prompt" in examples.rows[0] and getattr(tokenizer, "chat_template", None):
        begin, end = repr(" ".join(texts[0].split())[-40:]), repr(" ".join(texts[1].split())[:40])
        say(f"prompts are raw text, without the model's chat template, and nothing stands between {begin} and {end}; for the "
            'template write them as messages ("prompt": [{"role": "user", "content": …}]), or as instruction and '
            "response")  # fmt: skip


def say_cut(name: str, cut: int, dropped: int, count: int, max_length: int, why: str) -> None:
    """What max_length does to the rows of `name`; a warning where it is most of what is learned."""
    parts = [f"{cut:,} of {count:,} are cut at max_length={max_length}"] if cut else []
    parts += [f"{dropped:,} of {count:,} {why} at max_length={max_length} and are dropped"] if dropped else []
    most = "warning: " if name != "other" and 2 * (cut + dropped) > count else ""
    say(f"{most}{name}: {', '.join(parts)}" + ("; raise data.max_length" if most else ""))


def is_file(source: str) -> bool:
    """Whether it is a JSONL file, which has no splits."""
    return source.endswith((".jsonl", ".json"))


def held_out(train: str, val: str | None, val_split: str | None) -> str | None:
    """The source to validate on; None where there is none: rows that are trained on would choose the best model by heart."""
    source = val or train
    if val is None and (is_file(train) or train == REFERENCE):
        if val_split is not None:
            say(
                f"no validation: {train} has no splits, and its own rows are trained on. Name others by --data.val FILE.jsonl"
            )
        return None
    return source if val_split is not None or is_file(source) or source == REFERENCE else None


def reference(row: dict) -> str:
    """The text of a row's completion."""
    completion = row["completion"]
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _or_one(value: int | None) -> int:
    return 1 if value is None else value
