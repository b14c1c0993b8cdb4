"""Every public function of ours says in its first line what it does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import research

PACKAGE = Path(research.__file__).parent
# methods that a library or a protocol calls and describes
HOOKS = {
    *("setup", "teardown", "training_step", "validation_step", "test_step", "configure_optimizers"),
    *("state_dict", "load_state_dict", "save_checkpoint", "load_checkpoint"),  # Lightning's
    *("name", "version", "log_metrics"),  # a Lightning logger's
    *("forward", "backward"),  # torch's
    *("write", "flush"),  # a text stream's
    *("parse_args", "error"),  # argparse's
    "compose_mapping_node",  # PyYAML's
}
SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Source)\b.*:\s*$")
FRAGMENT = re.compile(r"(See|Of|As|In|For|By|At|To|With|From|That|Like|Without|One|No) ")  # a line without subject and verb


def public(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, str | None]]:
    """Names of public functions and methods, with their docstrings."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from public(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            if owner and (node.name in HOOKS or node.name.startswith("on_")):
                continue
            yield owner + node.name, ast.get_docstring(node)


def faults(source: str) -> list[str]:
    """Public functions of a source whose first line does not say what they do."""
    wrong = []
    for name, docstring in public(ast.parse(source).body):
        first = (docstring or "").split("\n")[0]
        if not first:
            wrong.append(f"{name}: no docstring")
        elif SECTION.match(first) or FRAGMENT.match(first):
            wrong.append(f"{name}: {first}")
    return wrong


def test_every_public_function_says_first_what_it_does():
    files = sorted(PACKAGE.rglob("*.py"))
    wrong = [f"{path.relative_to(PACKAGE)} {fault}" for path in files for fault in faults(path.read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


def test_the_check_finds_what_it_is_for():
    source = '''
def silent(): pass
def refuse():
    """
    Raises:
        UserError: always.
    """
class Model:
    def means(self):
        """Of the last evaluation."""
    def good(self):
        """Return the means."""
    def forward(self): pass
    def _private(self): pass
'''
    assert faults(source) == ["silent: no docstring", "refuse: Raises:", "Model.means: Of the last evaluation."]
