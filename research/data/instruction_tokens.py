"""Instruction rows → token ids and labels, by TRL's own preparation, padded as by TRL's collator."""

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from research.data.chunks import chunked
from research.data.token_cache import Made, cached
from research.errors import UserError
from research.types import Examples, InstructionBatch

MULTIPLE = 16  # tokens that rows are padded to a multiple of


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
    first = examples.rows[0]
    conversational = any(isinstance(value, list) for value in first.values())
    if conversational and not getattr(tokenizer, "chat_template", None):
        raise UserError(f"{examples.source} holds conversations and the tokenizer has no chat template; expected one, or rows "
                        "of plain prompt and completion. Name an instruction-tuned model, or write the prompts "
                        "out.")  # fmt: skip
    if loss_on == "completion" and "prompt" not in first:
        raise UserError(f"loss_on='completion', but rows of {examples.source} have no prompt ({', '.join(first)}); expected "
                        "assistant or all for such rows. Set data.loss_on.")  # fmt: skip
    made = functools.partial(_made, examples, tokenizer, max_length, loss_on, packing)
    rows, index, counts = cached(made, tokenizer, len(examples.rows), form="instructions", texts=examples.fingerprint,
                                 max_length=max_length, loss_on=loss_on, packing=packing)  # fmt: skip
    return Tokenised(rows, index, **counts)


def _made(examples: Examples, tokenizer: Any, max_length: int, loss_on: str, packing: bool) -> Made:
    from datasets import Dataset as Table
    from datasets.utils.logging import disable_progress_bar
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_trainer import SFTTrainer

    disable_progress_bar()
    stub = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=loss_on == "completion")
    options = SimpleNamespace(dataset_num_proc=None, dataset_text_field="text", assistant_only_loss=loss_on == "assistant",
                              max_length=None, shuffle_dataset=False, seed=0)  # fmt: skip
    if isinstance(said := getattr(tokenizer, "deprecation_warnings", None), dict):
        said["sequence-length-is-longer-than-the-specified-maximum"] = True  # not said: rows are cut below
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
    return rows, index, {"truncated": truncated, "dropped": dropped}


class TokenRows(Dataset):
    """Token rows, by (epoch, index); every epoch has the same."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        return self.rows[key[1]]


class InstructionCollate:
    """Token rows → InstructionBatch, padded as TRL's collator does, in chunks of similar length.

    Args:
        pad_token_id: what padding is filled with; the attention mask hides it.
        chunk_overhead: see `chunked`.
        room: positions of the model that are left for a text: no padding beyond.
        packed: rows hold several texts: one row without padding, its positions begin anew with each text.
    """

    def __init__(self, pad_token_id: int, chunk_overhead: int | None, packed: bool = False, room: int = 2**31):
        self.pad, self.chunk_overhead, self.packed, self.room = pad_token_id, chunk_overhead, packed, room

    def __call__(self, rows: list[dict]) -> InstructionBatch:
        if self.packed:
            return InstructionBatch((joined(rows),))
        return InstructionBatch(
            chunked(rows, lambda row: len(row["input_ids"]), self._padded, self.chunk_overhead).chunks
        )

    def _padded(self, rows: list[dict]) -> dict[str, Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        rounded = -(-longest // MULTIPLE) * MULTIPLE
        return padded(rows, self.pad, longest if rounded > self.room else rounded)


def padded(rows: list[dict], pad: int, length: int) -> dict[str, Tensor]:
    """Rows as (b, length) tensors, padded on the right."""
    fill = {"input_ids": pad, "labels": -100}
    batch = {
        name: torch.tensor([row[name] + [value] * (length - len(row[name])) for row in rows])
        for name, value in fill.items()
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return batch | {"attention_mask": (torch.arange(length) < lengths[:, None]).long()}


def joined(rows: list[dict]) -> dict[str, Tensor]:
    """Packed rows as one (1, T) row. A text's first token has no label: what stands before it is another text."""
    lengths = [length for row in rows for length in row["seq_lengths"]]
    position_ids = torch.cat([torch.arange(length) for length in lengths])
    input_ids, labels = (torch.tensor([one for row in rows for one in row[name]]) for name in ("input_ids", "labels"))
    batch = {
        "input_ids": input_ids,
        "labels": labels.masked_fill(position_ids == 0, -100),
        "position_ids": position_ids,
    }
    return {name: value[None] for name, value in batch.items()}
