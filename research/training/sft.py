"""Supervised fine-tuning: instruction rows → hidden states of labelled positions → token losses → one optimizer step."""

import math

import peft
from torch import Tensor

from research.losses.language import LOSSES
from research.metrics.generation import DIRECTIONS as ANSWERS
from research.metrics.language import TOKENS
from research.models.sources import SMOLLM2
from research.progress import say
from research.ranges import BelowOne, PositiveInt, check_types
from research.training.answers import answer_sample
from research.training.base import check_choice
from research.training.language import Language, LanguageModule, Precision, say_steps
from research.training.optimisation import Optimisation
from research.training.token_validation import evaluate_tokens
from research.types import IGNORE, InstructionBatch


class SFTModule(LanguageModule):
    """Fine-tuning of a causal language model, whole, in part, or by an adapter.

    The loss of an optimizer step is the mean over all labelled tokens of its micro-batches and ranks; a mixture of experts adds
    its router's loss as its config says (router_aux_loss_coef times the mean over micro-batches, train/router_loss).

    Args:
        model: folder, hub id, run folder, pkg:PACKAGE/PATH, or an adapter's folder: with an `adapter` it is merged first,
            without one it is trained on.
        adapter: a PEFT configuration by class_path (peft.LoraConfig, PromptTuningConfig, PrefixTuningConfig,
            PromptEncoderConfig); null trains the model itself.
        train_layers: of the model itself train the last so many blocks and the final norm only.
        train_pattern: of the model itself train the parameters whose name holds this regular expression.
        loss: a name of losses.language.LOSSES.
        label_smoothing: ε.
        frozen_precision: of the weights under an adapter; "auto" is bf16 under bf16-mixed.
        init_scale: factor on the virtual tokens as PEFT draws them; null: .1 for prefix tuning without projection, else 1.
        optimisation: see Optimisation.
        metrics: of validation. loss, perplexity, token_accuracy: over all labelled tokens; exact_match, token_f1, rouge_l: of
            greedy answers to a fixed sample; other_loss: forgetting, the loss on data.other, text that is not trained.
        answers: how many validation prompts are answered for those three; for none leave the three out of metrics.
        max_new_tokens: the longest of these answers.
        fast: on a CPU, train through models/cpu's cheaper parts; False takes transformers' own.
        seed: of dropout (and, by the verb, of the adapter's initialisation).
    """

    reads = InstructionBatch
    directions = TOKENS | ANSWERS

    def __init__(
        self,
        model: str = SMOLLM2,
        adapter: peft.PeftConfig | None = None,
        train_layers: int | None = None,
        train_pattern: str | None = None,
        loss: str = "cross_entropy",
        label_smoothing: BelowOne = 0.0,
        frozen_precision: Precision = "auto",
        init_scale: float | None = None,
        optimisation: Optimisation = Optimisation(lr=2e-4),  # noqa: B008 (jsonargparse's default)
        metrics: list[str] = ["loss", "perplexity", "token_accuracy"],  # noqa: B006
        answers: PositiveInt = 32,
        max_new_tokens: PositiveInt = 64,
        fast: bool = True,
        seed: int = 0,
    ):
        check_types(SFTModule.__init__, locals())
        self.check_options(loss, metrics)
        language = Language(model, adapter, train_layers, train_pattern, frozen_precision, init_scale=init_scale)
        super().__init__(language, labelled_tokens, optimisation, metrics, fast, seed)
        self.loss, self.smoothing = LOSSES[loss], label_smoothing
        self.sample, self.max_new_tokens = answers, max_new_tokens

    @classmethod
    def check_options(cls, loss: str, metrics: list[str]) -> None:
        """Refuse an unknown loss or metric."""
        check_choice("loss", loss, LOSSES)
        cls.check_metrics(metrics)

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        self.tokenise()
        self.check(data)
        if "other_loss" in self.metrics and "other" not in data.collections:
            self.metrics = [name for name in self.metrics if name != "other_loss"]
            if self.trainer.is_global_zero:
                say("forgetting is not measured (other_loss): data.other names no text that is not trained")
        if self.language.router:
            data.chunk_overhead = None  # the router's loss is of a whole micro-batch
        if stage == "fit":
            say_steps(self.trainer, data)
        self.bits = self.language.place(self.trainer, stage, self.fast)
        self.language.load_restored()

    def training_step(self, batch: InstructionBatch, batch_idx: int) -> None:
        parts = self.chunk_parts.parts(batch, self.part)
        if parts and (step := self.window.backward_parts_and_step(parts)):
            means = {name: step[name] / self.window.last_count for name in ("token_accuracy", "router_loss") if name in step}
            self.log_split("train", step | means)

    def part(self, chunk: dict[str, Tensor], share: float = 0.0) -> tuple[Tensor, dict]:
        """Compute the losses (N,) of a chunk's labelled tokens, with the router's loss in them; see ChunkParts."""
        at = self.model.labelled(**chunk, router=bool(self.language.router))
        tokens = self.loss(at.hidden, labels=at.labels, smoothing=self.smoothing, **self.model.head)
        sums = {"token_accuracy": tokens.correct.sum(), "tokens": real_tokens(chunk)}
        return self.chunk_parts.with_router(tokens.losses, sums, at.router, share)

    def evaluate(self, name: str) -> dict[str, float]:
        """Compute the metrics over all labelled tokens of the named examples."""
        data = self.trainer.datamodule
        self.tokenise()
        measured = evaluate_tokens(self, data.tokens[name])
        values = {"loss": measured.loss, "perplexity": math.exp(min(measured.loss, 700)), "token_accuracy": measured.accuracy}
        self.per_query = measured.per_example()
        self.weights = dict(zip(measured.ids, measured.tokens.tolist(), strict=True))
        if any(metric in ANSWERS for metric in self.metrics):
            answered = answer_sample(self, data.questions(name, self.sample), self.max_new_tokens)
            self.per_query |= answered.per_example
            self.answers = answered.answers
            values |= {metric: sum(column.values()) / len(column) for metric, column in answered.per_example.items()}
        if "other_loss" in self.metrics:
            values["other_loss"] = evaluate_tokens(self, data.tokens["other"]).loss
        self.measured = {metric: values[metric] for metric in self.metrics}
        return self.measured

    def means(self) -> dict[str, float]:
        """Return the metrics of the last evaluation."""
        return self.measured


def labelled_tokens(chunk: dict[str, Tensor]) -> int:
    """Count the token losses of a chunk; the first token of a row has no prediction."""
    return int((chunk["labels"][:, 1:] != IGNORE).sum())


def real_tokens(chunk: dict[str, Tensor]) -> Tensor:
    """Count a chunk's tokens without padding, which has position 0 in rows of several texts (of two tokens or more)."""
    if "attention_mask" in chunk:
        return chunk["attention_mask"].sum()
    return (chunk["position_ids"] > 0).sum() + (chunk["position_ids"] == 1).sum()
