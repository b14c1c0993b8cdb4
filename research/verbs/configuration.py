"""The configuration of fit, validate and test: YAML files, options over them, and the classes that they name.

The YAML is LightningCLI's (seed_everything, model, data, trainer, each class by class_path and init_args), parsed by
jsonargparse, which it is built on: the typed `__init__` of a class is the schema of its section.
"""

import argparse
import ast
import contextlib
import datetime
import enum
import functools
import inspect
import itertools
import json
import logging
import re
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import yaml

from research.errors import UserError, suggest
from research.runs.defaults import imported
from research.runs.layout import MARKER
from research.runs.reading import read_json
from research.types import Direction

if TYPE_CHECKING:
    import jsonargparse
    import lightning as L

    from research.training.base import TrainingModule

SIDES: dict[str, Direction] = {"min": "lower", "max": "higher"}
"""Values of `mode` → the better side of the monitor."""
INSTEAD = {
    "gradient_clip_val": "model.optimisation.clip",
    "accumulate_grad_batches": "model.optimisation.accumulate",
    "logger": "wandb",
    "default_root_dir": "out",
    "enable_checkpointing": "save_every",
    "overfit_batches": "data.limit",
    "fast_dev_run": "max_steps (configs/trainer/smoke.yaml is such an overlay)",
}
"""Arguments of Lightning's Trainer that another part of the configuration has taken over."""
OURS = {
    *INSTEAD,
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
TOP = ("config", "out", "monitor", "mode", "save_every", "wandb", "json", "seed_everything", "model", "data", "trainer")
OWN_NAMES = {
    "--skip-bad-rows": "--data.skip_bad_rows true",
    "--reranker-max-length": "--model.max_length",
    "--max-length": "--model.query_max_length or --model.doc_max_length",
    "(--data, --split)": "(data.train, data.val_run with data.val_split, data.test_run with data.test_split)",
    "Pass one of them as --split": "Name one of them as data.train_split, data.val_split or data.test_split",
}
"""What other verbs call an option, in messages of the rooms below → its name here."""
HELP = ("-h", "--help")
MAPPINGS = ("_pattern", "_config", "_kwargs")
"""Ends of options whose values are mappings: PEFT's rank_pattern, loftq_config, …"""
EXAMPLE = "research.training.dual_encoder.DualEncoderModule"
PRECISIONS = (None, "32-true", "bf16-mixed", "64-true")
RANGES = {
    "NonNegativeInt": "0 or more (a whole number)",
    "PositiveInt": "1 or more (a whole number)",
    "TwoOrMore": "2 or more (a whole number)",
    "ClosedUnitInterval": "0 to 1",
}
"""Number types of options → what they take, for messages."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", action="append", metavar="YAML", help="configuration, or an overlay on the one before"
    )
    parser.add_argument("--out", metavar="DIR", help="the run folder (the configuration's own)")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace | None:
    """The short help, or the options as typed: what they may be depends on the classes that the configuration names."""
    if argv and not argv[0].startswith("-"):  # a run folder
        _check_run(argv[0])
        argv = ["-c", str(Path(argv[0]) / "config.yaml"), *argv[1:]]
    names = [arg.partition("=")[0] for arg in argv]
    places = [i for i, name in enumerate(names) if name in ("-c", "--config")]
    files = [argv[i].partition("=")[2] or (argv[i + 1] if i + 1 < len(argv) else "") for i in places]
    if not files and {*HELP} & {*argv}:
        parser.print_help()
        return None
    if not files:
        raise UserError(f"no configuration; expected -c CONFIG.yaml. Try `{parser.prog} -c configs/dual_encoder.yaml`.")
    for file in files:
        _check_file(file)
    if given := [name for name in names if re.fullmatch(r"--(model|data)\.(init_args\.)?seed", name)]:
        _refuse_seed(given[0])
    options = [i for i, name in enumerate(names) if name.startswith("--") and name not in ("--config", "--json")]
    if options and places[-1] > options[0]:
        raise UserError(
            f"-c {files[-1]} comes after {argv[options[0]]}, and would silently win over it; expected every -c "
            "before the options. Move it to the front."
        )
    return argparse.Namespace(run=parser.get_default("run"), argv=argv, json="--json" in argv, prog=parser.prog)


def _check_run(folder: str) -> None:
    path = Path(folder)
    if (path / "config.yaml").is_file():
        return
    if path.is_dir():
        raise UserError(
            f"{folder} holds no config.yaml; expected a run folder that `research fit` wrote. Name one, or -c CONFIG.yaml."
        )
    there = sorted(p.name for p in path.parent.iterdir() if p.is_dir()) if path.parent.is_dir() else []
    near = f"; {suggest(path.name, there)}" if there else ""
    raise UserError(f"run folder {folder!r} does not exist{near}. Check the path, or name a configuration: -c CONFIG.yaml.")


def _check_file(file: str) -> None:
    if not Path(file).is_file():
        kind = "is a folder" if Path(file).is_dir() and file else "does not exist"
        raise UserError(f"configuration {file!r} {kind}; expected a YAML file. Check the path.")
    try:
        value = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"configuration {file} cannot be read ({error.strerror}); expected a readable YAML file. Check its permissions."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"configuration {file} is not readable YAML ({' '.join(str(error).split())[:300]}); expected "
            "`name: value` lines. Mend the file."
        ) from None
    if not isinstance(value, dict):
        raise UserError(
            f"configuration {file} holds {'nothing' if value is None else type(value).__name__}; expected sections "
            f"such as {', '.join(TOP[-3:])}. Mend the file."
        )
    for name in ("model", "data"):
        section = value.get(name)
        if isinstance(section, dict) and "seed" in {**section, **(section.get("init_args") or {})}:
            _refuse_seed(f"{name}.init_args.seed in {file}")


def _refuse_seed(name: str) -> None:
    raise UserError(
        f"{name} is not an option; expected seed_everything, one seed that data order, initialisation and "
        "dropout derive generators of their own from. Set that."
    )


def read(args: argparse.Namespace) -> "tuple[jsonargparse.Namespace, dict]":
    """The configuration that files and options give together, and the same with every default as plain values.

    Raises:
        UserError: an unknown name, a value of a wrong type, or out of its range.
    """
    import jsonargparse

    parser = _whole_parser(args.prog)
    try:
        config = parser.parse_args(_with_nulls(_unfolded(args.argv)))
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
    for section in ("model", "data"):
        if section in config:
            _check_nulls(section, config[section])
    _check_values(config)
    _take_enum_defaults(config.trainer)
    values = yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))  # it was validated just now
    better = getattr(imported(config.model.class_path), "better", lambda metric: None)(config.monitor)
    if config.mode is None or SIDES[config.mode] == better:
        values.pop("mode")  # it says nothing more: runs and ids are those of a configuration without it
    return config, {name: value for name, value in values.items() if name not in ("config", "json")}


def _take_enum_defaults(trainer: Any) -> None:
    """Members of an enumeration that stand as defaults of texts, such as Timer's interval, as the texts, in place: YAML has no
    form for them."""
    for one in _listed(trainer.get("callbacks")):
        parameters = inspect.signature(imported(one.class_path).__init__).parameters
        options = one.get("init_args") or {}
        for name, value in dict(options).items():
            if isinstance(value, enum.Enum) and name in parameters and parameters[name].annotation in (str, "str"):
                options[name] = str(value.value)


def _run_folder(argv: list[str]) -> Path | None:
    """The folder whose own config.yaml is named, wherever it lies now; not where --out says another."""
    if any(arg.partition("=")[0] == "--out" for arg in argv):
        return None
    files = [Path(value) for flag, value in itertools.pairwise(argv) if flag in ("-c", "--config")]
    homes = [file.parent for file in files if file.name == "config.yaml" and (file.parent / MARKER).exists()]
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
def _whole_parser(prog: str) -> "jsonargparse.ArgumentParser":
    """Kept: a sweep's worker reads hundreds of configurations."""
    import lightning as L

    parser = _parser(prog)
    parser.add_subclass_arguments(L.LightningModule, "model", required=True)
    parser.add_subclass_arguments(L.LightningDataModule, "data", required=True)
    parser.link_arguments("seed_everything", "model.init_args.seed")
    parser.link_arguments("seed_everything", "data.init_args.seed")
    return parser


def _parser(prog: str) -> "jsonargparse.ArgumentParser":
    """All options but those of the classes that a configuration names."""
    import jsonargparse
    import lightning as L

    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False, description="every option of this configuration")
    parser.add_argument("-c", "--config", action="config", help="configuration, or an overlay on the one before")
    parser.add_argument("--out", type=str, required=True, help="the run folder")
    parser.add_argument("--monitor", type=str, default="val/mrr@10", help="the best value of this metric makes model/")
    parser.add_argument("--mode", type=str | None, help="min | max: which value of a monitor of your own is the best")
    parser.add_argument("--save_every", type=int, default=200, help="steps between checkpoints, beside those at validation")
    parser.add_argument("--wandb", type=str, default="auto", help="auto | online | offline | disabled")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.add_argument("--seed_everything", type=int, default=0, help="of initialisation, data order and dropout")
    parser.add_class_arguments(L.Trainer, "trainer", skip=OURS, instantiate=False)
    for action in parser._actions:
        if hasattr(action, "_typehint"):
            action._typehint = text_last(action._typehint)
    return parser


def text_last(kind: Any) -> Any:
    """A type that takes texts among plain values, with str after them: `--trainer.devices 2` is the 2 of a YAML file.

    A timedelta stays behind str: it would take Lightning's DD:HH:MM:SS for hours, minutes and seconds.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()
    plain = {int, float, bool, list, dict, type(None), datetime.timedelta}
    if str not in kinds or any((get_origin(one) or one) not in {str, *plain} for one in kinds):
        return kind
    return Union[tuple(sorted(kinds, key=lambda one: (one is str) + 2 * (one is datetime.timedelta)))]  # noqa: UP007


def take_normal_form(trainer: Any) -> None:
    """One value for one meaning, in place, the one that YAML files have had: else a run has two ids.

    Args:
        trainer: that section of a configuration; of a config.yaml too, as an earlier command wrote it.
    """
    devices, precision = trainer.get("devices"), trainer.get("precision")
    if isinstance(devices, str) and re.fullmatch(r"-1|\d+(,\d+)*,?", devices):
        numbers = [int(number) for number in devices.split(",") if number]
        trainer["devices"] = numbers if "," in devices else numbers[0]
    if str(precision) in ("32", "64"):
        trainer["precision"] = f"{precision}-true"


def _unfolded(argv: list[str]) -> list[str]:
    """`--model.adapter={'r': 4, 'lora_alpha': 8}`, as a sweep's agent writes options that hang together, as the two options.

    Python's notation is read as well as YAML's. A mapping with a class_path stays whole: as from a configuration after others,
    its class takes the place of another one, and over the same class it changes the options that it names.
    """
    out: list[str] = []
    for arg in argv:
        name, equals, text = arg.partition("=")
        if equals and re.fullmatch(r"--[\w.]+", name) and text.startswith(("{", "[")):
            out += _leaves(name, _read(text))
        else:
            out.append(arg)
    return out


def _read(text: str) -> Any:
    try:
        return ast.literal_eval(text)  # None and True, which YAML takes for texts or not at all
    except (ValueError, SyntaxError):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text


def _leaves(name: str, value: Any) -> list[str]:
    if isinstance(value, dict) and value and "class_path" not in value and not name.endswith(MAPPINGS):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]
    return [f"{name}={value if isinstance(value, str) else json.dumps(value)}"]


def _with_nulls(argv: list[str]) -> list[str]:
    """`--model.optimisation.clip null` as `--model.optimisation={clip: null}`: jsonargparse takes the null of a dataclass
    within a class for the string "None"."""
    joined: list[str] = []
    for arg in argv:
        if arg == "null" and joined and re.fullmatch(r"--[\w.]+", joined[-1]):
            arg = f"{joined.pop()}=null"
        nested = re.fullmatch(r"(--\w+\.(?:init_args\.)?\w+)\.(\w+)=null", arg)
        inner = nested and not nested[1].endswith(".init_args")
        joined.append(f"{nested[1]}={{{nested[2]}: null}}" if inner else arg)
    return joined


def _explained(message: str, prog: str) -> str:
    """jsonargparse's error in one paragraph, with the cure where another name has taken over."""
    text = " ".join(message.split())
    for name, instead in INSTEAD.items():
        if f"trainer.{name}" in text or f"'{name}'" in text:
            return f"trainer.{name} is not an option here; expected {instead}, which has taken its place. Use that."
    if refused := _refused_value(text):
        return f"{refused}. Correct the configuration or the option."
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


def _refused_value(text: str) -> str | None:
    """`data.limit=0; expected 1 or more, or null`, where a value is not of its option's range or choices; else None."""
    place = re.search(r'Parser key "(model|data)": .*?Parser key "([\w.]+)": (.*)', text)
    expected = place and re.search(r"Not of type (\w+): |Expected a typing\.Literal\[(.+?)\]", place[3])
    value = place and re.search(r"Got value: (\S+)|Given value: (?!NestedArg|\{)(\S+)|: (\S+) does not|: ('.*?')", place[3])
    if not expected or not value:
        return None
    choices = expected[2] or RANGES.get(expected[1], expected[1])
    null = ", or null" if re.search(r"Subtypes: \[[^]]*NoneType", place[3]) else ""
    return f"{place[1]}.{place[2]}={next(filter(None, value.groups()))}; expected {choices}{null}"


def _check_nulls(section: str, config: "jsonargparse.Namespace") -> None:
    """jsonargparse takes a null for any option of a class, whatever its type says.

    Raises:
        UserError: a null for an option that needs a value.
    """
    for name, kind in get_type_hints(imported(config.class_path).__init__).items():
        if name in config.init_args and config.init_args[name] is None and kind is not Any and type(None) not in get_args(kind):
            raise UserError(f"{section}.{name}=null; expected a value. Correct it, or leave it out to take the default.")


def _check_values(config: "jsonargparse.Namespace") -> None:
    trainer = config.trainer
    if not config.out.strip():
        raise UserError(f"--out: {config.out!r} is empty; expected a path, for example ./out")
    if config.wandb not in ("auto", "online", "offline", "disabled"):
        raise UserError(f"wandb={config.wandb!r}; expected auto, online, offline or disabled. Correct it.")
    if config.mode not in (None, *SIDES):
        raise UserError(f"mode={config.mode!r}; expected min or max, which value of the monitor is the best. Correct it.")
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
    from research.training.supported import check_named

    named = [one for name in ("plugins", "callbacks") for one in _listed(trainer[name])]
    check_named(imported(one.class_path) for one in named)
    for name in ("max_steps", "max_epochs", "limit_train_batches"):
        if trainer[name] is not None and trainer[name] == 0:
            raise UserError(f"trainer.{name}=0 trains nothing; expected more than 0. Correct it, or leave it out.")


def check_classes(config: "jsonargparse.Namespace") -> None:
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


def build(config: "jsonargparse.Namespace") -> "tuple[TrainingModule, Any]":
    """Model and data, each refused before anything is written; the model's initialisation has a seed of its own.

    Raises:
        UserError: as their classes do.
    """
    import torch

    check_classes(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed_everything)
        module = _instance(config.model)
    data = _instance(config.data)
    if not module.metrics:
        raise UserError("model.metrics is empty; expected one or more, for example mrr@10. Name one.")
    known = [f"val/{name}" for name in module.metrics]
    if config.monitor not in known and "val" in data.collections:
        raise UserError(
            f"monitor={config.monitor!r} is not computed; expected one of {', '.join(known)}. Correct it, or "
            "add it to model.metrics."
        )
    if config.monitor in known:
        _check_mode(config.monitor, config.mode, module)
    return module, data


def _check_mode(monitor: str, mode: str | None, module: "TrainingModule") -> None:
    """
    Raises:
        UserError: nobody says which side of the monitor is better, or two say it differently.
    """
    better = module.better(monitor)
    if mode is None and better is None:
        raise UserError(
            f"monitor={monitor!r}: {type(module).__name__} does not declare which side of it is better; expected mode: min "
            "or mode: max beside it. Add it to the configuration, or the metric to the class's `directions`."
        )
    if mode is not None and better not in (None, SIDES[mode]):
        raise UserError(
            f"mode={mode!r} with monitor={monitor!r} would keep the worst model: the {better} value of it is the better one; "
            f"expected mode: {'min' if mode == 'max' else 'max'}. Correct it, or leave mode out."
        )


def directions_of(config: "jsonargparse.Namespace", module: "TrainingModule") -> "dict[str, Direction | None]":
    """Metric of the validation → its better side: as its trainer declares it, and of the monitor as `mode` says."""
    directions = {f"val/{name}": module.better(name) for name in module.metrics}
    stated = SIDES.get(config.mode or "")
    return directions | {config.monitor: stated or directions.get(config.monitor)}


def _instance(section: "jsonargparse.Namespace") -> Any:
    """The object that a section describes.

    Not by the parser that read it: for a class among several possible ones it makes a ValueError of its own of whatever
    the class raises, and a UserError would lose its name.
    """
    import jsonargparse

    from research.models.adapter_fields import check_loftq, peft_warnings

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(imported(section.class_path), "it")
    check_loftq(section.init_args.get("adapter.init_args"))
    try:
        with peft_warnings():
            return parser.instantiate(jsonargparse.Namespace(it=section.init_args)).it
    except (ValueError, TypeError) as error:
        # jsonargparse raises an error of its own where a class of several possible ones cannot be made
        chain = [error, error.__cause__, error.__context__]
        reason = next((e for e in chain if e is not None and _raised_in(e, "peft.")), None)
        if isinstance(error, UserError) or reason is None:
            raise
        raise UserError(
            f"the adapter is refused by PEFT ({' '.join(str(reason).split())[:300]}); expected arguments of its "
            "class that go together. Correct model.adapter."
        ) from error


def make_trainer(config: "jsonargparse.Namespace", callbacks: list, loggers: list) -> "L.Trainer":
    """Lightning's Trainer; `callbacks` come after the configuration's own.

    Raises:
        UserError: arguments that do not go together, or a device that is not there.
    """
    import jsonargparse
    import lightning as L
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    from research.training.progress import Progress
    from research.training.supported import check_trainer

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(L.Trainer, "trainer", skip=OURS, instantiate=False)
    try:
        values = parser.instantiate(jsonargparse.Namespace(trainer=config.trainer)).trainer.as_dict()
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(
            f"the trainer section names a class that cannot be made ({' '.join(str(error).split())[:400]}); "
            "expected arguments that it takes, and packages that are there. Correct it, or leave it "
            "out."
        ) from error
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # where every login node has it
    if SLURMEnvironment.detect():  # the batch script requeues, and our own handlers save: Lightning's would do both again
        values["plugins"] = [*_listed(values.get("plugins")), SLURMEnvironment(auto_requeue=False)]
    given = values.get("callbacks") or []
    values["callbacks"] = [*_listed(given), Progress(), *callbacks]
    for name in ("lightning.pytorch", "lightning.fabric"):  # hints that are not about this run
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    with lightning_errors():
        trainer = L.Trainer(
            **values,
            logger=loggers or False,
            default_root_dir=config.out,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    check_trainer(trainer)
    return trainer


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


@contextlib.contextmanager
def lightning_errors() -> Iterator[None]:
    """What Lightning finds wrong with the configuration, as a UserError; Ctrl-C, which it makes exit code 1 of, as itself."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, AttributeError, LookupError, ImportError) as error:
        if isinstance(error, UserError):
            raise
        if (name := _callback_in(error)) is not None and not isinstance(error, MisconfigurationException):
            raise UserError(
                f"trainer.callbacks: {name} does not go with this training ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}); expected one that needs no more than Lightning's hooks. "
                "Leave it out."
            ) from error
        if not _raised_in(error, "lightning."):
            raise
        raise UserError(
            f"the trainer section does not work ({' '.join(str(error).split())[:400]}); expected arguments of "
            "lightning.Trainer that go together here. Correct it."
        ) from None


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


def _callback_in(error: BaseException) -> str | None:
    """Class of Lightning's callback in which it was raised, there or in what it called."""
    trace, found = error.__traceback__, None
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.startswith("lightning.pytorch.callbacks."):
            found = type(trace.tb_frame.f_locals.get("self")).__name__
        elif module.startswith("research."):
            found = None  # it called back what is ours
        trace = trace.tb_next
    return found


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether it was the package itself that complained, and not something beneath it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(package)
