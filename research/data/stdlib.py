"""Retrieval pairs cut from Python source: first docstring paragraph → the function without its docstring.

`builtin:stdlib` reads the running Python's standard library, `builtin:stdlib-small` half of its functions (an easier
search: numbers on it compare only with each other), `builtin:packages` the installed packages (tens of thousands of functions,
for training and for tests of scale). No network, no account, and real text in both roles.
"""

import ast
import functools
import hashlib
import re
import sysconfig
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.types import Corpus, Document, Qrels, Queries

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "tkinter", "distutils", "site-packages", "__pycache__"}
QUERY_WORDS = (4, 40)
MIN_BODY_LINES = 2
SMALL_SHARE = 2  # builtin:stdlib-small has one function of so many


class Pair(NamedTuple):
    """A function of a Python package: its docstring's first paragraph, and its source without the docstring."""

    id: str  # module:qualified.name, with @line where two share a name
    module: str
    query: str
    code: str


@functools.lru_cache(maxsize=2)
def cut_once(root: Path) -> tuple[Pair, ...]:
    """Call `cut` once, and keep its result for this process: Python's files do not change while it runs."""
    return tuple(cut(root))


def stdlib_pairs() -> Sequence[Pair]:
    """Return every usable function of the running Python's standard library."""
    return cut_once(stdlib_root())


def small_stdlib_pairs() -> Sequence[Pair]:
    """Return half of `stdlib_pairs`, chosen by a hash of the function's name: the same functions on every machine."""
    return [pair for pair in stdlib_pairs() if _digest(pair.id) % SMALL_SHARE == 0]


def package_pairs() -> Sequence[Pair]:
    """Return every usable function of the installed packages."""
    return cut_once(packages_root())


def cut(root: Path) -> list[Pair]:
    """Cut every usable function under `root`, in a stable order.

    Kept: queries of 4 to 40 words without doctest prompts, bodies of two or more non-blank lines. A query or a code that
    occurs more than once after normalising (lower case, words only) is dropped with all its copies: no copy is the right
    answer alone.
    """
    pairs = [pair for path in _files(root) for pair in _cut_file(path, _module(path.relative_to(root)))]
    queries = Counter(normalise(pair.query) for pair in pairs)
    codes = Counter(normalise(pair.code) for pair in pairs)
    unique = [p for p in pairs if queries[normalise(p.query)] == 1 and codes[normalise(p.code)] == 1]
    return _with_unique_ids(unique)


def collection(pairs: Sequence[Pair]) -> tuple[Corpus, Queries, dict[str, Qrels]]:
    """Make one corpus of all functions; qrels split by the module's sha1, about 60/10/30: no module is in two splits."""
    corpus = {pair.id: Document("", pair.code) for pair in pairs}
    queries = {f"q:{pair.id}": pair.query for pair in pairs}
    qrels: dict[str, Qrels] = {"train": {}, "dev": {}, "test": {}}
    for pair in pairs:
        qrels[split_of(pair.module)][f"q:{pair.id}"] = {pair.id: 1}
    return corpus, queries, qrels


def split_of(module: str) -> str:
    """Return the split of a module: train, dev or test, about 60/10/30."""
    percent = _digest(module) % 100
    return "train" if percent < 60 else "dev" if percent < 70 else "test"


def reference_pages() -> list[str]:
    """Return pages of the running Python's language reference: English prose on other subjects than the functions.

    Raises:
        UserError: this Python was installed without them.
    """
    try:
        from pydoc_data.topics import topics  # here: some Pythons lack it, and only this source reads it
    except ImportError:
        raise UserError(
            "this Python has no pydoc_data.topics; expected the language reference that CPython installs. Name other text."
        ) from None
    return [topics[name] for name in sorted(topics)]


def stdlib_root() -> Path:
    """Return the folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def packages_root() -> Path:
    """Return the folder of the installed packages."""
    return Path(sysconfig.get_paths()["purelib"])


def normalise(text: str) -> str:
    """Return a text's words in lower case."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _digest(text: str) -> int:
    return int(hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), 16)


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        if not SKIPPED & set(path.relative_to(root).parts):
            yield path


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _cut_file(path: Path, module: str) -> Iterator[Pair]:
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):  # templates and deliberately broken files are not Python to learn from
        return
    lines = source.splitlines()
    for name, function in _functions(tree, ""):
        docstring = ast.get_docstring(function)
        if not docstring or len(function.body) < 2:
            continue
        query = " ".join(re.split(r"\n\s*\n", docstring.strip())[0].split())
        head = lines[function.lineno - 1 : function.body[0].lineno - 1]
        body = lines[function.body[0].end_lineno : function.end_lineno]
        word_count = 0 if ">>>" in query else len(query.split())  # a doctest is not a question
        if QUERY_WORDS[0] <= word_count <= QUERY_WORDS[1] and sum(bool(line.strip()) for line in body) >= MIN_BODY_LINES:
            yield Pair(f"{module}:{name}", module, query, textwrap.dedent("\n".join(head + body)))


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield functions and methods with their qualified names; closures belong to the function around them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{child.name}", child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


def _with_unique_ids(pairs: list[Pair]) -> list[Pair]:
    """Make ids unique: platform branches may define one name twice; the second becomes name#2."""
    seen: Counter[str] = Counter()
    out = []
    for pair in pairs:
        seen[pair.id] += 1
        out.append(pair if seen[pair.id] == 1 else pair._replace(id=f"{pair.id}#{seen[pair.id]}"))
    return out
