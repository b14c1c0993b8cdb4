"""The sides of the retrieval trainings' benchmark: ours, sentence-transformers' trainers, and a plain loop over its models."""

import itertools
import json
import tempfile
from collections.abc import Callable

import torch
from torch.nn import functional as F
from transformers import AutoTokenizer

from benching.ours import fit_in_turns, held, loading
from benching.retrieval_data import GROUP, batches_of
from benching.turns import Turns

SCALE = 20.0  # 1 / temperature
LENGTH = 256  # of real texts


def train_ours(case: dict, turns: Turns) -> None:
    from research.data.candidates import CandidateData
    from research.data.pairs import PairData
    from research.training.cross_encoder import CrossEncoderModule
    from research.training.dual_encoder import DualEncoderModule
    from research.training.optimisation import Optimisation

    length = case["tokens"] or LENGTH
    settings = {"optimisation": Optimisation(lr=2e-5, warmup=0, decay="constant"), "dropout": case["dropout"]}
    splits = {"val_split": None, "test_split": None, **loading(case["device"])}
    if case["task"] == "contrastive":
        module = DualEncoderModule(
            case["model"], temperature=1 / SCALE, query_max_length=length, doc_max_length=length, **settings
        )
        data = PairData(case["rows"], batch_size=case["pairs"], **splits)
    else:
        module = CrossEncoderModule(case["model"], loss="bce", max_length=length, **settings)
        data = CandidateData(case["rows"], group_size=GROUP, batch_size=case["pairs"] // GROUP, **splits)
    fit_in_turns(module, data, case, turns, lambda trainer: loss_of(module.model, case, trainer.global_step))


def load_theirs(case: dict):
    """sentence-transformers' model and loss."""
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    more = {
        "device": case["device"],
        "config_kwargs": none if case["dropout"] == 0 else {},
        "model_kwargs": {"attn_implementation": case["attention"]},
    }
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
    from datasets import Dataset
    from transformers import TrainerCallback

    class Sequential(torch.utils.data.BatchSampler):
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
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": case["pairs"],
        "num_train_epochs": 10**4,
        "learning_rate": 2e-5,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "constant",
        "bf16": case["precision"] == "bf16",
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "batch_sampler": Sequential,
        "use_cpu": case["device"] == "cpu",
        "seed": 0,
        "dataloader_num_workers": case["workers"],
        "dataloader_persistent_workers": case["workers"] > 0,
        "dataloader_pin_memory": case["device"] == "cuda",
    }
    model, loss = load_theirs(case)
    rows = [json.loads(line) for line in open(case["rows"])]
    rows *= 16 if case["workers"] else 1  # no epoch ends in a turn: its loaders would start anew
    if case["task"] == "contrastive":
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

        data = Dataset.from_dict(
            {"anchor": [row["query"] for row in rows], "positive": [row["positive_passages"][0]["text"] for row in rows]}
        )
        kind, args = SentenceTransformerTrainer, SentenceTransformerTrainingArguments(**common)
    else:
        from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments

        flat = [
            (row["query"], doc["text"], label)
            for row in rows
            for label, docs in ((1.0, row["positive_passages"]), (0.0, row["negative_passages"]))
            for doc in docs
        ]
        data = Dataset.from_dict(dict(zip(("query", "doc", "label"), map(list, zip(*flat, strict=True)), strict=True)))
        kind, args = CrossEncoderTrainer, CrossEncoderTrainingArguments(**common)
    kind(model, args, data, loss=loss, callbacks=[Pause()]).train()


def train_loop(case: dict, turns: Turns) -> None:
    """By a plain loop over its model and loss."""
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
                    yield [
                        dict(
                            model.tokenizer(
                                queries,
                                docs,
                                padding=True,
                                truncation="longest_first",
                                max_length=model.max_length,
                                return_tensors="pt",
                            )
                        )
                    ]

    def forward(features: list[dict]) -> torch.Tensor:
        if case["task"] == "contrastive":
            return loss(features, None)
        return F.binary_cross_entropy_with_logits(model.model(**features[0]).logits.squeeze(-1), labels)

    decayed = [p for p in model.parameters() if p.ndim > 1]
    other = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": other, "weight_decay": 0.0}], lr=2e-5, fused=True
    )
    loader = torch.utils.data.DataLoader(
        Texts(),
        batch_size=None,
        num_workers=case["workers"],
        multiprocessing_context="fork" if case["workers"] else None,
        pin_memory=case["device"] == "cuda",
    )
    turns.begin(case["warmup"])
    for step, batch in enumerate(held(loader, case), 1):
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
    body = next(m for m in model.modules() if hasattr(m, "config") and hasattr(m, "get_input_embeddings"))
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    batch = next(itertools.islice(batches_of(case["rows"], case["task"], case["pairs"]), step, None))
    queries, docs = [q for q, _ in batch], [d for _, d in batch]
    was_training = body.training
    body.eval()

    def tokens(*texts):
        encoded = tokenizer(
            *texts,
            padding=True,
            truncation="longest_first" if len(texts) > 1 else True,
            max_length=case["tokens"] or LENGTH,
            return_tensors="pt",
        )
        return encoded.to(next(body.parameters()).device)

    with torch.no_grad(), torch.autocast(case["device"], enabled=False):
        if case["task"] == "contrastive":
            rows = []
            for texts in (queries, docs):
                inputs = tokens(texts)
                weights = inputs["attention_mask"].unsqueeze(-1).float()
                rows.append(F.normalize((body(**inputs).last_hidden_state.float() * weights).sum(1) / weights.sum(1), dim=-1))
            loss = F.cross_entropy(rows[0] @ rows[1].T * SCALE, torch.arange(len(batch), device=rows[0].device))
        else:
            logits = body(**tokens(queries, docs)).logits.squeeze(-1).float()
            labels = torch.tensor([float(i % GROUP == 0) for i in range(len(batch))], device=logits.device)
            loss = F.binary_cross_entropy_with_logits(logits, labels)
    body.train(was_training)
    return float(loss)


SIDES: dict[str, Callable[[dict, Turns], None]] = {"ours": train_ours, "trainer": train_trainer, "loop": train_loop}
