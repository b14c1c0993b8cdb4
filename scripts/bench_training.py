#!/usr/bin/env python3
"""Training speed of both retrieval models against sentence-transformers: same weights, batches, optimizer, precision and number
of loader processes; `bench_retrieval.py` calls it, and it runs alone too.

  python scripts/bench_training.py [--tasks contrastive cross_encoder] [--full] [--json]
  python scripts/bench_training.py --random-weights --device cuda --shapes minilm 110m --pairs 64 256 1024 --tokens 64 128

Each side is a process of its own that trains when told to; they take turns (bench_sides.py). Ours trains as `research fit`
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
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from bench_sides import Side, Turns, compare, ratios  # noqa: E402

TASKS = ("contrastive", "cross_encoder")
SCALE = 20.0  # 1 / temperature
GROUP = 8  # candidates of a query
LENGTH = 256  # of real texts
STEPS = 20  # before losses are compared
HELD = 4  # batches that are made beforehand with `--inputs tokens`, in turn


# ---- data -----------------------------------------------------------------------------------------------------------------


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


def made_up_pairs(task: str, tokens: int | None, count: int) -> list[tuple[str, str]]:
    """Both texts of a contrastive pair have `tokens` tokens; a query and its document together, where they are one input."""
    from bench_shapes import texts_of

    if tokens is None:
        return [(" ".join(text.split()[:12]), text) for text in texts_of(count)]
    if task == "contrastive":
        return list(zip(texts_of(count, tokens - 2, seed=1), texts_of(count, tokens - 2, seed=2), strict=True))
    query = tokens // 4
    return list(zip(texts_of(count, query, seed=1), texts_of(count, tokens - query - 3, seed=2), strict=True))


def groups_of(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Of eight pairs each: every query with its own document first and the seven others after it."""
    for start in range(0, len(pairs) - GROUP + 1, GROUP):
        some = [pairs[start + i][1] for i in range(GROUP)]
        for i in range(GROUP):
            yield pairs[start + i][0], [some[(i + j) % GROUP] for j in range(GROUP)]


def write_rows(pairs: list[tuple[str, str]], task: str, path: Path) -> Path:
    """A tevatron triplets file, in the order of training."""

    def passages(texts: Sequence[str]) -> list[dict]:
        return [{"docid": numbers[text], "title": "", "text": text} for text in texts]

    numbers = {doc: f"d{i}" for i, (_, doc) in enumerate(pairs)}
    rows = [(query, [doc]) for query, doc in pairs] if task == "contrastive" else list(groups_of(pairs))
    with open(path, "w") as stream:
        for i, (query, docs) in enumerate(rows):
            row = {"query_id": f"q{i}", "query": query, "positive_passages": passages(docs[:1]),
                   "negative_passages": passages(docs[1:])}  # fmt: skip
            stream.write(json.dumps(row) + "\n")
    return path


def batches_of(path: str, task: str, pairs: int) -> Iterator[list[tuple[str, str]]]:
    """(query, document) of each step, without end; a cross-encoder's step has pairs/8 queries, their own documents first."""
    rows = [json.loads(line) for line in open(path)]
    flat = [
        (row["query"], passage["text"])
        for row in rows
        for passage in (*row["positive_passages"], *row["negative_passages"])
    ]
    whole = len(flat) // pairs * pairs
    while True:
        for start in range(0, whole, pairs):
            yield flat[start : start + pairs]


# ---- our side -------------------------------------------------------------------------------------------------------------


def gpu_overlay() -> dict:
    """What configs/trainer/gpu.yaml changes in a DataModule."""
    import yaml

    return yaml.safe_load((ROOT / "configs" / "trainer" / "gpu.yaml").read_text())["data"]["init_args"]


def train_ours(case: dict, turns: Turns) -> None:
    import lightning as L
    import torch

    from research.data.candidates import CandidateData
    from research.data.pairs import PairData
    from research.training.cross_encoder import CrossEncoderModule
    from research.training.dual_encoder import DualEncoderModule
    from research.training.optimisation import Optimisation
    from research.training.resume import seed_step

    length = case["tokens"] or LENGTH
    settings = {"optimisation": Optimisation(lr=2e-5, warmup=0, decay="constant"), "dropout": case["dropout"]}
    loading = (gpu_overlay() if case["device"] == "cuda" else {}) | {"workers": case["workers"]}
    if case["task"] == "contrastive":
        module = DualEncoderModule(case["model"], temperature=1 / SCALE, query_max_length=length, doc_max_length=length,
                                   **settings)  # fmt: skip
        data = PairData(case["rows"], val_split=None, test_split=None, batch_size=case["pairs"], **loading)
    else:
        module = CrossEncoderModule(case["model"], loss="bce", max_length=length, **settings)
        data = CandidateData(case["rows"], val_split=None, test_split=None, group_size=GROUP,
                             batch_size=case["pairs"] // GROUP, **loading)  # fmt: skip

    class Pause(L.Callback):
        def on_train_start(self, trainer, module) -> None:
            turns.begin(case["warmup"])

        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            seed_step(0, 0, trainer.global_step, module.bits)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            turns.step_done(lambda: loss_of(module.model, case, trainer.global_step))

    made = data.train_dataloader

    def in_order():
        loader = endless(made(), data.batch_size)
        if case["input"] == "texts":
            return loader
        held = list(itertools.islice(loader, HELD))
        return torch.utils.data.DataLoader(Held(held), batch_size=None)

    data.train_dataloader = in_order
    trainer = L.Trainer(
        accelerator=case["device"].replace("cuda", "gpu"), devices=1, max_steps=10**6, max_epochs=None, logger=False,
        precision={"bf16": "bf16-mixed", "fp32": "32-true"}[case["precision"]], callbacks=[Pause()],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)


def endless(loader, size: int):
    """A DataModule's loader over its examples in their order, again and again: an epoch's end would fall into a turn."""
    import torch

    return torch.utils.data.DataLoader(
        loader.dataset, batch_sampler=InOrder(len(loader.dataset), size), collate_fn=loader.collate_fn,
        num_workers=loader.num_workers, multiprocessing_context=loader.multiprocessing_context,
        worker_init_fn=loader.worker_init_fn, pin_memory=loader.pin_memory,
    )  # fmt: skip


class InOrder:
    """(epoch 0, index) of each step's examples; whole batches."""

    def __init__(self, count: int, size: int):
        self.count, self.size = count, size

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        starts = range(0, self.count // self.size * self.size, self.size)
        return ([(0, i) for i in range(start, start + self.size)] for start in itertools.cycle(starts))


class Held:
    """The same batches again and again."""

    def __init__(self, batches: list):
        self.batches = batches

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, i: int):
        return self.batches[i % len(self.batches)]


# ---- sentence-transformers ------------------------------------------------------------------------------------------------


def load_theirs(case: dict):
    """sentence-transformers' model and loss."""
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    more = {"device": case["device"], "config_kwargs": none if case["dropout"] == 0 else {},
            "model_kwargs": {"attn_implementation": case["attention"]}}  # fmt: skip
    if case["task"] == "contrastive":
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.losses import MultipleNegativesRankingLoss

        model = SentenceTransformer(case["model"], **more)
        model.max_seq_length = case["tokens"] or LENGTH
        return model, MultipleNegativesRankingLoss(model, scale=SCALE)
    from sentence_transformers.cross_encoder import CrossEncoder
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    model = CrossEncoder(case["model"], max_length=case["tokens"] or LENGTH, **more)
    return model, BinaryCrossEntropyLoss(model)


def train_trainer(case: dict, turns: Turns) -> None:
    """By its own trainer."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    class InOrder(torch.utils.data.BatchSampler):
        def __init__(self, dataset, batch_size, drop_last=True, **_):
            self.count, self.batch_size, self.drop_last = len(dataset), batch_size, drop_last

        def __iter__(self):
            whole = self.count // self.batch_size * self.batch_size
            return iter([[*range(i, i + self.batch_size)] for i in range(0, whole, self.batch_size)])

        def __len__(self):
            return self.count // self.batch_size

        def set_epoch(self, epoch):
            pass

    class Pause(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            turns.begin(case["warmup"])

        def on_step_end(self, args, state, control, **_):
            turns.step_done(lambda: loss_of(model, case, state.global_step))

    common = {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": case["pairs"], "num_train_epochs": 10**4,
        "learning_rate": 2e-5, "weight_decay": 0.01, "max_grad_norm": 1.0, "lr_scheduler_type": "constant",
        "bf16": case["precision"] == "bf16", "save_strategy": "no", "eval_strategy": "no", "logging_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "batch_sampler": InOrder, "use_cpu": case["device"] == "cpu", "seed": 0,
        "dataloader_num_workers": case["workers"], "dataloader_persistent_workers": case["workers"] > 0,
        "dataloader_pin_memory": case["device"] == "cuda",
    }  # fmt: skip
    model, loss = load_theirs(case)
    rows = [json.loads(line) for line in open(case["rows"])]
    rows *= 16 if case["workers"] else 1  # no epoch ends in a turn: its loaders would start anew
    if case["task"] == "contrastive":
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

        data = Dataset.from_dict({"anchor": [row["query"] for row in rows],
                                  "positive": [row["positive_passages"][0]["text"] for row in rows]})  # fmt: skip
        kind, args = SentenceTransformerTrainer, SentenceTransformerTrainingArguments(**common)
    else:
        from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments

        flat = [(row["query"], doc["text"], label) for row in rows for label, docs in
                ((1.0, row["positive_passages"]), (0.0, row["negative_passages"])) for doc in docs]  # fmt: skip
        data = Dataset.from_dict(dict(zip(("query", "doc", "label"), map(list, zip(*flat, strict=True)), strict=True)))
        kind, args = CrossEncoderTrainer, CrossEncoderTrainingArguments(**common)
    kind(model, args, data, loss=loss, callbacks=[Pause()]).train()


def train_loop(case: dict, turns: Turns) -> None:
    """By a plain loop over its model and loss."""
    import torch

    model, loss = load_theirs(case)
    model.train()
    labels = torch.tensor([float(i % GROUP == 0) for i in range(case["pairs"])], device=case["device"])
    tokenize = getattr(model, "preprocess", model.tokenize)

    class Texts(torch.utils.data.IterableDataset):
        def __iter__(self):
            worker = torch.utils.data.get_worker_info()
            first, every = (worker.id, worker.num_workers) if worker else (0, 1)
            batches = batches_of(case["rows"], case["task"], case["pairs"])
            for batch in itertools.islice(batches, first, None, every):
                if case["task"] == "contrastive":
                    yield [dict(tokenize(texts)) for texts in map(list, zip(*batch, strict=True))]
                else:
                    queries, docs = map(list, zip(*batch, strict=True))
                    yield [dict(model.tokenizer(queries, docs, padding=True, truncation="longest_first",
                                                max_length=model.max_length, return_tensors="pt"))]  # fmt: skip

    def forward(features: list[dict]) -> torch.Tensor:
        if case["task"] == "contrastive":
            return loss(features, None)
        return torch.nn.functional.binary_cross_entropy_with_logits(
            model.model(**features[0]).logits.squeeze(-1), labels
        )

    decayed = [p for p in model.parameters() if p.ndim > 1]
    other = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": other, "weight_decay": 0.0}], lr=2e-5, fused=True
    )
    loader = torch.utils.data.DataLoader(Texts(), batch_size=None, num_workers=case["workers"],
                                         multiprocessing_context="fork" if case["workers"] else None,
                                         pin_memory=case["device"] == "cuda")  # fmt: skip
    if case["input"] == "tokens":
        loader = torch.utils.data.DataLoader(Held(list(itertools.islice(loader, HELD))), batch_size=None)
    turns.begin(case["warmup"])
    for step, batch in enumerate(loader, 1):
        features = [
            {
                name: value.to(case["device"], non_blocking=True) if isinstance(value, torch.Tensor) else value
                for name, value in part.items()
            }
            for part in batch
        ]
        with torch.autocast(case["device"], torch.bfloat16, enabled=case["precision"] == "bf16"):
            value = forward(features)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turns.step_done(lambda step=step: loss_of(model, case, step))


def loss_of(model, case: dict, step: int) -> float | None:
    """The fp32 loss of batch `step`, by plain Hugging Face calls on whatever holds the transformer."""
    if case["dropout"] != 0:
        return None
    import torch
    from torch.nn import functional as F
    from transformers import AutoTokenizer

    body = next(m for m in model.modules() if hasattr(m, "config") and hasattr(m, "get_input_embeddings"))
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    batch = next(itertools.islice(batches_of(case["rows"], case["task"], case["pairs"]), step, None))
    queries, docs = [q for q, _ in batch], [d for _, d in batch]
    was_training = body.training
    body.eval()

    def tokens(*texts):
        encoded = tokenizer(*texts, padding=True, truncation="longest_first" if len(texts) > 1 else True,
                            max_length=case["tokens"] or LENGTH, return_tensors="pt")  # fmt: skip
        return encoded.to(next(body.parameters()).device)

    with torch.no_grad(), torch.autocast(case["device"], enabled=False):
        if case["task"] == "contrastive":
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


SIDES: dict[str, Callable[[dict, Turns], None]] = {"ours": train_ours, "trainer": train_trainer, "loop": train_loop}


# ---- the two sides against each other -------------------------------------------------------------------------------------


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
        self.sides = {name: Side(__file__, name, {"device": device}) for name in SIDES}

    def close(self) -> None:
        for side in self.sides.values():
            side.close()

    def model(self, task: str, shape: str) -> Path:
        from bench_shapes import encoder_folder

        folder = self.scratch / f"{task}-{shape}"
        if folder.exists():
            return folder
        if self.random:
            return encoder_folder(shape, folder, labels=task == "cross_encoder")
        from research.models.sources import MINILM, resolve

        return resolve(MINILM) if task == "contrastive" else reranker_of(resolve(MINILM), folder)

    def rows(self, task: str, tokens: int | None, pairs: int) -> Path:
        path = self.scratch / f"{task}-{tokens}-{pairs}.jsonl"
        if not path.exists():
            made = made_up_pairs(task, tokens, max(4 * pairs, 2048)) if self.random else squad_pairs()
            write_rows(made, task, path)
        return path

    def case(self, task: str, pairs: int, tokens: int | None = None, shape: str = "minilm", given: str = "texts",
             precision: str = "bf16", dropout: float | None = None, attention: str = "sdpa") -> dict:  # fmt: skip
        workers = gpu_overlay()["workers"] if self.device == "cuda" else 0
        return {"task": task, "pairs": pairs, "tokens": tokens, "input": given, "precision": precision, "dropout": dropout,
                "workers": workers, "model": str(self.model(task, shape)), "rows": str(self.rows(task, tokens, pairs)),
                "device": self.device, "attention": attention, "warmup": 2 if self.device == "cpu" else 5}  # fmt: skip

    def speed(self, case: dict, rounds: int, steps: int | None = None, count: bool = True) -> dict:
        """Sides of a case in turns, and what their numbers say of each other; see bench_sides.compare."""
        peer = self.peer(case)
        lead = 0 if self.device == "cpu" else 2 * case["workers"] if case["input"] == "texts" else 2
        found = compare([self.sides["ours"], self.sides[peer]], case, rounds, steps, lead, count)
        result = {"sides": found, "peer": peer}
        for name, row in found.items():
            if "error" not in row:
                row["pairs_per_second"] = round(case["pairs"] / row["seconds_per_step"], 2)
                if self.peak:
                    row["peak_share"] = round(self.flops(case) / row["seconds_per_step"] / self.peak, 4)
            words = row["error"] if "error" in row else f"{row['pairs_per_second']} pairs/s, {row['gib']} GiB"
            print(f"  {name}: {words}", file=sys.stderr, flush=True)
        _, turned = ratios(found, [peer])
        if turned:
            result |= {"ratio": round(statistics.median(turned), 3), "range": [round(min(turned), 3), round(max(turned), 3)],
                       "memory_ratio": round(found["ours"]["gib"] / found[peer]["gib"], 3)}  # fmt: skip
        return result

    def flops(self, case: dict) -> float:
        """Of a step's real tokens: one forward and two for the backward."""
        from bench_shapes import forward_flops

        return 3 * forward_flops(case["model"], self._lengths(case))

    def _lengths(self, case: dict) -> list[int]:
        from transformers import AutoTokenizer

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
        return {f"loss_after_{STEPS}_steps": {name: round(value, 6) for name, value in after.items()},
                "loss_difference": round(abs(after["ours"] - after[peer]), 6)}  # fmt: skip


def reranker_of(folder: Path, target: Path) -> Path:
    """A cross-encoder with the encoder's body and a random head: its speed is a trained one's."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return target


def bench_training(tasks: list[str], precisions: list[str], device: str, random_weights: bool, full: bool,
                   batch_size: int | None = None, attention: str = "sdpa", shapes: Sequence[str] = ("minilm",),
                   tokens: Sequence[int | None] = (None,), pairs: Sequence[int] = (), inputs: Sequence[str] = ("texts",),
                   peak: float | None = None) -> dict:  # fmt: skip
    """Every task, precision, shape, length, size and input; a flat table of ratio_*, memory_ratio_* and so on."""
    result: dict = {}
    sizes = pairs or [batch_size or (256 if device == "cuda" else 64)]
    many = len(shapes) * len(tokens) * len(sizes) * len(inputs) > 1
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(device, random_weights, Path(scratch), peak)
        grid = itertools.product(tasks, precisions, shapes, tokens, sizes, inputs)
        for task, precision, shape, length, size, given in grid:
            name = f"{task}_{precision}" + (f"_{shape}_{size}x{length or 'text'}_{given}" if many else "")
            print(f"{name}:", file=sys.stderr, flush=True)
            case = bench.case(task, size, length, shape, given, precision, attention=attention)
            found = bench.speed(case, rounds=7 if full else 4, steps=20 if device == "cuda" else 2)
            result |= flat(name, found)
            if given == "texts":  # held batches come again: other batches than those whose loss is asked
                small = (
                    case
                    if device == "cuda"
                    else bench.case(task, 16, length, shape, given, precision, attention=attention)
                )
                result |= {f"{key}_{name}": value for key, value in bench.losses(small).items()}
        bench.close()
    return result


def flat(name: str, found: dict) -> dict:
    """A case's numbers as one line each."""
    ours, peer = found["sides"].get("ours", {}), found["sides"].get(found["peer"], {})
    rows = {f"ratio_train_{name}": found.get("ratio"), f"range_train_{name}": found.get("range"),
            f"memory_ratio_train_{name}": found.get("memory_ratio"), f"peer_train_{name}": found["peer"]}  # fmt: skip
    for key in (
        "pairs_per_second",
        "gib",
        "peak_share",
        "loader_share",
        "launches",
        "syncs",
        "aten_ops",
        "waits",
        "error",
    ):
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
    parser.add_argument("--shapes", nargs="+", default=["minilm"], choices=["tiny", "minilm", "110m"],
                        help="of random weights")  # fmt: skip
    parser.add_argument("--inputs", nargs="+", default=["texts"], choices=["texts", "tokens"])
    parser.add_argument("--peer-attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--random-weights", action="store_true", help="no model file and no data needed")
    parser.add_argument("--full", action="store_true", help="more turns")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.side:
        Turns(json.loads(args.side[1])["device"]).serve(SIDES[args.side[0]])
        return
    if not args.random_weights and (args.tokens != [None] or args.shapes != ["minilm"]):
        parser.error("--tokens and --shapes are of made-up models and texts: pass --random-weights with them")
    result = bench_training(args.tasks, args.precision, args.device, args.random_weights, args.full,
                            attention=args.peer_attention, shapes=args.shapes, tokens=args.tokens, pairs=args.pairs,
                            inputs=args.inputs)  # fmt: skip
    print(json.dumps(result) if args.json else "\n".join(f"{name:56} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
