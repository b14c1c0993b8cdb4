"""The dual encoder's LightningModule: texts → embeddings → gathered → contrastive loss → one optimizer step."""

import math
from pathlib import Path
from typing import Literal

import lightning as L
import peft
import torch
from torch import Tensor, nn

from research.errors import UserError
from research.losses.contrastive import LOSSES, both_directions, known_positives
from research.metrics.retrieval import DIRECTIONS, parse_metric
from research.models.adapters import inject
from research.models.dual_encoder import DualEncoder, Encoder
from research.models.plain import compare
from research.models.saving import save_dual_encoder
from research.models.sources import MINILM, hash_with_base, resolve
from research.models.training import freeze_pooler, set_dropout
from research.ranges import BelowOne, FinitePositive, check_types
from research.training.base import TrainingModule, check_choice
from research.training.cut import say_cut_training
from research.training.optimisation import Optimisation
from research.training.validation import evaluate_retrieval
from research.types import PairBatch, TokenBatch


class DualEncoderModule(TrainingModule):
    """Contrastive training of a dual encoder.

    Args:
        model: folder, hub id, run folder or pkg:PACKAGE/PATH to start from.
        towers: "shared": one encoder for both roles; "separate": two, which start equal.
        loss: a name of losses.contrastive.LOSSES.
        temperature: τ of the softmax, usually 0.01 to 0.1; if it is learned, where it starts, within its range.
        learn_temperature: make log τ a parameter, clamped into `temperature_range` after every step.
        temperature_range: least and largest learned τ; a τ that is not learned stays what it is.
        temperature_lr: learning rate of log τ: the encoder's own would not move it.
        symmetric: documents find their queries as well (CLIP): the mean of the loss in both directions.
        gather: documents of all ranks are negatives; False keeps to the rank's own.
        query_max_length, doc_max_length: tokens; null takes the model's own. Saved with the model.
        query_prompt, doc_prompt, pooling: null takes the model's own. Saved with the model.
        dropout: of every layer and of attention; null keeps the model's own.
        adapter: peft.LoraConfig by class_path: the update is trained, the encoder frozen (and a new head trained); model/ is
            saved with the update merged.
        optimisation: see Optimisation.
        metrics: names@K, computed by exact search at validation.
        fast: on a CPU, train through models/cpu's cheaper parts; False takes transformers' own.
        seed: of dropout.
    """

    reads = PairBatch
    directions = DIRECTIONS

    def __init__(
        self,
        model: str = MINILM,
        towers: Literal["shared", "separate"] = "shared",
        loss: str = "info_nce",
        temperature: FinitePositive = 0.05,
        learn_temperature: bool = False,
        temperature_range: tuple[float, float] = (0.01, 0.5),
        temperature_lr: FinitePositive = 1e-3,
        symmetric: bool = False,
        gather: bool = True,
        query_max_length: int | None = None,
        doc_max_length: int | None = None,
        query_prompt: str | None = None,
        doc_prompt: str | None = None,
        pooling: str | None = None,
        dropout: BelowOne | None = None,
        adapter: peft.LoraConfig | None = None,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 (jsonargparse's default)
        metrics: list[str] = ["mrr@10", "ndcg@10", "recall@100"],  # noqa: B006
        fast: bool = True,
        seed: int = 0,
    ):
        check_types(DualEncoderModule.__init__, locals())
        self.check_options(loss, temperature, learn_temperature, temperature_range, metrics)
        super().__init__(optimisation, metrics, fast, seed)
        folder = resolve(model, "encoder")
        self.base_hash = hash_with_base(folder)
        settings = {
            "query_max_length": query_max_length,
            "doc_max_length": doc_max_length,
            "query_prompt": query_prompt,
            "doc_prompt": doc_prompt,
            "pooling": pooling,
        }
        self.model = DualEncoder.load(folder, separate=towers == "separate", **settings)
        set_dropout(self.model, dropout)
        freeze_pooler(self.model)
        if adapter is not None:
            for tower in dict.fromkeys((self.model.query, self.model.doc)):  # once, where it is shared
                inject(tower.transformer, adapter)
        self.strict_loading = adapter is None  # frozen weights are not in the checkpoint
        self.model.train()
        self.temperature_range, self.rates = temperature_range, {"log_temperature": temperature_lr}
        log_temperature = torch.tensor(math.log(temperature))
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=learn_temperature)
        self.fixed_temperature: float | None = None
        self.loss, self.symmetric, self.gather = LOSSES[loss], symmetric, gather

    @staticmethod
    def check_options(
        loss: str, temperature: float, learn_temperature: bool, temperature_range: tuple[float, float], metrics: list[str]
    ) -> None:
        """Refuse an unknown loss or metric, and a learned temperature outside its range."""
        check_choice("loss", loss, LOSSES)
        low, high = temperature_range
        if learn_temperature and not 0 < low <= temperature <= high < math.inf:
            raise UserError(
                f"temperature={temperature}, temperature_range=[{low}, {high}]; expected 0 < least ≤ temperature ≤ "
                "largest. Correct them in the configuration."
            )
        for name in metrics:
            parse_metric(name)

    def training_step(self, batch: PairBatch, batch_idx: int) -> None:
        query = embed(self.model.query, batch.queries, "query")  # (B, D)
        docs = embed(self.model.doc, batch.docs, "doc")  # (M, D), the queries' own first
        losses, masked = self.contrast(query, docs, batch)  # (B,)
        if step := self.window.backward_and_step(losses, masked=masked):
            self.clamp_temperature()
            self.log_split("train", step | {"temperature": self.temperature})

    def contrast(self, query: Tensor, docs: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Compute the losses (B,) of this rank's queries against the documents of all ranks; count the masked columns."""
        temperature = self.log_temperature.exp()
        number = torch.arange(len(query), device=query.device)
        doc_ids, first_doc = self.all_rows(batch.doc_ids)
        all_docs, _ = self.all_rows(docs)  # (ΣM, D)
        positives = number + first_doc  # the queries' own documents stand first in `docs`
        masked = known_positives(doc_ids, batch.positive_ids, positives)  # (B, ΣM)
        if not self.symmetric:
            return self.loss(query, all_docs, positives, temperature, masked), masked.sum()
        all_queries, first_query = self.all_rows(query)  # (ΣB, D)
        positive_ids, _ = self.all_rows(batch.positive_ids)  # (ΣB, P)
        rows = number + first_query
        doc_of_query = batch.doc_ids[: len(query)]  # (B,)
        masked_queries = (positive_ids[None] == doc_of_query[:, None, None]).any(-1).scatter(1, rows[:, None], False)  # (B, ΣB)
        losses = both_directions(self.loss, query, all_docs, positives, temperature, masked, all_queries, rows, masked_queries)
        return losses, masked.sum() + masked_queries.sum()

    @property
    def temperature(self) -> float:
        """Return τ; a fixed one is read once, since the host waits for it."""
        if self.fixed_temperature is None or self.log_temperature.requires_grad:
            self.fixed_temperature = float(self.log_temperature.detach().exp())
        return self.fixed_temperature

    def all_rows(self, rows: Tensor) -> tuple[Tensor, int]:
        """Gather the rows of all ranks, if ranks share their negatives; return also where this rank's rows begin."""
        return gather_rows(self, rows) if self.gather else (rows, 0)

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keep a learned τ within its range."""
        if self.log_temperature.requires_grad:
            self.log_temperature.clamp_(*map(math.log, self.temperature_range))

    def evaluate(self, name: str) -> dict[str, float]:
        """Compute the mean metrics on a collection of the DataModule, by exact search over all of its documents."""
        self.per_query, self.answers = evaluate_retrieval(self, self.trainer.datamodule.collections[name], self.metrics)
        return self.means()

    def say_cut(self, data: L.LightningDataModule, name: str) -> dict[str, int]:
        """Report and count the training texts of which the model reads only a part."""
        return say_cut_training(self.model, data, name)

    def save(self, folder: Path) -> None:
        """Write the model in the format that other verbs and sentence-transformers load."""
        save_dual_encoder(self.model, folder)

    def compare_saved(self, folder: Path) -> list[str]:
        """Check whether plain sentence-transformers gives the same embeddings, and with which of its methods."""
        return compare(folder).sentences()


def embed(encoder: Encoder, texts: TokenBatch, role: str) -> Tensor:
    """Compute (B, D) embeddings of B texts, chunk by chunk: the same as in one large batch, with less padding.

    Of norm 1 wherever search will compare by cosine, also for models that leave the division to the search.
    """
    prompt_tokens = encoder.prompt_tokens(role)
    rows = torch.cat([encoder(**chunk, prompt_tokens=prompt_tokens) for chunk in texts.chunks])[texts.rows]
    return nn.functional.normalize(rows, dim=-1) if encoder.settings.normalize_outside else rows


def gather_rows(module: L.LightningModule, rows: Tensor) -> tuple[Tensor, int]:
    """Gather the rows of all ranks with their gradient, in rank order; ranks may have different numbers of rows.

    The gradient of a gathered row flows back to the rank that made it, summed over the losses of all ranks. DDP then
    averages over the ranks, which the window undoes (training/step.py): the result is the single process's gradient.

    Args:
        module: knows the ranks.
        rows: (N, …) of this rank.

    Returns:
        (ΣN, …) and where this rank's rows begin.
    """
    if module.trainer.world_size == 1:
        return rows, 0
    counts = module.all_gather(torch.tensor(len(rows), device=rows.device)).tolist()
    longest = max(counts)
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    gathered = module.all_gather(padded, sync_grads=rows.requires_grad)  # (W, longest, …)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)]), sum(
        counts[: module.trainer.global_rank]
    )
