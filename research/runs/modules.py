"""Where a module's source lies, and what it imports: read without running it or the packages above it."""

import ast
import functools
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def module_file(module: str) -> Path | None:
    """Find a module's file of Python; None of what is no module, or is not written in Python."""
    origin, _ = _places(module)
    return Path(origin) if origin and origin.endswith(".py") else None


def imported_names(tree: ast.Module, module: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield the names that a module's file imports anywhere, and what they stand for, absolute."""
    package = (module if path.name == "__init__.py" else module.rpartition(".")[0]).split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((alias.asname or alias.name, f"{home}.{alias.name}") for alias in node.names)


def is_installed(path: Path) -> bool:
    """Return whether a module is of Python itself or of an installed package with a version; an editable install is not."""
    paths = sysconfig.get_paths()
    if {"site-packages", "dist-packages"} & {*path.parts} or any(map(_has_records, path.parents)):
        return True
    return any(path.is_relative_to(paths[name]) for name in ("stdlib", "platstdlib"))


def forget() -> None:
    """Forget the modules that this process has found, so that they are looked up again."""
    _places.cache_clear()
    _has_records.cache_clear()


@functools.cache
def _places(module: str) -> tuple[str | None, tuple[str, ...]]:
    """Find a module's file, and the folders of its submodules."""
    parent, _, name = module.rpartition(".")
    above = _places(parent)[1] if parent else ()
    if parent and not above:
        return None, ()
    try:  # importlib.util.find_spec would run the packages above
        specs = (finder.find_spec(module, [*above] if parent else None) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
    except (ImportError, AttributeError, ValueError, KeyError):  # the last: no __init__.py, in a folder that is not loaded
        spec = None
    if parent and (spec is None or spec.origin is None):
        return None, tuple(str(Path(place, name)) for place in above if Path(place, name).is_dir())
    return (spec.origin, tuple(spec.submodule_search_locations or ())) if spec is not None else (None, ())


@functools.cache
def _has_records(folder: Path) -> bool:
    """Return whether pip has installed into a folder, as `pip install --target` does."""
    return str(folder) in sys.path and any(folder.glob("*.dist-info"))
