"""Sources with ties and conditions → plain W&B sweeps.

A W&B grid is a product of independent lists: it cannot say alpha = 2r, nor virtual tokens for prompt tuning only. A source can:

  let        variables that are no options: {scale: [1, 2]}
  tie        options that follow from others: {model.adapter.lora_alpha: scale * model.adapter.r}
  zip        lists that go together, value by value: [{data.max_length: [128, 256], data.batch_size: [32, 16]}]
  cases      alternatives, each with options of its own; a list in a case is an axis within it
  sizes      further sizes of the same question: {quick: {configs: [configs/trainer/quick.yaml]}}; parameters, let and tie of
             a size are merged with those above by their names (null drops one), configs are added, all else is replaced
  configs    what the command names by -c, in order
  name       of the sweep and its folder (the file's name); a size adds its own to it, unless it has a name itself

Options that hang together become one parameter, named by what their names have in common, whose values are mappings:
`model.adapter: [{r: 4, lora_alpha: 8}, {r: 8, lora_alpha: 16}]`. W&B shows a mapping's keys as model.adapter.r and
model.adapter.lora_alpha, and `fit` takes `--model.adapter={'r': 4, 'lora_alpha': 8}` for the two options.
"""

import contextlib
import tempfile
from pathlib import Path

import yaml

from research.errors import UserError, suggest
from research.progress import say
from research.runs.files import atomic_write
from research.sweeps.folder import folder_of
from research.sweeps.groups import of_cases, one_parameter, tied, zipped
from research.sweeps.sampling import size_text
from research.sweeps.spec import SOURCE_KEYS, check_mapping, read_mapping, read_sweep

MADE = "# Made by `research sweep compile "
MERGED = ("parameters", "let", "tie")
"""Keys of a size that are merged with the source's, name by name."""
HEAD = MADE + "{source}`: change that file, not this one.\n"


def compile_file(file: Path, out: Path | None = None, check: bool = False) -> int:
    """Write the plain sweeps of a source, or say where they differ from those that are there; return the exit code.

    Args:
        file: the source.
        out: folder of the plain sweeps; None: beside src/, in which the source is.
        check: write nothing.

    Raises:
        UserError: the source says something that no sweep can.
    """
    if file.is_file() and file.read_text(encoding="utf-8", errors="replace").startswith(MADE):
        raise UserError(f"{file} was made by compile itself; expected its source, which its first line names.")
    if out is None and file.resolve().parent.name != "src":
        raise UserError(f"{file} is in no folder src/, beside which the plain sweeps would go; expected --out DIR. Name it.")
    out = out or file.parent.parent
    if (out / file.name).resolve() == file.resolve():
        raise UserError(f"--out {out} is the folder of {file} itself, which would be overwritten; expected another. Name one.")
    written: list[Path] = []
    different: list[str] = []
    for size, sweep in compile_source(file).items():
        path = (out / size if size else out) / f"{file.stem}.yaml"
        text = text_of(Path(*file.parts[-3:]), sweep)
        if check:
            different += [str(path)] if not path.exists() or path.read_text(encoding="utf-8") != text else []
            continue
        _check_sweep(text, file)
        with atomic_write(path) as stream:
            stream.write(text)
        written.append(path)
    if different:
        say(f"{', '.join(different)}: not what {file} makes; run `research sweep compile {file}`")
        return 1
    for path in written:
        print(f"{path}  {size_text(read_sweep(path))}")
    if written:
        with contextlib.suppress(UserError):  # planning says what is wrong with its --out
            say(f"next: research sweep plan {written[-1]} (its points go to {folder_of(read_sweep(written[-1]))})")
    return 0


def _check_sweep(text: str, source: Path) -> None:
    """Check what a source makes.

    Raises:
        UserError: it is no sweep.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.name
        path.write_text(text, encoding="utf-8")
        try:
            read_sweep(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), str(source))) from None


def compile_source(path: Path) -> dict[str, dict]:
    """Make the plain sweeps of a source: {"": the full size, "quick": …}.

    Raises:
        UserError: it cannot be read, or says something that no sweep can.
    """
    source = read_mapping(path)
    plain = {"": _plain(path, source, "", source)}
    for size, changes in check_mapping(source.get("sizes") or {}, "sizes", path).items():
        plain[size] = _plain(
            path, _sized(source, check_mapping(changes or {}, f"sizes.{size}", path), size, path), size, source
        )
    return plain


def _sized(source: dict, changes: dict, size: str, path: Path) -> dict:
    """Return the source as one of its sizes has it."""
    if "sizes" in changes:
        raise UserError(f"{path}: sizes.{size} has sizes of its own; expected what that size changes. Leave them out.")
    sized = source | changes
    for key in MERGED:
        if (changed := changes.get(key)) is None:
            continue
        where = f"sizes.{size}.{key}"
        all_sizes = check_mapping(source.get(key) or {}, key, path)
        for name, value in check_mapping(changed, where, path).items():
            if value is None and name not in all_sizes:
                raise UserError(f"{path}: {where} drops {name!r}, which is not there; {suggest(name, all_sizes)}. Correct it.")
        sized[key] = {name: value for name, value in (all_sizes | changed).items() if value is not None}
    return sized


def text_of(path: Path, sweep: dict) -> str:
    """Write a plain sweep as YAML, with a head that says what it was made from."""
    return HEAD.format(source=path.as_posix()) + yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True, width=120)


def _plain(path: Path, source: dict, size: str, full: dict) -> dict:
    configs = list(full.get("configs") or [])
    if size:
        configs += [config for config in source.get("configs") or [] if config not in configs]
    parameters = check_mapping(source.get("parameters") or {}, "parameters", path)
    groups = [tied(source, parameters, path)] if source.get("tie") or source.get("let") else []
    groups += [zipped(group, path) for group in source.get("zip") or []]
    if source.get("cases"):
        groups.append(of_cases(source["cases"], path))
    used: set[str] = set()
    joined: dict[str, dict] = {}
    for rows in groups:
        name, values = one_parameter(rows, path)
        if name in joined or name in parameters:
            raise UserError(
                f"{path}: two groups of options are both called {name}; expected groups of different sections. Put "
                "them into one (cases takes lists)."
            )
        joined[name] = {"values": values}
        used |= {option for row in rows for option in row}
    independent = {name: value for name, value in parameters.items() if name not in used}
    for name in independent:
        if any(option == name or option.startswith(f"{name}.") or name.startswith(f"{option}.") for option in used):
            raise UserError(
                f"{path}: {name} is an axis of its own and part of a group; expected one place for it. Leave one out."
            )
    title = full.get("name") or path.stem
    names_itself = source.get("name") not in (None, full.get("name"))
    place = source["name"] if names_itself else f"{title}-{size}" if size else title
    plain = {key: value for key, value in source.items() if key not in (*SOURCE_KEYS, "parameters")}
    command = plain.pop("command", None) or _command(configs, place, path)
    return {
        "name": place,
        **{k: v for k, v in plain.items() if k != "name"},
        "command": command,
        "parameters": {**joined, **independent},
    }


def _command(configs: list[str], name: str, path: Path) -> list[str]:
    if not configs:
        raise UserError(
            f"{path} has neither configs nor a command; expected the configurations that fit takes by -c. Name them."
        )
    named = [part for config in configs for part in ("-c", config)]
    return ["research", "fit", *named, "--out", f"runs/sweeps/{name}/{{point}}", "${args}"]
