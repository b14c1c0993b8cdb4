"""What changes a training's fingerprint, and what does not."""

import importlib.util
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
        module.forget()
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
        ("metrics/generation.py", {"sft"}),
        ("retrieval/encode.py", {"dual_encoder", "cross_encoder"}),
        ("models/dual_encoder.py", {"dual_encoder", "cross_encoder"}),
        ("data/candidates.py", {"cross_encoder"}),
        ("data/instructions.py", {"sft"}),
        ("training/optimisation.py", {*TRAINERS}),
        ("types.py", {*TRAINERS}),
    ],
)
def test_a_new_function_makes_stale_whose_training_reaches_it(states, file, whose):
    assert changed(states, file, lambda text: text + "\n\ndef new(x):\n    return x\n") == whose | {"all"}


@pytest.mark.parametrize(
    ("file", "replans"),
    [
        ("report/page/page.css", False),
        ("report/latex.py", False),
        ("sweeps/points.py", True),
        ("training/configuration.py", True),
        ("losses/ranking.py", True),
    ],
)
def test_a_sweep_is_planned_anew_by_code_that_its_plan_follows_from(states, file, replans):
    path = states.root / file
    states()
    before, old = module.plan_fingerprint(), path.read_text()
    path.write_text(old + "\n\n# a comment\n" if path.suffix == ".py" else old)
    states()
    assert module.plan_fingerprint() == before
    path.write_text(old + ("\n\nCOLOUR = 'red'\n" if path.suffix == ".py" else "\nbody { color: red }\n"))
    states()
    after = module.plan_fingerprint()
    path.write_text(old)
    assert (after != before) is replans


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
    module.forget()


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
    module.forget()
    assert fingerprint(config("my_own_classes.encoder.Mine")) == first
    (own / "parts.py").write_text("scale = 2\n")
    module.forget()
    second = fingerprint(config("my_own_classes.encoder.Mine"))
    assert second != first
    assert second.startswith(f"{ours}+")
    with_callback = fingerprint(config(TRAINERS["sft"][0], "my_own_classes.other.Callback"))
    assert with_callback.startswith(f"{ours}+")
    assert with_callback != second


LOSS = "def f(x):\n    return {} * x\n"


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Path:
    """A user's folder: a trainer whose loss lies in a package of its own, and what both need."""
    for file, text in {
        "lab_trainer.py": "from lab_losses import f\nfrom research.training.sft import SFTModule\nclass M(SFTModule): pass\n",
        "lab_losses/__init__.py": "from .inner import f\nimport numpy, not_there_at_all\n",
        "lab_losses/inner.py": "import lab_maths.deep.scale, lab_trainer\n" + LOSS.format(1),  # a circle
        "lab_losses/unused.py": "x = 1\n",
        "lab_maths/deep/scale.py": "SCALE = 1\n",  # without an __init__.py on its way
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    module.forget()


def edited(lab: Path, file: str, text: str, config: dict) -> bool:
    """Whether the fingerprint is another one after a file is written."""
    module.forget()
    before, path = fingerprint(config), lab / file
    old = path.read_bytes()
    path.write_text(text)
    module.forget()
    after = fingerprint(config)
    path.write_bytes(old)
    return before != after


def test_a_loss_in_the_user_s_helper_package_makes_stale(lab):
    mine = config("lab_trainer.M")
    assert edited(lab, "lab_losses/inner.py", "import lab_maths.deep.scale, lab_trainer\n" + LOSS.format(2), mine)
    assert edited(lab, "lab_maths/deep/scale.py", "SCALE = 2\n", mine)
    assert edited(lab, "lab_losses/__init__.py", "from .inner import f\n", mine)
    assert not edited(lab, "lab_losses/unused.py", "x = 2\n", mine)
    assert not edited(lab, "lab_losses/inner.py", (lab / "lab_losses/inner.py").read_text() + "# a comment\n", mine)
    assert fingerprint(mine).startswith(code_fingerprint(*TRAINERS["sft"]) + "+")
    assert not any(name.startswith("lab_") for name in sys.modules)  # the user's code is read, and not run


def test_code_in_another_encoding_counts(lab):
    cookie = "# coding: latin-1\nNAME = 'é{}'\n"
    (lab / "lab_losses/inner.py").write_bytes(cookie.format(1).encode("latin-1"))
    module.forget()
    first = fingerprint(config("lab_trainer.M"))
    (lab / "lab_losses/inner.py").write_bytes(cookie.format(2).encode("latin-1"))
    module.forget()
    assert fingerprint(config("lab_trainer.M")) != first


def test_installed_packages_do_not_count_and_editable_ones_do(lab, tmp_path_factory, monkeypatch):
    """Installed is what lies in a site-packages or beside the records of pip; an editable one's files lie elsewhere."""
    site, target, source = (tmp_path_factory.mktemp(name) for name in ("python", "target", "source"))
    installed = {"site-packages": site / "site-packages", "target": target}
    (target / "lab_maths-1.0.dist-info").mkdir()
    for place in (*installed.values(), source):
        (place / "lab_help").mkdir(parents=True)
        (place / "lab_help/__init__.py").write_text("x = 1\n")
    (lab / "lab_losses/inner.py").write_text("import lab_help\n" + LOSS.format(1))
    for place in installed.values():
        with monkeypatch.context() as patch:
            patch.syspath_prepend(place)
            assert not edited(place, "lab_help/__init__.py", "x = 2\n", config("lab_trainer.M"))

    class Finder:
        """As setuptools puts one for an editable package."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            found = source / "lab_help/__init__.py"
            return importlib.util.spec_from_file_location(name, found) if name == "lab_help" else None

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert edited(source, "lab_help/__init__.py", "x = 2\n", config("lab_trainer.M"))


def test_runs_that_noted_the_class_s_package_alone_are_stale_and_say_why(lab):
    mine = config("lab_trainer.M")
    module.forget()
    now, before = fingerprint(mine), fingerprint(mine, helpers=False)
    assert now != before
    assert "lab_losses, lab_maths" in known_code.stale_because([before], mine)
    (lab / "lab_trainer.py").write_text("from research.training.sft import SFTModule\nclass M(SFTModule): pass\n")
    module.forget()
    assert fingerprint(mine) == fingerprint(mine, helpers=False)  # no other file: the same hash as ever


def test_a_huge_tree_is_read_up_to_a_bound_that_is_told(lab, monkeypatch, capsys):
    big = "".join(f"import lab_big.m{i}\n" for i in range(40))
    (lab / "lab_big").mkdir()
    (lab / "lab_big/__init__.py").write_text(big)
    for i in range(40):
        (lab / f"lab_big/m{i}.py").write_text(f"import lab_big.m{i + 1}\nx = {i}\n")
    (lab / "lab_losses/inner.py").write_text("import lab_big\n" + LOSS.format(1))
    monkeypatch.setattr(module, "LARGEST", len(big) + 800)
    module.forget()
    first = fingerprint(config("lab_trainer.M"))
    assert capsys.readouterr().err.count("warning: ") == 1
    module.forget()
    assert fingerprint(config("lab_trainer.M")) == first  # whatever the order of a set
    assert edited(lab, "lab_losses/inner.py", "import lab_big\n" + LOSS.format(2), config("lab_trainer.M"))
