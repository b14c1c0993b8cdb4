"""Who may import whom (the table of docs/architecture.md), checked on the source; and every module imports."""

import ast
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import research
from tests.conftest import ROOT

PACKAGE = Path(research.__file__).parent
EVERYWHERE = {"errors", "types", "ranges", "runs", "progress", "prompts"}  # these import no room
ROOMS = {
    "losses": set(),
    "models": set(),
    "metrics": set(),
    "data": set(),
    "retrieval": {"models", "data.rankings", "data.triplets", "data.equality", "data.positives"},
    "rag": {"models", "metrics", "data", "retrieval"},
    "training": {"losses", "metrics", "models", "retrieval"},
    "sweeps": set(),
    "report": {"metrics"},
    "quickstart": {"models", "metrics"},
}
TOP = {"cli", "verbs", "__main__", "__init__"}  # may import any room; nothing below imports them
LIBRARIES = {
    "lightning": {"data", "training"},
    "wandb": {"runs", "report"},
    "wandb_workspaces": {"report"},
    "hnswlib": {"retrieval.index"},
}
LATE = {
    "data.rows": "datasets takes a second, and most sources need none of it",
    "data.stdlib": "some Pythons lack the pages",
    "data.table_files": "pyarrow, behind datasets",
    "metrics.fanova": "scikit-learn is an extra and takes a second",
    "metrics.generation": "rouge-score loads nltk, for one metric",
    "models.contents": "transformers takes seconds; names are checked before",
    "models.sources": "torch and the hub's client take seconds; names are checked before",
    "report.figures": "altair is an extra and takes a second",
    "report.figures.render": "vl_convert is an extra, for LaTeX and W&B alone",
    "report.page.explorer": "vl_convert, as above",
    "report.wandb": "wandb_workspaces takes seconds, for W&B Reports alone",
    "retrieval.index": "hnswlib has to be compiled; exact search needs none",
    "retrieval.terms": "PyStemmer and bm25s, where stems and stop words are asked for",
    "runs.base_model": "the hub's client, for models of a hub alone",
    "runs.changes": "transformers, for mixtures of experts alone",
    "runs.tracking": "wandb takes a second, none where it is disabled; a broken installation is a warning",
    "runs.wandb.log": "wandb takes a second; telling its logs from other files needs none of it",
    "runs.wandb.records": "wandb takes a second; most reports read folders",
    "sweeps.distributions": "numpy and scipy.stats, for one distribution each: workers start without them",
    "sweeps.search": "optuna takes a second, for searches alone",
}
"""Module outside of verbs/ that imports within functions → why; what a verb needs it imports within `run`."""
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> set[str]:
    """Absolute names that a module imports, wherever in the file."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(module: str, imported: set[str]) -> list[str]:
    room = module.split(".")[0]
    wrong = []
    for name in sorted(imported):
        for library, homes in LIBRARIES.items():
            if name.split(".")[0] == library and not any(module == h or module.startswith(h + ".") for h in homes):
                wrong.append(f"{module} imports {library}")
        if not name.startswith("research.") or room in TOP:
            continue
        target = name.removeprefix("research.")
        allowed = {room} | ROOMS.get(room, set()) | (EVERYWHERE if room in ROOMS or room in EVERYWHERE else set())
        if target != "__version__" and not any(target == a or target.startswith(a + ".") for a in allowed):
            wrong.append(f"{module} imports {name}")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_room_may(module):
    assert violations(module, imports(module)) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("metrics.retrieval", "research.data.rankings.read_run"),
        ("models.pooling", "research.retrieval.encode.encode_texts"),
        ("retrieval.encode", "research.data.sources.load"),
        ("retrieval.encode", "research.metrics.retrieval.evaluate"),
        ("errors", "research.data.rankings.read_run"),
        ("data.rankings", "research.cli.main"),
        ("retrieval.encode", "hnswlib"),
        ("models.pooling", "lightning.pytorch"),
    ],
)
def test_the_rules_themselves_catch(module, imported):
    assert violations(module, {imported}) != []


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files that reach each other."""
    reached = {name: reach(name, arrows) for name in arrows}
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in arrows}
    return sorted(list(group) for group in groups if len(group) > 1)


def reach(name: str, arrows: dict[str, set[str]]) -> set[str]:
    seen, waiting = set(), [name]
    while waiting:
        for target in arrows.get(waiting.pop(), set()) - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def files_imported(module: str) -> set[str]:
    """Modules of this package that one imports, wherever in the file, but for those that type checkers alone import."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):  # of a name that is computed
            start = ast.unparse(node.args[0]).strip("f'\"").partition("{")[0]
            names |= {f"research.{name}" for name in MODULES if f"research.{name}".startswith(start)}
    return {name.removeprefix("research.") for name in names} & {*MODULES}


def test_no_file_reaches_itself_by_its_imports():
    assert circles({module: files_imported(module) for module in MODULES}) == []


def test_verbs_that_are_imported_by_a_computed_name_are_seen():
    assert {name for name in MODULES if name.startswith("verbs.")} <= files_imported("cli")


def test_a_circle_is_found():
    arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set(), "e": {"a"}, "f": {"g", "h"}, "g": {"h"}, "h": {"f"}}
    assert circles(arrows) == [["b", "c"], ["f", "g", "h"]]
    assert circles({name: targets - {"b", "f"} for name, targets in arrows.items()}) == []


def late_imports(source: str) -> list[str]:
    """Imports within functions, each with the outermost function that it stands in."""
    late = []

    def visit(node: ast.AST, function: str | None) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom) and function is not None:
            late.append(f"{function}: {ast.unparse(node)}")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            function = function or getattr(node, "name", "lambda")
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(source), None)
    return late


def misplaced_imports(module: str, source: str) -> list[str]:
    """Imports within functions that are neither in a verb's `run` nor of a module that has a reason."""
    if module.removesuffix(".__init__") in LATE:
        return []
    is_verb = module.startswith("verbs.")
    return [late for late in late_imports(source) if not (is_verb and late.startswith("run: "))]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_within_functions_for_a_reason_alone(module):
    source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert misplaced_imports(module, source) == [], "import it at the head of the file, or say in LATE why not"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sweeps.plan", "def plan():\n    import torch"),
        ("models.pooling", "class Pooling:\n    def forward(self):\n        from transformers import AutoModel"),
        ("training.run", "if True:\n    def fit():\n        def inner():\n            import wandb"),
        ("verbs.search", "def run(args):\n    check(args)\n\ndef check(args):\n    import torch"),
        ("verbs.options", "def add_data():\n    import torch"),
    ],
)
def test_a_new_import_within_a_function_is_caught(module, source):
    assert misplaced_imports(module, source) != []
    assert misplaced_imports("verbs.fit", "import ast\n\ndef run(args):\n    def inner():\n        import torch") == []


def test_every_reason_for_a_late_import_is_needed():
    named = {module.removesuffix(".__init__"): module for module in MODULES}
    for module in LATE:
        assert late_imports((PACKAGE / f"{named[module].replace('.', '/')}.py").read_text(encoding="utf-8")), module


def test_losses_and_metrics_do_not_import_what_they_must_not():
    for module in MODULES:
        if module.startswith("metrics."):
            assert not any(name.split(".")[0] in ("torch", "transformers") for name in imports(module))
        if module.startswith("losses."):
            assert {name.split(".")[0] for name in imports(module)} <= {
                "torch",
                "research",
                "math",
                "typing",
                "collections",
                "inspect",
            }


def test_every_module_imports():
    for info in pkgutil.walk_packages(research.__path__, "research."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").rglob("*.py")), ids=lambda path: path.name)
def test_scripts_import_what_the_package_has(path):
    """Benches import within processes of their own, where a missing name is an entry in a table of results."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "research":
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), f"{node.module}.{name}"


def test_data_and_metrics_load_without_torch():
    code = (
        "import sys, research.cli, research.data.sources, research.metrics.significance, research.verbs.retrieve; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
