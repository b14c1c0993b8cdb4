"""What fit, validate and test take on the command line, checked before anything heavy is loaded.

The options of the classes that a configuration names come later, in configuration.py: jsonargparse reads them off these
classes, which import torch.
"""

import argparse
import re
from pathlib import Path

import yaml

from research.errors import UserError, suggest, suggest_file
from research.models.device import add_device, trainer_options
from research.runs.layout import CONFIG, PROVENANCE
from research.training.option_names import TOP, check_names
from research.training.places import values_of

HELP = ("-h", "--help")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the short help."""
    parser.add_argument(
        "folder", nargs="?", metavar="RUN", help="a run folder that `research fit` wrote, in place of -c RUN/config.yaml"
    )
    parser.add_argument(
        "-c", "--config", action="append", metavar="YAML", help="configuration, or an overlay on the one before"
    )
    parser.add_argument("--out", metavar="DIR", help="the run folder (the configuration's own)")
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.epilog = (
        f"`{parser.prog} -c CONFIG --help` lists every option of the model, the data and the trainer with its value "
        "in that configuration."
    )


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace | None:
    """Print the short help, or collect the options as typed; the configuration's classes decide which options exist."""
    if argv and not argv[0].startswith("-"):  # a run folder
        _check_run(argv[0])
        argv = ["-c", str(Path(argv[0]) / CONFIG), *argv[1:]]
    device, argv = _taken_device(argv)
    names = [arg.partition("=")[0] for arg in argv]
    places = [i for i, name in enumerate(names) if name in ("-c", "--config")]
    files = [argv[i].partition("=")[2] or (argv[i + 1] if i + 1 < len(argv) else "") for i in places]
    if not files and {*HELP} & {*argv}:
        parser.print_help()
        return None
    if not files:
        raise UserError(f"no configuration; expected -c CONFIG.yaml. Try `{parser.prog} -c configs/dual_encoder.yaml`.")
    sections = {file: _read(file) for file in files}
    if given := [name for name in names if re.fullmatch(r"--(model|data)\.(init_args\.)?seed", name)]:
        _refuse_seed(given[0])
    options = [i for i, name in enumerate(names) if name.startswith("--") and name not in ("--config", "--json")]
    if options and places[-1] > options[0]:
        raise UserError(
            f"-c {files[-1]} comes after {argv[options[0]]}, and would silently win over it; expected every -c "
            "before the options. Move it to the front."
        )
    written = [file for file in files if (Path(file).parent / PROVENANCE).exists()]  # by `fit`, or another verb
    typed = _typed(argv)
    check_names(sections, written, typed, parser.prog)
    asked = {name: bool({*flags} & {*argv}) for name, flags in (("json", ("--json",)), ("help", HELP))}
    argv = [*argv, *trainer_options(device)]
    resumes = bool(written) and "out" not in dict(typed)
    own = {"argv": argv, "prog": parser.prog, "device": device, "resumes": resumes, "values": values_of(sections, typed)}
    return argparse.Namespace(run=parser.get_default("run"), **own, **asked)


def _taken_device(argv: list[str]) -> tuple[str, list[str]]:
    """Split off --device: return the named device and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_device(parser)
    try:
        given, others = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}. Correct it.") from None
    return given.device, others


def _typed(argv: list[str]) -> list[tuple[str, str]]:
    """List the options of the command line, each with the word after it, without -c and --help."""
    options = [(i, *arg[2:].partition("=")) for i, arg in enumerate(argv) if arg.startswith("--") and arg not in HELP]
    following = dict(enumerate(argv[1:]))
    return [(name, value if equals else following.get(i, "")) for i, name, equals, value in options]


def _check_run(folder: str) -> None:
    path = Path(folder)
    if (path / CONFIG).is_file():
        return
    if path.is_dir():
        raise UserError(
            f"{folder} holds no {CONFIG}; expected a run folder that `research fit` wrote. Name one, or -c CONFIG.yaml."
        )
    there = sorted(p.name for p in path.parent.iterdir() if p.is_dir()) if path.parent.is_dir() else []
    near = f"; {suggest(path.name, there, paths=True)}" if there else ""
    raise UserError(f"run folder {folder!r} does not exist{near}. Check the path, or name a configuration: -c CONFIG.yaml.")


def _read(file: str) -> dict:
    """Read the sections of a configuration file.

    Raises:
        UserError: it cannot be read, or is no mapping.
    """
    if not Path(file).is_file():
        is_folder = Path(file).is_dir() and file
        kind, near = ("is a folder", "") if is_folder else ("does not exist", suggest_file(file) if file else "")
        raise UserError(f"configuration {file!r} {kind}; expected a YAML file. Check the path.{near}")
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
    return value


def _refuse_seed(name: str) -> None:
    raise UserError(
        f"{name} is not an option; expected seed_everything, one seed that data order, initialisation and "
        "dropout derive generators of their own from. Set that."
    )
