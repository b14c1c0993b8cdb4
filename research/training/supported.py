"""Refuses parts of Lightning that the optimisation here does not support.

They are judged by the classes that a configuration names, and by the Trainer once it is made, since plugins, strategies and
callbacks bring in what no option of its own says.
"""

from collections.abc import Iterable, Mapping

import lightning as L
import torch
from lightning.pytorch import callbacks, strategies
from lightning.pytorch.plugins import CheckpointIO, DoublePrecision, MixedPrecision, Precision
from torch import nn

from research.errors import UserError, did_you_mean
from research.types import Direction

MODES: dict[Direction | None, str] = {"lower": "min", "higher": "max"}
"""Better side → what Lightning calls it."""
PLUGINS = (Precision, MixedPrecision, DoublePrecision)
COMPUTED = {"32-true": (torch.float32, None), "bf16-mixed": (torch.float32, torch.bfloat16), "64-true": (torch.float64, None)}
"""Precision → type of the weights, type that autocast computes in."""
INSTEAD = {
    callbacks.GradientAccumulationScheduler: "model.optimisation.accumulate, which weighs every example of a step alike",
    callbacks.BatchSizeFinder: "data.batch_size, one for the whole training",
    callbacks.LearningRateFinder: "model.optimisation.lr, whose schedule is known before the first step",
    callbacks.ModelPruning: "weights under their own names: what it saves has others, and loads as new ones",
    callbacks.ModelCheckpoint: "save_every for checkpoints that a run goes on from, and monitor for the best model",
    callbacks.OnExceptionCheckpoint: "save_every: a run goes on from its last checkpoint",
    callbacks.ModelSummary: "the line that fit says of what is trained: stdout carries results only",
    callbacks.ProgressBar: "the bar that fit shows on stderr: stdout carries results only",
}
"""Callbacks that do what an option of this tool does, or undo it."""
GRADIENTS = ("mixed_precision", "delay_all_reduce_named_params", "param_to_hook_all_reduce", "skip_all_reduce_unused_params")
"""Arguments of DistributedDataParallel that change which gradients are exchanged, or in which precision."""


def check_named(classes: Iterable[type]) -> None:
    """Refuse plugins and callbacks by what they are, before they are made: some cannot be without packages of their own.

    Raises:
        UserError: one that the optimisation does not go with.
    """
    for kind in classes:
        if issubclass(kind, Precision) and kind not in PLUGINS:
            raise _precision(kind.__name__)
        if issubclass(kind, CheckpointIO):
            raise UserError(
                f"trainer.plugins: {kind.__name__} writes checkpoints; expected none, since this tool writes its "
                "own, completely or not at all. Leave it out; save_every says how often."
            )
        for refused, instead in INSTEAD.items():
            if issubclass(kind, refused):
                raise UserError(
                    f"trainer.callbacks: {kind.__name__} does not go with this optimisation; expected {instead}. Leave it out."
                )


def check_trainer(trainer: L.Trainer) -> None:
    """Refuse a Trainer that would compute something else than its configuration says.

    Raises:
        UserError: precision or strategy that the optimisation does not go with.
    """
    plugin, strategy = trainer.precision_plugin, trainer.strategy
    if type(strategy) not in (strategies.SingleDeviceStrategy, strategies.DDPStrategy):
        raise UserError(
            f"trainer.strategy makes a {type(strategy).__name__}; expected one device, or ddp: gradients are "
            "summed, counted and clipped whole here. Choose auto or ddp, on cpu or gpu."
        )
    if type(plugin) not in PLUGINS or COMPUTED.get(trainer.precision) != _computes(plugin, strategy.root_device.type):
        raise _precision(f"{type(plugin).__name__} ({trainer.precision}) on {strategy.root_device.type}")
    if isinstance(strategy, strategies.DDPStrategy):
        given = [name for name in GRADIENTS if strategy._ddp_kwargs.get(name)]
        given += [name for name in ("ddp_comm_hook", "model_averaging_period") if getattr(strategy, f"_{name}") is not None]
        given += ["start_method"] if strategy._start_method != "popen" else []
        if given:
            raise UserError(
                f"trainer.strategy: {', '.join(given)} of DDPStrategy; expected none: gradients are summed over "
                "ranks as they are, every step, and processes start as commands. Leave it out."
            )


def check_monitors(trainer: L.Trainer, directions: Mapping[str, Direction | None]) -> None:
    """Refuse early stopping on what is never measured, or on the wrong side.

    The former would end the training after its first validation.

    Args:
        trainer: with all its callbacks.
        directions: metric of the validation → which side of it is better; None: the callback's mode says it.

    Raises:
        UserError: such a callback.
    """
    for callback in (each for each in trainer.callbacks if isinstance(each, callbacks.EarlyStopping)):
        if callback.monitor not in directions and callback.strict and not str(callback.monitor).startswith("train/"):
            raise UserError(
                f"trainer.callbacks: EarlyStopping of {callback.monitor!r}, which is not computed; expected one of "
                f"{', '.join(directions) or 'the metrics of a validation, and there is none'}."
                f"{did_you_mean(callback.monitor, directions)} Correct its monitor, or leave it out."
            )
        mode = MODES.get(directions.get(str(callback.monitor)), callback.mode)
        if callback.mode != mode:
            raise UserError(
                f"trainer.callbacks: EarlyStopping of {callback.monitor} with mode {callback.mode!r} ends a training "
                f"that gets better; expected {mode!r}. Set its mode: {mode}."
            )


def _computes(plugin: Precision, device: str) -> tuple[torch.dtype, torch.dtype | None]:
    """Try out to which type the plugin converts a layer's weights, and in which type autocast computes on the device."""
    weights = plugin.convert_module(nn.Linear(1, 1)).weight.dtype
    with plugin.forward_context():
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return weights, autocast


def _precision(what: str) -> UserError:
    return UserError(
        f"trainer.plugins or trainer.strategy bring in {what}; expected {', '.join(COMPUTED)}, the device's own: "
        "fp16 scales gradients, and clipping would see the scale; steps on narrow weights are lost in rounding. "
        "Leave it out, and set trainer.precision: bf16-mixed."
    )
