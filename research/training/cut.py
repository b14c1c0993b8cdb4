"""Counts, before a retrieval training begins, its texts that are longer than what the model reads of them."""

from collections.abc import Callable, Sequence

import lightning as L
from torch import nn

from research.models.cut import CutCount
from research.retrieval.encode import say_cut
from research.retrieval.rerank import say_cut_pairs

LOOKED_AT = 2048  # texts of a kind: a second on one core. Fewer are counted exactly, of more that many, evenly spread
BATCH = 64


def say_cut_training(model: nn.Module, data: L.LightningDataModule, name: str) -> dict[str, int]:
    """Report the training texts that the model cuts, if there are any.

    Args:
        model: a dual encoder or a cross-encoder.
        data: says which texts it trains on.
        name: of the model.

    Returns:
        "cut_documents" and "cut_queries", or "cut_pairs": how many of those looked at; {} for data without such texts.
    """
    facts = {}
    if not hasattr(data, "training_texts"):
        return facts
    for kind, (texts, count) in data.training_texts(LOOKED_AT).items():
        of = " that are trained on" + (f" and were looked at, of {count:,}," if count > len(texts) else "")
        cut = CutCount()
        if kind == "pairs":
            tokens = model.tokenize(*map(list, zip(*texts, strict=True)))
            _make(tokens["input_ids"], lambda some, tokens=tokens: model.collate(tokens, some))
            cut.add(tokens["input_ids"])
            say_cut_pairs(cut, model, name, of, "--model.max_length")
        else:
            role = "query" if kind == "queries" else "doc"
            tower = getattr(model, role)
            rows = tower.tokenize(texts, role)
            _make(rows, lambda some, rows=rows, tower=tower: tower.features([rows[i] for i in some]))
            cut.add(rows)
            say_cut(cut, tower, role, name, of, "--model.{}_max_length")
        facts[f"cut_{kind}"] = cut.cut
    return facts


def _make(rows: Sequence, batch: Callable[[list[int]], object]) -> None:
    """Make batches of rows that know only then whether they are cut: those that a library tokenises itself."""
    if rows and not isinstance(rows[0], list):
        for start in range(0, len(rows), BATCH):
            batch([*range(start, min(start + BATCH, len(rows)))])
