"""Every planted fault turns its test red (and nothing else may be the reason: the test must fail, not err while importing)."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.faults import table, table_report
from tests.faults.table import Fault

FAULTS = [*table.FAULTS, *table_report.FAULTS]
SECONDS = 300


class Outcome(NamedTuple):
    code: int
    output: str


class Copy:
    """The code and the tests in a folder of their own, to be broken; and a process that runs tests there.

    Args:
        folder: made.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("research", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "tests/faults/forking.py"]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._answer() == "ready"

    def run(self, test: str) -> Outcome:
        """pytest on one test, in a child that imports our code as it lies in the folder now."""
        log = self.folder / "log"
        arguments = ["-q", "-x", "-p", "no:cacheprovider", test]
        self.process.stdin.write(json.dumps({"arguments": arguments, "log": str(log), "seconds": SECONDS}) + "\n")
        return Outcome(int(self._answer()), log.read_text(errors="replace"))

    def plant(self, fault: Fault) -> None:
        path = self.folder / "research" / fault.file
        source = path.read_text()
        times = source.count(fault.old)
        assert times == 1, f"{fault.file} has {fault.old!r} {times} times: mend the table"
        path.write_text(source.replace(fault.old, fault.new))
        os.utime(path, (0, 1_000_000_000 + FAULTS.index(fault)))  # bytecode is kept by this time and the size

    def mend(self, fault: Fault) -> None:
        shutil.copy2(ROOT / "research" / fault.file, self.folder / "research" / fault.file)

    def close(self) -> None:
        with self.process:  # closes its pipes, and waits
            pass

    def _answer(self) -> str:
        line = self.process.stdout.readline().strip()
        assert line, "the process that runs the tests has died"
        return line


@pytest.fixture(scope="session")  # a process of tests has one of its own
def copy(tmp_path_factory) -> Iterator[Copy]:
    made = Copy(tmp_path_factory.mktemp("copy"))
    yield made
    made.close()


@pytest.mark.sample(12)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_planted_fault_is_caught(copy, fault: Fault):
    copy.plant(fault)
    try:
        outcome = copy.run(fault.test)
    finally:
        copy.mend(fault)
    assert outcome.code == 1, f"not caught:\n{outcome.output[-2000:]}"
    assert re.search(r"\b1 failed", outcome.output), outcome.output[-2000:]


def test_without_a_fault_the_copy_is_green(copy):
    """Else every test above would pass for a reason of its own."""
    assert copy.run("tests/unit/test_losses.py::test_info_nce_by_hand").code == 0
