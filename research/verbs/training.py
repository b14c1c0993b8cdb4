"""What fit, validate and test do: the run folder around Lightning's Trainer."""

import argparse
import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from research.errors import UserError
from research.progress import say
from research.runfolder import (
    MARKER,
    atomic_write,
    exclusive,
    hash_json,
    open_run_folder,
    provenance,
    read_json,
    require_space,
    write_json,
)
from research.training.stop import Stopped, stop_at_once
from research.verbs import configuration
from research.verbs.identity import HOW, PATHS, PLACE, code_fingerprint, point_of

if TYPE_CHECKING:
    import lightning as L

LOWER = (
    "val/loss",
    "val/perplexity",
    "val/other_loss",
    "val/kl",
    "val/reward_rejected",
)  # of these the lowest is the best


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
        config.out = config.out.replace(PLACE, point_of(resolved, module.base_hash, data.describe()))
        resolved["out"], out = config.out, Path(config.out)
    if _finished(out, resolved):
        say(f"{out}: finished before; nothing is trained again. Name another --out for another run")
        return _print(args, out, _metrics(out))
    if module is None:
        module, data = configuration.build(config)
    point = point_of(resolved, module.base_hash, data.describe())
    if (expected := os.environ.get("TANDEM_POINT", point)) != point:
        raise UserError(f"this is point {point}, and the sweep's plan has {expected} for it: data, model or configuration have "
                        "changed since; expected what was planned. Plan the sweep again.")  # fmt: skip
    from research.data.sampler import StatefulBatchSampler
    from research.training.curves import BestModel, Curves
    from research.training.resume import Resume, last_checkpoint

    curves, best, resume = (
        Curves(out),
        BestModel(out, config.monitor, config.monitor in LOWER),
        Resume(out, config.save_every),
    )
    resume.file.hold = lambda: best.pending is not None
    pruned = pruning(out)
    trainer = configuration.make_trainer(config, [best, *pruned, resume, *callbacks], [curves])
    with contextlib.ExitStack() as stack:
        first = _is_first_process()
        if first:
            open_run_folder(out)
            stack.enter_context(exclusive(out, wait=False))
            weights = sum(p.numel() * 4 for p in module.parameters())
            require_space(out, 8 * weights, f"two checkpoints and the best model in {out}")  # weights, two moments each
        if hasattr(data, "dataset"):  # refused here, a batch that is too large leaves nothing behind
            StatefulBatchSampler(
                len(data.dataset), data.batch_size, 0, world_size=trainer.world_size, drop_last=data.drop_last
            )
        checkpoint = last_checkpoint(out)
        if first:
            _open(args, out, resolved, module, data, trainer, resumed=checkpoint is not None, point=point)
            made_of = {"data": data.describe(), "code": code_fingerprint(), "base_model": module.base_hash}
            tracker = _tracker(config.wandb, out, resolved | {"made_of": made_of}, point)
            stack.push(lambda kind, error, trace: tracker.finish(_code(error)))
            curves.send = tracker.log
            _say_what(config, module, data, trainer)
            if hasattr(module, "language"):
                from research.training.language import say_trained

                say_trained(module.language.describe())
            if checkpoint is not None:
                say(f"{out}: going on from {checkpoint.name}")
        started = time.perf_counter()
        try:
            with configuration.lightning_errors():
                trainer.fit(
                    module,
                    datamodule=data,
                    ckpt_path=None if checkpoint is None else str(checkpoint),
                    weights_only=True,
                )
        except FloatingPointError as error:
            if not trainer.is_global_zero:
                return 0
            say(f"error: the training diverged ({error}); expected finite numbers. Lower model.optimisation.lr, then name "
                "another --out")  # fmt: skip
            tracker.finish(1)
            return 1
        best.catch_up(trainer, module)
        if not trainer.is_global_zero:
            return 0
        best.finish(trainer, module)
        metrics = read_json(out / "metrics.json")
        metrics |= {"finished": True, "steps": trainer.global_step, "seconds": round(time.perf_counter() - started, 3),
                    "temperature": _temperature(module)}  # fmt: skip
        if pruned and pruned[0].pruned is not None:
            metrics["pruned"] = pruned[0].pruned
        if hasattr(module, "language"):
            metrics["trained"] = module.language.describe()
        write_json(out / "metrics.json", metrics)
        _summarise(tracker, out, metrics, module)
        return _print(args, out, metrics)


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


def evaluate(args: argparse.Namespace, verb: str) -> int:
    """validate, test: the run's best model, or the configuration's own where none was trained yet."""
    if {*configuration.HELP} & {*args.argv}:
        configuration.print_options(args)
        return 0
    with configuration.own_names():
        return _evaluate(args, verb)


def _evaluate(args: argparse.Namespace, verb: str) -> int:
    config, _ = configuration.read(args)
    configuration.check_classes(config)
    out = Path(config.out)
    trained = (out / "model").is_dir()
    restores = hasattr(configuration.imported(config.model.class_path), "restore")
    if trained:
        if not restores:
            config.model.init_args.model = str(out / "model")
        say(f"model: {out / 'model'}")
    else:
        say(f"model: {config.model.init_args.model}, since {out / 'model'} does not exist yet")
    module, data = configuration.build(config)
    split = "val_split" if verb == "validate" else "test_split"
    named = (
        "val" in data.collections if verb == "validate" else data.test_split is not None or getattr(data, "test", None)
    )
    if not named:
        value = "is null" if getattr(data, split) is None else f"is {getattr(data, split)!r}, and a file has no splits"
        cure = f"--data.{split} NAME, or other data by --data.{'val' if verb == 'validate' else 'test'} FILE.jsonl"
        raise UserError(f"data.{split} {value}; expected a split to {verb} on. Name one: {cure}.")
    if trained and restores:  # adapters go onto the model that the configuration names
        module.restore(out / "model")
    trainer = configuration.make_trainer(config, [], [])
    with configuration.lightning_errors():
        run = trainer.validate if verb == "validate" else trainer.test
        run(module, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return 0
    if not hasattr(module, "per_query"):
        raise UserError(
            f"trainer.limit_{split[:-6]}_batches=0: nothing was measured; expected 1 or more. Leave it out."
        )
    result = {
        "kind": verb,
        "model": str(out / "model") if trained else config.model.init_args.model,
        "metrics": module.means(),
        "per_query": module.per_query,
    }
    if hasattr(module, "answers"):
        result["answers"] = module.answers
    kept = (out / MARKER).exists()
    if kept:
        write_json(out / f"{verb}.json", result)
    return _print(args, out if kept else None, result)


def _finished(out: Path, resolved: dict) -> bool:
    """Whether this very run is done.

    Raises:
        UserError: the folder holds another run.
    """
    if not any((out / name).exists() for name in ("checkpoints.json", "metrics.json")):
        return False  # nothing was trained yet: a configuration that was refused may be corrected
    try:
        earlier = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        earlier = None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{out / 'config.yaml'} is not readable YAML ({str(error).splitlines()[0]}); expected the "
                        "configuration of this run. Name another --out, or delete this folder.") from None  # fmt: skip
    found = differences(earlier if isinstance(earlier, dict) else {}, resolved)
    if "TANDEM_POINT" in os.environ:  # the point's id stands for what lies there, however its place is spelled
        found = {name: values for name, values in found.items() if name not in PATHS}
    changed = [f"{name} {old!r}, now {new!r}" for name, (old, new) in found.items()]
    if changed:
        raise UserError(f"--out {out} holds a run with another configuration ({'; '.join(changed[:5])}); expected the same, to "
                        "go on with it. Name another --out, or delete this folder.")  # fmt: skip
    return (out / "metrics.json").exists() and bool(_metrics(out).get("finished"))


def _metrics(out: Path) -> dict:
    """A run's metrics.json.

    Raises:
        UserError: it is not one that fit wrote.
    """
    metrics = read_json(out / "metrics.json")
    if not isinstance(metrics, dict) or not isinstance(metrics.get("metrics"), dict):
        raise UserError(f"{out / 'metrics.json'} is not one that `research fit` wrote; expected an object with metrics. Name "
                        "another --out, or delete this folder.")  # fmt: skip
    return metrics


def differences(a: Any, b: Any, name: str = "") -> dict[str, tuple]:
    """Dotted name → (value in a, value in b), where two configurations differ in what is computed."""
    if name.rstrip(".") in HOW:
        return {}
    if isinstance(a, dict) and isinstance(b, dict):
        found = {}
        for key in sorted({*a, *b}):
            found |= differences(a.get(key), b.get(key), f"{name}{key}.")
        return found
    return {} if a == b else {name.rstrip("."): (a, b)}


def _open(
    args: argparse.Namespace, out: Path, resolved: dict, module: Any, data: Any, trainer: "L.Trainer", resumed: bool,
    point: str,
) -> None:  # fmt: skip
    """Write what the run is made of, or check that it still is.

    Raises:
        UserError: a resumed run's data or base model have changed.
    """
    facts = {"model_hash": module.base_hash, "data": data.describe()}
    made_of = hash_json(facts)
    if resumed:
        marker = read_json(out / MARKER)
        earlier = marker.get("made_of") if isinstance(marker, dict) else None
        if earlier != made_of:
            raise UserError(f"the data or the base model of {out} have changed since its checkpoint (hash "
                            f"{str(earlier)[:12]}…, now {made_of[:12]}…); expected the same, to go on. Name another --out, "
                            "or delete it.")  # fmt: skip
        if (before := marker.get("fingerprint")) not in (None, code_fingerprint()):
            say(f"warning: {out} was begun by other code; it goes on with this one, and counts as stale")
            earlier = sorted({*marker.get("earlier_fingerprints", []), before})
            write_json(out / MARKER, marker | {"fingerprint": code_fingerprint(), "earlier_fingerprints": earlier})
        return
    # the marker first: a folder that holds other files and no marker would be taken for somebody else's
    device = str(trainer.strategy.root_device)
    write_json(out / MARKER, provenance(args.command, made_of=made_of, seed=resolved["seed_everything"], device=device,
                                        point=point, fingerprint=code_fingerprint(), **facts))  # fmt: skip
    with atomic_write(out / "config.yaml") as stream:
        yaml.safe_dump(resolved, stream, sort_keys=False, allow_unicode=True)


def _tracker(choice: str, out: Path, resolved: dict, point: str):
    from research.tracking import Tracker

    path = out / "wandb.json"
    group = os.environ.get("TANDEM_SWEEP")  # of our own executors
    theirs = os.environ.get("WANDB_SWEEP_ID") or os.environ.get("TANDEM_TRIAL")  # of W&B's agent, or a trial it began
    if not path.exists():
        # W&B's agent has made a run already; a sweep's point is one run wherever it is started; else a new one
        agents = os.environ.get("WANDB_RUN_ID") if theirs else None
        write_json(path, {"id": agents or (point if group else uuid.uuid4().hex[:12])})
    known = read_json(path)
    if not isinstance(known, dict) or not isinstance(known.get("id"), str):
        raise UserError(f"{path} is not one this tool wrote; expected an object with the id of the W&B run. Delete it, and "
                        "a new W&B run begins.")  # fmt: skip
    resolved = resolved | {"sweep": {"name": group or theirs, "point": point}}
    return Tracker(choice, out, "fit", resolved, id=known["id"], group=group)


def _summarise(tracker: Any, out: Path, metrics: dict, module: Any) -> None:
    """What W&B's table and plots take from a finished run, and in wandb.json the names of it, for a W&B report.

    W&B's own summary holds the last validation; results are about the kept model, which may be an earlier one.
    """
    facts = (metrics.get("trained") or {}) | {
        name: metrics.get(name) for name in ("seconds", "steps", "temperature", "pruned")
    }
    size = facts.get("trained_parameters", sum(p.numel() for p in module.parameters() if p.requires_grad))
    values = {f"val/{name}": value for name, value in metrics["metrics"].items() if value is not None}
    values["trained_parameters"] = size  # by itself too: an axis of W&B's plots
    tracker.summary(values | {"tandem": {name: value for name, value in facts.items() if value is not None}})
    if tracker.run is not None:  # W&B has taken them
        write_json(out / "wandb.json", read_json(out / "wandb.json") | {"summary": sorted(values)})


def _code(error: BaseException | None) -> int:
    """The exit code that a training ends with, which W&B is told."""
    return error.exit_code if isinstance(error, Stopped) else 0 if error is None else 1


def _is_first_process() -> bool:
    """Only one process writes: DDP's other ranks run this very code."""
    ranks = [os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")]
    return all(value == "0" for value in ranks)


def _temperature(module: Any) -> float | None:
    return float(module.log_temperature.detach().exp()) if hasattr(module, "log_temperature") else None


# ---- what the user reads --------------------------------------------------------------------------------------------


def _say_what(config: Any, module: Any, data: Any, trainer: "L.Trainer") -> None:
    facts = data.describe()
    counts = ", ".join(f"{value:,} {name}" for name, value in facts.items() if isinstance(value, int))
    validated = [f"{'validation' if name == 'val' else name} on {one}" for name, one in data.collections.items()]
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    say(f"{config.model.init_args.model}: {trained:,} parameters to train; {config.data.init_args.train}: "
        + "; ".join([counts, *validated, f"{trainer.world_size} × {trainer.strategy.root_device.type}, "
                     f"{trainer.precision}"]))  # fmt: skip


def _say_stopped(out: Path | None) -> None:
    from research.training.resume import last_checkpoint

    checkpoint = last_checkpoint(out) if out is not None else None
    say("stopped; the same command " + ("begins anew" if checkpoint is None else f"goes on from {checkpoint.name}"))


def _print(args: argparse.Namespace, out: Path | None, result: dict) -> int:
    if args.json:
        print(json.dumps({"metrics": result["metrics"], "out": None if out is None else str(out)}))
        return 0
    width = max(map(len, result["metrics"]), default=0)
    for name, value in result["metrics"].items():
        before = (result.get("untrained") or {}).get(name)
        print(f"{name:{width}} {value:.4f}" + ("" if before is None else f"   untrained {before:.4f}"))
    print(f"\nwritten to {out}" if out is not None else "\nnothing is written: there is no run folder yet")
    return 0
