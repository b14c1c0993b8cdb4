"""The real `wandb agent` runs a sweep's YAML: the same points as ours, under the runs that the server has made.

The server is a stand-in on the loopback interface for the four GraphQL calls that the agent makes.
"""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from research.sweeps.sampling import grid
from research.sweeps.spec import read_sweep
from tests.conftest import ROOT
from tests.e2e.test_sweep import CONFIG, R_ALPHA, place  # noqa: F401 (a fixture)

COMMAND = ["${env}", "${interpreter}", "-m", "research", "fit", "-c", "sft.yaml", "--out", "agent/{point}", "${args}"]


class StandIn:
    """Hands out the points of a sweep, one a heartbeat, then tells the agent to leave.

    Args:
        path: of the sweep.
    """

    def __init__(self, path: Path):
        self.config = path.read_text()
        self.points = list(enumerate(grid(read_sweep(path))))

    def answer(self, query: str, variables: dict) -> dict:
        if "viewer" in query:
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "agent"}}}
        if "agentHeartbeat" in query:
            if json.loads(variables["runState"]):  # one at a time, as the server does
                return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": "[]"}}
            command: dict = {"type": "exit"}
            if self.points:
                i, point = self.points.pop(0)
                args = {name: {"value": value} for name, value in point.items()}
                command = {"type": "run", "run_id": f"server{i}", "program": "", "args": args}
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps([command])}}
        sweep = dict.fromkeys(("description", "heartbeatAt", "updatedAt", "bestLoss", "controller", "scheduler"))
        runs = {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {
            "project": {
                "id": "p",
                "sweep": sweep
                | {
                    "id": "s",
                    "name": "sw",
                    "state": "RUNNING",
                    "method": "grid",
                    "config": self.config,
                    "createdAt": "2026-01-01T00:00:00",
                    "runs": runs,
                },
            }
        }


@pytest.fixture
def serve() -> Iterator:
    servers = []

    def start(stand_in: StandIn) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                asked = json.loads(body) if self.path == "/graphql" else {"query": ""}
                found = stand_in.answer(asked["query"], asked.get("variables") or {})
                out = json.dumps({"data": found}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


def agents_environment(base: str) -> dict[str, str]:
    """Of an agent of the server at `base`."""
    return os.environ | {
        "WANDB_BASE_URL": base,
        "WANDB_API_KEY": "0" * 40,
        "WANDB_AGENT_REPORT_INTERVAL": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.thorough
def test_the_agent_runs_the_points_of_the_plan_under_the_server_s_runs(place, research, serve):  # noqa: F811
    Path("sft.yaml").write_text(CONFIG.replace("wandb: disabled", "wandb: offline"))
    sweep = {"method": "grid", "name": "tiny", "command": COMMAND, "parameters": R_ALPHA}
    Path("sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    planned = [one["point"] for one in research("sweep", "plan", "sweep.yaml", "--json").json["points"]]
    programs = Path(sys.executable).parent
    environment = agents_environment(serve(StandIn(Path("sweep.yaml")))) | {"PATH": f"{programs}:{os.environ['PATH']}"}
    command = [programs / "wandb", "agent", "--forward-signals", "me/project/sw"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    folders = sorted(path.name for path in Path("agent").iterdir() if path.is_dir() and (path / "metrics.json").exists())
    assert folders == sorted(planned), done.stdout + done.stderr
    ids = {point: json.loads((Path("agent") / point / "wandb.json").read_text())["id"] for point in planned}
    assert [ids[point] for point in planned] == [f"server{i}" for i in range(4)]  # the runs that the server has made
    assert all(any((Path("agent") / point).glob(f"wandb/offline-run-*-{ids[point]}")) for point in planned)
    assert research("sweep", "status", "sweep.yaml", "--json").json["states"] == {"done": 4}
    assert "4 done, 0 to run" in research("sweep", "plan", "sweep.yaml").out
