"""Compares what a configuration asked for with what was computed and written, before the first step and at the end.

A difference is a bug of this tool (a rule of one mode that acts in another, a value that stands in two places), which no loss
curve shows. Before the first step nothing is lost by stopping; later the training goes on, and its run is not called finished.
Longer than most files: all values that are compared, and where each is taken from, are read here side by side.
"""

import dataclasses
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import BaseFinetuning, StochasticWeightAveraging

from research.models.adapters import effective_scale
from research.runs.curves import read_lines
from research.training.optimisation import rate, total_steps
from research.types import CandidateBatch, InstructionBatch, PairBatch, PreferenceBatch


class Difference(NamedTuple):
    """One value that differs: as the configuration has it, and as it was used."""

    name: str
    asked: object
    used: object

    def __str__(self) -> str:
        return f"{self.name} was asked as {self.asked}, and {self.used} was used"


class InvariantError(AssertionError):
    """Differences that are known before the first step."""

    def __init__(self, differences: list[Difference]):
        super().__init__("; ".join(map(str, differences)))
        self.differences = differences


class Invariants(L.Callback):
    """Watches a training; `differences` and `check` report where it differed from what was asked for.

    Args:
        resolved: the configuration with every default, as config.yaml has it.
    """

    def __init__(self, resolved: dict):
        self.seed, self.trainer = resolved["seed_everything"], resolved["trainer"]
        self.model, self.data = resolved["model"]["init_args"], resolved["data"]["init_args"]
        self.optimisation = self.model.get("optimisation") or {}
        self.differences: list[Difference] = []
        self.micro = 0  # micro-batches of the open step
        self.steps: int | None = None  # of the whole training
        self.parameters: int | None = None  # that are trained
        self.ended_early = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Compare what is used with what was asked for, before the first step.

        Raises:
            InvariantError: something is not what was asked for.
        """
        self.steps = total_steps(trainer, module.settings.accumulate)
        self.parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        if differences := [each for each in self._at_start(trainer, module) if not _same(each.asked, each.used)]:
            raise InvariantError(differences)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs, batch, batch_idx) -> None:
        rows, wanted = rows_of(batch), self.data.get("batch_size")
        if rows is not None and rows != wanted and not trainer.is_last_batch:
            self._add(Difference("data.batch_size", wanted, rows))
        self.micro += 1
        if not module.window.open:
            if self.micro != (wanted := self.optimisation.get("accumulate", self.micro)) and not trainer.is_last_batch:
                self._add(Difference("model.optimisation.accumulate", wanted, self.micro))
            self.micro = 0

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.ended_early = trainer.should_stop

    def check(self, out: Path, metrics: dict, trainer: L.Trainer, module: L.LightningModule, higher: bool) -> list[Difference]:
        """List every difference of a training that has ended.

        Args:
            out: its folder.
            metrics: its metrics.json.
            higher: whether a higher value of the monitor is better.
        """
        curves = [logger for logger in trainer.loggers if getattr(logger, "lost", False)]
        lines = [] if curves else read_lines(out)  # a disk that did not take them is no bug
        for difference in self._at_end(lines, metrics, trainer, module, higher):
            if not _same(difference.asked, difference.used):
                self._add(difference)
        return self.differences

    def _add(self, difference: Difference) -> None:
        if all(difference.name != known.name for known in self.differences):  # the first of each kind
            self.differences.append(difference)

    def _at_start(self, trainer: L.Trainer, module: L.LightningModule) -> Iterator[Difference]:
        data, sampler = trainer.datamodule, trainer.datamodule.sampler
        for where, used in (("the model", module.seed), ("the data", data.seed), ("their order", sampler.seed)):
            yield Difference(f"seed_everything (of {where})", self.seed, used)
        precision = self.trainer.get("precision")
        if precision is None and not self.trainer.get("plugins") and isinstance(self.trainer.get("strategy"), str):
            precision = "32-true"
        yield Difference("trainer.precision", precision or trainer.precision, trainer.precision)
        wide = torch.float64 if trainer.precision == "64-true" else torch.float32
        yield Difference("the precision of trained weights", {wide}, _types(module, trained=True))
        frozen = self.model.get("frozen_precision")
        adapted = hasattr(module, "language") and module.model.adapted
        narrow = adapted and (frozen == "bf16" or (frozen == "auto" and trainer.precision == "bf16-mixed"))
        if frozen_types := _types(module, trained=False):
            yield Difference("the precision of frozen weights", {torch.bfloat16 if narrow else wide}, frozen_types)
        devices = self.trainer.get("devices")
        devices = len(devices) if isinstance(devices, list) else devices
        if isinstance(devices, int) and devices > 0:
            yield Difference("trainer.devices × num_nodes", devices * self.trainer.get("num_nodes", 1), trainer.world_size)
        if "batch_size" in self.data:
            asked = self.data["batch_size"] * self.optimisation.get("accumulate", 1) * trainer.world_size
            yield Difference("examples of a step", asked, sampler.global_batch * module.window.settings.accumulate)
        for name in ("max_steps", "max_epochs"):
            if (asked := self.trainer.get(name)) is not None:
                yield Difference(f"trainer.{name}", asked, getattr(trainer, name))
        for name, asked in self.optimisation.items():
            yield Difference(f"model.optimisation.{name}", asked, dataclasses.asdict(module.window.settings).get(name))
        if self._steps_as_ours(trainer, module):
            yield from self._of_optimizer(trainer.optimizers[0], module)
        yield from self._of_adapter(module)
        if "temperature" in self.model and (trainer.global_step == 0 or not self.model["learn_temperature"]):
            yield Difference("model.temperature", self.model["temperature"], float(module.log_temperature.detach().exp()))

    def _of_optimizer(self, optimizer: torch.optim.Optimizer, module: L.LightningModule) -> Iterator[Difference]:
        asked = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
        used = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [name for key, name in asked.items() if key not in used]
        yield Difference("the optimizer's parameters (missing, added)", ([], 0), (missing[:3], len(used - asked.keys())))
        for group in optimizer.param_groups:
            alone = [asked.get(id(p)) for p in group["params"]] == ["log_temperature"]
            lr = self.model.get("temperature_lr") if alone else self.optimisation["lr"]
            yield Difference("the learning rate at its peak", lr, group.get("initial_lr", group["lr"]))
            decay = self.optimisation["weight_decay"] if any(p.ndim > 1 for p in group["params"]) else 0.0
            for name, wanted in (
                ("weight_decay", decay),
                ("betas", self.optimisation["betas"]),
                ("eps", self.optimisation["eps"]),
            ):
                yield Difference(f"the optimizer's {name}", wanted, group[name])

    def _of_adapter(self, module: L.LightningModule) -> Iterator[Difference]:
        adapter = self.model.get("adapter") or {}
        asked = adapter.get("init_args") or {}
        if adapter.get("class_path") == "peft.LoraConfig":
            layers = [
                layer
                for layer in module.modules()
                if (getattr(layer, "lora_A", None) or getattr(layer, "lora_embedding_A", None))
                and not hasattr(layer, "parameter_name")  # of experts in one tensor, which PEFT gives an r of their own
            ]
            if not asked.get("rank_pattern"):
                yield Difference("adapter.r", {asked["r"]}, {r for layer in layers for r in layer.r.values()})
                if not asked.get("alpha_pattern"):
                    scale = effective_scale({**asked, "peft_type": "LORA"})
                    yield from (
                        Difference("lora_alpha / r", scale, value) for layer in layers for value in layer.scaling.values()
                    )
        if "num_virtual_tokens" in asked and hasattr(module.model, "virtual_tokens"):
            yield Difference("adapter.num_virtual_tokens", asked["num_virtual_tokens"], module.model.virtual_tokens)

    def _at_end(
        self, lines: list[dict], metrics: dict, trainer: L.Trainer, module: L.LightningModule, higher: bool
    ) -> Iterator[Difference]:
        steps = [line for line in lines if "train/loss" in line]
        numbers = [line["step"] for line in steps]  # some are missing where a disk has not taken them
        in_order = all(a < b for a, b in pairwise([0, *numbers, metrics["steps"] + 1]))
        yield Difference(
            "the steps of the curve", f"1 to {metrics['steps']}", f"1 to {metrics['steps'] if in_order else numbers}"
        )
        if self.steps is not None and not self.ended_early:
            yield Difference("steps of the training", self.steps, metrics["steps"])
        if self.steps is not None and self._steps_as_ours(trainer, module):
            warmup = round(self.optimisation["warmup"] * self.steps)
            for line in steps:
                share = rate(line["step"] - 1, self.steps, warmup, self.optimisation["decay"])
                yield Difference(f"the learning rate at step {line['step']}", self.optimisation["lr"] * share, line["train/lr"])
        if "temperature" in self.model:
            yield from self._of_temperature([line["train/temperature"] for line in steps] + [metrics["temperature"]])
        if self.parameters is not None and not any(isinstance(callback, BaseFinetuning) for callback in trainer.callbacks):
            recorded = (metrics.get("trained") or {}).get("trained_parameters", self.parameters)
            now = sum(p.numel() for p in module.parameters() if p.requires_grad)
            yield Difference("the number of trained parameters", [self.parameters] * 2, [recorded, now])
        yield from self._of_selection(lines, metrics, higher)

    def _of_temperature(self, values: list[float]) -> Iterator[Difference]:
        low, high = self.model["temperature_range"]
        for value in values:
            asked = self.model["temperature"]
            if self.model["learn_temperature"]:
                asked = min(max(value, low), high)
            yield Difference("model.temperature", asked, value)

    def _of_selection(self, lines: list[dict], metrics: dict, higher: bool) -> Iterator[Difference]:
        """Check that the kept model is the best of the curve, and that metrics.json has its numbers."""
        monitor = metrics["monitor"]
        validated = [(line["step"], line[monitor]) for line in lines if monitor in line and line["step"] > 0]
        if not validated:
            return
        recorded = metrics["metrics"][monitor.removeprefix("val/")]
        recorded = math.nan if recorded is None else recorded
        there = [value for step, value in validated if step == metrics["step"]]
        if there and not any(_same(value, recorded) for value in there):
            yield Difference(f"{monitor} of the kept model", there[-1], recorded)
        finite = [value for value in (recorded, *(value for _, value in validated)) if math.isfinite(value)]
        if finite:
            yield Difference(f"the best {monitor}", (max if higher else min)(finite), recorded)

    @staticmethod
    def _steps_as_ours(trainer: L.Trainer, module: L.LightningModule) -> bool:
        """Return whether optimizer and schedule are ours: a subclass may make others, and averaging changes the schedule."""
        averaged = any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks)
        return not averaged and type(module).configure_optimizers.__module__.startswith("research.training.")


def rows_of(batch: object) -> int | None:
    """Count the examples of a micro-batch (rows, where packed); None of packed rows end to end, which do not say how many."""
    if isinstance(batch, PairBatch):
        return len(batch.positive_ids)
    if isinstance(batch, CandidateBatch):
        return len(batch.labels)
    if isinstance(batch, PreferenceBatch):
        return sum(len(chunk["number"]) for chunk in batch.chunks)
    if isinstance(batch, InstructionBatch):
        rows = sum(len(chunk["input_ids"]) for chunk in batch.chunks)
        return None if rows == 1 and "position_ids" in batch.chunks[0] else rows
    return None


def _types(module: L.LightningModule, trained: bool) -> set[torch.dtype]:
    return {p.dtype for p in module.parameters() if p.requires_grad == trained and p.is_floating_point()}


def _same(asked: object, used: object) -> bool:
    """Return whether two values are equal, numbers up to float32's rounding."""
    if isinstance(asked, list | tuple) and isinstance(used, list | tuple):
        return len(asked) == len(used) and all(map(_same, asked, used))
    if isinstance(asked, float) and isinstance(used, int | float):
        return math.isclose(asked, used, rel_tol=1e-5) or (math.isnan(asked) and math.isnan(used))
    return asked == used
