"""Common parts of the trainings of causal language models: the policy on its base, and checkpoints without frozen weights.

Longer than most files: loading, placing, saving and restoring a policy have one order, which is read here in one place.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from peft import PeftConfig
from torch import Tensor, nn

from research.errors import UserError, did_you_mean
from research.models import adapters
from research.models.adapter_fields import check_fields
from research.models.base_cache import release_cached_base
from research.models.causal_lm import load_causal_lm
from research.models.cpu.dropout import DropoutBits
from research.models.folder import is_without_weights
from research.models.lora import faster_lora
from research.models.partial_tuning import freeze
from research.models.policy import attach_saved, check_base, load_policy, save_policy, take_saved
from research.models.router import router_coefficient
from research.models.training import cheaper_parts
from research.progress import say
from research.runs.hashes import hash_json
from research.training.base import TrainingModule
from research.training.optimisation import Optimisation
from research.training.packing import packing_is_exact
from research.training.starts import Start, check_reference, check_virtual, start_of
from research.training.step import ChunkParts

Precision = Literal["auto", "fp32", "bf16"]
"""Of the weights under an adapter."""


class Language:
    """A causal language model with what is trained of it.

    Args:
        model: see SFTModule.
        adapter: None for full or partial fine-tuning.
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
        adapter: PeftConfig | None,
        train_layers: int | None,
        train_pattern: str | None,
        frozen_precision: Precision,
        reference: str | None = None,
        init_scale: float | None = None,
    ):
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
        """Have `load_restored` take the weights of a saved policy: what was loaded before it is still needed for a reference.

        Raises:
            UserError: an adapter that was trained on another base.
        """
        check_base(folder, self.base_hash)
        self.restored = folder

    def load_restored(self) -> None:
        """Take the weights of the policy to be restored, if there is one.

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
        """Return the hash of the model as it was loaded: of the base, and of the adapter that is trained on."""
        return hash_json([self.base_hash, self.policy.adapter_hash if self.continued else None])

    def check(self, max_length: int, packing: bool) -> None:
        """Check the data's lengths and packing against the model.

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
        """Set the precision of the base under an adapter and the device's cheaper parts; return the generator of dropout masks.

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
        return cheaper_parts(self.model, trainer.strategy.root_device.type) if stage == "fit" and fast else None

    def describe(self) -> dict:
        """Return trained parameters by kind, effective scale, virtual tokens, and bytes of the adapter."""
        counted = adapters.parts(self.model.transformer)
        saved = counted.adapter + counted.saved_modules
        return {
            "trained_parameters": counted.trained,
            "adapter_parameters": counted.adapter,
            "saved_module_parameters": counted.saved_modules,
            "base_parameters_trained": counted.base,
            "parameters": counted.total,
            "effective_scale": adapters.effective_scale(self.adapter),
            "virtual_tokens": self.model.virtual_tokens,
            "adapter_bytes": 4 * saved,
        }

    def shrink(self, checkpoint: dict, module: nn.Module) -> None:
        """Leave frozen weights out of a checkpoint: they are the base's, whose hash stands in for them."""
        trained = {name for name, p in module.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {name: v for name, v in checkpoint["state_dict"].items() if name in trained}
        checkpoint["base_hash"] = self.reference_hash

    def accept(self, checkpoint: dict) -> None:
        """Check a checkpoint against the base.

        Raises:
            UserError: the checkpoint was trained on another base.
        """
        if checkpoint.get("base_hash") != self.reference_hash:
            raise UserError(
                f"the checkpoint was trained on a base of hash {str(checkpoint.get('base_hash'))[:12]}…, expected "
                f"{self.reference_hash[:12]}…, this model's. Name the model that it was trained on."
            )

    def save(self, folder: Path) -> None:
        """Write the model, or its adapter, into a folder."""
        save_policy(self.model, folder, self.policy)


class LanguageModule(TrainingModule):
    """A trainer of a causal language model.

    Args:
        language: the model, and what is trained of it.
        loss_count: losses of a chunk, before they are computed.
        optimisation, metrics, fast, seed: see TrainingModule.
    """

    def __init__(
        self,
        language: Language,
        loss_count: Callable[[dict[str, Tensor]], int],
        optimisation: Optimisation,
        metrics: list[str],
        fast: bool,
        seed: int,
    ):
        super().__init__(optimisation, metrics, fast, seed)
        self.strict_loading = False  # frozen weights are not in the checkpoint
        self.language = language
        self.model, self.base_hash = language.model, language.reference_hash
        self.chunk_parts = ChunkParts(self.window, language.router, loss_count)

    @classmethod
    def check_metrics(cls, metrics: list[str]) -> None:
        """Refuse a metric that the validation does not measure.

        Raises:
            UserError: a metric that the validation does not measure.
        """
        for name in metrics:
            if name not in cls.directions:
                raise UserError(
                    f"metric {name!r} is not known here; expected {', '.join(cls.directions)}."
                    f"{did_you_mean(name, cls.directions)} Correct model.metrics."
                )

    def prepare(self, data: L.LightningDataModule) -> list[str]:
        """Tokenise the data; return how many rows are cut or dropped."""
        notes = data.prepare(self.model.tokenizer)
        self.check(data)
        return notes

    def check(self, data: L.LightningDataModule) -> None:
        """Refuse data whose lengths or packing do not fit the model, before its parts are replaced by faster ones.

        Raises:
            UserError: they do not.
        """
        self.language.check(data.max_length, getattr(data, "packing", False))

    def tokenise(self) -> None:
        """Tokenise what the trainer's data have read since, and report what was cut."""
        notes = self.trainer.datamodule.prepare(self.model.tokenizer)
        for note in notes if self.trainer.is_global_zero else ():
            say(note)

    def restore(self, folder: Path) -> None:
        """Take the trained weights of a run's model/, once a reference is known."""
        self.language.restore(folder)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        self.language.shrink(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.language.accept(checkpoint)

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT loads it, or the whole model as transformers does."""
        self.language.save(folder)


def say_steps(trainer: L.Trainer, data: L.LightningDataModule) -> None:
    """Print how many steps the rows make, if many of the rows are left out of each epoch."""
    rows, step = len(data.dataset), data.batch_size * trainer.world_size
    if data.drop_last and rows % step and trainer.is_global_zero and rows % step > rows / 10:
        say(
            f"{rows} rows make {rows // step} micro-batches of {step} an epoch, and {rows % step} are left out "
            "(data.drop_last); lower "
            "data.batch_size to use more"
        )
