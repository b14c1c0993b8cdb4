"""Rows of the language models' benchmark: texts, and the tokens that every side trains on."""

import os
from pathlib import Path

from benching import ROOT
from benching.ours import loading
from benching.shapes import texts_of
from research.data.instruction_tokens import Tokenised
from research.data.instructions import InstructionData, read_examples
from research.data.preference_tokens import PreferenceRows
from research.data.preferences import PreferenceData, read_preferences
from research.runs.hashes import hash_json


def rows_of(task: str, count: int = 160) -> list[dict]:
    """Rows whose prompt leaves room for a completion; TANDEM_DATA's dolly and hh-helpful, else the embedded data."""
    folder = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data"))
    if task == "sft":
        file = folder / "dolly" / "train.jsonl"
        return read_examples(*((str(file), None) if file.exists() else ("builtin:stdlib", "train")), limit=count).rows
    file = folder / "hh-helpful" / "train.jsonl"
    return read_preferences(*((str(file), None) if file.exists() else ("builtin:stdlib", "train")), limit=count).rows


def made_up_rows(task: str, tokens: int, words: int, count: int) -> list[dict]:
    """Prompt and completion share `tokens` evenly, the end's own token included; both answers of a pair are as long."""
    half = tokens // 2
    prompts = texts_of(count, half, words, seed=1)
    answers = [[f" {text}" for text in texts_of(count, tokens - half - 1, words, seed)] for seed in (2, 3)]
    if task == "sft":
        return [{"prompt": p, "completion": a} for p, a in zip(prompts, answers[0], strict=True)]
    return [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in zip(prompts, *answers, strict=True)]


def data_of(case: dict, tokenizer):
    """Our DataModule on the rows, in their order; the rows that every side trains on come from it."""
    kind = InstructionData if case["task"] == "sft" else PreferenceData
    layout = loading(case["device"]) | ({} if case["chunks"] else {"chunk_overhead": None})
    data = kind(case["rows"], train_split=None, val_split=None, batch_size=case["batch"], max_length=case["tokens"], **layout)
    if case["made_up"]:
        data.tokens["train"] = tokens_of_words(data.examples.rows, case["task"], tokenizer)
    data.prepare(tokenizer)
    return data


def tokens_of_words(rows: list[dict], task: str, tokenizer):
    """What TRL makes of made-up rows, without TRL: a word is a token, wherever it stands."""

    def ids(text: str, end: bool = False) -> list[int]:
        return tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * end

    index = [*range(len(rows))]
    if task == "sft":
        parts = [(ids(row["prompt"]), ids(row["completion"], True)) for row in rows]
        return Tokenised([{"input_ids": p + c, "labels": [-100] * len(p) + c} for p, c in parts], index, 0, 0)
    made = [
        {"prompt_ids": ids(row["prompt"]), "chosen_ids": ids(row["chosen"], True), "rejected_ids": ids(row["rejected"], True)}
        for row in rows
    ]
    return PreferenceRows(made, index, 0, 0, hash_json(made))


def token_rows(case: dict, tokenizer) -> list[dict]:
    """What a step's rows hold, in the order of training: whole batches."""
    rows = data_of(case, tokenizer).tokens["train"].rows
    return rows[: len(rows) // case["batch"] * case["batch"]]


def tokens_of(row: dict) -> list[int]:
    """Tokens of a row's one or two sequences."""
    if "input_ids" in row:
        return [len(row["input_ids"])]
    return [len(row["prompt_ids"]) + len(row[side]) for side in ("chosen_ids", "rejected_ids")]


def labels_of(row: dict) -> int:
    if "labels" in row:
        return sum(label != -100 for label in row["labels"])
    return len(row["chosen_ids"]) + len(row["rejected_ids"])
