"""What fit, validate and test share: the configuration, the run folder, the trainer.

The YAML is LightningCLI's (seed_everything, model, data, trainer, each class by class_path and init_args), parsed by
jsonargparse, which it is built on: the typed `__init__` of a class is the schema of its section.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import time
import uuid
import warnings
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

if TYPE_CHECKING:
    import jsonargparse
    import lightning as L

PREEMPTED = 85
INSTEAD = {"gradient_clip_val": "model.optimisation.clip", "accumulate_grad_batches": "model.optimisation.accumulate",
           "logger": "wandb", "default_root_dir": "out", "enable_checkpointing": "save_every"}  # fmt: skip
"""Arguments of Lightning's Trainer that another part of the configuration has taken over."""
OURS = {*INSTEAD, "gradient_clip_algorithm", "enable_progress_bar", "enable_model_summary", "num_sanity_val_steps",
        "use_distributed_sampler"}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", action="append", metavar="YAML", help="configuration, or an overlay on the one before"
    )
    parser.add_argument("--out", metavar="DIR", help="the run folder (the configuration's own)")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace | None:
    """The short help, or the options as typed: what they may be depends on the classes that the configuration names."""
    names = [arg.partition("=")[0] for arg in argv]
    places = [i for i, name in enumerate(names) if name in ("-c", "--config")]
    files = [argv[i].partition("=")[2] or (argv[i + 1] if i + 1 < len(argv) else "") for i in places]
    if not files and {"-h", "--help"} & {*argv}:
        parser.print_help()
        return None
    if not files:
        raise UserError(f"no configuration; expected -c CONFIG.yaml. Try `{parser.prog} -c configs/dual_encoder.yaml`.")
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"configuration {file!r} does not exist; expected a YAML file. Check the path.")
    options = [i for i, name in enumerate(names) if name.startswith("--") and name not in ("--config", "--json")]
    if options and places[-1] > options[0]:
        raise UserError(f"-c {files[-1]} comes after {argv[options[0]]}, and would silently win over it; expected every -c "
                        "before the options. Move it to the front.")  # fmt: skip
    return argparse.Namespace(run=parser.get_default("run"), argv=argv, json="--json" in argv, prog=parser.prog)


def fit(args: argparse.Namespace) -> int:
    config, parser = _configuration(args)
    out = Path(config.out)
    resolved = _resolved(parser, config)
    if _finished(out, resolved):
        say(f"{out}: finished before; nothing is trained again. Name another --out for another run")
        return _print(args, out, read_json(out / "metrics.json"))
    module, data = _instantiate(parser, config)
    from research.training.curves import BestModel, Curves
    from research.training.resume import Resume, Stopped, last_checkpoint

    first = _is_first_process()
    with contextlib.ExitStack() as stack:
        if first:
            open_run_folder(out)
            stack.enter_context(exclusive(out, wait=False))
            weights = sum(p.numel() * 4 for p in module.parameters())
            require_space(out, 8 * weights, f"two checkpoints and the best model in {out}")  # weights, two moments each
        checkpoint = last_checkpoint(out)
        curves = Curves(out)
        if first:
            _open(args, out, resolved, module, data, resumed=checkpoint is not None)
            tracker = _tracker(config.wandb, out, resolved)
            stack.callback(tracker.finish)
            curves.send = tracker.log
        resume = Resume(out, config.save_every)
        trainer = _trainer(config, [BestModel(out, config.monitor), resume], [curves])
        if checkpoint is not None:
            say(f"{out}: going on from {checkpoint.name}")
        started = time.perf_counter()
        try:
            trainer.fit(
                module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True
            )
        except Stopped as stopped:
            say(f"stopped at step {trainer.global_step}; the same command goes on from there")
            return 130 if stopped.signal == signal.SIGINT else PREEMPTED
        if not trainer.is_global_zero:
            return 0
        metrics = read_json(out / "metrics.json")
        metrics |= {"finished": True, "steps": trainer.global_step, "seconds": round(time.perf_counter() - started, 3),
                    "temperature": _temperature(module)}  # fmt: skip
        write_json(out / "metrics.json", metrics)
        return _print(args, out, metrics)


def evaluate(args: argparse.Namespace, verb: str) -> int:
    """validate, test: the run's best model, or the configuration's own where none was trained yet."""
    config, parser = _configuration(args)
    out = Path(config.out)
    trained = out / "model"
    if trained.is_dir():
        config.model.init_args.model = str(trained)
        say(f"model: {trained}")
    else:
        say(f"model: {config.model.init_args.model}, since {trained} does not exist yet")
    module, data = _instantiate(parser, config)
    trainer = _trainer(config, [], [])
    run = trainer.validate if verb == "validate" else trainer.test
    (values,) = run(module, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return 0
    means = {name.partition("/")[2]: value for name, value in values.items()}
    result = {"kind": verb, "model": str(trained), "metrics": means, "per_query": module.per_query}
    if (out / MARKER).exists():
        write_json(out / f"{verb}.json", result)
    return _print(args, out, result)


def _configuration(args: argparse.Namespace) -> "tuple[jsonargparse.Namespace, jsonargparse.ArgumentParser]":
    import jsonargparse
    import lightning as L

    parser = jsonargparse.ArgumentParser(
        prog=args.prog, exit_on_error=False, description="every option of this configuration"
    )
    parser.add_argument("-c", "--config", action="config", help="configuration, or an overlay on the one before")
    parser.add_argument("--out", type=str, required=True, help="the run folder")
    parser.add_argument("--monitor", type=str, default="val/mrr@10", help="the best value of this metric makes model/")
    parser.add_argument(
        "--save_every", type=int, default=200, help="steps between checkpoints, beside those at validation"
    )
    parser.add_argument("--wandb", type=str, default="auto", help="auto | online | offline | disabled")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.add_argument("--seed_everything", type=int, default=0, help="of initialisation, data order and dropout")
    parser.add_subclass_arguments(L.LightningModule, "model", required=True)
    parser.add_subclass_arguments(L.LightningDataModule, "data", required=True)
    parser.add_class_arguments(L.Trainer, "trainer", skip=OURS, instantiate=False)
    parser.link_arguments("seed_everything", "model.init_args.seed")
    parser.link_arguments("seed_everything", "data.init_args.seed")
    try:
        config = parser.parse_args(args.argv)
    except jsonargparse.ArgumentError as error:
        raise UserError(_explained(str(error))) from None
    if config.wandb not in ("auto", "online", "offline", "disabled"):
        raise UserError(f"wandb={config.wandb!r}; expected auto, online, offline or disabled. Correct it.")
    if config.save_every < 1:
        raise UserError(f"save_every={config.save_every}; expected 1 step or more. Correct it.")
    if config.trainer.precision not in (None, "32-true", "bf16-mixed", "64-true", 32, "32", 64, "64"):
        raise UserError(f"trainer.precision={config.trainer.precision!r}; expected 32-true, bf16-mixed or 64-true: "
                        "fp16 scales gradients, and clipping would see the scale. Choose one.")  # fmt: skip
    return config, parser


def _explained(message: str) -> str:
    """jsonargparse's error in one paragraph, with the cure where another name has taken over."""
    text = " ".join(message.split())
    for name, instead in INSTEAD.items():
        if f"trainer.{name}" in text or f"'{name}'" in text:
            return f"trainer.{name} is not an option here; expected {instead}, which has taken its place. Use that."
    return (
        f"{text[:600]}. Expected what `research fit -c CONFIG --help` lists; correct the configuration or the option."
    )


def _resolved(parser: "jsonargparse.ArgumentParser", config: "jsonargparse.Namespace") -> dict:
    """The configuration with every default filled in, as plain values."""
    values = yaml.safe_load(parser.dump(config, skip_none=False))
    return {name: value for name, value in values.items() if name not in ("config", "json")}


def _finished(out: Path, resolved: dict) -> bool:
    """Whether this very run is done.

    Raises:
        UserError: the folder holds another run.
    """
    if not (out / "config.yaml").exists():
        return False
    earlier = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8")) or {}
    changed = [f"{name} {old!r}, now {new!r}" for name, (old, new) in _differences(earlier, resolved).items()]
    if changed:
        raise UserError(f"--out {out} holds a run with another configuration ({'; '.join(changed[:5])}); expected the same, to "
                        "go on with it. Name another --out, or delete this folder.")  # fmt: skip
    metrics = read_json(out / "metrics.json") if (out / "metrics.json").exists() else {}
    return bool(metrics.get("finished"))


def _differences(a: Any, b: Any, name: str = "") -> dict[str, tuple]:
    if isinstance(a, dict) and isinstance(b, dict):
        found = {}
        for key in sorted({*a, *b}):
            if f"{name}{key}" not in ("out", "wandb", "save_every"):  # how, not what
                found |= _differences(a.get(key), b.get(key), f"{name}{key}.")
        return found
    return {} if a == b else {name.rstrip("."): (a, b)}


def _instantiate(
    parser: "jsonargparse.ArgumentParser", config: "jsonargparse.Namespace"
) -> "tuple[L.LightningModule, Any]":
    """Model and data, each refused before anything is written; the model's initialisation has a seed of its own."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed_everything)
        built = parser.instantiate_classes(config)
    if config.monitor and built.data.val_split is not None:
        known = [f"val/{name}" for name in built.model.metrics]
        if config.monitor not in known:
            raise UserError(f"monitor={config.monitor!r} is not computed; expected one of {', '.join(known)}. Correct it, or "
                            "add it to model.metrics.")  # fmt: skip
    return built.model, built.data


def _trainer(config: "jsonargparse.Namespace", callbacks: list, loggers: list) -> "L.Trainer":
    import jsonargparse
    import lightning as L

    from research.training.progress import Progress

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(L.Trainer, "trainer", skip=OURS, instantiate=False)
    values = parser.instantiate_classes(jsonargparse.Namespace(trainer=config.trainer)).trainer.as_dict()
    values["callbacks"] = [*(values.get("callbacks") or []), Progress(), *callbacks]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its hints are not about this run
    warnings.filterwarnings("ignore", module="lightning")
    try:
        return L.Trainer(**values, logger=loggers or False, default_root_dir=config.out, enable_progress_bar=False,
                         enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False)  # fmt: skip
    except (ValueError, TypeError, RuntimeError) as error:  # Lightning's MisconfigurationException is one
        raise UserError(
            f"the trainer section is wrong ({error}); expected arguments of lightning.Trainer. Correct it."
        ) from None


def _open(args: argparse.Namespace, out: Path, resolved: dict, module: Any, data: Any, resumed: bool) -> None:
    """Write what the run is made of, or check that it still is.

    Raises:
        UserError: a resumed run's data or base model have changed.
    """
    facts = {"model_hash": module.base_hash, "data": data.describe()}
    made_of = hash_json(facts)
    if resumed and (earlier := read_json(out / MARKER).get("made_of")) != made_of:
        raise UserError(f"the data or the base model of {out} have changed since its checkpoint (hash {str(earlier)[:12]}…, "
                        f"now {made_of[:12]}…); expected the same, to go on. Name another --out, or delete it.")  # fmt: skip
    if not resumed:
        with atomic_write(out / "config.yaml") as stream:
            yaml.safe_dump(resolved, stream, sort_keys=False, allow_unicode=True)
        write_json(out / MARKER, provenance(args.command, made_of=made_of, seed=resolved["seed_everything"], **facts))


def _tracker(choice: str, out: Path, resolved: dict):
    from research.tracking import Tracker

    path = out / "wandb.json"
    if not path.exists():
        write_json(path, {"id": uuid.uuid4().hex[:12]})
    return Tracker(choice, out, "fit", resolved, id=read_json(path)["id"])


def _is_first_process() -> bool:
    """Only one process writes: DDP's other ranks run this very code."""
    ranks = [os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")]
    return all(value == "0" for value in ranks)


def _temperature(module: Any) -> float | None:
    return float(module.log_temperature.exp()) if hasattr(module, "log_temperature") else None


def _print(args: argparse.Namespace, out: Path, result: dict) -> int:
    if args.json:
        print(json.dumps({"metrics": result["metrics"], "out": str(out)}))
        return 0
    for name, value in result["metrics"].items():
        before = (result.get("untrained") or {}).get(name)
        print(f"{name:14} {value:.4f}" + ("" if before is None else f"   untrained {before:.4f}"))
    print(f"\nwritten to {out}")
    return 0
