"""Output of fit, validate and test: results on stdout, facts and errors on stderr."""

import json
import math
from pathlib import Path

import jsonargparse
import lightning as L

from research.progress import say
from research.runs.layout import CONFIG
from research.runs.tracking import Tracker
from research.training.base import TrainingModule
from research.training.invariants import Difference


def say_start(config: jsonargparse.Namespace, module: TrainingModule, data: L.LightningDataModule, trainer: L.Trainer) -> None:
    """Print what is about to be trained, on which data and devices."""
    facts = data.describe()
    counts = ", ".join(f"{value:,} {name}" for name, value in facts.items() if isinstance(value, int))
    measured = [f"{'validation' if name == 'val' else name} on {what}" for name, what in data.collections.items()]
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    say(
        f"{config.model.init_args.model}: {trained:,} parameters to train; {config.data.init_args.train}: "
        + "; ".join([counts, *measured, f"{trainer.world_size} × {trainer.strategy.root_device.type}, {trainer.precision}"])
    )
    for note in data.notes():
        say(f"{config.data.init_args.train}: {note}")
    if hasattr(module, "language"):
        _say_trained(module.language.describe())


def _say_trained(facts: dict) -> None:
    """Print which parameters of a language model are trained."""
    kinds = {
        "adapter": facts["adapter_parameters"],
        "saved modules": facts["saved_module_parameters"],
        "the model's own": facts["base_parameters_trained"],
    }
    counted = ", ".join(f"{count:,} {name}" for name, count in kinds.items() if count)
    more = (
        [f"update scaled by {facts['effective_scale']:g} (lora_alpha over r)"] if facts["effective_scale"] is not None else []
    )
    more += [f"{facts['virtual_tokens']} virtual tokens of the context"] if facts["virtual_tokens"] else []
    say(
        f"trained: {counted} ({facts['trained_parameters'] / facts['parameters']:.2%} of {facts['parameters']:,} parameters)"
        + "".join(f"; {part}" for part in more)
    )


def say_best_model(folder: Path, module: TrainingModule, doubts: list[str]) -> None:
    """Print what a user must know about the kept model: how plain libraries use it, and how certain its choice is."""
    for sentence in module.compare_saved(folder):
        say(f"{folder}: {sentence}")
    for doubt in doubts:
        say(f"warning: {doubt}")


def say_differences(out: Path, differences: list[Difference], tracker: Tracker) -> int:
    """Print (and log to W&B) where a training differed from what was asked for; return the exit code.

    Its folder stays, and is not called finished.
    """
    for difference in differences:
        say(
            f"error: {difference}; expected the same. This is a bug of this tool, or of a callback that trainer.callbacks "
            f"names: report it with {out / CONFIG}, and do not use the numbers of this run"
        )
    tracker.finish(1)
    return 1


def print_result(out: Path | None, result: dict, as_json: bool, precision: str) -> int:
    """Print the metrics of a run, as a table or in a line of JSON; return the exit code.

    Args:
        out: the folder that they are written to; None where nothing was written.
        result: as metrics.json has it; what is no number is null there, and nan in the table.
        as_json: in a line of JSON.
        precision: that it was computed in, as Lightning names it; `retrieve` may differ from it by rounding.
    """
    metrics, untrained, intervals = result["metrics"], result.get("untrained") or {}, result.get("intervals") or {}
    if as_json:
        print(json.dumps({"metrics": metrics, "out": None if out is None else str(out)}))
        return 0
    if not metrics:
        print(f"trained for {result.get('steps')} steps, without validation")
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        between = "   [{:.4f}, {:.4f}]".format(*intervals[name]) if name in intervals else ""
        before = f"   untrained {_number(untrained[name]):.4f}" if name in untrained else ""
        print(f"{name:{width}} {_number(value):.4f}{between}{before}")
    if metrics:
        about = "95% bootstrap interval over the examples; other seeds are not in it; " if intervals else ""
        print(f"[{about}computed in {precision.replace('32-true', 'fp32')}]")
    print(f"\nwritten to {out}" if out is not None else "\nnothing is written: there is no run folder yet")
    return 0


def _number(value: float | None) -> float:
    return math.nan if value is None else value
