#!/usr/bin/env python3
"""Training speed of both retrieval models against sentence-transformers: same weights, batches, optimizer, precision and number
of loader processes; `bench_retrieval.py` calls it, and it runs alone too.

  python scripts/bench_training.py [--tasks contrastive cross_encoder] [--full] [--json]
  python scripts/bench_training.py --random-weights --device cuda --shapes minilm 110m --pairs 64 256 1024 --tokens 64 128

Each side is a process of its own that trains when told to; they take turns (benching/sides.py). Ours trains as `research fit`
does: its own DataModule, module and defaults, on a GPU with configs/trainer/gpu.yaml. The peer is SentenceTransformerTrainer or
CrossEncoderTrainer; where `datasets` is not installed, and where batches are tokenised beforehand (`--inputs tokens`), a plain
loop over sentence-transformers' model and loss.

ratio_* is our steps a second over the peer's, the median of the turns, at the model's own dropout; memory_ratio_* our peak over
the peer's: memory allocated on the card, or resident in the process on a CPU. peak_share_* is the arithmetic of real tokens
(three forward passes) over the fastest bf16 product. Then both train 20 steps without dropout, and the fp32 loss of a 21st
batch must agree to 1e-3. Batches hold no document twice: sentence-transformers would take the copy for a negative.
"""

import argparse
import importlib.util
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from benching.device import peak_flops
from benching.ours import gpu_overlay
from benching.retrieval_data import batches_of, made_up_pairs, squad_pairs, write_rows
from benching.retrieval_sides import LENGTH
from benching.shapes import encoder_folder, forward_flops, reranker_of
from benching.sides import Side, compare, verdict
from transformers import AutoTokenizer

from research.models.sources import MINILM, resolve

TASKS = ("contrastive", "cross_encoder")
STEPS = 20  # before losses are compared
SHOWN = ("pairs_per_second", "gib", "peak_share", "loader_share", "launches", "syncs", "aten_ops", "waits", "error")


def has_trainer() -> bool:
    """sentence-transformers' trainers need these."""
    return all(importlib.util.find_spec(name) for name in ("datasets", "accelerate"))


class Bench:
    """Cases one after the other, on processes that are kept.

    Args:
        device: "cpu" or "cuda".
        random_weights: made-up texts and models, instead of squad and all-MiniLM-L6-v2.
        scratch: for what is made.
        peak: FLOP/s of the fastest bf16 product; None leaves shares out.
    """

    def __init__(self, device: str, random_weights: bool, scratch: Path, peak: float | None = None):
        self.device, self.random, self.scratch, self.peak = device, random_weights, scratch, peak
        self.sides = {name: Side(__file__, name, {"device": device}) for name in ("ours", "trainer", "loop")}

    def close(self) -> None:
        for side in self.sides.values():
            side.close()

    def model(self, task: str, shape: str) -> Path:
        folder = self.scratch / f"{task}-{shape}"
        if folder.exists():
            return folder
        if self.random:
            return encoder_folder(shape, folder, labels=task == "cross_encoder")
        return resolve(MINILM) if task == "contrastive" else reranker_of(resolve(MINILM), folder)

    def rows(self, task: str, tokens: int | None, pairs: int) -> Path:
        path = self.scratch / f"{task}-{tokens}-{pairs}.jsonl"
        if not path.exists():
            made = made_up_pairs(task, tokens, max(4 * pairs, 2048)) if self.random else squad_pairs()
            write_rows(made, task, path)
        return path

    def case(
        self,
        task: str,
        pairs: int,
        tokens: int | None = None,
        shape: str = "minilm",
        given: str = "texts",
        precision: str = "bf16",
        dropout: float | None = None,
        attention: str = "sdpa",
    ) -> dict:
        workers = gpu_overlay()["workers"] if self.device == "cuda" else 0
        return {
            "task": task,
            "pairs": pairs,
            "tokens": tokens,
            "input": given,
            "precision": precision,
            "dropout": dropout,
            "workers": workers,
            "model": str(self.model(task, shape)),
            "rows": str(self.rows(task, tokens, pairs)),
            "device": self.device,
            "attention": attention,
            "warmup": 2 if self.device == "cpu" else 5,
        }

    def speed(self, case: dict, rounds: int, steps: int | None = None, count: bool = True) -> dict:
        """Sides of a case in turns, and what their numbers say of each other; see benching.sides.compare."""
        peer = self.peer(case)
        lead = 0 if self.device == "cpu" else 2 * case["workers"] if case["input"] == "texts" else 2
        found = compare([self.sides["ours"], self.sides[peer]], case, rounds, steps, lead, count)
        for name, row in found.items():
            if "error" not in row:
                row["pairs_per_second"] = round(case["pairs"] / row["seconds_per_step"], 2)
                if self.peak:
                    row["peak_share"] = round(self.flops(case) / row["seconds_per_step"] / self.peak, 4)
            words = row["error"] if "error" in row else f"{row['pairs_per_second']} pairs/s, {row['gib']} GiB"
            print(f"  {name}: {words}", file=sys.stderr, flush=True)
        return {"sides": found} | verdict(found, [peer]) | {"peer": peer}

    def flops(self, case: dict) -> float:
        """Of a step's real tokens: one forward and two for the backward."""
        return 3 * forward_flops(case["model"], self._lengths(case))

    def _lengths(self, case: dict) -> list[int]:
        tokenizer = AutoTokenizer.from_pretrained(case["model"])
        options = {"truncation": True, "max_length": case["tokens"] or LENGTH}
        queries, docs = map(list, zip(*next(batches_of(case["rows"], case["task"], case["pairs"])), strict=True))
        if case["task"] == "cross_encoder":
            return [len(ids) for ids in tokenizer(queries, docs, **options)["input_ids"]]
        return [len(ids) for texts in (queries, docs) for ids in tokenizer(texts, **options)["input_ids"]]

    def peer(self, case: dict) -> str:
        return "trainer" if case["input"] == "texts" and has_trainer() else "loop"

    def losses(self, case: dict) -> dict:
        """The fp32 loss of batch 21 after 20 steps without dropout, of ours and of the peer."""
        peer = self.peer(case)
        exact = case | {"dropout": 0.0, "warmup": 1}
        found = compare([self.sides["ours"], self.sides[peer]], exact, 1, STEPS - 1, count=False)
        after = {name: row.get("loss") for name, row in found.items()}
        errors = {name: row["error"] for name, row in found.items() if "error" in row}
        if errors:
            return {"error": "; ".join(f"{name}: {error}" for name, error in errors.items())}
        return {
            f"loss_after_{STEPS}_steps": {name: round(value, 6) for name, value in after.items()},
            "loss_difference": round(abs(after["ours"] - after[peer]), 6),
        }


def bench_training(
    tasks: list[str],
    precisions: list[str],
    device: str,
    random_weights: bool,
    full: bool,
    attention: str = "sdpa",
    shapes: Sequence[str] = ("minilm",),
    tokens: Sequence[int | None] = (None,),
    pairs: Sequence[int] = (),
    inputs: Sequence[str] = ("texts",),
) -> dict:
    """Every task, precision, shape, length, size and input; a flat table of ratio_*, memory_ratio_* and so on."""
    result: dict = {}
    sizes = pairs or [256 if device == "cuda" else 64]
    many = len(shapes) * len(tokens) * len(sizes) * len(inputs) > 1
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(device, random_weights, Path(scratch), peak_flops(torch.bfloat16, device)["flops"])
        grid = itertools.product(tasks, precisions, shapes, tokens, sizes, inputs)
        for task, precision, shape, length, size, given in grid:
            name = f"{task}_{precision}" + (f"_{shape}_{size}x{length or 'text'}_{given}" if many else "")
            print(f"{name}:", file=sys.stderr, flush=True)
            case = bench.case(task, size, length, shape, given, precision, attention=attention)
            found = bench.speed(case, rounds=7 if full else 4, steps=20 if device == "cuda" else 2)
            result |= flat(name, found)
            if given == "texts":  # held batches come again: other batches than those whose loss is asked
                size = size if device == "cuda" else 16
                exact = bench.case(task, size, length, shape, given, precision, attention=attention)
                result |= {f"{key}_{name}": value for key, value in bench.losses(exact).items()}
        bench.close()
    return result


def flat(name: str, found: dict) -> dict:
    """A case's numbers as one line each."""
    ours, peer = found["sides"].get("ours", {}), found["sides"].get(found["peer"], {})
    rows = {
        f"ratio_train_{name}": found.get("ratio"),
        f"range_train_{name}": found.get("range"),
        f"memory_ratio_train_{name}": found.get("memory_ratio"),
        f"peer_train_{name}": found["peer"],
    }
    for key in SHOWN:
        if key in ours or key in peer:
            rows |= {f"{key}_train_{name}": ours.get(key), f"peer_{key}_train_{name}": peer.get(key)}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=["bf16", "fp32"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--pairs", nargs="+", type=int, default=[], help="of a step (64; 256 on a GPU)", metavar="N")
    parser.add_argument("--tokens", nargs="+", type=int, default=[None], help="of made-up texts", metavar="T")
    parser.add_argument("--shapes", nargs="+", default=["minilm"], choices=["tiny", "minilm", "110m"], help="of random weights")
    parser.add_argument("--inputs", nargs="+", default=["texts"], choices=["texts", "tokens"])
    parser.add_argument("--peer-attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--random-weights", action="store_true", help="no model file and no data needed")
    parser.add_argument("--full", action="store_true", help="more turns")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.side:
        from benching.retrieval_sides import SIDES
        from benching.turns import Turns

        Turns(json.loads(args.side[1])).serve(SIDES[args.side[0]])
        return
    if not args.random_weights and (args.tokens != [None] or args.shapes != ["minilm"]):
        parser.error("--tokens and --shapes are of made-up models and texts: pass --random-weights with them")
    result = bench_training(
        args.tasks,
        args.precision,
        args.device,
        args.random_weights,
        args.full,
        attention=args.peer_attention,
        shapes=args.shapes,
        tokens=args.tokens,
        pairs=args.pairs,
        inputs=args.inputs,
    )
    print(json.dumps(result) if args.json else "\n".join(f"{name:56} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
