"""scripts/studies.py goes on from what the repository holds: small files of finished points, no model, no ledger."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import scripts.studies as studies
from research.runs.ledger import Ledger
from tests.conftest import ROOT
from tests.e2e.test_sweep import COMMAND, CONFIG
from tests.lm import rows, save_tiny
from tests.slow import CALLBACK

PLACE = "runs/sweeps/tiny-quick/{point}"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A checkout with one sweep of two points, each some seconds long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    save_tiny(tmp_path / "lm")
    Path("sft.yaml").write_text(CONFIG.replace("max_steps: 2", f"max_steps: 8{CALLBACK}"))
    for name, count in (("rows", 16), ("val", 5)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    sweep = {
        "name": "tiny-quick",
        "description": "Two seeds",
        "method": "grid",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "command": [PLACE if word == "runs/{point}" else word for word in COMMAND],
        "parameters": {"seed_everything": {"values": [0, 1]}},
    }
    Path("sweeps/quick").mkdir(parents=True)
    Path("sweeps/quick/tiny.yaml").write_text(yaml.safe_dump(sweep))
    return tmp_path


@pytest.mark.thorough
def test_a_study_goes_on_from_the_repository_alone(place, capfd):
    pytest.importorskip("wandb_workspaces", reason="the extra `report` is not installed")
    home, handler = Path("docs/studies/tiny"), signal.getsignal(signal.SIGTERM)
    assert studies.main(["--threads", "1", "--minutes", "0"]) in (0, 85)
    first, *others = [event["point"] for event in Ledger(Path("runs/sweeps/tiny-quick")).events() if event["state"] == "done"]
    for point in others:  # on a machine so busy that the second point had ended before it was told to stop
        shutil.rmtree(home / "points" / point)
    assert studies.main(["--report"]) == 85
    assert signal.getsignal(signal.SIGTERM) is handler
    assert sorted(path.name for path in (home / "points" / first).iterdir()) == sorted([*studies.SMALL, studies.COST])
    assert json.loads((home / "points" / first / studies.COST).read_text())["cpu_seconds"] > 0
    assert "**1 of 2 points**" in (home / "README.md").read_text()
    assert "tiny-quick: 2 of 2 points to run, about" in capfd.readouterr().err  # the cost, before anything is trained
    shutil.rmtree("runs")
    text = (home / "README.md").read_text()
    (home / "README.md").write_text(text.replace("# Two seeds", "# Two seeds\n\nWhat was found."))
    assert studies.main(["--threads", "1"]) == 0
    events = Ledger(Path("runs/sweeps/tiny-quick")).events()
    assert [event["state"] for event in events if event["point"] == first] == ["done"]  # never run here
    assert len({event["point"] for event in events if event["state"] == "running"}) == 1
    assert len(list(home.glob("points/*"))) == 2
    assert not (Path("runs/sweeps/tiny-quick") / first / "model").exists()
    page = (home / "README.md").read_text()
    assert "What was found." in page
    assert "**2 of 2 points**" in page
    report = json.loads((home / "report.json").read_text())["study"]
    assert report["states"] == {"done": 2}
    for name in ("page.html", "table.tex", "table.csv", "wandb_report.json"):
        assert (home / name).stat().st_size > 0
    assert "[tiny](tiny/README.md) | Two seeds | 2 of 2" in Path("docs/studies/README.md").read_text()


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_study_that_is_stopped_leaves_no_training_behind(place, number, code):
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts/studies.py"), "--threads", "1"])
    ledger = Ledger(Path("runs/sweeps/tiny-quick"))
    while not (running := [event for event in ledger.events() if event["state"] == "running"]):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(number)  # to this process alone, as a shell's `kill`; Ctrl-C reaches `sweep run` as well
    assert process.wait(120) == code
    ends = [event["state"] for event in ledger.events() if event["point"] == running[0]["point"]][1:]
    assert ends == ["preempted"] or ends == ["done"]  # on a machine so busy that it had ended before
    assert len([event for event in ledger.events() if event["state"] == "running"]) == 1  # no other was begun
