"""A sweep on data and a model of one's own: configurations and options that hold for every point, beside its file.

`--config OVERLAY.yaml` and `--set data.train=mine.jsonl` become words of the sweep's command, after its own configurations and
before what is swept. What comes out is a W&B sweep like another one, with a name and a folder of its own; workers, clusters and
W&B's agents run that one, and are told nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from research.errors import UserError, suggest_file
from research.runs.hashes import hash_json
from research.runs.identity import PLACE
from research.sweeps.command import ours
from research.sweeps.folder import folder_of
from research.sweeps.spec import Sweep, sweep_of

OTHERWISE = {"out": "--out DIR", "name": "--name NAME", "c": "--config YAML", "config": "--config YAML"}
"""Options that --set does not take → what does."""
LENGTH, DIGITS = 40, 6  # of what a name says of its overlay, and of the hash behind it


class Overlay(NamedTuple):
    """What holds for every point of a sweep.

    Attributes:
        configs: files of `fit`, after those of the sweep's command.
        settings: NAME=VALUE, options of `fit`.
        name: of the sweep that comes out; None makes one of the others.
        out: its folder; None: beside that of the sweep itself, by the name.
    """

    configs: Sequence[str] = ()
    settings: Sequence[str] = ()
    name: str | None = None
    out: Path | None = None


def overlaid(sweep: Sweep, overlay: Overlay) -> Sweep:
    """Put an overlay into a sweep's command, and give the sweep a name and a folder that tell it from others.

    Args:
        sweep: of `fit`.
        overlay: see there.

    Raises:
        UserError: a file that is not there, an option that is swept or said otherwise, or a sweep of another program.
    """
    if not any(overlay):
        return sweep
    if (ours(sweep.argv_of({})) or [""])[0] != "fit":
        raise UserError(
            f"{sweep.path}: --config, --set, --name and --out with a command that is no `research fit`; expected a sweep of "
            "trainings. Leave them out, and change the sweep's command."
        )
    for config in overlay.configs:
        if not Path(config).is_file():
            raise UserError(
                f"--config {config} does not exist; expected a YAML file of `research fit`. Check the path."
                f"{suggest_file(config)}"
            )
    settings = [_checked(sweep, setting) for setting in overlay.settings]
    names = [name for name, _ in settings]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"--set has {twice[0]} twice; expected each option once. Leave one out.")
    added = [argument for config in overlay.configs for argument in ("-c", str(config))]
    options = [f"--{setting}" for setting in overlay.settings]
    label = _label(overlay) if added or options else ""
    name = overlay.name or sweep.name + label
    command = [*sweep.command]
    first = next(i for i, argument in enumerate(command) if argument.startswith("${args"))
    command[first:first] = options  # before the swept parameters, which are options too
    place = _after_configs(command[:first])
    command[place:place] = added
    folder = folder_of(sweep)
    folder = overlay.out or folder.parent / (overlay.name or (folder.name or sweep.name) + label)
    facts = {"name": name, **{key: value for key, value in sweep.facts.items() if key != "name"}}
    changed = sweep_of(facts | {"command": _with_out(command, folder)}, sweep.path)
    described = " ".join(" ".join([*added, *options, f"--name {name}"]).split())
    text = yaml.safe_dump(changed.facts, sort_keys=False, allow_unicode=True, width=120)
    return changed._replace(overlay=(*added, *options), text=f"# {sweep.path} with {described}\n{text}")


def _checked(sweep: Sweep, setting: str) -> tuple[str, str]:
    """Check a setting; return its name, as `fit` reads it, and its value.

    Raises:
        UserError: it would change nothing, or cannot be set.
    """
    name, equals, value = setting.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        raise UserError(f"--set {setting!r}; expected NAME=VALUE, as data.train=mine.jsonl. Correct it.")
    if name in OTHERWISE:
        raise UserError(f"--set {setting}: {name} is no option of a point; expected {OTHERWISE[name]}. Pass that.")
    plain = _plain(name)
    for swept in sweep.parameters:
        for option in _options_of(_plain(swept.name), swept.values):
            if plain == option or plain.startswith(f"{option}."):
                raise UserError(
                    f"--set {setting}: the sweep varies {option} ({sweep.path}), which would win over it; expected an option "
                    "that is not swept. Leave it out, or change the sweep's parameters."
                )
    behind = sweep.command[max(i for i, argument in enumerate(sweep.command) if argument.startswith("${args")) + 1 :]
    if any(_plain(argument.removeprefix("--").partition("=")[0]) == plain for argument in behind if argument.startswith("--")):
        raise UserError(
            f"--set {setting}: the command of {sweep.path} sets {name} after ${{args}}, which would win over it; expected it "
            "before. Take it out of the command."
        )
    return plain, value


def _plain(name: str) -> str:
    """Return an option's name without init_args, which `fit` adds."""
    return ".".join(part for part in name.split(".") if part != "init_args")


def _options_of(name: str, values: list[object] | None) -> Iterator[str]:
    """Yield the options that a swept parameter sets: those of its mappings, where its values are mappings."""
    for value in values or [None]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from _options_of(_plain(f"{name}.{key}"), [inner])
        else:
            yield name


def _after_configs(command: list[str]) -> int:
    """Return where a further -c stands: after the last one, since `fit` refuses a configuration behind options."""
    after = [i + 2 for i, argument in enumerate(command) if argument in ("-c", "--config")]
    after += [i + 1 for i, argument in enumerate(command) if argument.startswith("--config=")]
    return max(after, default=command.index("fit") + 1)


def _label(overlay: Overlay) -> str:
    """Return what a name says of an overlay: values and names of files, and a hash that tells files of one name apart."""
    parts = [Path(config).stem for config in overlay.configs]
    for setting in overlay.settings:
        name, _, value = setting.partition("=")
        if re.fullmatch(r"[-+.\de]+|true|false|null", value):
            parts.append(name.rpartition(".")[2] + value)
        else:
            parts.append(Path(value).stem if "/" in value or Path(value).suffix else value)
    parts = [re.sub(r"[^\w.]+", "-", part).strip("-.") for part in parts]
    text = "-".join(part for part in dict.fromkeys(parts) if part)[:LENGTH].strip("-.")
    digits = hash_json([[str(config) for config in overlay.configs], list(overlay.settings)])[:DIGITS]
    return "-".join(["", *([text] if text else []), digits])


def _with_out(command: list[str], folder: Path) -> list[str]:
    """Return the command with another folder of the points."""
    arguments, place = list(command), f"{folder}/{PLACE}"
    for i, argument in enumerate(command):
        if i and command[i - 1] == "--out":
            arguments[i] = place
        elif argument.startswith("--out="):
            arguments[i] = f"--out={place}"
    return arguments
