"""A report that cannot be written: the folder holds what it held, whole, and the same command goes through later."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import assert_refused
from test_faults_disk import CURE, LIMITS, file_size_limit

from tests.conftest import ROOT
from tests.synthetic_runs import write_study

COMMANDS = {"report": ("report", "study", "--out", "out"), "diff": ("report", "--diff", "study", "other", "--out", "out")}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Two sweeps of four settings: ./study and ./other, with other values."""
    write_study(tmp_path / "study", 12)
    write_study(tmp_path / "other", 12, seed=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def former(research, command: str) -> dict[str, bytes]:
    """Make what an earlier command left in ./out, of other runs."""
    earlier = [{"study": "other", "other": "study"}.get(word, word) for word in COMMANDS[command]]
    assert research(*earlier).code in (0, 1)
    return files("out")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_fills_up_at_any_byte_leaves_the_former_report_whole(command, place, research):
    before = former(research, command)
    refused = 0
    for size in [*LIMITS[8::2], 8 * 2**20]:  # the last is room for the whole page
        with file_size_limit(size):
            result = research(*COMMANDS[command])
        if result.code in (0, 1):
            break
        refused += 1
        assert_refused(result, "cannot write", *CURE)
        assert files("out") == before
        assert sorted(path.name for path in Path("out").iterdir()) == sorted({name.split("/")[0] for name in before})
    assert result.code in (0, 1)
    assert refused > 2
    assert research(*COMMANDS[command], "--out", "fresh").code in (0, 1)
    assert files("out") == files("fresh")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_refused_write_leaves_no_new_folder(command, place, research):
    with file_size_limit(10):
        assert_refused(research(*COMMANDS[command]), "cannot write", *CURE)
    assert not Path("out").exists()


def test_a_killed_report_leaves_the_former_one_and_is_made_again(place, research):
    before = former(research, "report")
    Path("slow.py").write_text(  # it waits in the middle of its writes
        "import sys, time\nimport research.report.export as export\n"
        "export.write_sheets = lambda *_: (print('here', flush=True), time.sleep(60))\n"
        "from research.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "slow.py", *COMMANDS["report"]],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    left = files("out")
    assert {name: left[name] for name in before} == before
    assert all(name.startswith(".") for name in left.keys() - before.keys())
    assert research(*COMMANDS["report"]).code == 0
    # the same of a folder that had no report before
    os.rename("out", "gone")
    Path("out").mkdir()
    shutil.copytree(next(Path("gone").glob(".*.tmp")), "out/.new.x.tmp")
    assert research(*COMMANDS["report"]).code == 0


def test_tables_of_the_former_report_do_not_stay_beside_the_new_one(place, research):
    """A paper that includes tables/grid.tex would show the former study's."""
    assert research("report", "study", "--out", "out").code == 0
    assert Path("out/tables/grid.tex").exists()
    Path("out/mine.txt").write_text("a reader's own")
    Path("out/tables/mine.tex").write_text("a reader's own")
    lines = Path("study/plan.jsonl").read_text().splitlines(keepends=True)
    Path("study/plan.jsonl").write_text("".join(lines[:6]))  # one factor only: no grid
    assert research("report", "study", "--out", "out").code == 0
    assert not Path("out/tables/grid.tex").exists()
    assert Path("out/mine.txt").exists()
    assert Path("out/tables/mine.tex").exists()
    assert research("report", "study", "--out", "fresh").code == 0
    assert {name for name in files("out") if "mine" not in name} == files("fresh").keys()


def test_files_that_a_marker_lists_outside_its_folder_stay(place, research):
    """Whoever sends a report.json may not delete by it."""
    assert research("report", "study", "--out", "out").code == 0
    Path("precious").write_text("x")
    marker = json.loads(Path("out/report.json").read_text())
    for name in ("../precious", str(place / "precious")):
        Path("out/report.json").write_text(json.dumps(marker | {"files": [*marker["files"], name]}))
        assert research("report", "study", "--out", "out").code == 0
        assert Path("precious").exists()


def test_a_report_may_be_written_where_one_stands(place, research, monkeypatch):
    Path("here").mkdir()
    monkeypatch.chdir("here")
    for _ in range(2):
        assert research("report", "../study", "--out", ".").code == 0
    assert Path("index.html").exists()
    Path("../link").symlink_to("here")
    started = time.time_ns()
    assert research("report", "../study", "--out", "../link").code == 0
    assert Path("../link").is_symlink()
    assert Path("index.html").stat().st_mtime_ns > started - 10**9
