"""Turns a classifier's logits into one score for each pair."""

import re
from types import SimpleNamespace

import torch
from torch import Tensor
from transformers import PretrainedConfig

from research.errors import UserError

YES = {"relevant", "yes", "true", "positive", "1", "match", "entailment"}


class Relevance:
    """Turns a classifier's logits into scores: a single label is the score; of two, the log-odds of the relevant one.

    The log-odds rank as the probability does.

    Args:
        config: of the classifier, with num_labels and id2label.

    Raises:
        UserError: more labels, or two of which none is known to be the relevant one.
    """

    def __init__(self, config: PretrainedConfig | SimpleNamespace):
        self.labels = config.num_labels
        if self.labels not in (1, 2):
            raise UserError(
                f"the reranker has {self.labels} labels; expected 1, a relevance score, or 2, irrelevant and "
                "relevant. Name a model trained to rank."
            )
        self.relevant = _relevant(config.id2label) if self.labels == 2 else 0

    def __call__(self, logits: Tensor) -> Tensor:
        """Turn logits (B, labels) into scores (B,), float32 (float64 stays)."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.labels == 1:
            return logits.squeeze(-1)
        return logits[:, self.relevant] - logits[:, 1 - self.relevant]


def _relevant(names: dict[int, str]) -> int:
    """Return which of two labels means relevant: the second, unless their names say otherwise."""
    labels = [str(names.get(i, f"LABEL_{i}")).strip().lower() for i in (0, 1)]
    if labels == ["label_0", "label_1"]:
        return 1
    chosen = [i for i, word in enumerate(labels) if word in YES]
    if len(chosen) == 1:
        return chosen[0]
    negated = [i for i, word in enumerate(labels) if re.match(r"(not|non|no|ir|un|false|negative|0)", word)]
    if len(negated) == 1:
        return 1 - negated[0]
    raise UserError(
        f"the reranker has the labels {names.get(0)!r} and {names.get(1)!r}; expected one to be called relevant. "
        'Name them in id2label of its config.json: {"0": "irrelevant", "1": "relevant"}.'
    )
