"""Instruction rows → token ids and labels, those that TRL's trainer makes, packed and padded as by TRL's collator."""

import functools
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from research.data.chat_tokens import check_flags, check_template, learned_ids, quiet, refused, say_endless
from research.data.chunks import chunked
from research.data.token_cache import Made, cached
from research.errors import UserError
from research.progress import each
from research.types import IGNORE, Examples, InstructionBatch

MULTIPLE = 16  # tokens that rows are padded to a multiple of
PACKED_AT_ONCE = 1000  # texts, as TRL packs them


class Tokenised(NamedTuple):
    """Token rows, and counts of what was cut or dropped.

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

    @staticmethod
    def padded(rows: list[dict], pad: int, length: int) -> dict[str, Tensor]:
        """Make (b, length) tensors of rows, padded on the right."""
        fill = {"input_ids": pad, "labels": IGNORE}
        batch = {
            name: torch.tensor([row[name] + [value] * (length - len(row[name])) for row in rows])
            for name, value in fill.items()
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        return batch | {"attention_mask": (torch.arange(length) < lengths[:, None]).long()}


def tokenise(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str, packing: bool = False
) -> Tokenised:
    """Compute token ids and labels, as TRL prepares data for SFT.

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
        raise UserError(
            f"{examples.source} holds conversations and the tokenizer has no chat template; expected one, or rows "
            "of plain prompt and completion. Name an instruction-tuned model, or write the prompts "
            "out."
        )
    if loss_on == "assistant" and not conversational:
        raise UserError(
            f"loss_on='assistant', but rows of {examples.source} are plain text ({', '.join(first)}), without "
            "turns; expected completion or all for such rows. Set data.loss_on."
        )
    if loss_on == "completion" and "prompt" not in first:
        raise UserError(
            f"loss_on='completion', but rows of {examples.source} have no prompt ({', '.join(first)}); expected "
            "assistant or all for such rows. Set data.loss_on."
        )
    if conversational:
        check_flags(examples, loss_on)
        check_template(examples, tokenizer)
    else:
        say_endless(tokenizer)
    make = functools.partial(_tokenised, examples, tokenizer, max_length, loss_on, packing)
    rows, index, counts = cached(
        make,
        tokenizer,
        len(examples.rows),
        form="instructions",
        texts=examples.fingerprint,
        max_length=max_length,
        loss_on=loss_on,
        packing=packing,
    )
    return Tokenised(rows, index, **counts)


def _tokenised(examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str, packing: bool) -> Made:
    quiet(tokenizer)
    rows, index, truncated = [], [], 0
    for number, row in enumerate(each(examples.rows, "tokenise", "row")):
        try:
            whole, learned = learned_ids(tokenizer, row, loss_on)
        except Exception as error:  # jinja's errors, and what a template's own fields raise
            raise refused(examples, number, error, "Correct the rows, the template, or data.loss_on") from error
        ids, labels = whole[:max_length], learned[:max_length]
        if any(label != IGNORE for label in labels[1:]):  # the first token is predicted by nothing
            truncated += len(whole) > max_length
            rows.append({"input_ids": ids, "labels": labels})
            index.append(number)
    dropped = len(examples.rows) - len(rows)
    if not rows:
        raise UserError(
            f"max_length={max_length} leaves no label in any of the {dropped:,} rows of {examples.source}; "
            "expected room for prompt and completion. Raise data.max_length."
        )
    if packing:
        rows, index = packed(rows, max_length), []
    return rows, index, {"truncated": truncated, "dropped": dropped}


def packed(rows: list[dict], length: int) -> list[dict]:
    """Pack whole texts into rows of up to `length` tokens: best fit, longest first, as trl.pack_dataset's "bfd", 1,000 at once.

    Returns:
        {"input_ids", "labels", "seq_lengths"}: the texts of a row end to end, and the length of each.
    """
    rows_of_texts = []
    for start in range(0, len(rows), PACKED_AT_ONCE):
        texts = sorted(rows[start : start + PACKED_AT_ONCE], key=lambda row: -len(row["input_ids"]))
        with_room: dict[int, deque[list[dict]]] = {}  # rows by the tokens that are left in them
        begun: list[list[dict]] = []
        for text in texts:
            needed = len(text["input_ids"])
            room = min((length_left for length_left in with_room if length_left >= needed), default=length)
            if room < length:
                row = with_room[room].popleft()
                if not with_room[room]:
                    del with_room[room]
            else:
                begun.append(row := [])
            row.append(text)
            if room > needed:
                with_room.setdefault(room - needed, deque()).append(row)
        rows_of_texts += [
            {
                "input_ids": [token for text in row for token in text["input_ids"]],
                "labels": [token for text in row for token in text["labels"]],
                "seq_lengths": [len(text["input_ids"]) for text in row],
            }
            for row in begun
        ]
    return rows_of_texts


class TokenRows(Dataset):
    """Token rows, by (epoch, index); every epoch has the same."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        return self.rows[key[1]]


class InstructionCollate:
    """Makes an InstructionBatch of token rows, padded as by TRL's collator, in chunks of similar length.

    Args:
        pad_token_id: what padding is filled with; the attention mask hides it.
        chunk_overhead: see `chunked`.
        packed: rows hold several texts: their positions begin anew with each, which transformers masks by.
        room: positions of the model that are left for a text: no padding beyond.
        flat: packed rows end to end in one, as kernels take them that know where each text ends. Others would compute, and
            mask, the scores between all rows: B times the work.
    """

    def __init__(
        self, pad_token_id: int, chunk_overhead: int | None, packed: bool = False, room: int = 2**31, flat: bool = False
    ):
        self.pad, self.chunk_overhead, self.packed, self.room = pad_token_id, chunk_overhead, packed, room
        self.flat = flat

    def __call__(self, rows: list[dict]) -> InstructionBatch:
        if self.packed and self.flat:
            return InstructionBatch((with_places(joined(rows)),))
        collate = self._packed if self.packed else self._padded
        chunks = chunked(rows, lambda row: len(row["input_ids"]), collate, self.chunk_overhead).chunks
        return InstructionBatch(tuple(map(with_places, chunks)))

    def _padded(self, rows: list[dict]) -> dict[str, Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        rounded = -(-longest // MULTIPLE) * MULTIPLE
        return Tokenised.padded(rows, self.pad, longest if rounded > self.room else rounded)

    def _packed(self, rows: list[dict]) -> dict[str, Tensor]:
        """Make tensors of packed rows; each padding token has position 0, as a text of its own that no token attends to."""
        batch = self._padded(rows)
        del batch["attention_mask"]  # with one, transformers would not look where positions begin anew
        positions = [[at for length in row["seq_lengths"] for at in range(length)] for row in rows]
        width = batch["input_ids"].shape[1]
        batch["position_ids"] = torch.tensor([row + [0] * (width - len(row)) for row in positions])
        return _first_unlabelled(batch)


def joined(rows: list[dict]) -> dict[str, Tensor]:
    """Join packed rows into one (1, T) row without padding."""
    lengths = [length for row in rows for length in row["seq_lengths"]]
    batch = {name: torch.tensor([[token for row in rows for token in row[name]]]) for name in ("input_ids", "labels")}
    return _first_unlabelled(batch | {"position_ids": torch.cat([torch.arange(length) for length in lengths])[None]})


def with_places(chunk: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add `at` (N,): the flat positions in (b, T) that predict a label. Found on the device they would make the host wait."""
    width = chunk["labels"].shape[1]
    row, place = (chunk["labels"][:, 1:] != IGNORE).nonzero(as_tuple=True)
    return chunk | {"at": row * width + place}


def _first_unlabelled(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the label of each text's first token, which follows another text."""
    return batch | {"labels": batch["labels"].masked_fill(batch["position_ids"] == 0, IGNORE)}
