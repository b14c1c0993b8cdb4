"""Checks of a configuration before anything is built: values, classes and metrics that do not fit together are refused."""

import inspect
import re
from typing import Any, get_args, get_type_hints

import jsonargparse
import lightning as L

from research.errors import UserError
from research.models.sources import check_name
from research.runs.defaults import imported
from research.training.normal_form import listed
from research.training.supported import check_named

EXAMPLE = "research.training.dual_encoder.DualEncoderModule"
PRECISIONS = (None, "32-true", "bf16-mixed", "64-true")


def check_values(config: jsonargparse.Namespace) -> None:
    """Refuse values that Lightning accepts but this tool does not.

    Raises:
        UserError: such a value.
    """
    trainer = config.trainer
    if not config.out.strip():
        raise UserError(f"--out: {config.out!r} is empty; expected a path, for example ./out")
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
    sections = [section for name in ("plugins", "callbacks") for section in listed(trainer[name])]
    check_named(imported(section.class_path) for section in sections)
    for name in ("max_steps", "max_epochs", "limit_train_batches"):
        if trainer[name] is not None and trainer[name] == 0:
            raise UserError(f"trainer.{name}=0 trains nothing; expected more than 0. Correct it, or leave it out.")


def check_classes(config: jsonargparse.Namespace) -> None:
    """Refuse classes that do not fit together.

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


def check_class_options(config: jsonargparse.Namespace) -> None:
    """Refuse a model name and options that are wrong whatever the weights and the data are.

    Raises:
        UserError: as the class's `check_options` does.
    """
    kind, options = imported(config.model.class_path), config.model.init_args
    names = inspect.signature(kind.check_options).parameters
    if all(name in options for name in names):  # a subclass may have others
        kind.check_options(**{name: options[name] for name in names})
    if isinstance(name := options.get("model"), str):
        check_name(name)


def leaves_to_data(config: jsonargparse.Namespace) -> bool:
    """Return whether the data decide an option's value; the computation is then known only after they are read."""
    options, decides = config.data.get("init_args"), getattr(imported(config.data.class_path), "decides", ())
    return any(options[name] is None for name in decides)


def split_of(data: L.LightningDataModule, options: jsonargparse.Namespace, verb: str) -> str:
    """Return the split that a verb measures on: val or test.

    Raises:
        UserError: the configuration names no such data.
    """
    split = "val" if verb == "validate" else "test"
    name = options.get(f"{split}_split")
    if "val" in data.collections if verb == "validate" else name is not None or getattr(data, "test", None):
        return split
    value = "is null" if name is None else f"is {name!r}, and a file has no splits"
    raise UserError(
        f"data.{split}_split {value}; expected a split to {verb} on. Name one: --data.{split}_split NAME, or other data by "
        f"--data.{split} FILE.jsonl."
    )


def check_nulls(section: str, config: jsonargparse.Namespace) -> None:
    """Refuse a null for an option that needs a value: jsonargparse accepts null whatever the type is.

    Raises:
        UserError: such a null.
    """
    options = config.get("init_args") or {}
    try:
        kinds = get_type_hints(imported(config.class_path).__init__)
    except NameError:  # a class of the user's, with names that are imported for type checkers alone
        return
    for name, kind in kinds.items():
        if name in options and options[name] is None and kind is not Any and type(None) not in get_args(kind):
            raise UserError(f"{section}.{name}=null; expected a value. Correct it, or leave it out to take the default.")
