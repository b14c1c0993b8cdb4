"""scripts/list_code.py lists only a state of the code that can be found again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMES = ("losses/contrastive.py", "prompts.py")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.fixture
def clone(tmp_path):
    """A copy of the code, and ways to run git and the script in it."""
    shutil.copytree(ROOT / "research", tmp_path / "research", ignore=shutil.ignore_patterns("__pycache__", "page"))
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    append(tmp_path / "research/losses/contrastive.py", "# a state of its own\n")  # not yet on the list

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
    assert clone.listed() == f"{before}{done.stdout.split(':')[0]} {done.stdout.split()[1]}\n"
    clone.git("commit", "-qam", "listed")
    after = clone.listed()
    for name in NAMES:
        append(clone.root / "research" / name, "# edited\n")
        refused = clone.script()
        assert (refused.returncode, clone.listed()) == (2, after), name
        assert f"not committed (research/{name})" in refused.stderr
        clone.git("checkout", "-q", ".")
    (clone.root / "research/metrics/new.py").write_text("")  # what git does not know yet
    assert "research/metrics/new.py" in clone.script().stderr
    (clone.root / "research/metrics/new.py").unlink()
    assert clone.script().returncode == 0  # listed before: nothing is added
    assert clone.listed() == after
