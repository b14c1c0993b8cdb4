"""What `fit` would compute and how long it would take, for the plan of a sweep."""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jsonargparse
import lightning as L
import torch

from research.errors import UserError, did_you_mean
from research.models.adapter_rules import LORA
from research.models.adapters import effective_scale
from research.models.folder import without_weights
from research.progress import say
from research.runs.hashes import hash_json
from research.runs.identity import LENGTH, ids_of, what_is_computed
from research.training import configuration
from research.training.base import TrainingModule
from research.training.measuring import Measuring
from research.training.run import build, build_data, fit
from research.types import Json

SETS = ("target_modules", "exclude_modules", "modules_to_save")
Parse = Callable[[list[str]], argparse.Namespace]


def describe(arguments: list[str], metric: str | None, goal: str | None, parse: Parse) -> dict[str, Json]:
    """Describe what `fit` would compute, without computing it; the model is built without weights.

    Args:
        arguments: of the command line, from `fit` on.
        metric: that it must measure.
        goal: of the metric, as the sweep states it.
        parse: the command line's parser.

    Raises:
        UserError: the command would end in one, does not measure the metric, or has no data to measure it on.
    """
    args = parse(arguments)
    with configuration.renamed_options():
        config, resolved = configuration.read(args)
        with without_weights():
            data = build_data(config, resolved)
            module = build(config, data)
    if metric is not None:
        _check_metric(metric, module, data, config.trainer)
        if goal is None and module.better(metric) == "higher":
            raise UserError(
                f"the sweep's metric {metric!r} has no goal, and W&B minimizes such a metric, of which the higher value is the "
                f"better one; expected metric: {{name: {metric}, goal: maximize}}. Add the goal."
            )
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    trained = sum(n for n, wanted in sizes if wanted)
    frozen = sum(n for n, wanted in sizes if not wanted)
    narrow = config.trainer.precision == "bf16-mixed" and frozen and hasattr(module, "language") and module.model.adapted
    for note in _notes_of_data(module, data, resolved):
        say(note)
    facts = module.language.describe() if hasattr(module, "language") else {"trained_parameters": trained, "adapter_bytes": 0}
    inputs = data.describe()
    point, *former = ids_of(resolved, module.base_hash, inputs)
    return {
        "point": point,
        "former": former,
        "computes": hash_json([_canonical(resolved), module.base_hash, inputs])[:LENGTH],
        "trained_parameters": trained,
        "adapter_bytes": facts["adapter_bytes"],
        # weights, gradients and two moments; activations come on top
        "memory": trained * 16 + frozen * (2 if narrow else 4),
        "base_hash": module.base_hash,
        "data": inputs,
        "trainer": {
            name: resolved["trainer"].get(name, default)
            for name, default in (("num_nodes", 1), ("devices", "auto"), ("accelerator", "auto"))
        },
    } | ({"lost_rows": data.lost_rows} if getattr(data, "lost_rows", {}) else {})


_notes: dict[str, tuple[list[str], dict]] = {}
"""Of data as one model reads them, by hash: every seed and rank of a sweep has the same."""


def _notes_of_data(module: TrainingModule, data: L.LightningDataModule, resolved: dict) -> list[str]:
    """Return what a training would report of its data: rows that are cut or left out. It is found out once for equal data."""
    section = {name: value for name, value in resolved["data"]["init_args"].items() if name not in ("seed", "batch_size")}
    model = resolved["model"]["init_args"]
    lengths = {name: value for name, value in model.items() if name.endswith("max_length")}
    key = hash_json([section, data.describe(), module.base_hash, lengths])
    if key not in _notes:
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            notes = module.prepare(data)
            module.say_cut(data, model.get("model", "the model"))
        cut = [line for line in stderr.getvalue().splitlines() if "longer than" in line]  # without the bars
        _notes[key] = [*notes, *cut], getattr(data, "lost_rows", {})
    notes, lost_rows = _notes[key]
    if lost_rows:
        data.lost_rows = lost_rows
    return notes


def time_steps(arguments: list[str], steps: int, threads: int | None, parse: Parse) -> dict[str, Json]:
    """Estimate the `seconds` of the whole training from its first steps; return also its `devices`, and what they are.

    Args:
        arguments: of the command line, from `fit` on.
        steps: to take.
        threads: that a worker will have; None leaves it to torch.
        parse: the command line's parser.

    Raises:
        UserError: the command ends in one, or otherwise than well.
    """
    if threads:
        torch.set_num_threads(threads)
    clock, output = Measuring(steps), io.StringIO()
    with tempfile.TemporaryDirectory(prefix="tandem-measure-") as folder:
        args = parse([*arguments, "--out", str(Path(folder) / "run"), "--wandb", "disabled"])
        args.command = ["research", *arguments]
        started = time.perf_counter()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = fit(args, lambda out: [clock])
        seconds = time.perf_counter() - started
    if code:
        last = [line for line in output.getvalue().splitlines() if line.strip()][-1:]
        raise UserError(
            f"--measure: it ends with {code} in its first steps ({' '.join(last)[:300]}); expected a "
            "point that can be trained. Correct it."
        )
    return {"seconds": round(clock.total_seconds(seconds), 2), "devices": clock.devices, "device": clock.device}


def _check_metric(metric: str, module: L.LightningModule, data: L.LightningDataModule, trainer: jsonargparse.Namespace) -> None:
    """Check that validation gives a metric.

    Raises:
        UserError: it does not.
    """
    known = [f"val/{name}" for name in module.metrics]
    if metric not in known:
        raise UserError(
            f"the sweep's metric {metric!r} is not computed; expected one of {', '.join(known)}."
            f"{did_you_mean(metric, known)} Correct it, or add it to model.metrics."
        )
    if "val" not in data.collections:
        raise UserError(
            f"the sweep's metric {metric!r} has nothing to be measured on: the training has no validation data; "
            "expected some. Set data.val or data.val_split, or leave the metric out of a grid or random "
            "sweep."
        )
    if getattr(trainer, "limit_val_batches", None) == 0:
        raise UserError(
            f"the sweep's metric {metric!r} is never measured: trainer.limit_val_batches is 0; expected 1 or more. "
            "Leave it out."
        )


def _canonical(resolved: dict) -> dict:
    """Return the configuration in a form that is equal for configurations that compute the same function.

    LoRA's alpha and rsLoRA are the one number that they make, the scale of the update; sets of names are sorted.
    """
    values = what_is_computed(json.loads(json.dumps(resolved)))
    adapter = values["model"]["init_args"].get("adapter")
    inner = adapter.get("init_args") or {} if isinstance(adapter, dict) else {}
    inner |= {name: sorted(inner[name]) for name in SETS if isinstance(inner.get(name), list)}  # PEFT makes sets of them
    if isinstance(adapter, dict) and adapter.get("class_path") == "peft.LoraConfig":
        inner["scale"] = effective_scale({**inner, "peft_type": LORA})
        inner.pop("lora_alpha"), inner.pop("use_rslora", None)
    return values
