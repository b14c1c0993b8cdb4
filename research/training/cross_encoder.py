"""The cross-encoder's LightningModule: candidate groups → scores → pointwise or listwise loss → one optimizer step."""

from pathlib import Path

import lightning as L
import peft
import torch
from torch import Tensor

from research.losses.ranking import LOSSES
from research.metrics.retrieval import DIRECTIONS, parse_metric
from research.models.adapters import inject
from research.models.cross_encoder import Reranker, load_cross_encoder
from research.models.saving import save_cross_encoder
from research.models.sources import MINILM, hash_with_base, resolve
from research.models.training import set_dropout
from research.ranges import BelowOne, check_types
from research.training.base import TrainingModule, check_choice
from research.training.cut import say_cut_training
from research.training.optimisation import Optimisation
from research.training.validation import evaluate_reranking, say_before
from research.types import CandidateBatch, TokenBatch


class CrossEncoderModule(TrainingModule):
    """Training of a reranker on candidate groups.

    Args:
        model: folder, hub id, run folder or pkg:PACKAGE/PATH to start from; an encoder without a head of one label gets a
            new one, drawn from the seed.
        loss: a name of losses.ranking.LOSSES; "softmax": the positive against the query's other candidates, "bce": every
            candidate by itself.
        max_length: tokens of a pair; null takes the model's own. Saved with the model.
        dropout: of every layer and of attention; null keeps the model's own.
        adapter: peft.LoraConfig by class_path: the update is trained, the encoder frozen (and a new head trained); model/ is
            saved with the update merged.
        optimisation: see Optimisation.
        metrics: names@K, of the re-ordered validation run.
        fast: on a CPU, train through models/cpu's cheaper parts; False takes transformers' own.
        seed: of dropout (and, by the verb, of a new head).
    """

    reads = CandidateBatch
    directions = DIRECTIONS

    def __init__(
        self,
        model: str = MINILM,
        loss: str = "softmax",
        max_length: int | None = None,
        dropout: BelowOne | None = None,
        adapter: peft.LoraConfig | None = None,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 (jsonargparse's default)
        metrics: list[str] = ["mrr@10", "ndcg@10"],  # noqa: B006
        fast: bool = True,
        seed: int = 0,
    ):
        check_types(CrossEncoderModule.__init__, locals())
        self.check_options(loss, metrics)
        super().__init__(optimisation, metrics, fast, seed)
        folder = resolve(model, "encoder")
        self.base_hash = hash_with_base(folder)
        self.model = load_cross_encoder(folder, max_length=max_length, new_head=True)
        set_dropout(self.model, dropout)
        if adapter is not None:
            body = f"{self.model.transformer.base_model_prefix}."
            heads = {name.split(".")[0] for name, _ in self.model.transformer.named_parameters() if not name.startswith(body)}
            inject(self.model.transformer, adapter, tuple(f"{head}." for head in heads))
        self.strict_loading = adapter is None  # frozen weights are not in the checkpoint
        self.model.train()
        self.loss = LOSSES[loss]

    @staticmethod
    def check_options(loss: str, metrics: list[str]) -> None:
        """Refuse an unknown loss or metric."""
        check_choice("loss", loss, LOSSES)
        for name in metrics:
            parse_metric(name)

    def training_step(self, batch: CandidateBatch, batch_idx: int) -> None:
        scores = score(self.model, batch.pairs, batch.present)  # (B, N)
        losses = self.loss(scores, batch.labels, batch.present)  # (B,)
        if step := self.window.backward_and_step(losses):
            self.log_split("train", step)

    def evaluate(self, name: str) -> dict[str, float]:
        """Compute the mean metrics of one of the DataModule's runs after the present model has re-ordered its top."""
        data = self.trainer.datamodule
        say_before(self, data.collections[name], data.runs[name], self.metrics)
        evaluation = evaluate_reranking(self, data.collections[name], data.runs[name], data.depth, self.metrics)
        self.per_query, self.answers = evaluation
        return self.means()

    def say_cut(self, data: L.LightningDataModule, name: str) -> dict[str, int]:
        """Report and count the training texts of which the model reads only a part."""
        return say_cut_training(self.model, data, name)

    def save(self, folder: Path) -> None:
        """Write the model in the format that `retrieve --reranker` and sentence-transformers' CrossEncoder load."""
        save_cross_encoder(self.model, folder)


def score(model: Reranker, pairs: TokenBatch, present: Tensor) -> Tensor:
    """Compute the (B, N) scores of the pairs that are present, query after query; 0 elsewhere."""
    flat = torch.cat([model(**chunk) for chunk in pairs.chunks])[pairs.rows]  # (pairs,)
    return flat.new_zeros(present.shape).masked_scatter(present, flat)
