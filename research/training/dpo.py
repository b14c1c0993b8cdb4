"""Direct preference optimisation: pairs → log-probabilities under policy and reference → preference losses → one step.

Longer than most files: what a step computes of a batch is read here from top to bottom, the reference's part too.
"""

import contextlib
import copy
import functools
from typing import Literal

import numpy as np
import peft
import torch
from torch import Tensor

from research.errors import UserError
from research.losses.language import kl_divergence, token_losses
from research.losses.preference import LOSSES, takes_smoothing
from research.metrics.language import PREFERENCES
from research.models.causal_lm import CausalLM
from research.models.sources import SMOLLM2
from research.progress import say
from research.ranges import BelowHalf, FiniteNonNegative, FinitePositive, check_types
from research.training.base import check_choice
from research.training.language import Language, LanguageModule, Precision, say_steps
from research.training.optimisation import Optimisation
from research.training.packing import shares_prompt
from research.training.preference_validation import METRICS, evaluate_preferences
from research.training.reference import attach_reference
from research.types import PreferenceBatch


class DPOModule(LanguageModule):
    """Preference tuning of a causal language model against a reference.

    Rewards are β (log π − log π_ref) of whole completions; reward_margin is the chosen one's minus the rejected one's, and
    reward_accuracy the share of pairs where it is positive. kl is KL(π ‖ π_ref) over the vocabulary, a mean over pairs (a
    sample) of the mean over the tokens of both completions; it needs the reference itself, not only its cached numbers. The
    policy keeps its dropout while it trains (TRL switches it off); the reference has none.

    Args:
        model: folder, hub id, run folder, pkg:PACKAGE/PATH, or an adapter's folder (an SFT run): with an `adapter` it is
            merged first, and what it was is the reference; without one it is trained on.
        adapter: a PEFT configuration by class_path; null trains the model itself.
        train_layers, train_pattern: see SFTModule.
        loss: a name of losses.preference.LOSSES: sigmoid (DPO; with label_smoothing cDPO), hinge, ipo, sigmoid_norm
            (length-normalised).
        beta: how strongly the policy is held to the reference.
        label_smoothing: ε of the sigmoid loss: the share of pairs that are labelled the wrong way round.
        sft_weight: adds that many times the chosen completion's mean negative log-likelihood (RPO).
        reference: "adapter_off": the model without its adapter, computed at every step; "copy": a frozen copy of the model as
            it was loaded; "cached": that copy's log-probabilities, computed once and kept on disk for every run on the same
            weights and data.
        frozen_precision: see SFTModule.
        init_scale: factor on the virtual tokens as PEFT draws them; null: .1 for prefix tuning without projection, else 1.
        optimisation: see Optimisation.
        metrics: of validation.
        fast: on a CPU, train through models/cpu's cheaper parts; False takes transformers' own.
        seed: of dropout (and, by the verb, of the adapter's initialisation).
    """

    reads = PreferenceBatch
    directions = PREFERENCES

    def __init__(
        self,
        model: str = SMOLLM2,
        adapter: peft.PeftConfig | None = None,
        train_layers: int | None = None,
        train_pattern: str | None = None,
        loss: str = "sigmoid",
        beta: FinitePositive = 0.1,
        label_smoothing: BelowHalf = 0.0,
        sft_weight: FiniteNonNegative = 0.0,
        reference: Literal["adapter_off", "copy", "cached"] = "cached",
        frozen_precision: Precision = "auto",
        init_scale: float | None = None,
        optimisation: Optimisation = Optimisation(lr=5e-5),  # noqa: B008 (jsonargparse's default)
        metrics: list[str] = list(METRICS),  # noqa: B006
        fast: bool = True,
        seed: int = 0,
    ):
        check_types(DPOModule.__init__, locals())
        self.check_options(loss, label_smoothing, metrics)
        language = Language(model, adapter, train_layers, train_pattern, frozen_precision, reference, init_scale=init_scale)
        super().__init__(language, lambda chunk: len(chunk["number"]), optimisation, metrics, fast, seed)
        self.loss = functools.partial(LOSSES[loss], smoothing=label_smoothing) if label_smoothing else LOSSES[loss]
        self.beta, self.sft_weight, self.reference = beta, sft_weight, reference
        self.frozen: list[CausalLM] = []  # the copy; in a list, so that it is no submodule and in no checkpoint
        if reference == "copy":
            self.frozen = [copy.deepcopy(self.model).requires_grad_(False).eval()]

    @classmethod
    def check_options(cls, loss: str, label_smoothing: float, metrics: list[str]) -> None:
        """Refuse an unknown loss or metric, and label smoothing with a loss that does not support it."""
        check_choice("loss", loss, LOSSES)
        if label_smoothing and not takes_smoothing(loss):
            losses = " or ".join(filter(takes_smoothing, LOSSES))
            raise UserError(
                f"label_smoothing={label_smoothing} with loss={loss}; expected it with {losses} only, elsewhere it changes "
                "nothing. Leave it out, or choose that loss."
            )
        cls.check_metrics(metrics)

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        if stage == "test":
            data.test_dataloader()  # reads the test pairs, which need their reference before weights are restored
        self.tokenise()
        self.check(data)
        if stage == "fit":
            say_steps(self.trainer, data)
        data.share_prompt = shares_prompt(self, lambda chunk: self.logps(chunk)[0])
        self.bits = self.language.place(self.trainer, stage, self.fast)
        self.to(self.trainer.strategy.root_device)
        for model in self.frozen:
            model.to(self.device)
            for frozen, policy in zip(model.parameters(), self.model.parameters(), strict=True):
                frozen.data = frozen.data.to(policy.dtype)  # or step 0 would differ by the rounding of the policy's base
        if self.reference == "cached":  # now: the weights are still as they were loaded
            attach_reference(self, (["train"] if stage == "fit" else []) + list(data.collections))
        if "kl" in self.metrics and self.reference_model() is None and self.trainer.is_global_zero:
            say(
                "kl is not measured: without an adapter to switch off only the reference's log-probabilities are kept; "
                "reference: copy keeps the model"
            )
            if any(getattr(callback, "monitor", None) == "val/kl" for callback in self.trainer.callbacks):
                raise UserError(
                    "monitor=val/kl, which is not measured here; expected a metric that is, such as val/reward_margin. Choose "
                    "one, or reference: copy."
                )
        self.language.load_restored()

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> None:
        parts = self.chunk_parts.parts(batch, self.part)
        if parts and (step := self.window.backward_parts_and_step(parts)):
            means = {
                name: value / self.window.last_count for name, value in step.items() if name not in ("loss", "grad_norm", "lr")
            }
            self.log_split("train", step | means)

    def part(self, chunk: dict[str, Tensor], share: float = 0.0) -> tuple[Tensor, dict]:
        """Compute the losses (b,) of a chunk's pairs, the router's loss included (ChunkParts), and sums to report."""
        hidden, router = completion_run(self.model, chunk, bool(self.language.router))
        logps, tokens = sequence_sums(self.model, hidden, chunk)  # (b, 2)
        losses, sums = self.losses(logps, self.reference_logps(chunk), tokens)
        return self.chunk_parts.with_router(losses, sums, router, share)

    def losses(self, logps: Tensor, reference: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the losses (b,), and the numbers (b,) to report, from (b, 2) log-probabilities, chosen first."""
        chosen, rejected = (logps - reference).unbind(1)
        lengths = tokens.unbind(1)
        losses = self.loss(chosen, rejected, self.beta, *lengths)
        if self.sft_weight:
            losses = losses - self.sft_weight * logps[:, 0] / lengths[0]
        rewards = self.beta * torch.stack([chosen, rejected], 1).detach()
        margin = rewards[:, 0] - rewards[:, 1]
        reported = {"reward_accuracy": (margin > 0).to(margin.dtype), "reward_margin": margin}
        for i, side in enumerate(("chosen", "rejected")):
            reported |= {f"reward_{side}": rewards[:, i], f"logps_{side}": logps[:, i].detach(), f"tokens_{side}": lengths[i]}
        return losses, {name: value.sum() for name, value in reported.items()} if self.training else reported

    @torch.no_grad()
    def logps(self, chunk: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the log-probabilities of a chunk's completions under the present model; see sequence_logps."""
        return sequence_logps(self.model, chunk)

    def reference_logps(self, chunk: dict[str, Tensor]) -> Tensor:
        """Compute the (b, 2) log-probabilities of the chunk's pairs under the reference."""
        if "reference_chosen" in chunk:
            return torch.stack([chunk["reference_chosen"], chunk["reference_rejected"]], 1).float()
        if self.frozen:
            return sequence_logps(self.frozen[0], chunk)[0]
        assert self.reference != "cached", "pairs without their reference's log-probabilities"
        was_training = self.model.training
        self.model.eval()  # the reference has no dropout
        with self.model.adapter_off():
            logps = self.logps(chunk)[0]
        self.model.train(was_training)
        return logps

    def reference_model(self) -> tuple[CausalLM, contextlib.AbstractContextManager] | None:
        """Give the reference as a model to run within the context; None if only its log-probabilities are there."""
        if self.frozen:
            return self.frozen[0], contextlib.nullcontext()
        start = self.language.start
        if self.language.adapter is not None and start.off_is_base and not start.base_trained:
            return self.model, self.model.adapter_off()
        return None

    @torch.no_grad()
    def evaluate(self, name: str) -> dict[str, float]:
        """Compute the means over the named pairs, which are divided among the ranks."""
        self.tokenise()
        measure_kl = "kl" in self.metrics and self.reference_model() is not None
        values = evaluate_preferences(self, self.trainer.datamodule.tokens[name], measure_kl)
        self.per_query = {metric: values[metric] for metric in METRICS if metric in self.metrics and values[metric]}
        return self.means()

    def kl(self, chunk: dict[str, Tensor]) -> Tensor:
        """Compute KL(π ‖ π_ref), (b,), as the mean over the tokens of both completions of each pair."""
        ours, head = completion_hidden(self.model, chunk), self.model.head
        model, off = self.reference_model()
        with off:
            theirs, reference_head = completion_hidden(model, chunk), model.head
        divergence, pair = kl_divergence(ours, head, theirs, reference_head), chunk["sequence"] // 2
        sums = divergence.new_zeros(len(chunk["number"])).index_add(0, pair, divergence)
        return sums / torch.bincount(pair, minlength=len(sums))

    def means(self) -> dict[str, float]:
        """Return the metrics of the last evaluation."""
        return {name: float(np.mean(list(values.values()))) for name, values in self.per_query.items()}


def sequence_logps(model: CausalLM, chunk: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Compute the log-probabilities of a chunk's completions.

    Args:
        model: policy or reference.
        chunk: of PreferenceBatch, b pairs.

    Returns:
        (b, 2) sums over the completion's tokens, chosen first; and (b, 2) how many tokens there are.
    """
    return sequence_sums(model, completion_hidden(model, chunk), chunk)


def sequence_sums(model: CausalLM, hidden: Tensor, chunk: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Compute `sequence_logps` from hidden states (N, H) that are already there."""
    losses = token_losses(hidden, labels=chunk["label"], **model.head).losses
    pairs = len(chunk["number"])
    sums = losses.new_zeros(2 * pairs).index_add(0, chunk["sequence"], -losses)
    counts = torch.bincount(chunk["sequence"], minlength=2 * pairs).to(losses.dtype)
    return sums.view(pairs, 2), counts.view(pairs, 2)


def completion_hidden(model: CausalLM, chunk: dict[str, Tensor]) -> Tensor:
    """Compute the hidden states (N, H) at the positions that predict a completion token."""
    return completion_run(model, chunk)[0]


def completion_run(model: CausalLM, chunk: dict[str, Tensor], router: bool = False) -> tuple[Tensor, Tensor | None]:
    """Compute `completion_hidden`, and the router's loss if it is requested."""
    places = {name: chunk[name] for name in ("attention_mask", "position_ids") if name in chunk}
    hidden, loss = model.run(chunk["input_ids"], router=router, **places)
    return hidden[chunk["row"], chunk["place"]], loss
