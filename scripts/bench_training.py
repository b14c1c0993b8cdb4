#!/usr/bin/env python3
"""Training speed against sentence-transformers' trainers: same weights, batches, optimizer and precision; `bench_retrieval.py`
calls it, and it runs alone too.

  python scripts/bench_training.py [--tasks contrastive cross_encoder] [--full] [--json]

Each side is a process of its own that trains when told to; they take turns, A B A B, so that both meet the same machine.
ratio_* is our steps a second over theirs, the median of the turns, at the model's own dropout; memory_ratio_* our peak
resident memory over theirs. Then both train 20 steps without dropout, and the loss of a 21st batch, computed in fp32, must
agree to 1e-3. Batches hold no document twice: sentence-transformers would take the copy for a negative.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TASKS = ("contrastive", "cross_encoder")
SCALE = 20.0  # 1 / temperature
GROUP = 8
LENGTH = 256


# ---- data -----------------------------------------------------------------------------------------------------------


def squad_pairs() -> list[tuple[str, str]]:
    """One question a passage, in an order that mixes the articles."""
    folder = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data")) / "squad"
    if not folder.is_dir():
        sys.exit(f"error: {folder} does not exist; set TANDEM_DATA, or pass --random-weights for made-up texts")
    rows = {name: [json.loads(line) for line in open(folder / f"{name}.jsonl")] for name in ("corpus", "queries")}
    docs = {row["_id"]: f"{row['title']} {row['text']}" for row in rows["corpus"]}
    queries = {row["_id"]: row["text"] for row in rows["queries"]}
    first: dict[str, str] = {}
    for line in (folder / "qrels" / "all.tsv").read_text().splitlines()[1:]:
        query, doc, _ = line.split("\t")
        first.setdefault(doc, query)
    pairs = [(queries[query], docs[doc]) for doc, query in first.items()]
    return [pairs[i * 1009 % len(pairs)] for i in range(len(pairs))]  # 1009 is prime to their number


def random_pairs() -> list[tuple[str, str]]:
    from bench_retrieval import random_texts

    texts = random_texts(2048)
    return [(" ".join(text.split()[:12]), text) for text in texts]


def batch_of(pairs: list[tuple[str, str]], task: str, size: int, step: int) -> list[tuple[str, str]]:
    """The `step`-th batch: `size` pairs, or size/8 queries with their passage first and seven others after it."""
    if task == "contrastive":
        start = step * size % (len(pairs) - size)
        return pairs[start : start + size]
    queries = size // GROUP
    start = step * queries % (len(pairs) - size)
    return [(pairs[start + i][0], pairs[start + i + j * queries][1]) for i in range(queries) for j in range(GROUP)]


# ---- one side, in a process of its own ------------------------------------------------------------------------------


class Turns:
    """Reads how many steps to train, trains, prints seconds and memory, waits again."""

    def __init__(self):
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.left = 0

    def wait(self) -> None:
        line = sys.stdin.readline().strip()
        if not line:
            os._exit(0)
        self.left, self.start = int(line), time.perf_counter()

    def step_done(self, evaluate) -> None:
        self.left -= 1
        if self.left == 0:
            seconds = time.perf_counter() - self.start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(json.dumps({"seconds": seconds, "gib": peak, "loss": evaluate()}), file=self.out, flush=True)
            self.wait()


def train_ours(options: dict, pairs: list, turns: Turns) -> None:
    import lightning as L
    import torch

    from research.data.candidates import CandidateCollate
    from research.data.chunks import CHUNK_TOKENS
    from research.data.pairs import PairCollate
    from research.training.cross_encoder import CrossEncoderModule
    from research.training.dual_encoder import DualEncoderModule
    from research.training.optimisation import Optimisation
    from research.training.resume import seed_step
    from research.types import Candidates, Pair

    task, size = options["task"], options["batch_size"]
    settings = {"optimisation": Optimisation(lr=2e-5, warmup=0, decay="constant"), "dropout": options["dropout"]}
    if task == "contrastive":
        module = DualEncoderModule(options["model"], temperature=1 / SCALE, query_max_length=LENGTH, doc_max_length=LENGTH,
                                   **settings)  # fmt: skip
        texts = [doc for _, doc in pairs]
        numbers = {doc: i for i, doc in enumerate(texts)}
        overhead = None if options["device"] == "cuda" else CHUNK_TOKENS
        collate = PairCollate(texts, module.model.query, module.model.doc, 1, overhead)

        def examples(step: int) -> list:
            batch = batch_of(pairs, task, size, step)
            return [Pair(query, numbers[doc], [], [numbers[doc]]) for query, doc in batch]
    else:
        module = CrossEncoderModule(options["model"], loss="bce", max_length=LENGTH, **settings)
        collate = CandidateCollate(module.model, GROUP, None if options["device"] == "cuda" else CHUNK_TOKENS)

        def examples(step: int) -> list:
            batch = batch_of(pairs, task, size, step)
            groups = [batch[i : i + GROUP] for i in range(0, size, GROUP)]
            return [Candidates(group[0][0], [doc for _, doc in group], [1.0] + [0.0] * (GROUP - 1)) for group in groups]

    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator:
            return (collate(examples(step)) for step in range(10**6))

    class Pause(L.Callback):
        def on_train_start(self, trainer, module) -> None:
            turns.wait()

        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            seed_step(0, 0, batch_idx, module.bits)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            turns.step_done(lambda: loss_of(module.model, options, pairs, trainer.global_step))

    trainer = L.Trainer(
        accelerator=options["device"].replace("cuda", "gpu"), devices=1, max_steps=10**6, logger=False,
        precision={"bf16": "bf16-mixed", "fp32": "32-true"}[options["precision"]], callbacks=[Pause()],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, max_epochs=1,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(Batches(), batch_size=None))


def train_theirs(options: dict, pairs: list, turns: Turns) -> None:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    task, size = options["task"], options["batch_size"]
    steps = 200
    rows = [pair for step in range(steps) for pair in batch_of(pairs, task, size, step)]

    class InOrder(torch.utils.data.BatchSampler):
        def __init__(self, dataset, batch_size, drop_last=True, **_):
            self.count, self.batch_size, self.drop_last = len(dataset), batch_size, drop_last

        def __iter__(self):
            return iter([[*range(i, i + self.batch_size)] for i in range(0, self.count, self.batch_size)])

        def __len__(self):
            return self.count // self.batch_size

        def set_epoch(self, epoch):
            pass

    class Pause(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            turns.wait()

        def on_step_end(self, args, state, control, **_):
            turns.step_done(lambda: loss_of(model, options, pairs, state.global_step))

    common = {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": size, "num_train_epochs": 1, "learning_rate": 2e-5,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "lr_scheduler_type": "constant", "bf16": options["precision"] == "bf16",
        "save_strategy": "no", "eval_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "batch_sampler": InOrder, "use_cpu": options["device"] == "cpu", "seed": 0, "dataloader_pin_memory": False,
    }  # fmt: skip
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = none if options["dropout"] == 0 else {}
    extra = {"attn_implementation": options["peer_attention"]}
    if task == "contrastive":
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.losses import MultipleNegativesRankingLoss

        model = SentenceTransformer(
            options["model"], device=options["device"], model_kwargs=extra, config_kwargs=config
        )
        model.max_seq_length = LENGTH
        loss = MultipleNegativesRankingLoss(model, scale=SCALE)
        data = Dataset.from_dict({"anchor": [q for q, _ in rows], "positive": [d for _, d in rows]})
        trainer = SentenceTransformerTrainer(model, SentenceTransformerTrainingArguments(**common), data, loss=loss,
                                             callbacks=[Pause()])  # fmt: skip
    else:
        from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
        from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

        model = CrossEncoder(options["model"], device=options["device"], max_length=LENGTH, model_kwargs=extra,
                             config_kwargs=config)  # fmt: skip
        labels = [float(i % GROUP == 0) for i in range(len(rows))]
        data = Dataset.from_dict({"query": [q for q, _ in rows], "doc": [d for _, d in rows], "label": labels})
        trainer = CrossEncoderTrainer(model, CrossEncoderTrainingArguments(**common), data, loss=BinaryCrossEntropyLoss(model),
                                      callbacks=[Pause()])  # fmt: skip
    trainer.train()


def loss_of(model, options: dict, pairs: list, step: int) -> float | None:
    """The fp32 loss of batch `step`, by plain Hugging Face calls on whatever holds the transformer."""
    if options["dropout"] != 0:
        return None
    import torch
    from torch.nn import functional as F
    from transformers import AutoTokenizer

    body = next(m for m in model.modules() if hasattr(m, "config") and hasattr(m, "get_input_embeddings"))
    tokenizer = AutoTokenizer.from_pretrained(options["model"])
    batch = batch_of(pairs, options["task"], options["batch_size"], step)
    queries, docs = [q for q, _ in batch], [d for _, d in batch]
    was_training = body.training
    body.eval()

    def tokens(*texts):
        encoded = tokenizer(*texts, padding=True, truncation="longest_first" if len(texts) > 1 else True, max_length=LENGTH,
                            return_tensors="pt")  # fmt: skip
        return encoded.to(next(body.parameters()).device)

    with torch.no_grad(), torch.autocast(options["device"], enabled=False):
        if options["task"] == "contrastive":
            rows = []
            for texts in (queries, docs):
                inputs = tokens(texts)
                weights = inputs["attention_mask"].unsqueeze(-1).float()
                rows.append(
                    F.normalize((body(**inputs).last_hidden_state.float() * weights).sum(1) / weights.sum(1), dim=-1)
                )
            loss = F.cross_entropy(rows[0] @ rows[1].T * SCALE, torch.arange(len(batch), device=rows[0].device))
        else:
            logits = body(**tokens(queries, docs)).logits.squeeze(-1).float()
            labels = torch.tensor([float(i % GROUP == 0) for i in range(len(batch))], device=logits.device)
            loss = F.binary_cross_entropy_with_logits(logits, labels)
    body.train(was_training)
    return float(loss)


# ---- the two sides against each other -------------------------------------------------------------------------------


class Side:
    """A process that trains in turns."""

    def __init__(self, name: str, options: dict, script: str = __file__):
        self.process = subprocess.Popen([sys.executable, script, "--side", name, json.dumps(options)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def run(self, steps: int) -> dict:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: a side of the benchmark died:\n{self.process.stderr.read()[-3000:]}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stderr.close()


def compare(options: dict, rounds: int, steps: int) -> dict:
    """Speed and memory at the model's own dropout; equal losses after 20 steps without."""
    name = f"{options['task']}_{options['precision']}"
    size = options["batch_size"]
    ours, theirs = (Side(side, options | {"dropout": None}) for side in ("ours", "theirs"))
    for side in (theirs, ours):
        side.run(2)  # the first steps pay for what later ones find ready
    turns = []
    for turn in range(rounds):
        turns.append((theirs.run(steps), ours.run(steps)))
        a, b = turns[-1]
        print(f"{name}: turn {turn + 1}/{rounds}, theirs {a['seconds'] / steps:.2f} s a step, {a['gib']:.2f} GiB; ours "
              f"{b['seconds'] / steps:.2f} s, {b['gib']:.2f} GiB", file=sys.stderr, flush=True)  # fmt: skip
    theirs.close()
    ours.close()
    ratios = [a["seconds"] / b["seconds"] for a, b in turns]
    medians = [statistics.median(turn[i]["seconds"] for turn in turns) for i in (0, 1)]
    peaks = [max(turn[i]["gib"] for turn in turns) for i in (0, 1)]
    exact = options | {"dropout": 0.0, "batch_size": options["exact_batch_size"]}
    ours, theirs = (Side(side, exact) for side in ("ours", "theirs"))
    after = [side.run(20)["loss"] for side in (theirs, ours)]
    theirs.close()
    ours.close()
    return {
        f"ratio_train_{name}": round(statistics.median(ratios), 3),
        f"range_train_{name}": [round(min(ratios), 3), round(max(ratios), 3)],
        f"pairs_per_second_train_{name}": round(size * steps / medians[1], 2),
        f"peer_pairs_per_second_train_{name}": round(size * steps / medians[0], 2),
        f"memory_ratio_train_{name}": round(peaks[1] / peaks[0], 3),
        f"gib_train_{name}": [round(peaks[1], 2), round(peaks[0], 2)],
        f"loss_after_20_steps_{name}": [round(after[1], 5), round(after[0], 5)],
        f"loss_difference_{name}": round(abs(after[1] - after[0]), 6),
    }


def models(random_weights: bool, scratch: Path) -> dict[str, str]:
    """A folder for either task."""
    from bench_retrieval import random_model, reranker_of

    from research.models.sources import MINILM, resolve

    folder = random_model(scratch / "model") if random_weights else resolve(MINILM)
    return {"contrastive": str(folder), "cross_encoder": str(reranker_of(folder, scratch / "reranker"))}


def bench_training(tasks: list[str], precisions: list[str], device: str, random_weights: bool, full: bool,
                   batch_size: int | None = None, peer_attention: str = "sdpa") -> dict:  # fmt: skip
    """Every task and precision; see `compare`."""
    result: dict = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = models(random_weights, Path(scratch))
        for task in tasks:
            for precision in precisions:
                size = batch_size or (256 if device == "cuda" else 64)
                options = {
                    "task": task, "precision": precision, "device": device, "model": folders[task], "batch_size": size,
                    "exact_batch_size": size if device == "cuda" else 16, "random": random_weights,
                    "peer_attention": peer_attention,
                }  # fmt: skip
                result |= compare(options, rounds=7 if full else 4, steps=20 if device == "cuda" else 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=["bf16", "fp32"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch-size", type=int, help="pairs a step (64; 256 on a GPU)")
    parser.add_argument("--peer-attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--random-weights", action="store_true", help="no model file and no data needed")
    parser.add_argument("--full", action="store_true", help="more turns")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.side:
        options = json.loads(args.side[1])
        pairs = random_pairs() if options["random"] else squad_pairs()
        {"ours": train_ours, "theirs": train_theirs}[args.side[0]](options, pairs, Turns())
        return
    result = bench_training(args.tasks, args.precision, args.device, args.random_weights, args.full, args.batch_size,
                            args.peer_attention)  # fmt: skip
    print(json.dumps(result) if args.json else "\n".join(f"{name:48} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
