"""The metric that decides which weights become model/: checks that it is measured, and which side is better."""

import jsonargparse
import lightning as L

from research.errors import UserError, did_you_mean
from research.runs.defaults import imported
from research.training.base import TrainingModule
from research.types import Direction

SIDES: dict[str, Direction] = {"min": "lower", "max": "higher"}
"""Values of `mode` → the better side of the monitor."""


def check_monitor(
    config: jsonargparse.Namespace, kind: type[TrainingModule], metrics: list[str] | None, data: L.LightningDataModule
) -> None:
    """Refuse a training whose monitor is not measured, so that no best model could be chosen.

    Args:
        config: of the training.
        kind: class of the LightningModule.
        metrics: of its validation; None where the class has no such option: it says them once it is made.
        data: that it is validated on.

    Raises:
        UserError: nothing is measured, or not what makes the best model.
    """
    if metrics is None:
        return
    if not metrics:
        raise UserError("model.metrics is empty; expected one or more, for example mrr@10. Name one.")
    known = [f"val/{name}" for name in metrics]
    if config.monitor not in known and "val" in data.collections:
        raise UserError(
            f"monitor={config.monitor!r} is not computed; expected one of {', '.join(known)}."
            f"{did_you_mean(config.monitor, known)} Correct it, or add it to model.metrics."
        )
    if config.monitor in known:
        _check_mode(config.monitor, config.mode, kind)


def _check_mode(monitor: str, mode: str | None, kind: type[TrainingModule]) -> None:
    """Refuse a `mode` that would choose the worst model as the best.

    Raises:
        UserError: nobody says which side of the monitor is better, or two say it differently.
    """
    better = kind.better(monitor)
    if mode is None and better is None:
        raise UserError(
            f"monitor={monitor!r}: {kind.__name__} does not declare which side of it is better; expected mode: min "
            "or mode: max beside it. Add it to the configuration, or the metric to the class's `directions`."
        )
    if mode is not None and better not in (None, SIDES[mode]):
        raise UserError(
            f"mode={mode!r} with monitor={monitor!r} would keep the worst model: the {better} value of it is the better one; "
            f"expected mode: {'min' if mode == 'max' else 'max'}. Correct it, or leave mode out."
        )


def directions_of(config: jsonargparse.Namespace, module: TrainingModule) -> dict[str, Direction | None]:
    """Map each validation metric to its better side: as its trainer declares it, and for the monitor as `mode` says."""
    directions = {f"val/{name}": module.better(name) for name in module.metrics}
    stated = SIDES.get(config.mode or "")
    return directions | {config.monitor: stated or directions.get(config.monitor)}


def is_mode_needed(config: jsonargparse.Namespace) -> bool:
    """Return whether `mode` says more than the trainer's class declares.

    Where it does not, runs and ids are those of a configuration without it.
    """
    if config.mode is None:
        return False
    kind = imported(config.model.class_path)
    return not hasattr(kind, "better") or SIDES[config.mode] != kind.better(config.monitor)
