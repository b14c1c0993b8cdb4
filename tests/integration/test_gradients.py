"""The gradient that reaches the optimizer, in float64, against an oracle that shares no code with the trainer.

The oracle pads the whole batch at once, pools and normalises by hand, and takes torch's cross_entropy over dense
similarity matrices whose forbidden columns it finds by comparing strings. No clipping: it would hide a factor.
"""

import json

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tests.integration.small import KeepGradients

EXACT = {"clip": None, "trainer": {"precision": "64-true", "max_steps": 1, "limit_val_batches": 0}}


def rows_of(folder):
    return [json.loads(line) for line in (folder / "triplets.jsonl").read_text().splitlines()]


def text(passage):
    return f"{passage['title']} {passage['text']}" if passage["title"] else passage["text"]


def embed(model, tokenizer, texts):
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    hidden = model(**inputs).last_hidden_state
    weights = inputs["attention_mask"][:, :, None].double()
    return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("hard_negatives", [0, 9])
def test_dual_encoder_step_equals_the_oracle(training, tiny_bert, training_data, hard_negatives, symmetric):
    """All 20 queries in one batch with all of their negatives, so that neither order nor draw has a say."""
    run = training(
        "dual_encoder",
        "run",
        module={"dropout": 0.0, "symmetric": symmetric, "temperature": 0.07},
        data={"batch_size": 20, "hard_negatives": hard_negatives, "chunk_overhead": 3},
        **EXACT,
    )
    run.run(callbacks=(KeepGradients(run.out / "gradients.pt"),))
    found = torch.load(run.out / "gradients.pt")

    rows = rows_of(training_data)
    model = AutoModel.from_pretrained(tiny_bert).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    positives = [text(row["positive_passages"][0]) for row in rows]
    negatives = [text(p) for row in rows for p in row["negative_passages"]] if hard_negatives else []
    docs = embed(model, tokenizer, positives + negatives)
    queries = embed(model, tokenizer, [row["query"] for row in rows])
    log_temperature = torch.tensor(0.07).log().double().requires_grad_()
    scores = queries @ docs.T / log_temperature.exp()
    for i, own in enumerate(positives):
        for j, other in enumerate(positives + negatives):
            if i != j and own == other:
                scores[i, j] = -torch.inf
    loss = F.cross_entropy(scores, torch.arange(20))
    if symmetric:
        loss = (loss + F.cross_entropy(scores[:, :20].T, torch.arange(20))) / 2
    loss.backward()

    (line,) = [line for line in run.curve() if "train/loss" in line]
    assert line["train/loss"] == pytest.approx(loss.item(), abs=1e-12)
    assert (found.pop("log_temperature") - log_temperature.grad).abs() < 1e-10
    for name, parameter in model.named_parameters():
        if "pooler" not in name:
            residual = (found[f"model.query.transformer.{name}"] - parameter.grad).norm()
            assert residual < 1e-10 * max(1.0, float(parameter.grad.norm())), name


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_cross_encoder_step_equals_the_oracle(training, tiny_reranker, training_data, loss):
    """Groups of 3 to 7 candidates, all of them in one batch."""
    run = training(
        "cross_encoder",
        "run",
        module={"dropout": 0.0, "loss": loss, "model": str(tiny_reranker)},
        data={"batch_size": 20, "group_size": 9, "chunk_overhead": 3},
        **EXACT,
    )
    run.run(callbacks=(KeepGradients(run.out / "gradients.pt"),))
    found = torch.load(run.out / "gradients.pt")

    model = AutoModelForSequenceClassification.from_pretrained(tiny_reranker).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_reranker)
    losses = []
    for row in rows_of(training_data):
        docs = [text(p) for p in row["positive_passages"] + row["negative_passages"]]
        inputs = tokenizer([row["query"]] * len(docs), docs, padding=True, truncation="longest_first", return_tensors="pt")
        scores = model(**inputs).logits[:, 0]
        labels = torch.tensor([1.0] + [0.0] * (len(docs) - 1)).double()
        if loss == "softmax":
            losses.append(F.cross_entropy(scores[None], torch.tensor([0])))
        else:
            losses.append(F.binary_cross_entropy_with_logits(scores, labels))
    torch.stack(losses).mean().backward()
    for name, parameter in model.named_parameters():
        residual = (found[f"model.transformer.{name}"] - parameter.grad).norm()
        assert residual < 1e-10 * max(1.0, float(parameter.grad.norm())), name
