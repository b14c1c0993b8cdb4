"""The fingerprint of the code that computes a training's numbers.

It is a hash of the files that can be reached by import from the training's LightningModule, its DataModule and `fit` itself:
a new ranking loss changes the reranker's fingerprint and leaves SFT's. Files are hashed as syntax trees without docstrings,
so that neither layout nor comments nor documentation count. Only the rooms that compute are followed: the page's CSS, a
report's table or a file name of a run folder changes no number.

Classes of the user's own that a configuration names are hashed apart: `1f2e…+9a8b…`, with all that they reach by import and
that is not installed, as a helper package beside them. The first part is known for each published state of this code
(known_code.py), whatever the user's own part is. Code is read and never run: what is imported by a computed name is not seen.
"""

import ast
import functools
import hashlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from research.progress import say
from research.runs import modules
from research.runs.hashes import hash_strings
from research.runs.modules import imported_names, is_installed, module_file

PACKAGE = Path(__file__).parents[1]
LENGTH = 16
LARGEST = 8_000_000  # bytes of the user's own code that are read, in some ten seconds
COMPUTES = ("losses", "metrics", "models", "data", "retrieval", "training", "prompts", "types")
PLANS = ("runs", "sweeps", "training")
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
        size: in bytes.
    """

    digest: str
    imports: frozenset[str]
    size: int


def fingerprint(config: dict, helpers: bool = True) -> str:
    """Compute the fingerprint of a resolved configuration: of our code, and after a "+" of the user's own classes, if any.

    Args:
        config: with class paths.
        helpers: also of what the user's classes import from packages that the configuration does not name. Without, it is
            the fingerprint of runs that were made before these counted.
    """
    trained = [name for section in ("model", "data") if (name := _class_path(config, section))]
    users_code = _users_code(config, helpers)
    ours = _hash(_ours(tuple(trained), helpers))
    return f"{ours}+{_hash(users_code)}" if users_code else ours


def _users_code(config: dict, helpers: bool = True) -> dict[str, Source]:
    """Map modules to their sources, of the user's own that a configuration's classes reach; `helpers` as for `fingerprint`."""
    named = tuple(sorted({name for name in _class_paths(config) if not _is_ours(name)}))
    reached, last = _reached(named, helpers)
    if last:
        _say_once(
            f"warning: {', '.join(named)} reach more than {LARGEST / 1e6:g} MB of your own code by import: {last} and what "
            "comes after it are not watched, and a change there leaves runs fresh. Install what computes nothing."
        )
    return {name: source for name, source in reached.items() if not _is_ours(name)}


_say_once = functools.cache(say)


def counted_since(fingerprints: set[str | None], config: dict) -> list[str]:
    """List packages that the fingerprint covers now and did not cover when these runs were made."""
    if fingerprints != {fingerprint(config, helpers=False)}:
        return []
    newer = _users_code(config).keys() - _users_code(config, helpers=False).keys()
    return sorted({name.partition(".")[0] for name in newer})


@functools.cache
def code_fingerprint(*classes: str) -> str:
    """Hash our code that computes numbers.

    Args:
        classes: a training's LightningModule and DataModule, by class path; without any, those of all trainers together.
    """
    return _hash(_ours(classes))


def code_digest(text: str) -> str:
    """Hash a piece of code, whatever its layout, comments and docstrings are."""
    return _digest(ast.parse(text))


@functools.cache
def plan_fingerprint() -> str:
    """Hash the code that a sweep's plan follows from: what computes, reads configurations, and makes points and ids."""
    files = sorted(path for room in PLANS for path in PACKAGE.joinpath(room).rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in sorted(PACKAGE.joinpath("runs").glob("known_*.json"))]
    return hash_strings([code_fingerprint(), *map(_file_digest, files), *texts])[:LENGTH]


def _file_digest(path: Path) -> str:
    return f"{path.relative_to(PACKAGE)} {code_digest(path.read_text(encoding='utf-8'))}"


def reached_files(*classes: str) -> list[Path]:
    """List the files of this package whose code the fingerprint of these classes holds."""
    return sorted(map(_path, _ours(classes)))


def files_of_classes(config: dict) -> list[Path]:
    """List the files of the classes that a configuration names, with what those of the user import and is not installed."""
    ours = [name.rpartition(".")[0] for name in _class_paths(config) if _is_ours(name)]
    return sorted({path for path in map(_path, [*_users_code(config), *ours]) if path is not None})


def forget() -> None:
    """Forget the files that this process has read, so that they are read again."""
    for function in (code_fingerprint, plan_fingerprint, _reached, _source, _path):
        function.cache_clear()
    modules.forget()


def _ours(classes: tuple[str, ...], helpers: bool = True) -> dict[str, Source]:
    """Map modules to their sources, of this package, that `fit` and these classes reach; without any, those of all trainers."""
    roots = classes or tuple(name for pair in TRAINERS.values() for name in pair)
    return {name: source for name, source in _reached((*FIT, *roots), helpers)[0].items() if _is_ours(name)}


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "research"


@functools.cache
def _reached(names: tuple[str, ...], helpers: bool = True) -> tuple[dict[str, Source], str]:
    """Map modules to their sources, of all that these names reach by import: the rooms that compute, and the user's own.

    The second is the module at which more than LARGEST were read; "" of less.

    Args:
        names: dotted.
        helpers: follow every package of the user's own; else those of the names alone.
    """
    sources: dict[str, Source] = {}
    waiting, size = deque(names), 0
    packages = {name.partition(".")[0] for name in names} | {"research"}
    while waiting:
        for module in _modules(waiting.popleft()):
            if module in sources or not (module in FIT or _computes(module)):
                continue
            if not (helpers or module.partition(".")[0] in packages) or (source := _source(module)) is None:
                continue
            if not _is_ours(module) and (size := size + source.size) > LARGEST:
                return sources, module
            sources[module] = source
            # nothing of ours imports the user's own
            waiting.extend(name for name in sorted(source.imports) if _is_ours(name) or not _is_ours(module))
    return sources, ""


def _computes(module: str) -> bool:
    """Return whether a module is of a room that computes, or of the user's own code."""
    top, _, inner = module.partition(".")
    return top != "research" or inner.partition(".")[0] in COMPUTES


def _modules(name: str) -> Iterator[str]:
    """Yield the modules that an import of this dotted name runs: its packages too."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


@functools.cache
def _source(module: str) -> Source | None:
    """Read a module's file once in this process; None of what is no module, or is an installed package."""
    path = _path(module)
    if path is None:
        return None
    try:
        code = path.read_bytes()
        tree = ast.parse(code)
        digest = _digest(tree)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return Source(digest, frozenset(name for _, name in imported_names(tree, module, path)), len(code))


@functools.cache
def _path(module: str) -> Path | None:
    if _is_ours(module):
        base = PACKAGE.joinpath(*module.split(".")[1:])
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
    path = module_file(module)
    return None if path is None or is_installed(path) else path


def _spelled(value: object) -> str:
    """Write a syntax tree as text without docstrings and positions; the same in every version of Python."""
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
    """Return whether a statement is only a string: a docstring, or the text after an attribute."""
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
