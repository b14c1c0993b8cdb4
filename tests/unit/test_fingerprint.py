"""What changes a training's fingerprint, and what does not."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from research.runs import fingerprint as module
from research.runs import known_code
from research.runs.fingerprint import COMPUTES, FIT, TRAINERS, code_fingerprint, fingerprint, reached_files
from tests.conftest import ROOT
from tests.unit.test_identity import HEAD, read

SNIPPET = '''
"""Goes."""
import os  # goes
class A(B, metaclass=C):
    """Goes."""
    x: int = 1
    """Goes too."""
    def f(self, a, /, b: "int | None" = None, *c, d=2.5, **e) -> str:
        """Goes."""
        match b:
            case {"k": [1, *rest], **others} if a: return f"{a!r:>{b}}" "x" f"{c=}"
            case None: return rb"y"
        return "stays", {**e, 1: lambda: (yield)}, a[1:, ...], 1e-3j
'''


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("copy") / "research"
    return shutil.copytree(ROOT / "research", root, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def states(copied, monkeypatch) -> Callable[[], dict[str, str]]:
    """Trainer → its fingerprint, of a copy of the package that can be edited (its folder: states.root)."""
    monkeypatch.setattr(module, "PACKAGE", copied)

    def fingerprints() -> dict[str, str]:
        for function in (module._source, module._path, code_fingerprint):
            function.cache_clear()
        return {name: code_fingerprint(*classes) for name, classes in TRAINERS.items()} | {"all": code_fingerprint()}

    fingerprints.root = copied
    yield fingerprints
    monkeypatch.undo()
    fingerprints()


def changed(states: Callable[[], dict[str, str]], file: str, edit: Callable[[str], str]) -> set[str]:
    before, path = states(), states.root / file
    old = path.read_text()
    assert edit(old) != old
    path.write_text(edit(old))
    after = states()
    path.write_text(old)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("report/page/page.css", lambda text: text + "\nbody { color: red }"),
        ("report/latex.py", lambda text: text + "\nCOLOUR = 'red'\n"),
        ("runs/layout.py", lambda text: text + "\nNAME = 'other'\n"),
        ("losses/contrastive.py", lambda text: text.replace('"""', '"""Of another time. ', 1)),
        ("losses/contrastive.py", lambda text: "# a comment\n\n\n" + text + "\n"),
        ("training/optimisation.py", lambda text: text.replace('    """', '    """More words. ', 1)),
    ],
)
def test_what_computes_nothing_leaves_every_training_fresh(states, file, edit):
    assert changed(states, file, edit) == set()


@pytest.mark.parametrize(
    ("file", "whose"),
    [
        ("losses/ranking.py", {"cross_encoder"}),
        ("losses/contrastive.py", {"dual_encoder"}),
        ("losses/preference.py", {"dpo"}),
        ("losses/language.py", {"sft", "dpo"}),
        ("training/dpo.py", {"dpo"}),
        ("metrics/retrieval.py", {"dual_encoder", "cross_encoder"}),
        ("metrics/generation.py", {"sft", "dpo"}),
        ("data/candidates.py", {"cross_encoder"}),
        ("data/instructions.py", {"sft"}),
        ("training/optimisation.py", {*TRAINERS}),
        ("types.py", {*TRAINERS}),
    ],
)
def test_a_new_function_makes_stale_whose_training_reaches_it(states, file, whose):
    assert changed(states, file, lambda text: text + "\n\ndef new(x):\n    return x\n") == whose | {"all"}


def test_a_loss_that_computes_something_else_makes_its_trainings_stale(states):
    assert changed(states, "losses/contrastive.py", lambda text: text.replace(" / temperature", " * temperature")) == {
        "dual_encoder",
        "all",
    }


@pytest.mark.parametrize(("name", "trainer"), [("dual", "dual_encoder"), ("sft", "sft")])
def test_a_finished_point_stays_fresh_until_code_that_computes_it_changes(states, monkeypatch, name, trainer):
    """As `sweep plan`, `fit` and a report ask it, of a run that was trained before."""
    config, _, _, _ = read(HEAD / "runs" / name)
    made_by = [json.loads((HEAD / "runs" / name / "provenance.json").read_text())["fingerprint"]]
    listed = known_code.known_code() | dict.fromkeys(states().values(), 0)
    monkeypatch.setattr(known_code, "known_code", lambda: listed)

    def stale_after(file: str, text: str) -> str:
        path = states.root / file
        old = path.read_text()
        path.write_text(old + text)
        states()
        reason = known_code.stale_because(made_by, config)
        path.write_text(old)
        return reason

    assert stale_after("report/page/page.css", "body { color: red }") == ""
    assert stale_after("report/latex.py", "COLOUR = 'red'\n") == ""
    assert stale_after("losses/ranking.py", "def new(scores):\n    return -scores\n") == ""  # of rerankers
    assert "other code" in stale_after(f"training/{trainer}.py", "SCALE = 2\n")


def test_the_roots_are_there_and_the_union_is_that_of_the_trainers():
    for name in FIT:
        assert module._source(name) is not None, f"{name} is gone: FIT names it"
    files = {trainer: {*reached_files(*classes)} for trainer, classes in TRAINERS.items()}
    assert set.union(*files.values()) == {*reached_files()}
    rooms = {path.relative_to(module.PACKAGE).with_suffix("").parts[0] for path in reached_files()}
    assert rooms - {"__init__"} >= {*COMPUTES}


def test_a_syntax_tree_is_spelled_alike_by_every_python():
    tree = module.ast.parse(SNIPPET)
    spelled = module._spelled(tree)
    assert "Goes" not in spelled
    assert "stays" in spelled
    assert module.hashlib.sha256(spelled.encode()).hexdigest()[:16] == "ce73b35155e07a37"
    assert spelled != module._spelled(module.ast.parse(SNIPPET.replace("1e-3j", "1e-2j")))
    assert spelled != module._spelled(module.ast.parse(SNIPPET.replace("case None:", "case True:")))


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A package of a user: a module of ours by inheritance, and what it needs."""
    folder = tmp_path / "my_own_classes"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "encoder.py").write_text(
        "import torch\nfrom research.training.sft import SFTModule\nfrom .parts import scale\nclass Mine(SFTModule): pass\n"
    )
    (folder / "parts.py").write_text("scale = 1\n")
    (folder / "other.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("my_own_classes")]:
        del sys.modules[name]  # to find a module in a package is to import the package
    module._source.cache_clear()
    module._path.cache_clear()


def config(model: str, callback: str | None = None) -> dict:
    callbacks = [{"class_path": callback}] if callback else None
    data = {"class_path": TRAINERS["sft"][1]}
    return {"model": {"class_path": model}, "data": data, "trainer": {"callbacks": callbacks}}


def test_files_of_classes_are_those_that_a_configuration_names_and_what_the_users_import(own):
    files = module.files_of_classes(config("my_own_classes.encoder.Mine"))
    assert [path.name for path in files if path.parent == own] == ["__init__.py", "encoder.py", "parts.py"]
    assert [path.name for path in files if path.parent != own] == ["instructions.py"]  # the DataModule of ours


def test_classes_of_the_user_are_a_part_of_their_own(own):
    ours = code_fingerprint(*TRAINERS["sft"])
    assert fingerprint(config(TRAINERS["sft"][0])) == ours
    assert fingerprint(config(TRAINERS["sft"][0], "lightning.pytorch.callbacks.EarlyStopping")) == ours  # an installed package
    assert fingerprint(config("not.there.Module")).partition("+")[1] == ""
    first = fingerprint(config("my_own_classes.encoder.Mine"))
    assert first.startswith(f"{ours}+")  # it reaches of our code what SFT reaches
    (own / "other.py").write_text("x = 2\n")
    module._source.cache_clear()
    assert fingerprint(config("my_own_classes.encoder.Mine")) == first
    (own / "parts.py").write_text("scale = 2\n")
    module._source.cache_clear()
    second = fingerprint(config("my_own_classes.encoder.Mine"))
    assert second != first
    assert second.startswith(f"{ours}+")
    with_callback = fingerprint(config(TRAINERS["sft"][0], "my_own_classes.other.Callback"))
    assert with_callback.startswith(f"{ours}+")
    assert with_callback != second
