"""From a batch to the optimizer's step a reader enters few files: those named here, in this order, and no other."""

import sys
from pathlib import Path

import pytest
import torch

import research

ROOT = Path(research.__file__).parent
PLAIN = {"fast": False}  # models/cpu's faster parts stand in for torch's own
WALKS = {
    "dual_encoder": ["training/dual_encoder.py", "models/dual_encoder.py", "losses/contrastive.py", "training/step.py"],
    "cross_encoder": ["training/cross_encoder.py", "models/cross_encoder.py", "losses/ranking.py", "training/step.py"],
    "sft": ["training/sft.py", "models/causal_lm.py", "losses/language.py", "training/step.py"],
    "dpo": ["training/dpo.py", "models/causal_lm.py", "losses/language.py", "losses/preference.py", "training/step.py"],
}
LEAVES = {
    "dual_encoder": {"models/pooling.py", "models/settings.py"},
    "cross_encoder": {"models/first_token.py", "models/relevance.py"},
    "sft": {"models/output_layer.py"},
    "dpo": {"models/output_layer.py"},
}
"""Files of which a model calls one small function: a mean over tokens, a prefix of texts, the weights of the output layer."""


@pytest.mark.parametrize("kind", WALKS)
def test_the_files_from_a_batch_to_its_step(training, monkeypatch, kind):
    run = training(kind, "run", module=PLAIN, adapter="full", trainer={"max_steps": 2, "limit_val_batches": 0})
    entered: set[str] = set()

    def enter(frame, event, arg) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            entered.add(path.relative_to(ROOT).as_posix())

    module, _ = run.parts()
    training_step, step = type(module).training_step, torch.optim.AdamW.step

    def traced(self, batch, batch_idx):
        sys.setprofile(enter)
        try:
            return training_step(self, batch, batch_idx)
        finally:
            sys.setprofile(None)

    def stop(self, *args, **options):
        sys.setprofile(None)
        return step(self, *args, **options)

    monkeypatch.setattr(type(module), "training_step", traced)
    monkeypatch.setattr(torch.optim.AdamW, "step", stop)
    run.run()
    assert entered == {*WALKS[kind]} | LEAVES[kind]
