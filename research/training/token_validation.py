"""Validation of labelled tokens: the loss of each example, without label smoothing."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor

from research.losses.language import token_losses
from research.progress import bar
from research.training.ranks import all_gather_rows

BATCH_TOKENS = 4096  # padded tokens of a batch


class TokenRows(Protocol):
    """Tokenised examples: input_ids and labels of each, what it is called, and some of them as tensors of one length."""

    rows: Sequence[dict]
    index: Sequence[object]

    def padded(self, rows: list[dict], pad: int, length: int) -> dict[str, Tensor]:
        """Return (b, length) tensors: input_ids, labels, attention_mask."""


class Measured(NamedTuple):
    """Of E examples: negative log-likelihood, labelled tokens, and how many of them are the most likely token.

    Attributes:
        nll, tokens, correct: (E,).
        ids: what each example is called.
    """

    nll: np.ndarray
    tokens: np.ndarray
    correct: np.ndarray
    ids: list[str]

    @property
    def loss(self) -> float:
        """Return the mean loss over all labelled tokens."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def accuracy(self) -> float:
        """Return the share of labelled tokens that were the most likely ones."""
        return float(self.correct.sum() / self.tokens.sum())

    def per_example(self) -> dict[str, dict[str, float]]:
        """Return {metric: {example: value}}; an example's loss is the mean over its own tokens."""
        values = {"loss": self.nll / self.tokens, "token_accuracy": self.correct / self.tokens}
        return {name: dict(zip(self.ids, map(float, column), strict=True)) for name, column in values.items()}


@torch.no_grad()
def evaluate_tokens(module: L.LightningModule, data: TokenRows) -> Measured:
    """Compute the losses of tokenised examples, without label smoothing; ranks share them.

    Args:
        module: with a CausalLM as `model`.
        data: tokenised examples.
    """
    rank, world, device = module.trainer.global_rank, module.trainer.world_size, module.device
    mine = data.rows[rank::world]
    out = np.zeros((len(mine), 3))
    order = sorted(range(len(mine)), key=lambda i: -len(mine[i]["input_ids"]))
    pad = module.model.pad_token_id
    progress = bar(len(mine), "validate", "row", quiet=not module.trainer.is_global_zero)
    while order:
        longest = min(-(-len(mine[order[0]]["input_ids"]) // 16) * 16, module.model.positions - module.model.virtual_tokens)
        count = max(1, BATCH_TOKENS // longest)
        chosen, order = order[:count], order[count:]
        batch = {name: value.to(device) for name, value in data.padded([mine[i] for i in chosen], pad, longest).items()}
        at = module.model.labelled(**batch)
        tokens = token_losses(at.hidden, labels=at.labels, **module.model.head)
        columns = torch.stack([tokens.nll.double(), torch.ones_like(tokens.nll).double(), tokens.correct.double()], 1)
        sums = torch.zeros(len(chosen), 3, dtype=torch.float64, device=device).index_add_(0, at.rows, columns)
        out[chosen] = sums.cpu().numpy()
        progress.update(len(chosen))
    progress.close()
    rows = all_gather_rows(module, out, len(data.rows))
    return Measured(rows[:, 0], rows[:, 1], rows[:, 2], [str(i) for i in data.index])
