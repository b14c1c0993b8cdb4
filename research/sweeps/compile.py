"""Sources with ties and conditions → plain W&B sweeps.

A W&B grid is a product of independent lists: it cannot say alpha = 2r, nor virtual tokens for prompt tuning only. A source can:

  let        variables that are no options: {scale: [1, 2]}
  tie        options that follow from others: {model.adapter.lora_alpha: scale * model.adapter.r}
  zip        lists that go together, value by value: [{data.max_length: [128, 256], data.batch_size: [32, 16]}]
  cases      alternatives, each with options of its own; a list in a case is an axis within it
  sizes      further sizes of the same question: {quick: {configs: [configs/trainer/quick.yaml]}}; parameters, let and tie of
             a size are merged with those above by their names (null drops one), configs are added, all else is replaced
  configs    what the command names by -c, in order

Options that hang together become one parameter, named by what their names have in common, whose values are mappings:
`model.adapter: [{r: 4, lora_alpha: 8}, {r: 8, lora_alpha: 16}]`. W&B shows a mapping's keys as model.adapter.r and
model.adapter.lora_alpha, and `fit` takes `--model.adapter={'r': 4, 'lora_alpha': 8}` for the two options.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import yaml

from research.errors import UserError, suggest
from research.progress import say
from research.runs.files import atomic_write
from research.sweeps.expressions import evaluate, names_in, parse_expression
from research.sweeps.sampling import size_text
from research.sweeps.spec import SOURCE_KEYS, check_mapping, read_mapping, read_sweep

MADE = "# Made by `research sweep compile "
MERGED = ("parameters", "let", "tie")
"""Keys of a size that are merged with the source's, name by name."""
HEAD = MADE + "{source}`: change that file, not this one.\n"


def compile_file(file: Path, out: Path | None = None, check: bool = False) -> int:
    """Write the plain sweeps of a source, or say where they differ from those that are there; the exit code.

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
    """The plain sweeps of a source: {"": the full size, "quick": …}.

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
    """The source as one of its sizes has it."""
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
    """A plain sweep as YAML, with a head that says what it was made from."""
    return HEAD.format(source=path.as_posix()) + yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True, width=120)


def _plain(path: Path, source: dict, size: str, full: dict) -> dict:
    configs = list(full.get("configs") or [])
    if size:
        configs += [config for config in source.get("configs") or [] if config not in configs]
    parameters = check_mapping(source.get("parameters") or {}, "parameters", path)
    groups = [_tied(source, parameters, path)] if source.get("tie") or source.get("let") else []
    groups += [_zipped(group, path) for group in source.get("zip") or []]
    if source.get("cases"):
        groups.append(_cases(source["cases"], path))
    used: set[str] = set()
    joined: dict[str, dict] = {}
    for rows in groups:
        name, values = _join(rows, path)
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
    title = path.stem
    place = f"{title}-{size}" if size else title
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


# ---- groups ---------------------------------------------------------------------------------------------------------


def _tied(source: dict, parameters: dict, path: Path) -> list[dict[str, Any]]:
    """Rows of the options that a tie joins: the product of what drives it, with what follows."""
    let = check_mapping(source.get("let") or {}, "let", path)
    ties = check_mapping(source.get("tie") or {}, "tie", path)
    trees = {name: parse_expression(text, name, path) for name, text in ties.items()}
    names = {inner for tree in trees.values() for inner in names_in(tree)}
    unknown = [name for name in names if name not in let and name not in parameters]
    if unknown:
        raise UserError(
            f"{path}: tie names {unknown[0]!r}, which is neither in let nor in parameters; "
            f"{suggest(unknown[0], [*let, *parameters])}. Correct it."
        )
    if idle := [name for name in let if name not in names]:
        raise UserError(f"{path}: let has {idle[0]!r}, which no tie uses; expected a variable of one. Leave it out.")
    axes = {name: _list(let[name], name, path) for name in let}
    axes |= {name: _values(parameters[name], name, path) for name in parameters if name in names}
    rows = []
    for values in itertools.product(*axes.values()):
        known = dict(zip(axes, values, strict=True))
        row = {name: value for name, value in known.items() if name not in let}
        row |= {name: evaluate(tree, known, name, path) for name, tree in trees.items()}
        if row not in rows:
            rows.append(row)
    return rows


def _zipped(group: Any, path: Path) -> list[dict[str, Any]]:
    lists = {name: _list(values, name, path) for name, values in check_mapping(group, "zip", path).items()}
    if len({len(values) for values in lists.values()}) != 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in lists.items())
        raise UserError(
            f"{path}: zip joins lists of different lengths ({counts}); expected as many values of each. Correct them."
        )
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _cases(cases: Any, path: Path) -> list[dict[str, Any]]:
    rows = []
    for case in _list(cases, "cases", path):
        axes = {
            name: value if isinstance(value, list) else [value] for name, value in check_mapping(case, "cases", path).items()
        }
        rows += [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return rows


def _join(rows: list[dict[str, Any]], path: Path) -> tuple[str, list]:
    """One parameter for options that hang together: their common section, and a mapping for each row."""
    options = sorted({option for row in rows for option in row})
    if len(options) == 1:
        return options[0], [row[options[0]] for row in rows]
    sections = [option.split(".") for option in options]
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len({*parts}) == 1, zip(*sections, strict=False))]
    shared = shared[: min(map(len, sections)) - 1]
    if not shared:
        raise UserError(
            f"{path}: {', '.join(options[:3])} hang together and have no section in common; expected options of "
            "one (model, data or trainer), since they become one parameter. Split the sweep."
        )
    prefix = ".".join(shared)
    return prefix, [{option[len(prefix) + 1 :]: value for option, value in row.items()} for row in rows]


def _list(value: Any, what: str, path: Path) -> list:
    if not isinstance(value, list) or not value:
        raise UserError(f"{path}: {what} is {str(value)[:60]!r}; expected a list of values. Correct it.")
    return value


def _values(parameter: Any, name: str, path: Path) -> list:
    if isinstance(parameter, dict) and set(parameter) == {"value"}:
        return [parameter["value"]]
    if not isinstance(parameter, dict) or set(parameter) != {"values"}:
        raise UserError(
            f"{path}: {name} drives a tie and is no list of values; expected `values: […]`, since each of them "
            "makes a value of what follows. Correct it."
        )
    return _list(parameter["values"], name, path)
