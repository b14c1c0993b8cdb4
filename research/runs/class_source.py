"""A class's arguments, read off its source without importing it: packages of models take seconds to import."""

import ast
import functools
import re
from typing import NamedTuple

from research.runs.modules import imported_names, module_file


class Source(NamedTuple):
    """A class in its file: the syntax tree, the module, and the file's whole tree."""

    node: ast.ClassDef
    module: str
    tree: ast.Module


@functools.cache
def parameters(class_path: str) -> dict[str, tuple[str, str]] | None:
    """Map the arguments of a class to their annotation and its module; None where the source does not tell all of them."""
    if (definition := _class(class_path)) is None:
        return None
    bases = [_resolve(ast.unparse(base), definition) for base in definition.node.bases]
    if any("dataclass" in ast.unparse(decorator) for decorator in definition.node.decorator_list):
        inherited = [parameters(base) or {} for base in bases if base]
        fields = {
            node.target.id: (ast.unparse(node.annotation), class_path)
            for node in definition.node.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        return functools.reduce(lambda left, right: left | right, [*inherited, fields])
    inits = [node for node in definition.node.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    if not inits:
        return next(filter(None, (parameters(base) for base in bases if base)), None)
    args = inits[0].args
    if args.kwarg or args.vararg:
        return None
    named = [*args.args[1:], *args.kwonlyargs]
    return {arg.arg: (ast.unparse(arg.annotation) if arg.annotation else "", class_path) for arg in named}


def derives(class_path: str, ancestor: str) -> bool:
    """Return whether a class, or one that it inherits, has this name."""
    if class_path.rpartition(".")[2] == ancestor:
        return True
    definition = _class(class_path)
    return definition is not None and any(
        derives(_resolve(ast.unparse(base), definition), ancestor) for base in definition.node.bases
    )


def classes_beside(class_path: str) -> list[str] | None:
    """List the classes in the module of one that is certainly not there; None where it is, or the source does not tell."""
    module, _, name = class_path.rpartition(".")
    if (tree := _tree(module) if module else None) is None:
        return [] if module.partition(".")[0] in ("research", "peft") and module_file(module) is None else None
    nodes = [*ast.walk(tree)]
    names = {
        alias.asname or alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    names |= {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # made by name
    if {name, "*", "__getattr__"} & names:
        return None
    return [f"{module}.{node.name}" for node in nodes if isinstance(node, ast.ClassDef)]


def is_ours(class_path: str) -> bool:
    """Return whether a class is of this package, or inherits one of it."""
    if class_path.partition(".")[0] == "research":
        return True
    definition = _class(class_path)
    return definition is not None and any(is_ours(_resolve(ast.unparse(base), definition)) for base in definition.node.bases)


def nested(source: tuple[str, str]) -> str:
    """Find the class with options of its own that an annotation names, if any: Optimisation, `peft.LoraConfig | None`."""
    annotation, owner = source
    definition = _class(owner)
    if definition is None or not annotation or re.search(r"\b[dD]ict\b|Mapping", annotation):  # a mapping may have any key
        return ""
    for name in ast.walk(ast.parse(annotation)):
        path = _resolve(ast.unparse(name), definition) if isinstance(name, ast.Name | ast.Attribute) else ""
        if path and parameters(path):
            return path
    return ""


def _resolve(name: str, within: Source) -> str:
    """Find the class path of a name in a file; "" where it is no class of a package."""
    head, _, rest = name.partition(".")
    if not rest and any(isinstance(node, ast.ClassDef) and node.name == name for node in within.tree.body):
        return f"{within.module}.{name}"
    imports = _imports(within.tree, within.module)
    return ".".join(filter(None, (imports[head], rest))) if head in imports else ""


def _class(class_path: str, depth: int = 8) -> Source | None:
    """Find a class where it is written, through the packages that import it from there."""
    module, _, name = class_path.rpartition(".")
    if not module or not depth or (tree := _tree(module)) is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Source(node, module, tree)
    imports = _imports(tree, module)
    return _class(imports[name], depth - 1) if name in imports else None


def _imports(tree: ast.Module, module: str) -> dict[str, str]:
    """Map names that a file imports to what they stand for, absolute."""
    path = module_file(module)
    return dict(imported_names(tree, module, path)) if path else {}


@functools.cache
def _tree(module: str) -> ast.Module | None:
    path = module_file(module)
    try:
        return ast.parse(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError, SyntaxError):
        return None
