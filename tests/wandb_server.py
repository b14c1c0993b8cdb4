"""A stand-in for W&B's server on the loopback interface: answers what the real client asks when it reads runs."""

import contextlib
import gzip
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VIEWER = {"id": "u", "entity": "me", "username": "me", "name": "me", "email": "", "flags": "{}", "teams": {"edges": []}}


def node(id: str, config: dict, history: list[dict], **more: Any) -> dict:
    """A run as the server holds it: its summary is the last of each metric, unless `summary` says more."""
    summary: dict = {}
    for row in history:
        summary |= row
    summary |= more.pop("summary", {})
    number = more.pop("number", 0)
    stored = {
        "id": f"node-{id}",
        "projectId": "1",
        "tags": [],
        "name": id,
        "displayName": id,
        "sweepName": None,
        "state": "finished",
        "config": json.dumps({name: {"value": value} for name, value in config.items()}),
        "group": None,
        "jobType": None,
        "commit": None,
        "readOnly": False,
        "createdAt": f"2026-01-01T00:{number:02}:00",
        "heartbeatAt": None,
        "description": None,
        "notes": None,
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps(summary),
        "historyLineCount": len(history),
        "user": {"name": "me", "username": "me"},
        "historyKeys": {"lastStep": max((row["_step"] for row in history), default=-1)},
    }
    return {"node": stored | more, "history": history}


class Server:
    """One project, me/proj.

    Attributes:
        url: where it listens.
        asked: how often each kind of question came.
        faults: kind of question → (how many answers go wrong, an HTTP status or "hang" or "errors").
    """

    def __init__(self, runs: list[dict], sweeps: dict[str, str] | None = None, page: int = 3):
        self.runs, self.sweeps, self.page = runs, sweeps or {}, page
        self.asked: Counter = Counter()
        self.faults: dict[str, tuple[int, int | str]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                status, answer = server.respond(body) if self.path == "/graphql" else (200, {})
                out = json.dumps(answer).encode()
                with contextlib.suppress(OSError):  # the client has given up
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(out)))
                    self.end_headers()
                    self.wfile.write(out)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def respond(self, body: bytes) -> tuple[int, dict]:
        question = json.loads(body)
        query, variables = question["query"], question.get("variables") or {}
        kinds = ("Runs(", "GetSweep", "RunHistoryKeys", "RunParquetHistory", "SampledHistoryPage")
        kind = next((kind.strip("(") for kind in kinds if kind in query), "Viewer" if "viewer" in query else "other")
        self.asked[kind] += 1
        left, fault = self.faults.get(kind, (0, 0))
        if left:
            self.faults[kind] = (left - 1, fault)
            if fault == "hang":
                time.sleep(20)
            if fault == "errors":
                return 200, {"data": {"project": None}, "errors": [{"message": "no such thing"}]}
            return int(fault) if fault != "hang" else 200, {"errors": [{"message": "out of order"}]}
        if kind == "Viewer":
            return 200, {"data": {"viewer": VIEWER}}
        if (variables.get("entity"), variables.get("project")) != ("me", "proj"):
            return 200, {"data": {"project": None}}
        return 200, {"data": {"project": getattr(self, kind)(variables)}}

    def Runs(self, variables: dict) -> dict:
        wanted = json.loads(variables.get("filters") or "{}")
        found = [one["node"] for one in self.runs if matches(one["node"], wanted)]
        start = int(variables.get("cursor") or 0)
        size = min(self.page, variables.get("perPage") or 50)  # the server has a limit of its own
        edges = [{"node": one, "cursor": str(i)} for i, one in enumerate(found[start : start + size], start + 1)]
        more = {"endCursor": str(start + len(edges)), "hasNextPage": start + size < len(found)}
        return {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": {"edges": edges, "pageInfo": more}}

    def GetSweep(self, variables: dict) -> dict:
        name = variables["name"]
        if name not in self.sweeps:
            return {"sweep": None}
        rest = dict.fromkeys(("displayName", "description", "bestLoss", "updatedAt", "runCountExpected"))
        return {
            "sweep": rest
            | {
                "__typename": "Sweep",
                "id": name,
                "name": name,
                "method": "grid",
                "state": "FINISHED",
                "config": self.sweeps[name],
                "createdAt": "2026-01-01T00:00:00",
                "runCount": 1,
            }
        }

    def RunHistoryKeys(self, variables: dict) -> dict:
        return {"run": {"historyKeys": self.run(variables["name"])["node"]["historyKeys"]}}

    def RunParquetHistory(self, variables: dict) -> dict:
        rows = [{"_step": row["_step"]} for row in self.run(variables["runName"])["history"]]
        return {"run": {"parquetHistory": {"parquetUrls": [], "liveData": rows}}}

    def SampledHistoryPage(self, variables: dict) -> dict:
        spec = json.loads(variables["spec"])
        rows = [
            {key: row[key] for key in spec["keys"]}
            for row in self.run(variables["run"])["history"]
            if all(key in row for key in spec["keys"]) and spec["minStep"] <= row["_step"] <= spec["maxStep"]
        ]
        return {"run": {"sampledHistory": [rows[: spec["samples"]]]}}

    def run(self, id: str) -> dict:
        return next(one for one in self.runs if one["node"]["name"] == id)


def matches(run: dict, wanted: dict) -> bool:
    """The part of MongoDB's language that filters of runs are made of."""
    fields = {"sweep": "sweepName", "group": "group"}
    for name, value in wanted.items():
        if name == "$or":
            good = any(matches(run, one) for one in value)
        elif name == "$and":
            good = all(matches(run, one) for one in value)
        else:
            good = run[fields[name]] == value
        if not good:
            return False
    return True
