"""Preference rows → token ids, those that TRL's trainer makes → batches that hold each prompt once."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from research.data.chat_tokens import (
    check_flags,
    check_template,
    common_length,
    ended,
    extract_prompt,
    quiet,
    refused,
    row_ids,
    say_endless,
)
from research.data.chunks import chunked
from research.data.language_shapes import SIDES
from research.data.token_cache import Made, cached
from research.errors import UserError
from research.progress import each
from research.runs.hashes import hash_json
from research.types import Examples, PreferenceBatch


class PreferenceRows(NamedTuple):
    """Token rows, and counts of what was cut or dropped.

    Attributes:
        rows: {"prompt_ids", "chosen_ids", "rejected_ids"}.
        index: which example each row is of.
        truncated: pairs with a completion cut at max_length.
        dropped: pairs without a prompt, or whose prompt leaves no room.
        fingerprint: sha256 of the rows.
        equal: pairs left out because both sides have the same tokens: nothing can be learned of them.
    """

    rows: list[dict]
    index: list[int]
    truncated: int
    dropped: int
    fingerprint: str
    equal: int = 0


def tokenise_preferences(examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int) -> PreferenceRows:
    """Compute token ids of prompts and completions, as TRL prepares data of preferences.

    Args:
        examples: rows.
        tokenizer: of the model; conversational rows need its chat template.
        max_length: tokens of prompt and completion; longer completions are cut at the end, and counted.

    Raises:
        UserError: the template is missing or fails, or nothing is left.
    """
    conversational = any(isinstance(value, list) for value in examples.rows[0].values())
    if conversational and not tokenizer.chat_template:
        raise UserError(
            f"{examples.source} holds conversations and the tokenizer has no chat template; expected one, or rows "
            "of plain texts. Name an instruction-tuned model, or write the prompts out."
        )
    if conversational:
        check_flags(examples, "sides")
        check_template(examples, tokenizer)
    else:
        say_endless(tokenizer)
    make = functools.partial(_tokenised, examples, tokenizer, max_length)
    rows, index, counts = cached(
        make, tokenizer, len(examples.rows), form="preferences", texts=examples.fingerprint, max_length=max_length
    )
    return PreferenceRows(rows, index, **counts, fingerprint=hash_json(rows))


def _tokenised(examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Made:
    quiet(tokenizer)
    rows, index, truncated, equal = [], [], 0, 0
    for number, row in enumerate(each(examples.rows, "tokenise", "row")):
        try:
            sides = pair_ids(tokenizer, extract_prompt(row))
        except Exception as error:  # jinja's errors, and what a template's own fields raise
            raise refused(examples, number, error, "Correct the rows or the template") from error
        room = max_length - len(sides["prompt_ids"])
        if room < 1 or not sides["prompt_ids"] or not all(sides[f"{side}_ids"] for side in SIDES):
            continue
        cut = sides | {f"{side}_ids": sides[f"{side}_ids"][:room] for side in SIDES}
        if cut["chosen_ids"] == cut["rejected_ids"]:
            equal += 1
            continue
        truncated += cut != sides
        rows.append(cut)
        index.append(number)
    dropped = len(examples.rows) - len(rows) - equal
    if not rows and equal:
        raise UserError(
            f"all pairs of {examples.source} that fit have the same tokens on both sides (the chat template may "
            f"strip what tells them apart, or max_length={max_length} cut it off); expected pairs that differ. "
            "Name others, or raise data.max_length."
        )
    if not rows:
        raise UserError(
            f"none of the {dropped:,} pairs of {examples.source} has a prompt (of one token or more: nothing else "
            f"predicts an answer's first) and room for a completion at max_length={max_length}; expected both. "
            "Give the rows a prompt, or raise data.max_length."
        )
    return rows, index, {"truncated": truncated, "dropped": dropped, "equal": equal}


def pair_ids(tokenizer: PreTrainedTokenizerBase, row: dict) -> dict[str, list[int]]:
    """Compute the token ids of a pair; both completions begin at the first token where one differs from the prompt."""
    talk = isinstance(row["prompt"], list)
    prompt = row_ids(tokenizer, row["prompt"], row, add_generation_prompt=True)["input_ids"]
    whole = {
        side: row_ids(tokenizer, row["prompt"] + (row[side] if talk else ended(row[side], tokenizer)), row)["input_ids"]
        for side in SIDES
    }
    start = min(common_length(prompt, ids) for ids in whole.values())
    return {"prompt_ids": list(prompt[:start])} | {f"{side}_ids": list(ids[start:]) for side, ids in whole.items()}


class PreferenceCollate:
    """Makes a PreferenceBatch of token rows, in chunks of similar length.

    Args:
        pad_token_id: what padding is filled with; the attention mask hides it.
        chunk_overhead: see `chunked`.
        shared: a row is prompt, chosen, rejected, the prompt computed once; the rejected completion does not see the chosen
            one, and its positions begin where the prompt ends. Else each completion has a row of its own with the prompt.
        room: positions of the model that are left for a text.
        multiple: rows are padded to a multiple of this.
    """

    def __init__(self, pad_token_id: int, chunk_overhead: int | None, shared: bool, room: int, multiple: int = 16):
        self.pad, self.chunk_overhead, self.shared, self.multiple = pad_token_id, chunk_overhead, shared, multiple
        self.room = room

    def __call__(self, rows: list[dict]) -> PreferenceBatch:
        sizes = [{name: len(row[f"{name}_ids"]) for name in ("prompt", *SIDES)} for row in rows]
        lengths = [
            s["prompt"] + (s["chosen"] + s["rejected"] if self.shared else max(s["chosen"], s["rejected"])) for s in sizes
        ]
        # rows and their places in the batch, so that a cached reference finds them
        numbered = list(zip(range(len(rows)), rows, strict=True))
        batch = chunked(numbered, lambda item: lengths[item[0]], self.collate, self.chunk_overhead)
        return PreferenceBatch(batch.chunks)

    def collate(self, numbered: list[tuple[int, dict]]) -> dict[str, Tensor]:
        """Make the tensors of one chunk from the rows of these numbers."""
        rows = [row for _, row in numbered]
        chunk = self._shared(rows) if self.shared else self._apart(rows)
        chunk["number"] = torch.tensor([number for number, _ in numbered])
        for side in SIDES:
            if f"reference_{side}" in rows[0]:
                chunk[f"reference_{side}"] = torch.tensor([row[f"reference_{side}"] for row in rows], dtype=torch.float64)
        return chunk

    def _apart(self, rows: list[dict]) -> dict[str, Tensor]:
        """Make two rows for each pair, chosen first."""
        layout = [(row["prompt_ids"], row[f"{side}_ids"]) for row in rows for side in SIDES]
        texts = [prompt + answer for prompt, answer in layout]
        at = [(i, len(prompt) - 1 + k, token, i) for i, (prompt, answer) in enumerate(layout) for k, token in enumerate(answer)]
        ids, lengths = self._padded(texts, self.room)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return {"input_ids": ids, "attention_mask": mask, **_targets(at)}

    def _shared(self, rows: list[dict]) -> dict[str, Tensor]:
        """Make one row for each pair, with a shared prompt."""
        ids, lengths = self._padded([row["prompt_ids"] + row["chosen_ids"] + row["rejected_ids"] for row in rows])
        total = ids.shape[1]
        prompt = torch.tensor([len(row["prompt_ids"]) for row in rows])[:, None]
        second = prompt + torch.tensor([len(row["chosen_ids"]) for row in rows])[:, None]  # where the rejected one begins
        place = torch.arange(total)[None]  # (1, T)
        rejected = place >= second  # (b, T), padding too
        real = place < lengths[:, None]
        # padding too has a position, which must be one of the model's
        positions = torch.where(rejected, place - second + prompt, place).where(real, 0)
        hidden = rejected[:, :, None] & ((place >= prompt) & ~rejected)[:, None, :]  # (b, T, T): the chosen from the rejected
        mask = (place[:, :, None] >= place[:, None, :]) & ~hidden & real[:, None, :]
        mask |= torch.eye(total, dtype=torch.bool)  # padding sees itself: a row of no key has no softmax
        at = []
        for i, row in enumerate(rows):
            p, c = len(row["prompt_ids"]), len(row["chosen_ids"])
            at += [(i, p - 1 + k, token, 2 * i) for k, token in enumerate(row["chosen_ids"])]
            at += [(i, p + c - 1 + k if k else p - 1, token, 2 * i + 1) for k, token in enumerate(row["rejected_ids"])]
        return {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": positions, **_targets(at)}

    def _padded(self, texts: list[list[int]], most: int = 2**31) -> tuple[Tensor, Tensor]:
        longest = min(-(-max(map(len, texts)) // self.multiple) * self.multiple, most)
        ids = torch.tensor([text + [self.pad] * (longest - len(text)) for text in texts])
        return ids, torch.tensor([len(text) for text in texts])


def _targets(at: list[tuple[int, int, int, int]]) -> dict[str, Tensor]:
    columns = torch.tensor(at).T
    return {"row": columns[0], "place": columns[1], "label": columns[2], "sequence": columns[3]}
