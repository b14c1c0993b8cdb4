"""What validate and test do: a run's kept model on the data that its configuration names."""

import argparse
from pathlib import Path

from research.errors import UserError
from research.progress import say
from research.runs.files import strict, write_json
from research.runs.layout import MARKER
from research.verbs import configuration
from research.verbs.training_folder import print_result


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
            if "adapter" in config.model.init_args:
                config.model.init_args.adapter = None  # model/ has it merged, and a fresh one would be on top of it
        say(f"model: {out / 'model'}")
    else:
        say(f"model: {config.model.init_args.model}, since {out / 'model'} does not exist yet")
    module, data = configuration.build(config)
    split = "val_split" if verb == "validate" else "test_split"
    named = "val" in data.collections if verb == "validate" else data.test_split is not None or getattr(data, "test", None)
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
        raise UserError(f"trainer.limit_{split[:-6]}_batches=0: nothing was measured; expected 1 or more. Leave it out.")
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
    return print_result(args, out if kept else None, strict(result) if args.json else result)
