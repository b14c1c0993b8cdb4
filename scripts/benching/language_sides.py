"""The sides of the language models' benchmark: ours, TRL's trainers, a plain transformers + PEFT loop, eager and compiled."""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benching.language_data import data_of, token_rows
from benching.ours import fit_in_turns, gpu_overlay
from benching.turns import Turns
from research.data.instruction_tokens import Tokenised
from research.models.sources import resolve

BETA = 0.1


def adapter_of(case: dict):
    if case["adapter"] == "lora":
        return peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    if case["adapter"] == "prompt":
        return peft.PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM")
    return peft.PrefixTuningConfig(
        num_virtual_tokens=30, prefix_projection=True, encoder_hidden_size=576, task_type="CAUSAL_LM"
    )


def train_ours(case: dict, turns: Turns) -> None:
    from research.training.dpo import DPOModule
    from research.training.optimisation import Optimisation
    from research.training.sft import SFTModule

    settings = Optimisation(lr=case["lr"], warmup=0, decay="constant", weight_decay=0.0)
    torch.manual_seed(0)
    kind, more = (SFTModule, {}) if case["task"] == "sft" else (DPOModule, {"reference": "cached", "beta": BETA})
    module = kind(case["model"], adapter=adapter_of(case), optimisation=settings, **more)
    trained = {name: p.detach() for name, p in module.model.transformer.named_parameters() if p.requires_grad}
    torch.save(trained, case["start"])
    data = data_of(case, module.model.tokenizer)
    fit_in_turns(module, data, case, turns, lambda trainer: float(trainer.callback_metrics["train/loss"]))


def load_base(case: dict):
    folder = resolve(case["model"])
    dtype = torch.bfloat16 if case["precision"] == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), AutoTokenizer.from_pretrained(folder)


def start_from(model, case: dict) -> None:
    """The adapter's initial weights, float32 as on our side."""
    if not Path(case["start"]).exists():
        return  # our side has failed, and there is nothing to compare the loss with
    saved = torch.load(case["start"], weights_only=True)
    for name, parameter in model.named_parameters():
        if name in saved:
            parameter.data = saved[name].clone().to(parameter.device)


def train_trl(case: dict, turns: Turns) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    class Pause(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            turns.begin(case["warmup"])

        def on_step_end(self, args, state, control, **_):
            control.should_log = True

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                turns.step_done(lambda: logs["loss"])

    model, tokenizer = load_base(case)
    rows = data_of(case, tokenizer).tokens["train"]
    kept = [json.loads(line) for line in Path(case["rows"]).read_text().splitlines()]
    gpu = case["device"] == "cuda"
    table = Dataset.from_list([kept[i] for i in rows.index] * (16 if gpu else 1))  # no epoch ends in a turn
    common = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": case["batch"],
        "num_train_epochs": 10**4,
        "learning_rate": case["lr"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": case["precision"] == "bf16",
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not gpu,
        "max_length": case["tokens"],
        "seed": 0,
        "dataloader_pin_memory": gpu,
        "dataloader_drop_last": True,
        "dataloader_num_workers": gpu_overlay()["workers"] if gpu else 0,
        "dataloader_persistent_workers": gpu,
    }
    base, config = (
        (SFTTrainer, SFTConfig(completion_only_loss=True, shuffle_dataset=False, **common))
        if case["task"] == "sft"
        else (DPOTrainer, DPOConfig(precompute_ref_log_probs=True, beta=BETA, **common))
    )

    class InOrder(base):
        def _get_train_sampler(self, dataset=None):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    trainer = InOrder(
        model, args=config, train_dataset=table, processing_class=tokenizer, peft_config=adapter_of(case), callbacks=[Pause()]
    )
    start_from(trainer.model, case)
    trainer.train()


def train_plain(case: dict, turns: Turns) -> None:
    """What a careful user writes: padded batches, the model's own loss (or DPO's formula), autocast."""
    import peft

    model, tokenizer = load_base(case)
    rows = token_rows(case, tokenizer)
    model = peft.get_peft_model(model, adapter_of(case)).to(case["device"]).train()
    start_from(model, case)
    reference = reference_of(model, rows, case) if case["task"] == "dpo" else None
    forward = torch.compile(model) if case.get("compiled") else model
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=case["lr"], weight_decay=0, fused=case["device"] == "cuda")
    turns.begin(case["warmup"])
    for batch in batches(len(rows), case["batch"]):
        some = [rows[i] for i in batch]
        with torch.autocast(case["device"], torch.bfloat16, enabled=case["precision"] == "bf16"):
            if case["task"] == "sft":
                loss = forward(**batch_of(some, case["device"])).loss
            else:
                chosen, rejected = (pair_logps(forward, some, case["device"]) - reference[batch]).unbind(1)
                loss = -F.logsigmoid(BETA * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turns.step_done(lambda loss=loss: float(loss))


def train_compiled(case: dict, turns: Turns) -> None:
    """The plain loop through torch.compile."""
    train_plain(case | {"compiled": True}, turns)


def batches(count: int, size: int) -> Iterator[list[int]]:
    """Row numbers of each step, without end."""
    starts = range(0, count, size)
    return ([*range(start, start + size)] for start in itertools.cycle(starts))


def batch_of(rows: list[dict], device: str) -> dict[str, torch.Tensor]:
    """Right-padded tensors of rows with input_ids and labels."""
    longest = max(len(row["input_ids"]) for row in rows)
    return {name: value.to(device, non_blocking=True) for name, value in Tokenised.padded(rows, 0, longest).items()}


def pair_logps(model, pairs: list[dict], device: str) -> torch.Tensor:
    """(b, 2) log-probabilities of both completions, the chosen ones first; in one forward pass, as TRL does it."""
    rows = [
        {"input_ids": pair["prompt_ids"] + pair[side], "labels": [-100] * len(pair["prompt_ids"]) + pair[side]}
        for side in ("chosen_ids", "rejected_ids")
        for pair in pairs
    ]
    batch = batch_of(rows, device)
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch, use_cache=False).logits[:, :-1].float()
    values = logits.gather(2, labels.clamp(min=0)[..., None]).squeeze(2) - logits.logsumexp(2)
    return (values * (labels != -100)).sum(1).view(2, -1).T


def reference_of(model, rows: list[dict], case: dict):
    """(rows, 2) under the model without its adapter."""
    parts = []
    model.eval()
    with (
        torch.no_grad(),
        model.disable_adapter(),
        torch.autocast(case["device"], torch.bfloat16, enabled=case["precision"] == "bf16"),
    ):
        for start in range(0, len(rows), case["batch"]):
            parts.append(pair_logps(model, rows[start : start + case["batch"]], case["device"]))
    model.train()
    return torch.cat(parts)


SIDES: dict[str, Callable[[dict, Turns], None]] = {
    "ours": train_ours,
    "trl": train_trl,
    "plain": train_plain,
    "compiled": train_compiled,
}
