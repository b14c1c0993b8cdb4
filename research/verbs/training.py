"""What fit does: the run folder around Lightning's Trainer."""

import argparse
import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.errors import DIVERGED, UserError
from research.progress import say
from research.report.goals import is_lower
from research.runs.disk import require_space
from research.runs.files import write_json
from research.runs.fingerprint import code_fingerprint, fingerprint
from research.runs.identity import PLACE, ids_of
from research.runs.layout import open_run_folder
from research.runs.locks import exclusive
from research.runs.reading import read_json
from research.runs.state import stale_reason
from research.training.stop import Stopped, stop_at_once
from research.verbs import configuration
from research.verbs.training_folder import is_finished, metrics_of, place_of, print_result, write_origin
from research.verbs.training_tracker import exit_code, summarise, tracker_of

if TYPE_CHECKING:
    import lightning as L


def fit(args: argparse.Namespace, callbacks: "list[L.Callback] | None" = None) -> int:
    """Train, or go on with a training; the exit code.

    Args:
        args: as configuration.parse gives them.
        callbacks: that come after all others.
    """
    if {*configuration.HELP} & {*args.argv}:
        configuration.print_options(args)
        return 0
    code_fingerprint()  # of the code that is about to be imported, not of what it is edited to meanwhile
    with stop_at_once(), configuration.own_names():
        out = None
        try:
            config, resolved = configuration.read(args)
            out = Path(config.out)
            with _own_process():
                return _fit(args, config, resolved, out, callbacks or [])
        except Stopped as stopped:
            if not _is_first_process():
                return 0  # Lightning kills the first process, which is still saving, when another one fails
            _say_stopped(out and Path(config.out))  # where the point's id is in its place by now
            return stopped.exit_code


def _fit(args: argparse.Namespace, config: Any, resolved: dict, out: Path, callbacks: list) -> int:
    from research.verbs.searching import pruning

    module = data = None
    if PLACE in config.out:  # a point of a sweep: its folder is named by what it computes
        module, data = configuration.build(config)
        config.out = place_of(config.out, ids_of(resolved, module.base_hash, data.describe()))
        resolved["out"], out = config.out, Path(config.out)
    if is_finished(out, resolved):
        say(f"{out}: finished before; nothing is trained again. Name another --out for another run")
        if reason := stale_reason(out, None if data is None else data.describe()):
            say(f"warning: {out} is stale: {reason}")
        return print_result(args, out, _printable(args, metrics_of(out)))
    if module is None:
        module, data = configuration.build(config)
    ids = ids_of(resolved, module.base_hash, data.describe())
    if (point := os.environ.get("TANDEM_POINT", ids[0])) not in ids:
        raise UserError(
            f"this is point {ids[0]}, and the sweep's plan has {point} for it: data, model or configuration have "
            "changed since; expected what was planned. Plan the sweep again."
        )
    from research.training.curves import BestModel, Curves
    from research.training.invariants import Broken, Invariants
    from research.training.resume import Resume, last_checkpoint
    from research.training.room import bytes_needed
    from research.training.supported import check_monitors

    lower, invariants = is_lower(config.monitor), Invariants(resolved)
    curves, best = Curves(out), BestModel(out, config.monitor, lower)
    resume = Resume(out, config.save_every)
    resume.file.hold = lambda: best.pending is not None
    pruned = pruning(out)
    trainer = configuration.make_trainer(config, [invariants, best, *pruned, resume, *callbacks], [curves])
    measured = module.metrics if "val" in data.collections else ()
    check_monitors(trainer, {f"val/{name}": is_lower(name) for name in measured} | {config.monitor: lower})
    with contextlib.ExitStack() as stack:
        first = _is_first_process()
        if first:
            open_run_folder(out)
            stack.enter_context(exclusive(out, wait=False))
            require_space(out, bytes_needed(module), f"two checkpoints and the best model in {out}")
        _check_batches(data, trainer)
        checkpoint = last_checkpoint(out)
        if first:
            write_origin(args, out, resolved, module, data, trainer, resumed=checkpoint is not None, point=point)
            made_of = {"data": data.describe(), "code": fingerprint(resolved), "base_model": module.base_hash}
            tracker = tracker_of(config.wandb, out, resolved | {"made_of": made_of}, point)
            stack.push(lambda kind, error, trace: tracker.finish(exit_code(error)))
            curves.send = tracker.log
            _say_what(config, module, data, trainer)
            if checkpoint is not None:
                say(f"{out}: going on from {checkpoint.name}")
        started = time.perf_counter()
        try:
            with configuration.lightning_errors():
                path = None if checkpoint is None else str(checkpoint)
                trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        except Broken as error:
            return _say_broken(tracker, out, error.differences) if trainer.is_global_zero else 0
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
        metrics = read_json(out / "metrics.json") | _results(module, trainer, time.perf_counter() - started)
        if pruned and pruned[0].pruned is not None:
            metrics["pruned"] = pruned[0].pruned
        if differences := invariants.check(out, metrics, trainer, module, not lower):
            metrics |= {"finished": False, "differences": [str(one) for one in differences]}
        write_json(out / "metrics.json", metrics)
        summarise(tracker, out, metrics, module)
        if differences:
            return _say_broken(tracker, out, differences)
        return print_result(args, out, _printable(args, metrics))


def _is_first_process() -> bool:
    """Only one process writes: DDP's other ranks run this very code."""
    ranks = [os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")]
    return all(value == "0" for value in ranks)


def _check_batches(data: Any, trainer: "L.Trainer") -> None:
    """Refuse here a batch that is larger than the data: nothing is left behind."""
    from research.data.sampler import StatefulBatchSampler

    if hasattr(data, "dataset"):
        size = len(data.dataset)
        StatefulBatchSampler(size, data.batch_size, 0, world_size=trainer.world_size, drop_last=data.drop_last)


def _results(module: Any, trainer: "L.Trainer", seconds: float) -> dict[str, Any]:
    """What metrics.json says of a finished training, besides the kept model's metrics."""
    temperature = float(module.log_temperature.detach().exp()) if hasattr(module, "log_temperature") else None
    found = {"finished": True, "steps": trainer.global_step, "seconds": round(seconds, 3), "temperature": temperature}
    return found | ({"trained": module.language.describe()} if hasattr(module, "language") else {})


@contextlib.contextmanager
def _own_process() -> Iterator[None]:
    """What a training sets for its whole process is put back: a sweep's worker trains other points after it."""
    import torch
    from torch import distributed

    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    backend, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    kept = backend.benchmark, backend.deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.set_float32_matmul_precision(matmul)
        backend.benchmark, backend.deterministic = kept
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


# ---- what the user reads --------------------------------------------------------------------------------------------


def _say_what(config: Any, module: Any, data: Any, trainer: "L.Trainer") -> None:
    facts = data.describe()
    counts = ", ".join(f"{value:,} {name}" for name, value in facts.items() if isinstance(value, int))
    validated = [f"{'validation' if name == 'val' else name} on {one}" for name, one in data.collections.items()]
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    say(
        f"{config.model.init_args.model}: {trained:,} parameters to train; {config.data.init_args.train}: "
        + "; ".join([counts, *validated, f"{trainer.world_size} × {trainer.strategy.root_device.type}, {trainer.precision}"])
    )
    if hasattr(module, "language"):
        from research.training.language import say_trained

        say_trained(module.language.describe())


def _say_broken(tracker: Any, out: Path, differences: list) -> int:
    """The exit code of a training that was not what it was asked to be. Its folder stays, and is not called finished."""
    for one in differences:
        say(
            f"error: {one}; expected the same. This is a bug of this tool, or of a callback that trainer.callbacks "
            f"names: report it with {out / 'config.yaml'}, and do not use the numbers of this run"
        )
    tracker.finish(1)
    return 1


def _printable(args: argparse.Namespace, metrics: dict) -> dict:
    """Metrics for print_result, whose table has nan where JSON has null."""
    if args.json:
        return metrics
    return metrics | {
        part: {name: math.nan if value is None else value for name, value in (metrics.get(part) or {}).items()}
        for part in ("metrics", "untrained")
    }


def _say_stopped(out: Path | None) -> None:
    from research.training.resume import last_checkpoint

    checkpoint = last_checkpoint(out) if out is not None else None
    say("stopped; the same command " + ("begins anew" if checkpoint is None else f"goes on from {checkpoint.name}"))
