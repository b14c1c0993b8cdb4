"""scripts/list_code.py lists only a state of the code that can be found again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from research.runs.fingerprint import TRAINERS
from tests.conftest import ROOT

NAMES = ("losses/contrastive.py", "prompts.py")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.fixture
def clone(tmp_path):
    """A copy of the code, and ways to run git and the script in it."""
    shutil.copytree(ROOT / "research", tmp_path / "research", ignore=shutil.ignore_patterns("__pycache__", "page"))
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    append(tmp_path / "research/losses/contrastive.py", "\nSTATE = 'of its own'\n")  # not yet on the list

    def run(*argv: str) -> subprocess.CompletedProcess:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHONPATH"))}
        return subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    def git(*argv: str) -> None:
        done = run("git", "-c", "user.name=a", "-c", "user.email=a@b", *argv)
        assert done.returncode == 0, done.stderr

    run.git, run.listed = git, lambda: (tmp_path / "research/runs/known_code.txt").read_text()
    run.script = lambda: run(sys.executable, "scripts/list_code.py")
    run.root = tmp_path
    return run


def test_uncommitted_code_that_computes_is_not_listed(clone):
    before = clone.listed()
    refused = clone.script()  # of no repository
    assert (refused.returncode, clone.listed()) == (2, before)
    assert "git does not say" in refused.stderr
    clone.git("init", "-q")
    clone.git("add", ".")
    clone.git("commit", "-qm", "all")
    append(clone.root / "research/report/figures/names.py", "# computes no numbers\n")
    done = clone.script()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[2] for line in lines] == [*TRAINERS]
    added = [line.removesuffix(" (new)") for line in lines if line.endswith(" (new)")]
    assert any(line.endswith("dual_encoder") for line in added)
    assert clone.listed() == before + "".join(f"{line}\n" for line in added)
    clone.git("commit", "-qam", "listed")
    after = clone.listed()
    for name in NAMES:
        append(clone.root / "research" / name, "\nEDITED = 1\n")
        refused = clone.script()
        assert (refused.returncode, clone.listed()) == (2, after), name
        assert f"not committed (research/{name})" in refused.stderr
        clone.git("checkout", "-q", ".")
    append(clone.root / "research/losses/contrastive.py", "\nfrom research.losses import new\n")
    clone.git("commit", "-qam", "imports what git does not know")
    (clone.root / "research/losses/new.py").write_text("")
    assert "research/losses/new.py" in clone.script().stderr
    clone.git("checkout", "-q", "HEAD~", ".")
    assert clone.script().returncode == 0  # listed before: nothing is added
    assert clone.listed() == after


def test_a_state_of_one_trainer_adds_one_line(clone):
    clone.git("init", "-q")
    clone.git("add", ".")
    clone.git("commit", "-qm", "all")
    assert clone.script().returncode == 0
    before = clone.listed()
    append(clone.root / "research/losses/ranking.py", "\nEDITED = 1\n")
    clone.git("commit", "-qam", "a loss")
    assert clone.script().returncode == 0
    added = clone.listed().removeprefix(before).splitlines()
    assert [line.split()[2] for line in added] == ["cross_encoder"]
