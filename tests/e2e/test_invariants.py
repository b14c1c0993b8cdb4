"""A training that was not what its configuration asked for ends with 1 and both values, and its folder is kept."""

import json
from pathlib import Path

import fitting
import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from research.data.instruction_tokens import InstructionCollate
from research.training.invariants import rows_of
from tests.lm import byte_tokenizer, rows, save_tiny

FIT = "fit -c dual.yaml --seed_everything 7 --trainer.max_epochs 2"
LANGUAGE = """
out: run
seed_everything: 7
monitor: val/{monitor}
model:
  class_path: research.training.{module}
  init_args:
    model: ./lm
    adapter: {{class_path: {adapter}}}
    optimisation: {{lr: 1.0e-3, accumulate: 2}}
data:
  class_path: research.data.{data}
  init_args: {{train: rows.jsonl, train_split: null, val: val.jsonl, val_split: null, max_length: 256, batch_size: 4}}
trainer: {{accelerator: cpu, max_epochs: 2, precision: {precision}}}
"""
LORA = "peft.LoraConfig, init_args: {r: 3, lora_alpha: 12, use_rslora: true, target_modules: all-linear}"


@pytest.fixture
def fit(research, tmp_path, tiny_bert, monkeypatch):
    """fit("options", code) → its Result."""
    fitting.furnish(tmp_path, tiny_bert, monkeypatch)

    def run(options: str = "", code: int = 0, command: str = FIT):
        result = research(*f"{command} {options}".split())
        assert result.code == code, result.err
        assert "Traceback" not in result.err
        return result

    return run


def metrics(folder: str = "run") -> dict:
    return json.loads(Path(folder, "metrics.json").read_text())


# ---- what is right raises no alarm ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "--model.temperature 1.0 --model.optimisation.accumulate 2 --data.drop_last false --data.batch_size 6",
        "--model.learn_temperature true --trainer.precision bf16-mixed --trainer.max_steps 3 --model.optimisation.decay cosine",
        "--trainer.precision 64-true --trainer.devices 1 --trainer.limit_train_batches 2",
    ],
    ids=["fixed", "learned", "double"],
)
def test_a_training_is_what_was_asked_for(fit, options):
    fit(options)
    assert metrics()["finished"] is True
    assert "differences" not in metrics()


def save_experts(folder: Path) -> None:
    """A mixture of experts, whose weights PEFT adapts as one tensor a layer."""
    config = MixtralConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        pad_token_id=0,
        num_key_value_heads=2,
        max_position_embeddings=512,
        num_local_experts=4,
        num_experts_per_tok=2,
        eos_token_id=0,
        output_router_logits=True,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("kind", ["sft-lora", "sft-packed-lora", "sft-prompt", "dpo-lora", "experts-lora"])
def test_a_language_model_s_training_is_what_was_asked_for(fit, kind):
    (save_experts if kind.startswith("experts") else save_tiny)(Path("lm"))
    made, dpo = rows(20), kind.startswith("dpo")
    for name, some in (("rows", made[:12]), ("val", made[12:])):
        pairs = [
            {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]}
            for a, b in zip(some, made[3:], strict=False)
            if a["completion"] != b["completion"]
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (pairs if dpo else some)))
    adapter = (
        LORA if kind.endswith("lora") else "peft.PromptTuningConfig, init_args: {num_virtual_tokens: 3, task_type: CAUSAL_LM}"
    )
    names = ("dpo.DPOModule", "preferences.PreferenceData") if dpo else ("sft.SFTModule", "instructions.InstructionData")
    text = LANGUAGE.format(
        module=names[0],
        data=names[1],
        adapter=adapter,
        monitor="reward_margin" if dpo else "loss",
        precision="32-true" if dpo else "bf16-mixed",
    )
    Path("lm.yaml").write_text(text)
    fit("--data.packing true --data.max_length 48" if "packed" in kind else "", command="fit -c lm.yaml")
    assert metrics()["finished"] is True


@pytest.mark.parametrize("packing", [False, True])
def test_token_rows_of_a_step_are_counted(packing):
    """Side by side and in chunks; packed rows end to end do not say how many they are."""
    some = [{"input_ids": [*range(4, 4 + n)], "labels": [*range(4, 4 + n)], "seq_lengths": [n - 2, 2]} for n in (9, 40, 5, 6)]
    assert rows_of(InstructionCollate(0, 8, packing)(some)) == 4
    assert rows_of(InstructionCollate(0, 8, packing)(some[1:])) == 3
    if packing:
        assert rows_of(InstructionCollate(0, 8, True, flat=True)(some)) is None


# ---- what is wrong is said ------------------------------------------------------------------------------------------


def test_a_clamped_temperature_is_a_bug_and_the_run_is_kept(fit, monkeypatch):
    from research.training.dual_encoder import DualEncoderModule

    def clamp(self):
        self.log_temperature.data.clamp_(torch.tensor(0.01).log(), torch.tensor(0.5).log())

    with monkeypatch.context() as patch:
        patch.setattr(DualEncoderModule, "clamp_temperature", clamp)
        result = fit("--model.temperature 1.0", 1)
    assert "error: model.temperature was asked as 1.0, and 0.5 was used; expected the same" in result.err
    assert result.out == ""
    assert metrics()["finished"] is False
    assert metrics()["differences"] == ["model.temperature was asked as 1.0, and 0.5 was used"]
    assert metrics()["metrics"]["mrr@10"] > 0
    assert Path("run/model/model.safetensors").exists()
    before = Path("run/curves.jsonl").read_bytes()
    again = fit("--model.temperature 1.0", 1)  # the code is mended: its checkpoint is not
    assert "model.temperature was asked as 1.0, and 0.5 was used" in again.err
    assert Path("run/curves.jsonl").read_bytes() == before


def test_what_is_known_before_the_first_step_stops_there(fit, monkeypatch):
    """The order of another seed."""
    from research.data import base

    sampler = base.StatefulBatchSampler
    monkeypatch.setattr(base, "StatefulBatchSampler", lambda size, batch, seed, **more: sampler(size, batch, 0, **more))
    result = fit(code=1)
    assert "seed_everything (of their order) was asked as 7, and 0 was used" in result.err
    assert not Path("run/curves.jsonl").exists()
    assert not Path("run/metrics.json").exists()
    monkeypatch.undo()


def test_a_mended_bug_lets_the_same_command_run(fit, monkeypatch):
    from research.training import optimisation

    with monkeypatch.context() as patch:
        patch.setattr(optimisation, "rate", lambda *_: 1.0)  # neither warmup nor decay
        result = fit(code=1)
    assert "the learning rate at step 1 was asked as" in result.err
    fit("--out other")
    assert metrics("other")["finished"] is True


def batches_of_three(patch):
    from research.data.sampler import StatefulBatchSampler

    whole = StatefulBatchSampler.__iter__
    patch.setattr(StatefulBatchSampler, "__iter__", lambda self: (batch[:3] for batch in whole(self)))


def steps_of_one(patch):
    from research.training.step import Window

    patch.setattr(Window, "_is_last", lambda self: True)


def worst_kept(patch):
    from research.training.best_model import BestModel

    patch.setattr(BestModel, "_worth", lambda self, value: -value)


def other_numbers(patch):
    from research.training.best_model import BestModel

    facts = BestModel._facts
    patch.setattr(BestModel, "_facts", lambda *args, **more: {**facts(*args, **more), "metrics": {"mrr@10": 2.0}})


def unfrozen(patch):
    from research.training import base

    built = base.build_optimizer

    def build(module, *args):
        found = built(module, *args)
        next(p for name, p in module.named_parameters() if "lora_" not in name).requires_grad_(True)
        return found

    patch.setattr(base, "build_optimizer", build)


def narrow(patch):
    from research.training.dual_encoder import DualEncoderModule

    setup = DualEncoderModule.setup
    patch.setattr(DualEncoderModule, "setup", lambda self, stage: (setup(self, stage), self.model.bfloat16())[0])


@pytest.mark.parametrize(
    ("fault", "options", "says"),
    [
        (batches_of_three, "", "data.batch_size was asked as 4, and 3 was used"),
        (steps_of_one, "--model.optimisation.accumulate 2", "model.optimisation.accumulate was asked as 2, and 1 was used"),
        (worst_kept, "--trainer.max_epochs 4", "the best val/mrr@10 was asked as"),
        (other_numbers, "", "val/mrr@10 of the kept model was asked as"),
        (unfrozen, "--model.adapter peft.LoraConfig --model.adapter.target_modules all-linear", "parameters (missing, added)"),
        (narrow, "", "the precision of trained weights was asked as {torch.float32}, and "),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_other_faults_are_said_with_both_values(fit, monkeypatch, fault, options, says):
    with monkeypatch.context() as patch:
        fault(patch)
        result = fit(options, 1)
    assert says in result.err
    assert not Path("run/metrics.json").exists() or metrics()["finished"] is False
