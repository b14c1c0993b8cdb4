"""Five optimizer steps of SFTModule are TRL's SFTTrainer's: losses, and the adapter's weights."""

import json

import lightning as L
import peft
import pytest
import torch
from torch.utils.data import SequentialSampler

from research.data.instructions import InstructionData
from research.training.optimisation import Optimisation
from research.training.sft import SFTModule
from tests.lm import MARKED, rows, save_tiny

STEPS, BATCH, ACCUMULATE, LR = 5, 4, 2, 1e-2
ADAPTERS = {
    "lora": lambda: peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    "prefix-projection": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, prefix_projection=True, task_type="CAUSAL_LM",
                                                         encoder_hidden_size=16),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, task_type="CAUSAL_LM"),
    "full": lambda: None,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model")


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(STEPS * BATCH * ACCUMULATE)))
    return path


class Losses(L.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if not module.window.open:
            self.values.append(float(trainer.callback_metrics["train/loss"]))


def ours(folder, data_file, adapter, accumulate=ACCUMULATE, loss_on="completion", **options):
    torch.manual_seed(3)
    settings = Optimisation(lr=LR, weight_decay=0.0, warmup=0.0, decay="constant", clip=1.0, accumulate=accumulate)
    module = SFTModule(str(folder), adapter=adapter, optimisation=settings, **options)
    start = {name: p.detach().clone() for name, p in module.model.transformer.named_parameters() if p.requires_grad}
    data = InstructionData(
        str(data_file), train_split=None, val_split=None, batch_size=BATCH, max_length=256, loss_on=loss_on
    )
    losses = Losses()
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[losses],
                        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False)  # fmt: skip
    data.train_dataloader, made = lambda: in_order(made()), data.train_dataloader
    trainer.fit(module, datamodule=data)
    return module, losses.values, start


def in_order(loader):
    loader.batch_sampler.shuffle = False
    return loader


def theirs(folder, data_file, adapter, start, tmp_path, **options):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

    options = {"gradient_accumulation_steps": ACCUMULATE, "completion_only_loss": True} | options
    args = SFTConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=LR,
        lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, bf16=False, gradient_checkpointing=False,
        max_length=256, logging_steps=1, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True, **options,
    )  # fmt: skip
    table = Dataset.from_list([json.loads(line) for line in data_file.read_text().splitlines()])
    trainer = InOrder(AutoModelForCausalLM.from_pretrained(folder), args, train_dataset=table, peft_config=adapter,
                      processing_class=AutoTokenizer.from_pretrained(folder))  # fmt: skip
    named = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name, value in start.items():
            named[name].copy_(value)
    trainer.train()
    return named, [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("name", ADAPTERS)
def test_five_steps_are_those_of_trl(name, folder, data_file, tmp_path):
    module, losses, start = ours(folder, data_file, ADAPTERS[name]())
    named, expected = theirs(folder, data_file, ADAPTERS[name](), start, tmp_path)
    assert len(losses) == len(expected) == STEPS
    assert losses == pytest.approx(expected, abs=2e-6)
    trained = {n: p for n, p in module.model.transformer.named_parameters() if p.requires_grad}
    assert start.keys() == trained.keys()
    assert any(
        float((value - start[parameter]).abs().max()) > LR for parameter, value in trained.items()
    )  # it did learn
    for parameter, value in trained.items():
        torch.testing.assert_close(value, named[parameter], rtol=0, atol=1e-4, msg=parameter)


def test_label_smoothing_is_that_of_the_trainer_under_trl(folder, data_file, tmp_path):
    """Without accumulation: there transformers takes a mean of micro-batches' means."""
    lora = ADAPTERS["lora"]
    _, losses, start = ours(folder, data_file, lora(), accumulate=1, label_smoothing=0.2)
    _, expected = theirs(
        folder, data_file, lora(), start, tmp_path, gradient_accumulation_steps=1, label_smoothing_factor=0.2
    )
    assert losses[:STEPS] == pytest.approx(expected, abs=2e-6)
    _, plain, _ = ours(folder, data_file, lora(), accumulate=1)
    assert plain[0] != pytest.approx(losses[0], abs=1e-3)


def conversations(count: int) -> list[dict]:
    """Two turns each: what the assistant says is learned, both times."""
    made = rows(2 * count)
    return [{"messages": made[2 * i]["prompt"] + made[2 * i]["completion"] + made[2 * i + 1]["prompt"]
             + made[2 * i + 1]["completion"]} for i in range(count)]  # fmt: skip


@pytest.mark.parametrize("loss_on", ["assistant", "all"])
def test_conversations_are_learned_as_trl_does(loss_on, tmp_path):
    folder, data_file = save_tiny(tmp_path / "marked", template=MARKED), tmp_path / "talk.jsonl"
    data_file.write_text("".join(json.dumps(row) + "\n" for row in conversations(STEPS * BATCH * ACCUMULATE)))
    lora = ADAPTERS["lora"]
    _, losses, start = ours(folder, data_file, lora(), loss_on=loss_on)
    options = {"completion_only_loss": None, "assistant_only_loss": loss_on == "assistant"}
    _, expected = theirs(folder, data_file, lora(), start, tmp_path, **options)
    assert losses == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("packed", [False, True])
def test_batches_are_those_of_trl_s_collator(packed):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from research.data.instruction_tokens import InstructionCollate

    rows = [{"input_ids": [*range(5, 5 + n)], "labels": [-100, *range(6, 5 + n)]} for n in (3, 17, 9, 30)]
    if packed:
        rows = [row | {"seq_lengths": lengths} for row, lengths in zip(rows, ([3], [10, 7], [4, 5], [30]), strict=True)]
    oracle = DataCollatorForLanguageModeling(1, padding_free=packed, pad_to_multiple_of=None if packed else 16)(rows)
    (chunk,) = InstructionCollate(1, None, packed)(rows).chunks
    assert chunk.keys() == {"input_ids", "labels"} | {"position_ids" if packed else "attention_mask"}
    for name, value in chunk.items():
        assert torch.equal(value, oracle[name]), name
