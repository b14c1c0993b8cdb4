"""Every planted fault turns its test red (and nothing else may be the reason: the test must fail, not err while importing)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults import table, table_report
from tests.faults.table import Fault

FAULTS = [*table.FAULTS, *table_report.FAULTS]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The code and the tests, to be broken."""
    for name in ("research", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_planted_fault_is_caught(copy, fault: Fault):
    path = copy / "research" / fault.file
    source = path.read_text()
    assert source.count(fault.old) == 1, (
        f"{fault.file} has {fault.old!r} {source.count(fault.old)} times: mend the table"
    )
    path.write_text(source.replace(fault.old, fault.new))
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", fault.test], cwd=copy,
                          env=environment, capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 1, f"not caught:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert re.search(r"\b1 failed", done.stdout), done.stdout[-2000:]
