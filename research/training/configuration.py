"""The configuration of fit, validate and test: YAML files, options over them, and the classes that they name.

The YAML is LightningCLI's (seed_everything, model, data, trainer, each class by class_path and init_args), parsed by
jsonargparse, which it is built on: the typed `__init__` of a class is the schema of its section.
"""

import argparse
import contextlib
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import jsonargparse
import lightning as L
import yaml

from research.errors import UserError
from research.models.inference import use_device
from research.ranges import PositiveInt, Seed
from research.runs.folder import RunFolder
from research.runs.layout import CONFIG, PROVENANCE
from research.training.checks import check_nulls, check_values
from research.training.monitor import is_mode_needed
from research.training.normal_form import as_written, in_order, take_enum_defaults, take_normal_form
from research.training.option_names import LEFT_OUT, RUN_OPTIONS
from research.training.parser_errors import explained

OPTION_NAMES = {
    "--skip-bad-rows": "--data.skip_bad_rows true",
    "--reranker-max-length": "--model.max_length",
    "--max-length": "--model.query_max_length or --model.doc_max_length",
    "(--data, --split)": "(data.train, data.val_run with data.val_split, data.test_run with data.test_split)",
    "Pass one of them as --split": "Name one of them as data.train_split, data.val_split or data.test_split",
}
"""What other verbs call an option, in messages of the rooms below → its name here."""


def read(args: argparse.Namespace) -> tuple[jsonargparse.Namespace, dict]:
    """Parse files and options together; return the configuration, and the same as plain values with every default.

    Raises:
        UserError: an unknown name, a value of a wrong type, or out of its range.
    """
    use_device(getattr(args, "device", "auto"))
    parser = _whole_parser(args.prog)
    try:
        config = parser.parse_args(as_written(args.argv))
    except jsonargparse.ArgumentError as error:
        if (home := _run_folder(args.argv)) is not None and (verb := RunFolder(home).provenance.get("verb")):
            raise UserError(
                f"{home} is what `research {verb}` wrote; expected the config.yaml of a training. Name one that "
                "`research fit` made."
            ) from None
        raise UserError(explained(str(error), args.prog)) from None
    if (home := _run_folder(args.argv)) is not None:
        config.out = str(home)
    take_normal_form(config.trainer)
    for section in ("model", "data"):
        if section in config:
            check_nulls(section, config[section])
    check_values(config)
    take_enum_defaults(config.trainer)
    values = yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))  # it was validated just now
    unsaid = () if is_mode_needed(config) else ("mode",)
    return config, {name: value for name, value in values.items() if name not in ("config", "json", *unsaid)}


def _run_folder(argv: list[str]) -> Path | None:
    """Return the run folder whose own config.yaml is named, wherever it lies now; none if --out names another."""
    if any(arg.partition("=")[0] == "--out" for arg in argv):
        return None
    files = [Path(value) for flag, value in itertools.pairwise(argv) if flag in ("-c", "--config")]
    homes = [file.parent for file in files if file.name == CONFIG and (file.parent / PROVENANCE).exists()]
    return homes[-1] if homes else None


@functools.lru_cache(maxsize=4)
def _whole_parser(prog: str) -> jsonargparse.ArgumentParser:
    """Build the parser once and keep it: a sweep's worker reads hundreds of configurations."""
    parser = _parser(prog)
    parser.add_subclass_arguments(L.LightningModule, "model", required=True)
    parser.add_subclass_arguments(L.LightningDataModule, "data", required=True)
    parser.link_arguments("seed_everything", "model.init_args.seed")
    parser.link_arguments("seed_everything", "data.init_args.seed")
    return parser


def _parser(prog: str) -> jsonargparse.ArgumentParser:
    """Build a parser with all options except those of the classes that a configuration names."""
    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False, description="every option of this configuration")
    parser.add_argument("-c", "--config", action="config", help="configuration, or an overlay on the one before")
    parser.add_argument("--out", type=str, required=True, help=RUN_OPTIONS["out"])
    parser.add_argument("--monitor", type=str, default="val/mrr@10", help=RUN_OPTIONS["monitor"])
    parser.add_argument("--mode", type=Literal["min", "max"] | None, help=RUN_OPTIONS["mode"])
    parser.add_argument("--save_every", type=PositiveInt, default=200, help=RUN_OPTIONS["save_every"])
    parser.add_argument("--keep_checkpoints", type=bool, default=False, help=RUN_OPTIONS["keep_checkpoints"])
    tracked = Literal["auto", "online", "offline", "disabled"]
    parser.add_argument("--wandb", type=tracked, default="auto", help=RUN_OPTIONS["wandb"])
    parser.add_argument("--json", action="store_true", help=RUN_OPTIONS["json"])
    parser.add_argument("--seed_everything", type=Seed, default=0, help=RUN_OPTIONS["seed_everything"])
    parser.add_class_arguments(L.Trainer, "trainer", skip=LEFT_OUT, instantiate=False)
    for action in parser._actions:
        if hasattr(action, "_typehint"):
            action._typehint = in_order(action._typehint)
    return parser


@contextlib.contextmanager
def renamed_options() -> Iterator[None]:
    """Make messages name these verbs' options in their cures."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for theirs, ours in OPTION_NAMES.items():
            text = text.replace(theirs, ours)
        raise UserError(text) from error
