"""What fit, validate and test do: a configuration becomes a model, its data and a run folder around Lightning's Trainer.

Longer than most files: the order of a training, from the lock to the last line of output, is read here in one place.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import jsonargparse
import lightning as L
import torch

from research.errors import DIVERGED, UserError
from research.models.adapter_fields import check_loftq, peft_warnings
from research.progress import say
from research.runs.defaults import imported
from research.runs.disk import require_space
from research.runs.files import strict, write_json
from research.runs.fingerprint import fingerprint
from research.runs.identity import PLACE, ids_of
from research.runs.layout import MODEL, PROVENANCE, open_run_folder
from research.runs.locks import exclusive
from research.runs.state import stale_reason
from research.runs.writers import write_metrics
from research.training import configuration
from research.training.base import TrainingModule
from research.training.best_model import BestModel
from research.training.checks import check_class_options, check_classes, leaves_to_data, split_of
from research.training.console import print_result, say_best_model, say_differences, say_start
from research.training.curves import Curves
from research.training.invariants import InvariantError, Invariants
from research.training.library_errors import lightning_errors, peft_errors
from research.training.monitor import check_monitor, directions_of
from research.training.pruning import Pruning
from research.training.resume import Resume, drop_checkpoints, last_checkpoint
from research.training.room import bytes_needed
from research.training.run_folder import check_origin, has_finished, metrics_of, place_of, point_of, write_origin
from research.training.stop import Stopped, is_first_process, say_stopped
from research.training.supported import check_monitors
from research.training.trainer import make_trainer, restored_process
from research.training.wandb_run import exit_code, summarise, tracker_of

Watchers = Callable[[Path], list[L.Callback]]
"""Run folder → further callbacks of a training: those of its sweep, or of a measurement of its speed."""


@configuration.renamed_options()
def fit(args: argparse.Namespace, watchers: Watchers = lambda out: []) -> int:
    """Train a configuration, or resume it; return the exit code.

    Args:
        args: as arguments.parse gives them.
        watchers: of this training.
    """
    config = None
    with restored_process():
        try:
            config, resolved = configuration.read(args)
            return _fit(args, config, resolved, watchers)
        except Stopped as stopped:
            begun = config is not None and is_first_process()
            return say_stopped(stopped, last_checkpoint(Path(config.out)) if begun else None)


def validate(args: argparse.Namespace) -> int:
    """Measure a run's best model on the validation data; if none is trained yet, the model that the configuration names."""
    return _measure(args, "validate")


def test(args: argparse.Namespace) -> int:
    """Measure a run's best model on the test data; if none is trained yet, the model that the configuration names."""
    return _measure(args, "test")


def build_data(config: jsonargparse.Namespace, resolved: dict | None = None) -> L.LightningDataModule:
    """Build the data, after everything is checked that needs neither data nor weights.

    Args:
        config: of the training.
        resolved: the same with every default; options that are left to the data get the values that these give.
    """
    check_classes(config)
    check_class_options(config)
    data = _instance(config.data)
    data.check_batches(1)
    check_monitor(config, imported(config.model.class_path), config.model.init_args.get("metrics"), data)
    for name in data.decides if resolved is not None else ():
        resolved["data"]["init_args"][name] = getattr(data, name)
    return data


def build(config: jsonargparse.Namespace, data: L.LightningDataModule) -> TrainingModule:
    """Build the model; a wrong one is refused before anything is written. Its initialisation has a seed of its own.

    Raises:
        UserError: as its class does.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed_everything)
        module = _instance(config.model)
    check_monitor(config, type(module), module.metrics, data)
    return module


def _instance(section: jsonargparse.Namespace) -> L.LightningModule | L.LightningDataModule:
    """Build the object that a section of the configuration describes.

    Not by the parser that read it: for a class among several possible ones it makes a ValueError of its own of whatever
    the class raises, and a UserError would lose its name.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(imported(section.class_path), "section")
    check_loftq(section.init_args.get("adapter.init_args"))
    with peft_errors(), peft_warnings():
        return parser.instantiate(jsonargparse.Namespace(section=section.init_args)).section


# ---- fit ------------------------------------------------------------------------------------------------------------


def _fit(args: argparse.Namespace, config: jsonargparse.Namespace, resolved: dict, watchers: Watchers) -> int:
    module = data = None
    if PLACE in config.out or leaves_to_data(config):
        data = build_data(config, resolved)
    if PLACE in config.out:  # a point of a sweep: its folder is named by what it computes
        module = build(config, data)
        config.out = resolved["out"] = place_of(config.out, ids_of(resolved, module.base_hash, data.describe()))
    out = Path(config.out)
    if has_finished(out, resolved):
        say(f"{out}: finished before; nothing is trained again. Name another --out for another run")
        if reason := stale_reason(out, None if data is None else data.describe()):
            say(f"warning: {out} is stale: {reason}")
        return print_result(out, metrics_of(out), args.json, str(resolved["trainer"].get("precision") or "32-true"))
    data = data or build_data(config, resolved)
    module = module or build(config, data)
    point = point_of(ids_of(resolved, module.base_hash, data.describe()))
    notes = module.prepare(data)
    directions = directions_of(config, module)
    lower = directions[config.monitor] == "lower"
    curves, best = Curves(out), BestModel(out, config.monitor, lower)
    invariants, resume = Invariants(resolved), Resume(out, config.save_every)
    resume.file.is_blocked = lambda: best.pending is not None
    trainer = make_trainer(config, [invariants, best, *watchers(out), resume], [curves])
    check_monitors(trainer, directions if "val" in data.collections else {config.monitor: directions[config.monitor]})
    with contextlib.ExitStack() as stack:
        first = is_first_process()
        if first:
            open_run_folder(out)
            stack.enter_context(exclusive(out, wait=False))
            require_space(out, bytes_needed(module), f"two checkpoints and the best model in {out}")
        if hasattr(data, "check_batches"):
            data.check_batches(trainer.world_size)
        checkpoint = last_checkpoint(out)
        if first:
            code = fingerprint(resolved)
            if checkpoint is None:
                write_origin(out, args.command, resolved, module, data, trainer, point, code)
            else:
                check_origin(out, resolved, module, data, code)
            made_of = {"data": data.describe(), "code": code, "base_model": module.base_hash}
            tracker = tracker_of(config.wandb, out, resolved | {"made_of": made_of}, point)
            stack.push(lambda kind, error, trace: tracker.finish(exit_code(error)))
            curves.send = tracker.log
            for note in notes:
                say(note)
            say_start(config, module, data, trainer)
            if checkpoint is not None:
                say(f"{out}: going on from {checkpoint.name}")
        started = time.perf_counter()
        try:
            with lightning_errors():
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint and str(checkpoint), weights_only=True)
        except InvariantError as error:
            return say_differences(out, error.differences, tracker) if trainer.is_global_zero else 0
        except FloatingPointError as error:
            if not trainer.is_global_zero:
                return 0
            say(
                f"error: the training diverged ({error}); expected finite numbers. Lower model.optimisation.lr, then name "
                "another --out"
            )
            tracker.finish(DIVERGED)
            return DIVERGED
        best.catch_up(trainer, module)
        if not trainer.is_global_zero:
            return 0
        best.finish(trainer, module)
        say_best_model(out / MODEL, module, best.doubts())
        metrics = metrics_of(out) | _results(module, data, trainer, time.perf_counter() - started)
        if differences := invariants.check(out, metrics, trainer, module, not lower):
            metrics |= {"finished": False, "differences": [str(difference) for difference in differences]}
        write_metrics(out, metrics)
        if not differences and not config.keep_checkpoints:
            drop_checkpoints(out)
        summarise(tracker, out, metrics, module)
        return (
            say_differences(out, differences, tracker)
            if differences
            else print_result(out, metrics, args.json, trainer.precision)
        )


def _results(module: TrainingModule, data: L.LightningDataModule, trainer: L.Trainer, seconds: float) -> dict:
    """Return what metrics.json says about a finished training, besides the best model's metrics."""
    temperature = float(module.log_temperature.detach().exp()) if hasattr(module, "log_temperature") else None
    results = {"finished": True, "steps": trainer.global_step, "seconds": round(seconds, 3), "temperature": temperature}
    if lost_rows := getattr(data, "lost_rows", {}):
        results["lost_rows"] = lost_rows
    if hasattr(module, "language"):
        results["trained"] = module.language.describe()
    pruned = [call.pruned for call in trainer.callbacks if isinstance(call, Pruning) and call.pruned is not None]
    return results | ({"pruned": pruned[0]} if pruned else {})


# ---- validate, test -------------------------------------------------------------------------------------------------


@configuration.renamed_options()
def _measure(args: argparse.Namespace, verb: str) -> int:
    config, _ = configuration.read(args)
    check_classes(config)
    out = Path(config.out)
    trained = (out / MODEL).is_dir()
    restores = hasattr(imported(config.model.class_path), "restore")
    if trained:
        if not restores:
            config.model.init_args.model = str(out / MODEL)
            if "adapter" in config.model.init_args:
                config.model.init_args.adapter = None  # model/ has it merged, and a fresh one would be on top of it
        say(f"model: {out / MODEL}")
    else:
        say(f"model: {config.model.init_args.model}, since {out / MODEL} does not exist yet")
    data = build_data(config)
    split = split_of(data, config.data.init_args, verb)
    module = build(config, data)
    if trained and restores:  # adapters go onto the model that the configuration names
        module.restore(out / MODEL)
    trainer = make_trainer(config, [], [])
    with lightning_errors():
        evaluate = trainer.validate if verb == "validate" else trainer.test
        evaluate(module, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return 0
    if not hasattr(module, "per_query"):
        raise UserError(f"trainer.limit_{split}_batches=0: nothing was measured; expected 1 or more. Leave it out.")
    result = {
        "kind": verb,
        "model": str(out / MODEL) if trained else config.model.init_args.model,
        "metrics": module.means(),
        "per_query": module.per_query,
        "intervals": module.intervals(),
    }
    if hasattr(module, "answers"):
        result["answers"] = module.answers
    if count := getattr(data, "shared", {}).get(f"{split}_trained"):
        result["trained_rows"] = count  # of those measured
    if lost := getattr(data, "lost_rows", {}).get(split):
        result["lost_rows"] = {split: lost}
    is_run = (out / PROVENANCE).exists()
    if is_run:
        write_json(out / f"{verb}.json", result)
    return print_result(out if is_run else None, strict(result), args.json, trainer.precision)
