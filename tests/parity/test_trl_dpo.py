"""Five optimizer steps of DPOModule are TRL's DPOTrainer's, for every loss and both layouts of a pair."""

import itertools
import json
import math

import lightning as L
import peft
import pytest
import torch
from torch.utils.data import SequentialSampler

from research.data.preferences import PreferenceData
from research.training.dpo import DPOModule
from research.training.optimisation import Optimisation
from tests.lm import rows, save_tiny

STEPS, BATCH, LR = 5, 4, 1e-2


def lora():
    return peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model")


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "train.jsonl"
    made = rows(STEPS * BATCH + 1)
    pairs = [
        {"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]} for a, b in itertools.pairwise(made)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return path


class Losses(L.Callback):
    def __init__(self):
        self.values, self.margins = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(trainer.callback_metrics["train/loss"]))
        self.margins.append(float(trainer.callback_metrics["train/reward_margin"]))


def ours(folder, data_file, adapter, data=None, precision="32-true", **options):
    torch.manual_seed(3)
    settings = Optimisation(lr=LR, weight_decay=0.0, warmup=0.0, decay="constant", clip=1.0)
    module = DPOModule(str(folder), adapter=adapter, optimisation=settings, **options)
    start = {name: p.detach().clone() for name, p in module.model.transformer.named_parameters() if p.requires_grad}
    pairs = PreferenceData(str(data_file), train_split=None, val_split=None, batch_size=BATCH, max_length=256, **(data or {}))
    losses = Losses()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        precision=precision,
        enable_checkpointing=False,
        callbacks=[losses],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    pairs.train_dataloader, made = lambda: in_order(made()), pairs.train_dataloader
    trainer.fit(module, datamodule=pairs)
    return module, losses, start


def in_order(loader):
    loader.batch_sampler.shuffle = False
    return loader


def theirs(folder, data_file, start, tmp_path, adapter=None, dtype=torch.float32, **options):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

    args = DPOConfig(
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
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
        args=args,
        train_dataset=table,
        peft_config=adapter or lora(),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    named = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name, value in start.items():
            named[name].copy_(value)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return named, [line["loss"] for line in lines], [line["rewards/margins"] for line in lines]


LOSSES = {
    "sigmoid": ({}, {}),
    "ipo": ({"loss": "ipo", "beta": 1.0}, {"loss_type": ["ipo"], "beta": 1.0}),
    "hinge": ({"loss": "hinge"}, {"loss_type": ["hinge"]}),
    "sigmoid_norm": ({"loss": "sigmoid_norm", "beta": 2.0}, {"loss_type": ["sigmoid_norm"], "beta": 2.0}),
}


@pytest.mark.parametrize("layout", [True, False], ids=["prompt once", "prompt twice"])
@pytest.mark.parametrize("name", LOSSES)
def test_five_steps_are_those_of_trl(name, layout, folder, data_file, tmp_path):
    """In float64, but for transformers' norms: a loss is a difference of sums near 100, whose last float32 digit is 7.6e-6."""
    mine, peer = LOSSES[name]
    options = {"reference": "adapter_off", "precision": "64-true", **mine}
    module, losses, start = ours(folder, data_file, lora(), {"share_prompt": layout}, **options)
    named, expected, margins = theirs(folder, data_file, start, tmp_path, dtype=torch.float64, **peer)
    assert len(losses.values) == len(expected) == STEPS
    assert losses.values == pytest.approx(expected, abs=2e-6)
    assert losses.margins == pytest.approx(margins, abs=2e-5)
    if name == "sigmoid":
        assert losses.values[0] == pytest.approx(math.log(2), abs=1e-6)
    for parameter, value in module.model.transformer.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value, named[parameter], rtol=0, atol=2e-6, msg=parameter)


@pytest.mark.parametrize("reference", ["copy", "cached"])
def test_every_reference_gives_the_same_training(reference, folder, data_file):
    _, expected, _ = ours(folder, data_file, lora(), reference="adapter_off")
    for _ in range(2):  # the second time from the disk
        _, losses, _ = ours(folder, data_file, lora(), reference=reference)
        assert losses.values == pytest.approx(expected.values, abs=1e-6)


@pytest.mark.parametrize("reference", ["copy", "cached"])
def test_full_fine_tuning_starts_at_ln_2(reference, folder, data_file):
    _, losses, _ = ours(folder, data_file, None, reference=reference)
    assert losses.values[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses.values[1] != pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize(
    "adapter",
    [
        peft.PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
        peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ],
)
def test_virtual_tokens_have_one_reference(adapter, folder, data_file):
    """Step 0 is not ln 2: the policy has tokens that the base has not. Both ways to the reference agree."""
    values = [ours(folder, data_file, adapter, reference=name)[1].values for name in ("adapter_off", "cached", "copy")]
    assert values[1] == pytest.approx(values[0], abs=1e-6)
    assert values[0][0] != pytest.approx(math.log(2), abs=1e-4)
    assert values[2][0] == pytest.approx(math.log(2), abs=1e-6)  # the copy has the virtual tokens too


def test_cached_reference_is_of_these_weights(folder, data_file, tmp_path):
    """Another base on the same rows has a reference of its own: its step 0 is ln 2 as well."""
    ours(folder, data_file, lora(), reference="cached")
    _, losses, _ = ours(save_tiny(tmp_path / "other", seed=4), data_file, lora(), reference="cached")
    assert losses.values[0] == pytest.approx(math.log(2), abs=1e-6)


VIRTUAL = {
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    "prefix": lambda: peft.PrefixTuningConfig(
        num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8, task_type="CAUSAL_LM"
    ),
}


@pytest.mark.parametrize("name", VIRTUAL)
def test_five_steps_with_virtual_tokens_are_those_of_trl(name, folder, data_file, tmp_path):
    _, losses, start = ours(folder, data_file, VIRTUAL[name](), reference="adapter_off")
    _, expected, _ = theirs(folder, data_file, start, tmp_path, VIRTUAL[name]())
    assert losses.values == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("adapter", [lora, lambda: None], ids=["lora", "full"])
@pytest.mark.parametrize("reference", ["copy", "cached"])
def test_step_0_is_ln_2_in_bf16_too(reference, adapter, folder, data_file):
    """The reference is rounded as the policy is."""
    _, losses, _ = ours(folder, data_file, adapter(), reference=reference, precision="bf16-mixed")
    assert losses.values[0] == pytest.approx(math.log(2), abs=1e-6)
