"""Five optimizer steps of SFTModule are TRL's SFTTrainer's: losses, and the adapter's weights."""

import json
import random

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
    "prefix-projection": lambda: peft.PrefixTuningConfig(
        num_virtual_tokens=3, prefix_projection=True, task_type="CAUSAL_LM", encoder_hidden_size=16
    ),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, task_type="CAUSAL_LM"),
    "full": lambda: None,
}


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
    data = InstructionData(str(data_file), train_split=None, val_split=None, batch_size=BATCH, max_length=256, loss_on=loss_on)
    losses = Losses()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        callbacks=[losses],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
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
        output_dir=str(tmp_path / "trl"),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=LR,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=False,
        gradient_checkpointing=False,
        max_length=256,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    table = Dataset.from_list([json.loads(line) for line in data_file.read_text().splitlines()])
    trainer = InOrder(
        AutoModelForCausalLM.from_pretrained(folder),
        args,
        train_dataset=table,
        peft_config=adapter,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
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
    assert any(float((value - start[parameter]).abs().max()) > LR for parameter, value in trained.items())  # it did learn
    for parameter, value in trained.items():
        torch.testing.assert_close(value, named[parameter], rtol=0, atol=1e-4, msg=parameter)


def test_label_smoothing_is_that_of_the_trainer_under_trl(folder, data_file, tmp_path):
    """Without accumulation: there transformers takes a mean of micro-batches' means."""
    lora = ADAPTERS["lora"]
    _, losses, start = ours(folder, data_file, lora(), accumulate=1, label_smoothing=0.2)
    _, expected = theirs(folder, data_file, lora(), start, tmp_path, gradient_accumulation_steps=1, label_smoothing_factor=0.2)
    assert losses[:STEPS] == pytest.approx(expected, abs=2e-6)
    _, plain, _ = ours(folder, data_file, lora(), accumulate=1)
    assert plain[0] != pytest.approx(losses[0], abs=1e-3)


def conversations(count: int) -> list[dict]:
    """Two turns each: what the assistant says is learned, both times."""
    made = rows(2 * count)
    return [
        {
            "messages": made[2 * i]["prompt"]
            + made[2 * i]["completion"]
            + made[2 * i + 1]["prompt"]
            + made[2 * i + 1]["completion"]
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("loss_on", ["assistant", "all"])
def test_conversations_are_learned_as_trl_does(loss_on, tmp_path):
    folder, data_file = save_tiny(tmp_path / "marked", template=MARKED), tmp_path / "talk.jsonl"
    data_file.write_text("".join(json.dumps(row) + "\n" for row in conversations(STEPS * BATCH * ACCUMULATE)))
    lora = ADAPTERS["lora"]
    _, losses, start = ours(folder, data_file, lora(), loss_on=loss_on)
    options = {"completion_only_loss": None, "assistant_only_loss": loss_on == "assistant"}
    _, expected = theirs(folder, data_file, lora(), start, tmp_path, **options)
    assert losses == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("layout", ["padded", "flat", "rows"])
def test_batches_are_those_of_trl_s_collator(layout):
    """Packed rows that stay rows hold TRL's texts, each with its own positions, and padding after them."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from research.data.instruction_tokens import InstructionCollate

    rows = [{"input_ids": [*range(5, 5 + n)], "labels": [-100, *range(6, 5 + n)]} for n in (3, 17, 9, 30)]
    packed = layout != "padded"
    if packed:
        rows = [row | {"seq_lengths": lengths} for row, lengths in zip(rows, ([3], [10, 7], [4, 5], [30]), strict=True)]
    oracle = DataCollatorForLanguageModeling(1, padding_free=packed, pad_to_multiple_of=None if packed else 16)(rows)
    (chunk,) = InstructionCollate(1, None, packed, flat=layout == "flat")(rows).chunks
    chunk = {name: value for name, value in chunk.items() if name != "at"}  # ours alone: where labels stand
    assert chunk.keys() == {"input_ids", "labels"} | {"position_ids" if packed else "attention_mask"}
    if layout == "rows":
        assert {value.shape for value in chunk.values()} == {(4, 32)}
        real = torch.arange(32) < torch.tensor([3, 17, 9, 30])[:, None]
        assert not chunk["position_ids"][~real].any()
        assert (chunk["labels"][~real] == -100).all()
        chunk = {name: value[real][None] for name, value in chunk.items()}
    for name, value in chunk.items():
        assert torch.equal(value, oracle[name]), name


@pytest.mark.parametrize("texts", [50, 2500])
def test_texts_are_packed_as_trl_packs_them(texts):
    from datasets import Dataset
    from trl import pack_dataset

    from research.data.instruction_tokens import packed

    draw = random.Random(texts)
    sizes = [draw.randint(2, 64) for _ in range(texts)]
    rows = [{"input_ids": [*range(i, i + n)], "labels": [-100, *range(i + 1, i + n)]} for i, n in enumerate(sizes)]
    assert packed(rows, 64) == [dict(row) for row in pack_dataset(Dataset.from_list(rows), 64, "bfd")]


def test_packed_training_is_that_of_trl(folder, tmp_path):
    """Losses over packed rows of several texts, two rows a batch; TRL lays them into one row, which its kernels mask."""
    from research.data.instruction_tokens import InstructionCollate
    from research.losses.language import token_losses
    from research.models.causal_lm import load_causal_lm
    from research.training.sft import real_tokens

    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(24)))
    model = load_causal_lm(folder)
    found = {}
    for name, packing, flat in (("alone", False, False), ("rows", True, False), ("flat", True, True)):
        data = InstructionData(str(file), None, None, None, packing=packing, max_length=128)
        data.prepare(model.tokenizer)
        (chunk,) = InstructionCollate(0, None, packing, flat=flat)(data.tokens["train"].rows).chunks
        at = model.labelled(**chunk)
        loss = token_losses(at.hidden, labels=at.labels, **model.head).losses.sum()
        loss.backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        found[name] = (float(loss), grads, int(real_tokens(chunk)), len(chunk["input_ids"]))
    assert [found[name][3] for name in found] == [24, len(data.tokens["train"].rows), 1]
    assert found["rows"][3] > 2
    for name in ("rows", "flat"):
        assert found[name][0] == pytest.approx(found["alone"][0], rel=1e-6)
        assert found[name][2] == found["alone"][2]
        torch.testing.assert_close(found[name][1], found["alone"][1], rtol=0, atol=2e-4)
