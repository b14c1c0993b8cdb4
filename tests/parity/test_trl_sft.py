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
from tests.lm import rows, save_tiny

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


def ours(folder, data_file, adapter, **options):
    torch.manual_seed(3)
    settings = Optimisation(lr=LR, weight_decay=0.0, warmup=0.0, decay="constant", clip=1.0, accumulate=ACCUMULATE)
    module = SFTModule(str(folder), adapter=adapter, optimisation=settings, **options)
    start = {name: p.detach().clone() for name, p in module.model.transformer.named_parameters() if p.requires_grad}
    data = InstructionData(str(data_file), train_split=None, val_split=None, batch_size=BATCH, max_length=256)
    losses = Losses()
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[losses],
                        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False)  # fmt: skip
    data.train_dataloader, made = lambda: in_order(made()), data.train_dataloader
    trainer.fit(module, datamodule=data)
    return module, losses.values, start


def in_order(loader):
    loader.batch_sampler.shuffle = False
    return loader


def theirs(folder, data_file, adapter, start, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

    args = SFTConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=BATCH, gradient_accumulation_steps=ACCUMULATE,
        max_steps=STEPS, learning_rate=LR, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, bf16=False,
        gradient_checkpointing=False, completion_only_loss=True, max_length=256, logging_steps=1, report_to="none",
        use_cpu=True, save_strategy="no", disable_tqdm=True,
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
