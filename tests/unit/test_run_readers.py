"""Files of runs are read in runs/ alone: two readers of one file differ in what they refuse."""

import ast
from pathlib import Path

import pytest

from research.runs import layout
from research.runs.folder import RunFolder, sweep_owner
from research.runs.ledger import FILE as LEDGER
from research.runs.plan import FILE as PLAN
from research.runs.stages import Stages
from tests.unit.test_import_rules import MODULES, PACKAGE

LAYOUT = ("PROVENANCE", "CONFIG", "METRICS", "TEST", "EXAMPLES", "CURVES", "CHECKPOINTS", "SWEEP", "WANDB")
FILES = {*(getattr(layout, name) for name in LAYOUT), LEDGER, PLAN, Stages.FILE}
PARSERS = {"load", "loads", "safe_load", "full_load", "load_all", "safe_load_all"}  # of json and yaml
READERS = {"read_json", "read_yaml"}  # of runs/
OTHER_FILES = {
    "data": "users' rows, tables and rankings",
    "models": "files of a model's folder",
    "retrieval.store": "an embedding store's",
    "retrieval.earlier": "an earlier store's",
    "retrieval.index": "an index's",
    "retrieval.journal": "an unfinished store's",
    "retrieval.mined_file": "what lies beside mined triplets",
    "training.arguments": "configurations that users write, before they are parsed",
    "training.places": "what those configurations, and the command line, name as files",
    "training.normal_form": "options on the command line",
    "training.configuration": "what the parser dumped just now",
    "training.describe": "a copy of a configuration",
    "training.fit": "what fit has just printed",
    "sweeps.spec": "the sweep that a user writes",
    "sweeps.configs": "the configurations that its command names",
    "sweeps.queue": "what a submission notes of its array",
    "sweeps.outcome": "a variable of the environment",
    "sweeps.finish": "an option on the command line",
    "sweeps.kubernetes": "the template beside it",
    "report.spec": "the spec that a user writes",
    "report.claims": "the claims that a user writes",
    "report.target": "the marker of a report's folder",
    "report.diff_build": "a report's own file",
    "report.diff_match": "a key of a table",
    "report.page.explorer": "a copy for the page",
    "report.wandb.publish": "what a report notes of itself",
    "report.wandb.report": "a copy of W&B's model",
    "quickstart.state": "what quickstart notes of itself",
    "quickstart.results": "answers, a line each",
    "verbs.options": "options on the command line",
}
"""Module or room → what it loads that is no file of a run."""


def loads(tree: ast.AST) -> list[ast.Call]:
    """Calls that parse JSON or YAML."""
    calls = [(ast.unparse(node.func).split("."), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        node
        for names, node in calls
        if (names[0] in ("json", "yaml") and names[-1] in PARSERS) or (len(names) == 1 and names[0] in READERS)
    ]


def faults(module: str, source: str) -> list[str]:
    """Where a module names or reads a file of a run by itself."""
    tree = ast.parse(source)
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts = [node for node in texts if " " not in node.value and node.value.rpartition("/")[2] in FILES]
    wrong = [f"{node.lineno}: {node.value!r}" for node in texts]
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "research.runs.layout"]
    names = {alias.asname or alias.name for node in nodes for alias in node.names}
    for call in loads(tree):
        of_run = names & {node.id for node in ast.walk(call) if isinstance(node, ast.Name)} & {*LAYOUT}
        if of_run or not any(module == home or module.startswith(f"{home}.") for home in OTHER_FILES):
            wrong.append(f"{call.lineno}: {ast.unparse(call)}")
    return wrong


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("runs.")])
def test_no_other_room_reads_a_run_s_files_by_itself(module):
    source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert faults(module, source) == [], "make it a property of RunFolder (runs/folder.py)"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("report.subject", 'owner = read_json(path / "sweep.json")'),
        ("report.subject", 'name = "sweep.json"'),
        ("quickstart.results", 'open(f"{out}/metrics.json")'),
        ("sweeps.outcome", "from research.runs.layout import METRICS\njson.loads((run / METRICS).read_text())"),
        ("retrieval.ancestry", "yaml.safe_load(text)"),
        ("training.resume", "read_json(path)"),
        ("data.candidates", "from research.runs.layout import CONFIG\nyaml.safe_load((folder / CONFIG).read_text())"),
    ],
)
def test_the_rule_itself_catches(module, source):
    assert faults(module, source) != []


def test_every_exception_is_one():
    sources = {name: (PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8") for name in MODULES}
    for home in OTHER_FILES:
        homes = [name for name in sources if name == home or name.startswith(f"{home}.")]
        assert any(loads(ast.parse(sources[name])) for name in homes), home


DAMAGED = {"yaml": "a: [1", "json": '{"a": ', "bytes": b"\xff\xfe\xfa", "deep": "[" * 100_000, "kind": "[1]"}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_may_be_absent_is_absent_where_it_is_damaged(damage, tmp_path):
    for name in (layout.CONFIG, layout.METRICS, layout.SWEEP):
        text = DAMAGED[damage]
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    folder = RunFolder(tmp_path)
    assert (folder.settings, folder.result, sweep_owner(tmp_path)) == ({}, {}, {})
    nowhere = RunFolder(Path("nowhere"))
    assert (nowhere.settings, nowhere.result, nowhere.wandb, nowhere.checkpoints) == ({}, {}, {}, [])
