"""An installed wheel holds every file that the package reads, not its modules alone."""

import shutil
import subprocess
import sys
import zipfile

from tests.conftest import ROOT

BUILD = "from setuptools import build_meta; build_meta.build_wheel('built')"


def test_a_wheel_holds_every_file_of_the_package(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "research", tmp_path / "research", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (tmp_path / "built").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("research/")}
    files = {str(path.relative_to(tmp_path)) for path in (tmp_path / "research").rglob("*") if path.is_file()}
    assert held == files
    assert {"research/sweeps/templates/slurm_array.sh", "research/sweeps/templates/kubernetes.yaml"} <= held


def test_what_lies_outside_the_package_is_asked_for_in_words(tmp_path, monkeypatch, research):
    """The quickstart's configurations are the checkout's, which an installed wheel has not."""
    monkeypatch.setattr("research.quickstart.steps.CONFIGS", tmp_path / "configs")
    result = research("quickstart", "--out", tmp_path / "road")
    assert result.code == 2
    assert f"there is no {tmp_path / 'configs'}" in result.err
    assert "scripts/quickstart.sh" in result.err
    assert not (tmp_path / "road").exists()


def test_nothing_else_of_the_package_is_read_from_outside_it():
    outside = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "research").rglob("*.py"))
        if "__file__).parents[2]" in path.read_text(encoding="utf-8")
    ]
    assert outside == ["research/quickstart/steps.py"]
