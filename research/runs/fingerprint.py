"""The fingerprint of the code that computes a training's numbers.

It is a hash of the files that can be reached by import from the training's LightningModule, its DataModule and `fit` itself:
a new ranking loss changes the reranker's fingerprint and leaves SFT's. Files are hashed as syntax trees without docstrings,
so that neither layout nor comments nor documentation count. Only the rooms that compute are followed: the page's CSS, a
report's table or a file name of a run folder changes no number.

Classes of the user's own package that a configuration names are hashed apart: `1f2e…+9a8b…`. The first part is known for
each published state of this code (known_code.py), whatever the user's own part is.
"""

import ast
import functools
import hashlib
import importlib.util
import site
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from research.runs.hashes import hash_strings

PACKAGE = Path(__file__).parents[1]
LENGTH = 16
COMPUTES = ("losses", "metrics", "models", "data", "retrieval", "training", "prompts", "types")
FIT = ("research.training.run",)
TRAINERS = {
    "dual_encoder": ("research.training.dual_encoder.DualEncoderModule", "research.data.pairs.PairData"),
    "cross_encoder": ("research.training.cross_encoder.CrossEncoderModule", "research.data.candidates.CandidateData"),
    "sft": ("research.training.sft.SFTModule", "research.data.instructions.InstructionData"),
    "dpo": ("research.training.dpo.DPOModule", "research.data.preferences.PreferenceData"),
}


class Source(NamedTuple):
    """A file of code.

    Attributes:
        digest: of its syntax tree without docstrings.
        imports: absolute names that it imports anywhere, those of modules and of what is in them.
    """

    digest: str
    imports: frozenset[str]


def fingerprint(config: dict) -> str:
    """The fingerprint of a resolved configuration: of our code, and after a "+" of the user's own classes, if there are any."""
    trained = [_class_path(config, "model"), _class_path(config, "data")]
    reached = _reached({name for name in _class_paths(config) if not _is_ours(name)})
    own = {name: source for name, source in reached.items() if not _is_ours(name)}
    ours = code_fingerprint(*filter(None, trained))
    return f"{ours}+{_hash(own)}" if own else ours


@functools.cache
def code_fingerprint(*classes: str) -> str:
    """The hash of our code that computes numbers.

    Args:
        classes: a training's LightningModule and DataModule, by class path; without any, those of all trainers together.
    """
    return _hash(_ours(classes))


def code_digest(text: str) -> str:
    """The hash of a piece of code, whatever its layout, comments and docstrings are."""
    return _digest(ast.parse(text))


@functools.cache
def package_fingerprint() -> str:
    """The hash of all of this package's files, as they are written."""
    paths = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js"))
    return hash_strings(f"{path.relative_to(PACKAGE)}\n{path.read_text(encoding='utf-8')}" for path in paths)[:LENGTH]


def reached_files(*classes: str) -> list[Path]:
    """Files of this package whose code the fingerprint of these classes holds."""
    return sorted(map(_path, _ours(classes)))


def files_of_classes(config: dict) -> list[Path]:
    """Files of the classes that a configuration names, with what those of the user import of their own package."""
    named = {*_class_paths(config)}
    own = [module for module in _reached({name for name in named if not _is_ours(name)}) if not _is_ours(module)]
    ours = [name.rpartition(".")[0] for name in named if _is_ours(name)]
    return sorted({path for path in map(_path, [*own, *ours]) if path is not None})


def _ours(classes: tuple[str, ...]) -> dict[str, Source]:
    """Module → its source, of this package, that `fit` and these classes reach; without any, those of all trainers."""
    roots = classes or tuple(name for pair in TRAINERS.values() for name in pair)
    return {name: source for name, source in _reached([*FIT, *roots]).items() if _is_ours(name)}


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "research"


def _reached(names: Iterable[str]) -> dict[str, Source]:
    """Module → its source, of all that these names reach by import, in this package and in those of the names."""
    found: dict[str, Source] = {}
    waiting = [*names]
    packages = {name.partition(".")[0] for name in waiting} | {"research"}
    while waiting:
        for module in _modules(waiting.pop()):
            if module in found or module.partition(".")[0] not in packages or not (module in FIT or _computes(module)):
                continue
            if (source := _source(module)) is not None:
                found[module] = source
                waiting += source.imports
    return found


def _computes(module: str) -> bool:
    """Whether a module is of a room that computes, or of the user's own code."""
    top, _, inner = module.partition(".")
    return top != "research" or inner.partition(".")[0] in COMPUTES


def _modules(name: str) -> Iterator[str]:
    """The modules that an import of this dotted name runs: its packages too."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


@functools.cache
def _source(module: str) -> Source | None:
    """A module's file as read once in this process; None of what is no module, or is an installed package."""
    path = _path(module)
    if path is None:
        return None
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return Source(_digest(tree), frozenset(path for _, path in imported_names(tree, package)))


@functools.cache
def _path(module: str) -> Path | None:
    if module.partition(".")[0] == "research":
        base = PACKAGE.joinpath(*module.split(".")[1:])
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    path = Path(spec.origin) if spec is not None and spec.origin else None
    if path is None or path.suffix != ".py" or any(path.is_relative_to(folder) for folder in _installed()):
        return None
    return path


@functools.cache
def _installed() -> tuple[str, ...]:
    """Where packages lie whose versions provenance.json names, and Python's own."""
    paths = sysconfig.get_paths()
    return (*site.getsitepackages(), site.getusersitepackages(), paths["stdlib"], paths["platstdlib"], paths["purelib"])


def imported_names(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Names that a file of a package imports anywhere → what they stand for, absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((alias.asname or alias.name, f"{home}.{alias.name}") for alias in node.names)


def _spelled(value: object) -> str:
    """A syntax tree as text without docstrings and positions; the same in every version of Python."""
    if isinstance(value, list):
        return "[" + ",".join(_spelled(inner) for inner in value if not _is_text(inner)) + "]"
    if not isinstance(value, ast.AST):
        return repr(value)
    if isinstance(value, ast.Constant):
        return f"{type(value.value).__name__}:{value.value!r}"
    fields = ((name, inner) for name, inner in ast.iter_fields(value) if inner is not None and inner != [])
    return f"{type(value).__name__}({','.join(f'{name}={_spelled(inner)}' for name, inner in fields)})"


def _digest(tree: ast.Module) -> str:
    return hashlib.sha256(_spelled(tree).encode()).hexdigest()


def _is_text(node: object) -> bool:
    """Whether a statement is a text alone: a docstring, or one after an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _hash(sources: dict[str, Source]) -> str:
    return hash_strings(f"{name} {source.digest}" for name, source in sorted(sources.items()))[:LENGTH]


def _class_path(config: dict, section: str) -> str | None:
    part = config.get(section)
    path = part.get("class_path") if isinstance(part, dict) else None
    return path if isinstance(path, str) else None


def _class_paths(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(path := value.get("class_path"), str):
            yield path
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _class_paths(inner)
