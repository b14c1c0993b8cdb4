"""Tests of a GPU against the CPU and against the field's libraries.

They are skipped where there is no GPU, unless TANDEM_GPU_TESTS=cpu: then all run on the CPU, which shows that they can
(`scripts/gpu_check.sh --dry-run`). They need torch, transformers, peft, lightning and sentence-transformers alone.
"""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products; read when cuBLAS is first used

import lightning.fabric.plugins.environments.mpi as mpi
import pytest
import torch

from research.data.instruction_tokens import Tokenised
from research.data.preference_tokens import PreferenceRows
from tests.integration.conftest import language_data, tiny_lm, training, training_data  # noqa: F401 (fixtures)

mpi._MPI4PY_AVAILABLE = False  # Lightning imports mpi4py where it is installed, which fails or hangs without a running MPI


@pytest.fixture(scope="session")
def device() -> torch.device:
    if os.environ.get("TANDEM_GPU_TESTS") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here (TANDEM_GPU_TESTS=cpu runs these tests on the CPU)")
    return torch.device("cuda")


@pytest.fixture
def accelerator(device) -> dict:
    """What a Trainer takes to compute there."""
    return {"accelerator": "gpu" if device.type == "cuda" else "cpu", "devices": 1}


@pytest.fixture(autouse=True)
def tokens_without_trl(monkeypatch) -> None:
    """Rows by the chat template alone: TRL, which prepares them otherwise, is not on every machine with a GPU."""

    def ids(tokenizer, prompt: list[dict], answer: list[dict]) -> tuple[list[int], list[int]]:
        before = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(prompt + answer, tokenize=False)
        both = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, whole)]
        return both[0], both[1][len(both[0]) :]

    def instructions(examples, tokenizer, max_length, loss_on, packing=False) -> Tokenised:
        pairs = [ids(tokenizer, row["prompt"], row["completion"]) for row in examples.rows]
        made = [{"input_ids": before + after, "labels": [-100] * len(before) + after} for before, after in pairs]
        return Tokenised(made, [*range(len(made))], 0, 0)

    def preferences(examples, tokenizer, max_length) -> PreferenceRows:
        made = [
            {"prompt_ids": ids(tokenizer, row["prompt"], row["chosen"])[0]}
            | {f"{side}_ids": ids(tokenizer, row["prompt"], row[side])[1] for side in ("chosen", "rejected")}
            for row in examples.rows
        ]
        return PreferenceRows(made, [*range(len(made))], 0, 0, "made up")

    monkeypatch.setattr("research.data.instructions.tokenise", instructions)
    monkeypatch.setattr("research.data.preferences.tokenise_preferences", preferences)
