"""W&B may go away, or not answer: neither the end of a run nor our exit waits for it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e import fitting
from tests.wandb_log import exit_codes
from tests.wandb_publishing_server import StandIn, serving
from tests.wandb_server import Server, node

USES = {
    "a run": "Tracker('offline', Path('run'), 'fit', {}).finish()",
    "a run that could not begin": "Tracker('online', Path('run'), 'fit', {})",
    "reading": "read_api('wandb:me/proj')",
    "publishing": "connect('kept')",
}
SILENT = """
import os, signal, subprocess
from pathlib import Path
from research.runs.wandb.server import read_api
from research.report.wandb.publish import connect
from research.runs.tracking import Tracker
{}
service = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True, check=True).stdout
os.kill(int(service), signal.SIGSTOP)  # it will not answer any more
print(int(service), flush=True)
"""


@pytest.mark.sample(1)
@pytest.mark.parametrize("use", USES)
def test_our_exit_does_not_wait_for_a_service_that_says_nothing(use, tmp_path):
    (tmp_path / "run").mkdir()
    server = Server([node("a", {"lr": 1}, [{"_step": 0, "top1": 1.0}])])
    if "not begin" in use:
        server.faults["other"] = (1000, 404)
    env = fitting.environment(WANDB_MODE="online", WANDB_BASE_URL=server.url, WANDB_API_KEY="0" * 40)
    child = subprocess.Popen(
        [sys.executable, "-c", SILENT.format(USES[use])], cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE
    )
    service = int(child.stdout.readline())
    try:
        assert child.wait(60) == 0
    finally:
        os.kill(service, signal.SIGKILL)
        child.kill()
        child.stdout.close()
        server.http.shutdown()


TOLD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from research.runs.tracking import Tracker
tracker = Tracker("offline", Path("run"), "fit", {})
service = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True, check=True).stdout
os.kill(int(service), int(sys.argv[1]))
time.sleep(1)
tracker.finish(85)
"""


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGUSR1, [85]), (signal.SIGTERM, [])], ids=["USR1", "TERM"])
def test_a_signal_to_all_processes_of_a_task_leaves_no_traceback_of_w_and_b(number, codes, tmp_path):
    """SLURM's TERM ends W&B's service, too, before the training has saved: a traceback stood in each preempted task's log."""
    (tmp_path / "run").mkdir()
    argv, env = [sys.executable, "-c", TOLD, str(int(number))], fitting.environment(WANDB_MODE="offline")
    done = subprocess.run(argv, cwd=tmp_path, env=env, text=True, capture_output=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert ("warning: W&B failed (ConnectionResetError" in done.stderr) == (not codes)
    (log,) = tmp_path.glob("run/wandb/offline-run-*/*.wandb")
    assert exit_codes(log) == codes


@pytest.mark.thorough
def test_a_network_that_is_lost_while_training_does_not_hold_its_end(tmp_path, tiny_bert, monkeypatch):
    fitting.furnish(tmp_path, tiny_bert, monkeypatch)
    stand_in = StandIn([])
    with serving(stand_in) as url:
        env = fitting.environment(WANDB_MODE="online", WANDB_BASE_URL=url, WANDB_API_KEY="0" * 40, WANDB_FINISH_TIMEOUT="2")
        child = subprocess.Popen(
            [sys.executable, "-m", "research", *"fit -c dual.yaml --trainer.max_epochs 20".split()],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        began = time.monotonic()
        while not (stand_in.sent("UpsertBucket") and Path("run/curves.jsonl").exists()):
            assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() - began < 120
            time.sleep(0.01)
    try:
        err = child.communicate(timeout=120)[1]
    finally:
        child.kill()
    assert child.returncode == 0, err
    assert "warning: W&B has not taken all of this run's numbers in 2 s" in err
    (log,) = Path("run/wandb").glob("run-*")
    assert f"`wandb sync {log}` uploads them" in err.replace(str(tmp_path) + "/", "")
    assert json.loads(Path("run/metrics.json").read_text())["finished"]
    assert list(log.glob("*.wandb"))
