"""What the trainings of causal language models share: the policy on its base, checkpoints without frozen weights, "
"validation."""

from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from research.errors import UserError
from research.losses.language import token_losses
from research.models import adapters
from research.models.adapter_fields import check_fields
from research.models.base_cache import release_cached_base
from research.models.causal_lm import load_causal_lm
from research.models.cpu.dropout import DropoutBits
from research.models.cpu.training import for_training
from research.models.folder import is_without_weights
from research.models.lora import faster_lora
from research.models.partial_tuning import freeze
from research.models.policy import attach_saved, check_base, load_policy, save_policy, take_saved
from research.models.router import router_coefficient
from research.progress import say
from research.runs.hashes import hash_json
from research.training.layouts import packing_is_exact
from research.training.starts import Start, check_reference, check_virtual, start_of
from research.training.validation import together
from research.types import IGNORE

PRECISIONS = ("auto", "fp32", "bf16")
BATCH_TOKENS = 4096  # padded tokens of a validation batch


class Language:
    """A causal language model with what is trained of it.

    Args:
        model: see SFTModule.
        adapter: peft.PeftConfig or None.
        train_layers, train_pattern: partial fine-tuning; see models.partial_tuning.freeze.
        frozen_precision: of the weights under an adapter: "auto", "fp32" or "bf16".
        reference: of DPO; see there.
        init_scale: see models.adapters.attach.

    Raises:
        UserError: a model that cannot be read, or a combination that the guard refuses.
    """

    def __init__(
        self,
        model: str,
        adapter: Any,
        train_layers: int | None,
        train_pattern: str | None,
        frozen_precision: str,
        reference: str | None = None,
        init_scale: float | None = None,
    ):
        if frozen_precision not in PRECISIONS:
            raise UserError(f"frozen_precision={frozen_precision!r}; expected {' | '.join(PRECISIONS)}. Correct it.")
        self.adapter, self.frozen_precision = adapter, frozen_precision
        self.whole = adapter is None and train_layers is None and train_pattern is None
        if adapter is not None:
            check_fields(adapter, (model, str(Path(model).expanduser()), str(Path(model).expanduser().resolve())))
            if adapter.task_type not in (None, "CAUSAL_LM"):
                raise UserError(f"adapter.task_type={adapter.task_type}; expected CAUSAL_LM, what the model is. Correct it.")
        adapters.check(
            adapters.plain(adapter),
            train_layers=train_layers,
            train_pattern=train_pattern,
            reference=reference,
            init_scale=init_scale,
        )
        self.policy = load_policy(model, merge=adapter is not None or not self.whole, trainable=True)
        self.model, self.base_hash = self.policy.model, self.policy.base_hash
        self.start = Start(True, True, False)
        if adapter is not None:
            folder = str(self.policy.base_folder)
            base = None if reference is None or is_without_weights() else self.model.probe()
            self.model.transformer = adapters.attach(self.model.transformer, adapter, folder, init_scale)
            if self.model.virtual_tokens and not is_without_weights():
                check_virtual(self.model)
            if base is not None:
                self.start = start_of(self.model, base)
                check_reference(reference, self.start, adapters.plain(adapter))
        elif not self.model.adapted:
            freeze(self.model.transformer, train_layers, train_pattern)
        if self.model.adapted:
            self.model.check_head()  # an adapter can change the output layer too
        self.router = router_coefficient(self.model.base)
        release_cached_base(self.model, changed=False)
        self.model.train()
        self.continued = adapter is None and self.model.adapted
        self.restored: Path | None = None

    def restore(self, folder: Path) -> None:
        """Have `go_on` take the weights of a saved policy: what was loaded before it is still needed for a reference.

        Raises:
            UserError: an adapter that was trained on another base.
        """
        check_base(folder, self.base_hash)
        self.restored = folder

    def go_on(self) -> None:
        """
        Raises:
            UserError: the saved policy does not fit.
        """
        if self.restored is None:
            return
        transformer = self.model.transformer
        if self.model.adapted:
            if adapters.plain(transformer.active_peft_config)["peft_type"] == adapters.LORA:
                take_saved(self.model, self.restored)  # the base stays as the initialisation left it
            else:
                self.model.transformer = transformer.get_base_model()
                attach_saved(self.model, self.restored)
        else:
            saved = load_causal_lm(self.restored).transformer.state_dict()
            transformer.load_state_dict({name: saved[name] for name in transformer.state_dict()})
        self.model.to(next(transformer.parameters()).device)

    @property
    def reference_hash(self) -> str:
        """Of the model as it was loaded: the base, and the adapter that is trained on."""
        return hash_json([self.base_hash, self.policy.adapter_hash if self.continued else None])

    def check(self, max_length: int, packing: bool) -> None:
        """The guard, with what the data are.

        Raises:
            UserError: lengths beyond the context, or packing with virtual tokens.
        """
        config = self.model.transformer.active_peft_config if self.model.adapted else None
        positions = self.model.positions
        if max_length > positions:
            raise UserError(
                f"max_length={max_length} does not fit the model's context of {positions} tokens; expected that "
                "or fewer. Lower data.max_length."
            )
        adapters.check(adapters.plain(config), context=positions, max_length=max_length, packing=packing)
        if packing and not packing_is_exact(self.model):
            raise UserError(
                f"packing: in {type(self.model.base).__name__} a text in one row with another has other numbers "
                "than "
                "alone (its positions or its memory do not begin anew); expected packing: false. Batches are "
                "sorted "
                "by length, so little is lost."
            )

    def place(self, trainer: L.Trainer, stage: str, fast: bool) -> DropoutBits | None:
        """The base under an adapter in its precision, and the CPU's cheaper parts; the generator of its dropout masks.

        Only under an adapter: a partly trained model is saved whole, and must not lose digits where it is frozen.
        """
        bf16 = self.frozen_precision == "bf16" or (self.frozen_precision == "auto" and trainer.precision == "bf16-mixed")
        if bf16 and trainer.precision != "bf16-mixed" and (self.adapter and getattr(self.adapter, "modules_to_save", None)):
            raise UserError(
                f"frozen_precision=bf16 with modules_to_save under {trainer.precision}: the saved modules are "
                "float32, "
                "and nothing casts between them; expected trainer.precision: bf16-mixed, or frozen_precision: "
                "fp32. "
                "Choose one."
            )
        if bf16 and self.model.adapted:
            for parameter in self.model.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(torch.bfloat16)
        if self.model.adapted:
            faster_lora(self.model)
        if stage != "fit" or trainer.strategy.root_device.type != "cpu" or not fast:
            return None
        return for_training(self.model)

    def describe(self) -> dict:
        """Trained parameters by kind, effective scale, virtual tokens, and bytes of the adapter."""
        counted = adapters.parts(self.model.transformer)
        kept = counted.adapter + counted.saved_modules
        return {
            "trained_parameters": counted.trained,
            "adapter_parameters": counted.adapter,
            "saved_module_parameters": counted.saved_modules,
            "base_parameters_trained": counted.base,
            "parameters": counted.total,
            "effective_scale": adapters.effective_scale(self.adapter),
            "virtual_tokens": self.model.virtual_tokens,
            "adapter_bytes": 4 * kept,
        }

    def shrink(self, checkpoint: dict, module: nn.Module) -> None:
        """Leave frozen weights out of a checkpoint: they are the base's, whose hash stands in for them."""
        trained = {name for name, p in module.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {name: v for name, v in checkpoint["state_dict"].items() if name in trained}
        checkpoint["base_hash"] = self.reference_hash

    def accept(self, checkpoint: dict) -> None:
        """
        Raises:
            UserError: the checkpoint was trained on another base.
        """
        if checkpoint.get("base_hash") != self.reference_hash:
            raise UserError(
                f"the checkpoint was trained on a base of hash {str(checkpoint.get('base_hash'))[:12]}…, expected "
                f"{self.reference_hash[:12]}…, this model's. Name the model that it was trained on."
            )

    def save(self, folder: Path) -> None:
        save_policy(self.model, folder, self.policy)


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
        """Mean over all labelled tokens."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def accuracy(self) -> float:
        return float(self.correct.sum() / self.tokens.sum())

    def per_example(self) -> dict[str, dict[str, float]]:
        """{metric: {example: value}}; an example's loss is the mean over its own tokens."""
        values = {"loss": self.nll / self.tokens, "token_accuracy": self.correct / self.tokens}
        return {name: dict(zip(self.ids, map(float, column), strict=True)) for name, column in values.items()}


@torch.no_grad()
def evaluate_tokens(module: L.LightningModule, data: Any) -> Measured:
    """Losses of tokenised examples, without label smoothing; ranks share them.

    Args:
        module: with a CausalLM as `model`.
        data: data.instructions.Tokenised.
    """
    rank, world, device = module.trainer.global_rank, module.trainer.world_size, module.device
    mine = data.rows[rank::world]
    out = np.zeros((len(mine), 3))
    order = sorted(range(len(mine)), key=lambda i: -len(mine[i]["input_ids"]))
    pad = module.model.pad_token_id
    while order:
        longest = min(-(-len(mine[order[0]]["input_ids"]) // 16) * 16, module.model.positions - module.model.virtual_tokens)
        count = max(1, BATCH_TOKENS // longest)
        chosen, order = order[:count], order[count:]
        batch = {name: value.to(device) for name, value in padded([mine[i] for i in chosen], pad, longest).items()}
        at = module.model.labelled(**batch)
        tokens = token_losses(at.hidden, labels=at.labels, **module.model.head)
        columns = torch.stack([tokens.nll.double(), torch.ones_like(tokens.nll).double(), tokens.correct.double()], 1)
        sums = torch.zeros(len(chosen), 3, dtype=torch.float64, device=device).index_add_(0, at.rows, columns)
        out[chosen] = sums.cpu().numpy()
    rows = together(module, out, len(data.rows))
    return Measured(rows[:, 0], rows[:, 1], rows[:, 2], [str(i) for i in data.index])


def padded(rows: list[dict], pad: int, length: int) -> dict[str, Tensor]:
    """Token rows as (b, length) tensors, padded on the right."""
    ids = torch.tensor([row["input_ids"] + [pad] * (length - len(row["input_ids"])) for row in rows])
    labels = torch.tensor([row["labels"] + [IGNORE] * (length - len(row["labels"])) for row in rows])
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return {"input_ids": ids, "labels": labels, "attention_mask": (torch.arange(length) < lengths[:, None]).long()}


def real_tokens(chunk: dict[str, Tensor]) -> Tensor:
    """Tokens of a chunk, padding not counted: in a row of several texts, of two tokens or more, it has position 0."""
    if "attention_mask" in chunk:
        return chunk["attention_mask"].sum()
    return (chunk["position_ids"] > 0).sum() + (chunk["position_ids"] == 1).sum()


def say_steps(trainer: L.Trainer, data: Any) -> None:
    """Say how many steps the rows make, where a good part of them is left out of each epoch."""
    rows, step = len(data.dataset), data.batch_size * trainer.world_size
    if data.drop_last and rows % step and trainer.is_global_zero and rows % step > rows / 10:
        say(
            f"{rows} rows make {rows // step} micro-batches of {step} an epoch, and {rows % step} are left out "
            "(data.drop_last); lower "
            "data.batch_size to use more"
        )
