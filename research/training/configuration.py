"""The configuration of fit, validate and test: YAML files, options over them, and the classes that they name.

The YAML is LightningCLI's (seed_everything, model, data, trainer, each class by class_path and init_args), parsed by
jsonargparse, which it is built on: the typed `__init__` of a class is the schema of its section.
"""

import argparse
import contextlib
import functools
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import jsonargparse
import lightning as L
import yaml

from research.errors import UserError, suggest
from research.runs.identity import imported
from research.runs.layout import CONFIG, MARKER
from research.runs.reading import read_json
from research.training.arguments import HELP, TOP
from research.training.normal_form import as_written, listed, take_enum_defaults, take_normal_form, text_last
from research.training.supported import check_named

REPLACED = {
    "gradient_clip_val": "model.optimisation.clip",
    "accumulate_grad_batches": "model.optimisation.accumulate",
    "logger": "wandb",
    "default_root_dir": "out",
    "enable_checkpointing": "save_every",
    "overfit_batches": "data.limit",
    "fast_dev_run": "max_steps (configs/trainer/smoke.yaml is such an overlay)",
}
"""Arguments of Lightning's Trainer that another part of the configuration has taken over."""
LEFT_OUT = {
    *REPLACED,
    "gradient_clip_algorithm",
    "enable_progress_bar",
    "enable_model_summary",
    "num_sanity_val_steps",
    "use_distributed_sampler",
    "log_every_n_steps",
    "barebones",
    "reload_dataloaders_every_n_epochs",
    "enable_autolog_hparams",
    "model_registry",
    "limit_predict_batches",
}
OWN_NAMES = {
    "--skip-bad-rows": "--data.skip_bad_rows true",
    "--reranker-max-length": "--model.max_length",
    "--max-length": "--model.query_max_length or --model.doc_max_length",
    "(--data, --split)": "(data.train, data.val_run with data.val_split, data.test_run with data.test_split)",
    "Pass one of them as --split": "Name one of them as data.train_split, data.val_split or data.test_split",
}
"""What other verbs call an option, in messages of the rooms below → its name here."""
EXAMPLE = "research.training.dual_encoder.DualEncoderModule"
PRECISIONS = (None, "32-true", "bf16-mixed", "64-true")


def read(args: argparse.Namespace) -> tuple[jsonargparse.Namespace, dict]:
    """The configuration that files and options give together, and the same with every default as plain values.

    Raises:
        UserError: an unknown name, a value of a wrong type, or out of its range.
    """
    parser = _whole_parser(args.prog)
    try:
        config = parser.parse_args(as_written(args.argv))
    except jsonargparse.ArgumentError as error:
        if (home := _run_folder(args.argv)) is not None and (verb := read_json(home / MARKER).get("verb")):
            raise UserError(
                f"{home} is what `research {verb}` wrote; expected the config.yaml of a training. Name one that "
                "`research fit` made."
            ) from None
        raise UserError(_explained(str(error), args.prog)) from None
    if (home := _run_folder(args.argv)) is not None:
        config.out = str(home)
    take_normal_form(config.trainer)
    _check_values(config)
    take_enum_defaults(config.trainer)
    values = yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))  # it was validated just now
    return config, {name: value for name, value in values.items() if name not in ("config", "json")}


def _run_folder(argv: list[str]) -> Path | None:
    """The folder whose own config.yaml is named, wherever it lies now; not where --out says another."""
    if any(arg.partition("=")[0] == "--out" for arg in argv):
        return None
    files = [Path(value) for flag, value in itertools.pairwise(argv) if flag in ("-c", "--config")]
    homes = [file.parent for file in files if file.name == CONFIG and (file.parent / MARKER).exists()]
    return homes[-1] if homes else None


def print_options(args: argparse.Namespace) -> None:
    """Every option of the classes that the configuration names, with the values that it has there."""
    config, _ = read(argparse.Namespace(argv=[arg for arg in args.argv if arg not in HELP], prog=args.prog))
    parser = _parser(args.prog)
    values = {name: config[name] for name in TOP if name not in ("config", "json", "model", "data", "trainer")}
    values |= {f"trainer.{name}": value for name, value in config.trainer.items(nested=False)}
    for name in ("model", "data"):
        parser.add_class_arguments(imported(config[name].class_path), name, skip={"seed"})
        init_args = config[name].init_args.items(nested=False)
        values |= {f"{name}.{key}": value for key, value in init_args if key != "seed"}
    parser.set_defaults(values)
    parser.print_help()


@functools.lru_cache(maxsize=4)
def _whole_parser(prog: str) -> jsonargparse.ArgumentParser:
    """Kept: a sweep's worker reads hundreds of configurations."""
    parser = _parser(prog)
    parser.add_subclass_arguments(L.LightningModule, "model", required=True)
    parser.add_subclass_arguments(L.LightningDataModule, "data", required=True)
    parser.link_arguments("seed_everything", "model.init_args.seed")
    parser.link_arguments("seed_everything", "data.init_args.seed")
    return parser


def _parser(prog: str) -> jsonargparse.ArgumentParser:
    """All options but those of the classes that a configuration names."""
    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False, description="every option of this configuration")
    parser.add_argument("-c", "--config", action="config", help="configuration, or an overlay on the one before")
    parser.add_argument("--out", type=str, required=True, help="the run folder")
    parser.add_argument("--monitor", type=str, default="val/mrr@10", help="the best value of this metric makes model/")
    parser.add_argument("--save_every", type=int, default=200, help="steps between checkpoints, beside those at validation")
    parser.add_argument("--wandb", type=str, default="auto", help="auto | online | offline | disabled")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.add_argument("--seed_everything", type=int, default=0, help="of initialisation, data order and dropout")
    parser.add_class_arguments(L.Trainer, "trainer", skip=LEFT_OUT, instantiate=False)
    for action in parser._actions:
        if hasattr(action, "_typehint"):
            action._typehint = text_last(action._typehint)
    return parser


def _explained(message: str, prog: str) -> str:
    """jsonargparse's error in one paragraph, with the cure where another name has taken over."""
    text = " ".join(message.split())
    for name, instead in REPLACED.items():
        if f"trainer.{name}" in text or f"'{name}'" in text:
            return f"trainer.{name} is not an option here; expected {instead}, which has taken its place. Use that."
    known = ""
    if match := re.search(r".*class_path '([\w.]+)':.*?Option '([\w.]+)' is not accepted", text):
        known = suggest(match[2], inspect.signature(imported(match[1]).__init__).parameters.keys() - {"self", "seed"})
    elif match := re.search(r"(?:Option '|unrecognized arguments: )(--)?([^' =]+)", text):
        known = suggest(f"{match[1] or ''}{match[2]}", [f"{match[1] or ''}{name}" for name in TOP])
    given = re.search(r"Given value: (?!NestedArg|Namespace|\{)(\S+)", text)
    text = re.sub(r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - ", "", text)
    text = re.sub(r"( - Expected a <class 'NoneType'>)?( Given value type:.*)?$", "", text)
    text = re.sub(r"<class '(\w+)'>", r"\1", text).rstrip(".")
    if given and not known and "Got value" not in text:
        text += f", not {given[1].rstrip('.')!r}"
    return (
        f"{text[:600]}; {known + '. Expected' if known else 'expected'} what `{prog} -c CONFIG --help` lists. Correct the "
        "configuration or the option."
    )


def _check_values(config: jsonargparse.Namespace) -> None:
    trainer = config.trainer
    if not config.out.strip():
        raise UserError(f"--out: {config.out!r} is empty; expected a path, for example ./out")
    if config.wandb not in ("auto", "online", "offline", "disabled"):
        raise UserError(f"wandb={config.wandb!r}; expected auto, online, offline or disabled. Correct it.")
    if config.save_every < 1:
        raise UserError(f"save_every={config.save_every}; expected 1 step or more. Correct it.")
    if not 0 <= config.seed_everything < 2**32:
        raise UserError(f"seed_everything={config.seed_everything}; expected 0 to 4294967295. Correct it.")
    if trainer.precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={trainer.precision!r}; expected 32-true, bf16-mixed or 64-true: fp16 scales "
            "gradients, and clipping would see the scale. Choose one."
        )
    strategy = trainer.strategy if isinstance(trainer.strategy, str) else trainer.strategy.get("class_path", "")
    if not re.fullmatch(r"auto|ddp(_find_unused_parameters_(true|false))?|.*\bDDPStrategy", strategy):
        raise UserError(
            f"trainer.strategy={strategy!r}; expected auto, ddp or ddp_find_unused_parameters_true: gradients are "
            "summed, counted and clipped whole here, and processes start as commands. Choose one."
        )
    named = [one for name in ("plugins", "callbacks") for one in listed(trainer[name])]
    check_named(imported(one.class_path) for one in named)
    for name in ("max_steps", "max_epochs", "limit_train_batches"):
        if trainer[name] is not None and trainer[name] == 0:
            raise UserError(f"trainer.{name}=0 trains nothing; expected more than 0. Correct it, or leave it out.")


def check_classes(config: jsonargparse.Namespace) -> None:
    """
    Raises:
        UserError: a model that is no training of this tool, or data of another training.
    """
    reads = getattr(imported(config.model.class_path), "reads", None)
    if reads is None:
        raise UserError(
            f"model.class_path={config.model.class_path} is not a training of this tool; expected one of "
            f"research.training, for example {EXAMPLE}. Name one, or a subclass."
        )
    if getattr(imported(config.data.class_path), "gives", None) != reads:
        raise UserError(
            f"data.class_path={config.data.class_path} does not give what {config.model.class_path} reads; "
            f"expected a DataModule of {reads.__name__}. configs/ has one."
        )


def check_monitor(config: jsonargparse.Namespace, module: L.LightningModule, data: L.LightningDataModule) -> None:
    """
    Raises:
        UserError: nothing is measured, or not what makes the best model.
    """
    if not module.metrics:
        raise UserError("model.metrics is empty; expected one or more, for example mrr@10. Name one.")
    known = [f"val/{name}" for name in module.metrics]
    if config.monitor not in known and "val" in data.collections:
        raise UserError(
            f"monitor={config.monitor!r} is not computed; expected one of {', '.join(known)}. Correct it, or "
            "add it to model.metrics."
        )


@contextlib.contextmanager
def own_names() -> Iterator[None]:
    """Cures in messages name the options of these verbs."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for theirs, ours in OWN_NAMES.items():
            text = text.replace(theirs, ours)
        raise UserError(text) from error
