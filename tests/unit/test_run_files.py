"""Atomic files, finished stages, hashes, provenance, W&B's mode."""

import ast
import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from research.errors import UserError, suggest
from research.runs import files, layout
from research.runs.disk import require_space
from research.runs.files import atomic_write, write_json
from research.runs.hashes import hash_strings
from research.runs.layout import open_run_folder
from research.runs.provenance import git_state, provenance
from research.runs.stages import Stages
from research.runs.tracking import Tracker, wandb_mode
from research.runs.writers import write_provenance
from tests.wandb_log import exit_codes


def test_atomic_write_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")

    def fail_half_way():
        with atomic_write(path) as stream:
            stream.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_replaces_the_file_whole_and_readable_by_the_group(tmp_path):
    with atomic_write(tmp_path / "new/f") as stream:
        stream.write("é")
        assert not (tmp_path / "new/f").exists()
    assert (tmp_path / "new/f").read_text(encoding="utf-8") == "é"
    assert (tmp_path / "new/f").stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_full_disk_is_a_user_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_json(tmp_path / "f.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_refused_at_the_start(tmp_path):
    with pytest.raises(UserError, match=r"embeddings needs .* MiB but .* MiB free"):
        require_space(tmp_path / "not/yet", 2**60, "embeddings")


def test_foreign_folder_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not a run folder"):
        open_run_folder(tmp_path)
    (tmp_path / layout.PROVENANCE).write_text("{}")
    assert open_run_folder(tmp_path) == tmp_path


def test_stage_is_finished_only_for_its_key_and_its_bytes(tmp_path):
    stages = Stages(tmp_path)
    (tmp_path / "a.trec").write_text("run")
    stages.finish("a", "key", "a.trec", {"ms": 1})
    assert Stages(tmp_path).finished("a", "key") == {"ms": 1}
    assert Stages(tmp_path).finished("a", "other") is None
    (tmp_path / "a.trec").write_text("changed")
    assert Stages(tmp_path).finished("a", "key") is None


def test_hash_of_strings_is_not_the_hash_of_their_join():
    assert hash_strings(["ab", "c"]) != hash_strings(["a", "bc"])
    assert hash_strings(["\ud800"])  # a lone surrogate in a text is data, not a crash


def test_provenance_names_code_packages_and_command():
    facts = provenance(["research", "x"], data="abc")
    assert facts["command"] == ["research", "x"]
    assert facts["data"] == "abc"
    assert facts["packages"]["torch"]
    assert facts["git_commit"] is None or len(facts["git_commit"]) == 40


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the system has no /proc")
def test_a_place_where_no_folder_can_be_made_is_refused():
    with pytest.raises(UserError, match="--out /proc/run: no folder can be made there"):
        open_run_folder(Path("/proc/run"))


def test_only_code_that_computes_makes_a_run_uncommitted(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def git(*argv):
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *argv]
        subprocess.run(command, check=True, capture_output=True)

    package, mine = tmp_path / "research", tmp_path / "mine" / "loss.py"
    for path in (package / "__init__.py", package / "losses.py", tmp_path / "README.md"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    mine.parent.mkdir()
    mine.write_text("")

    def dirty(*classes):
        return git_state(package, classes)["git_dirty"]

    (tmp_path / "notes.txt").write_text("untracked")
    (tmp_path / "README.md").write_text("changed")
    (package / "scratch.py").write_text("")  # nothing names it
    assert not dirty()
    assert not dirty(package / "losses.py")
    assert dirty(package / "scratch.py")  # a configuration names a class of it
    assert dirty(mine)
    git("add", "mine")
    git("commit", "-qm", "mine")
    assert not dirty(mine)
    (package / "losses.py").write_text("x = 1")
    assert dirty()
    other = tmp_path / "venv" / "research"  # installed beneath somebody's repository, whose commit says nothing of it
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    assert git_state(other, [])["git_commit"] is None


def test_a_run_folder_says_which_schema_it_is_written_in(tmp_path):
    write_provenance(tmp_path, ["research", "x"], data="abc")
    written = json.loads((tmp_path / layout.PROVENANCE).read_text())
    assert (written["schema"], written["command"], written["data"]) == (1, ["research", "x"], "abc")


def test_files_of_a_run_folder_are_named_in_one_place():
    names = {layout.PROVENANCE, layout.CONFIG, layout.METRICS, layout.CURVES, layout.CHECKPOINTS, layout.WANDB}
    package = Path(layout.__file__).parents[1]
    literals = [
        f"{path.relative_to(package)}:{node.lineno} {node.value}"
        for room in ("runs", "training", "retrieval", "data")
        for path in sorted((package / room).rglob("*.py"))
        if path.name != "layout.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert literals == []


def test_suggestion_names_the_nearest_and_lists_the_known():
    assert suggest("tset", ["train", "test"]) == "did you mean 'test'? known: test, train"


# ---- W&B ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "environment", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "online"),
        ("auto", {"WANDB_MODE": "disabled", "WANDB_API_KEY": "k"}, "disabled"),
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("online", {}, "online"),
    ],
)
def test_wandb_is_online_only_with_a_key(monkeypatch, tmp_path, choice, environment, expected):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(choice) == expected


@pytest.mark.parametrize("host", ["api.wandb.ai", "that of the installed wandb"])
def test_key_in_netrc_is_found(monkeypatch, tmp_path, host):
    import wandb

    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    host = host if "." in host else wandb.Settings().base_url.removeprefix("https://")
    (tmp_path / "netrc").write_text(f"machine {host} login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode() == "online"


def test_wandb_that_fails_is_a_warning_not_the_end(monkeypatch, tmp_path, capsys):
    import wandb

    def broken(**_):
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb, "init", broken)
    tracker = Tracker("offline", tmp_path, "retrieve", {})
    tracker.log({"a": 1.0})
    tracker.finish()
    assert "warning: W&B failed (ConnectionError: no route)" in capsys.readouterr().err


def test_offline_run_writes_its_log_into_the_run_folder(tmp_path):
    tracker = Tracker("offline", tmp_path, "retrieve", {"top_k": 5})
    tracker.log({"test/ndcg@10": 0.5})
    tracker.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize("code", [0, 1, 85])
def test_wandb_is_told_how_a_run_ended(code, tmp_path):
    """A sweep's search would take the numbers of a stopped training for its result, were the run finished."""
    tracker = Tracker("offline", tmp_path, "fit", {})
    tracker.finish(code)
    tracker.finish()  # the first one counts
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert exit_codes(log) == [code]
