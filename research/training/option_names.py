"""The names of a configuration's options: a wrong one is refused before torch and Lightning are loaded, which takes seconds,
with the right one, wherever in the configuration it is.

They are read off the source of the classes that the configuration names. What cannot be read there is left to jsonargparse,
which checks every name again.
"""

from collections.abc import Iterable, Iterator

from research.errors import UserError, suggest
from research.runs.class_source import classes_beside, derives, nested, parameters
from research.runs.defaults import KNOWN

RUN_OPTIONS = {
    "out": "the run folder",
    "monitor": "the best value of this metric makes model/",
    "mode": "min | max: which value of a monitor of your own is the best",
    "save_every": "steps between checkpoints, beside those at validation",
    "keep_checkpoints": "of a finished run; they are removed otherwise",
    "wandb": "auto | online | offline | disabled",
    "json": "one JSON line on stdout",
    "seed_everything": "of initialisation, data order and dropout",
}
"""Options that belong to no class of a configuration → what they are."""
TOP = ("config", *RUN_OPTIONS, "model", "data", "trainer")
"""Names of a configuration's top level."""
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
CLASSES = ("model", "data", "model.adapter")
"""Options whose value may be a class path by itself."""
KINDS = {"model": "LightningModule", "data": "LightningDataModule"}
"""Section → what its class is; of a class of another kind jsonargparse says so."""
FREE = ("class_path", "init_args", "dict_kwargs", "help")
"""Names beside the options of a class."""


def check_names(files: dict[str, dict], written: list[str], typed: list[tuple[str, str]], prog: str) -> None:
    """Check the options that files set, and those of the command line.

    Args:
        files: configuration → its sections, in the order in which they are read.
        written: those that a verb wrote into a run folder, whose names were right then.
        typed: options of the command line with their values, which change what files say.
        prog: the command, for the message.

    Raises:
        UserError: an option that a class which the configuration names does not have, a class that is not there, or none
            where one is needed.
    """
    classes = {"trainer": "lightning.Trainer"}
    for file, sections in files.items():
        options = list(dotted(sections))
        _take_classes(classes, options)
        for name, _ in options if file not in written else ():
            if (unknown := _unknown(name, classes)) is not None:
                raise _error(f"{file}: ", repr(unknown), unknown, classes, prog)
    options = [(name.replace(".init_args", ""), value) for name, value in typed]
    _take_classes(classes, options)
    for name, _ in options:
        if (unknown := _unknown(name, classes)) is not None:
            raise _error("", f"--{unknown}", f"--{unknown}", classes, prog)
    for section in CLASSES:
        _check_class(section, classes.get(section, ""))
    missing = [section for section in ("model", "data") if section not in classes]
    if missing and not written:
        raise UserError(
            f"no class of {' and '.join(missing)} in {' and '.join(files)}; expected class_path and init_args, as "
            f"configs/dual_encoder.yaml has them. An overlay comes after a whole configuration: {prog} -c configs/sft.yaml "
            f"-c {[*files][-1]}"
        )


def _check_class(section: str, path: str) -> None:
    """Refuse a class that is not there, as far as the source tells; its import takes seconds."""
    if (beside := classes_beside(path)) is not None:
        home = {"model": "research.training.", "data": "research.data.", "model.adapter": "peft."}[section]
        known = {*beside, *(other for other in KNOWN if other.startswith(home))}
        raise UserError(f"{section}.class_path={path} does not exist; {suggest(path, known)}. Correct it in the configuration.")


def dotted(value: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every key by its dotted name, sections and what is in them."""
    for key, inner in value.items():
        name = f"{prefix}{key}" if key != "init_args" else prefix.rstrip(".")
        if key != "init_args":
            yield name, inner
        if isinstance(inner, dict):
            yield from dotted(inner, f"{name}.")


def _take_classes(classes: dict[str, str], options: Iterable[tuple[str, object]]) -> None:
    """Note which classes options name; a new class has other options, and other classes in them."""
    for name, value in options:
        section = name.removesuffix(".class_path")
        if section != name or (name in CLASSES and not isinstance(value, dict)):
            path = value if isinstance(value, str) else ""
            if classes.get(section) != path:
                for inner in [other for other in classes if other.startswith(f"{section}.")]:
                    del classes[inner]
            classes[section] = path


def _unknown(name: str, classes: dict[str, str]) -> str | None:
    """Return the part of a dotted name, from its start, that no class has; None where all of it is known, or cannot be."""
    section, *keys = name.split(".")
    if section not in (*TOP, "print_config", "help"):
        return section
    owner = classes.get(section, "")
    if section in KINDS and not derives(owner, KINDS[section]):
        return None
    for i, key in enumerate(keys):
        options = _options(section if not i else "", owner)
        if key in FREE or options is None:
            return None
        if key.rstrip("+") not in options:
            return ".".join([section, *keys[: i + 1]])
        owner = classes.get(".".join([section, *keys[: i + 1]])) or nested(options[key.rstrip("+")])
    return None


def _error(where: str, shown: str, name: str, classes: dict[str, str], prog: str) -> UserError:
    dashes, option = name[: len(name) - len(name.lstrip("-"))], name.lstrip("-")
    if (instead := REPLACED.get(option.removeprefix("trainer."))) and option.startswith("trainer."):
        return UserError(f"{where}{option} is not an option here; expected {instead}, which has taken its place. Use that.")
    if option.startswith("model.adapter.") and not classes.get("model.adapter"):
        return UserError(
            f"{where}{shown} is of an adapter, and the configuration names none; expected one before it. Add an overlay of "
            "configs/adapter, such as -c configs/adapter/lora.yaml."
        )
    known = [f"{dashes}{other}" for other in known_names(classes)]
    return UserError(
        f"{where}unknown option {shown}; {suggest(name, known)}. Expected what `{prog} -c CONFIG --help` lists. Correct the "
        "configuration or the option."
    )


def known_names(classes: dict[str, str]) -> list[str]:
    """List every option of a configuration by its dotted name, as far as the source of its classes tells."""
    names, waiting = list(TOP), [(section, classes.get(section, "")) for section in ("model", "data", "trainer")]
    while waiting:
        section, owner = waiting.pop()
        for key, source in (_options(section, owner) or {}).items():
            names.append(f"{section}.{key}")
            inner = classes.get(names[-1]) or ("" if "None" in source[0] or section == "trainer" else nested(source))
            waiting += [(names[-1], inner)] if inner else []
    return names


def _options(section: str, class_path: str) -> dict[str, tuple[str, str]] | None:
    """Return options of a section's class, but for the seed, which is the run's, and what is taken over from Lightning."""
    options = parameters(class_path)
    if options is None:
        return None
    hidden = LEFT_OUT if section == "trainer" else {"seed"} if section in ("model", "data") else ()
    return {name: source for name, source in options.items() if name not in hidden}
