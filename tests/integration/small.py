"""One small training, in this process or as a rank of DDP (ranks.py)."""

import signal
from pathlib import Path

import lightning as L
import torch


class StopAt(L.Callback):
    """Sends the stop signal during step `step`, as a cluster would."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if trainer.global_step == self.step - 1:
            signal.raise_signal(signal.SIGTERM)


class Training:
    """One small training that can be stopped and resumed.

    Args:
        kind: "dual_encoder" | "cross_encoder" | "sft" | "dpo".
        model: folder of the tiny model.
        folder: `training_data`.
        out: run folder.
        options: `module`, `data`, `trainer`: changes to the arguments; `accumulate`, `clip` of the optimisation; of a language
            model its `adapter`.
    """

    def __init__(self, kind: str, model: Path, folder: Path, out: Path, **options):
        self.kind, self.model, self.folder, self.out, self.options = kind, model, folder, out, options
        self.out.mkdir(parents=True, exist_ok=True)

    def parts(self) -> tuple[L.LightningModule, L.LightningDataModule]:
        from research.training.optimisation import Optimisation

        torch.manual_seed(0)
        settings = {
            "optimisation": Optimisation(
                lr=1e-3, accumulate=self.options.get("accumulate", 1), clip=self.options.get("clip", 1.0)
            )
        }
        settings |= {"model": str(self.model)} | self.options.get("module", {})
        if self.kind in ("sft", "dpo"):
            return self.language(settings)
        source = {"val": f"beir:{self.folder}", "val_split": "dev", "batch_size": 4, **self.options.get("data", {})}
        if self.kind == "dual_encoder":
            from research.data.pairs import PairData
            from research.training.dual_encoder import DualEncoderModule

            train = {"train": str(self.folder / "triplets.jsonl"), "hard_negatives": 1}
            settings = {"learn_temperature": True} | settings
            return DualEncoderModule(**settings), PairData(**(train | source))
        from research.data.candidates import CandidateData
        from research.training.cross_encoder import CrossEncoderModule

        train = {"train": str(self.folder / "triplets.jsonl"), "val_run": str(self.folder / "dev.trec"), "group_size": 4}
        return CrossEncoderModule(**settings), CandidateData(**(train | source))

    def language(self, settings: dict) -> tuple[L.LightningModule, L.LightningDataModule]:
        import peft

        # a configuration of its own for each run: PEFT writes into it
        adapters = {
            "lora": lambda: peft.LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"),
            "prefix": lambda: peft.PrefixTuningConfig(
                num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8, task_type="CAUSAL_LM"
            ),
            "still": lambda: peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
            "full": lambda: None,
        }
        settings = {"adapter": adapters[self.options.get("adapter", "lora")]()} | settings
        files = {name: str(self.folder / f"{self.kind}{part}.jsonl") for name, part in (("train", ""), ("val", "-val"))}
        files |= {"train_split": None, "val_split": None, "max_length": 256, "batch_size": 4, **self.options.get("data", {})}
        if self.kind == "sft":
            from research.data.instructions import InstructionData
            from research.training.sft import SFTModule

            return SFTModule(**settings), InstructionData(**files)
        from research.data.preferences import PreferenceData
        from research.training.dpo import DPOModule

        return DPOModule(**settings), PreferenceData(**files)

    @property
    def monitor(self) -> tuple[str, bool]:
        """What the best model is chosen by, and whether lower is better."""
        return {"sft": ("val/loss", True), "dpo": ("val/reward_margin", False)}.get(self.kind, ("val/mrr@10", False))

    def run(self, stop: int | None = None, every: int = 10**9, callbacks: tuple = ()) -> L.LightningModule:
        """Train (on from the last checkpoint, if there is one) to the end, or to step `stop`."""
        from research.training.best_model import BestModel
        from research.training.curves import Curves
        from research.training.resume import Resume, Stopped, last_checkpoint

        module, data = self.parts()
        checkpoint = last_checkpoint(self.out)
        extra = [StopAt(stop)] if stop else []
        trainer = L.Trainer(
            logger=[Curves(self.out)],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[*extra, *callbacks, BestModel(self.out, *self.monitor), Resume(self.out, every)],
            **({"accelerator": "cpu", "max_epochs": 3, "val_check_interval": 3} | self.options.get("trainer", {})),
        )
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint and str(checkpoint), weights_only=True)
        except Stopped:
            assert stop, "nobody asked to stop"
            assert trainer.global_step == stop
        else:
            assert not stop, "it was to stop"
        return module

    def curve(self) -> list[dict]:
        from research.runs.curves import read_lines

        return [{name: value for name, value in line.items() if name != "seconds"} for line in read_lines(self.out)]


class KeepGradients(L.Callback):
    """Writes the gradients of the first optimizer step, as the optimizer gets them."""

    def __init__(self, path: Path):
        self.path = path

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        if trainer.is_global_zero and trainer.global_step == 0:
            torch.save({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}, self.path)
