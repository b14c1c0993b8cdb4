"""A stand-in for W&B's server on the loopback interface: it takes reports, runs, artifacts and files, and keeps them.

It answers what the real client of wandb 0.31 asks, with the fields that the client's own models demand.
"""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NO_MORE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
WHEN = "2026-01-01T00:00:00"
USER = {
    "id": "u",
    "entity": "me",
    "username": "me",
    "name": "me",
    "email": "",
    "flags": "{}",
    "admin": False,
    "teams": {"edges": []},
    "apiKeys": {"edges": []},
}
PROJECT = {
    "__typename": "Project",
    "id": "p",
    "internalId": "7",
    "name": "tandem",
    "entityName": "me",
    "createdAt": WHEN,
    "isBenchmark": False,
    "user": None,
    "entity": {"id": "e", "name": "me"},
}


class StandIn:
    """Project me/tandem.

    Args:
        runs: ids of the runs that are in it.
        refuses: GraphQL operations that it answers with an error.
    """

    def __init__(self, runs: list[str], refuses: tuple[str, ...] = ()):
        self.runs, self.refuses = runs, refuses
        self.asked: list[tuple[str, dict]] = []  # GraphQL operation, variables
        self.files: dict[str, bytes] = {}  # uploaded, by path
        self.base = ""

    def sent(self, operation: str) -> list[dict]:
        """Variables of every call of an operation."""
        return [variables for name, variables in self.asked if name == operation]

    def answer(self, operation: str, asked: dict) -> dict:
        name = asked.get("entityName"), asked.get("projectName")
        answers = {
            "Viewer": lambda: {"viewer": USER},
            "GetDefaultEntity": lambda: {"viewer": USER},
            "ServerFeaturesQuery": lambda: {"serverInfo": {"features": []}},
            "ProjectInternalId": lambda: {"project": PROJECT if name == ("me", "tandem") else None},
            "GetProjects": lambda: {"models": {"pageInfo": NO_MORE, "edges": [{"node": PROJECT}]}},
            "Runs": lambda: self._runs(asked),
            "upsertView": lambda: self._view(asked),
            "RunResumeStatus": lambda: {"model": PROJECT | {"bucket": None}},
            "UpsertBucket": lambda: {
                "upsertBucket": {"inserted": True, "bucket": _run(asked["name"]) | {"config": "{}", "project": PROJECT}}
            },
            "CreateRunFiles": lambda: {
                "createRunFiles": {
                    "runID": "b",
                    "uploadHeaders": [],
                    "files": [{"name": name, "uploadUrl": self._url(f"run/{name}")} for name in asked["files"]],
                }
            },
            "ArtifactType": lambda: {"project": {"artifact": None}},
            "CreateArtifact": lambda: {
                "createArtifact": {"artifact": {"id": "QQ==", "state": "PENDING", "artifactSequence": {"latestArtifact": None}}}
            },
            "CreateArtifactManifest": lambda: {"createArtifactManifest": {"artifactManifest": self._manifest()}},
            "UpdateArtifactManifest": lambda: {"updateArtifactManifest": {"artifactManifest": self._manifest()}},
            "CreateArtifactFiles": lambda: {
                "createArtifactFiles": {
                    "files": {
                        "edges": [
                            {
                                "node": {
                                    "storagePath": "s",
                                    "uploadUrl": self._url(f"artifact/{file['name']}"),
                                    "uploadHeaders": [],
                                    "uploadMultipartUrls": None,
                                    "artifact": {"id": "QQ=="},
                                }
                            }
                            for file in asked["input"]["artifactFiles"]
                        ]
                    }
                }
            },
            "CommitArtifact": lambda: {"commitArtifact": {"artifact": {"id": "QQ==", "digest": "d"}}},
            "ArtifactByID": lambda: {"artifact": self._artifact()},
        }
        return answers.get(operation, dict)()

    def _url(self, path: str) -> str:
        return f"{self.base}/upload/{path}"

    def _manifest(self) -> dict:
        return {"id": "m", "file": {"id": "f", "uploadUrl": self._url("manifest"), "uploadHeaders": []}}

    def _runs(self, asked: dict) -> dict:
        """The project's runs whose names are in the filter; no project of another name."""
        if (asked["entity"], asked["project"]) != ("me", "tandem"):
            return {"project": None}
        there = [id for id in self.runs if id in json.loads(asked["filters"])["name"]["$in"]]
        edges = [{"node": _run(id), "cursor": id} for id in there]
        return {
            "project": {
                "internalId": "7",
                "runCount": len(there),
                "readOnly": False,
                "runs": {"edges": edges, "pageInfo": NO_MORE},
            }
        }

    def _view(self, asked: dict) -> dict:
        view = {
            "id": asked["id"] or f"view{len(self.sent('upsertView'))}",
            "type": "runs",
            "name": asked["name"],
            "displayName": asked["displayName"],
            "description": asked["description"],
            "project": PROJECT,
            "spec": asked["spec"],
            "updatedAt": None,
        }
        return {"upsertView": {"view": view, "inserted": True}}

    def _artifact(self) -> dict:
        made = self.sent("CreateArtifact")[-1]["input"]
        sequence = {"__typename": "ArtifactSequence", "id": "s", "name": made["artifactCollectionName"], "project": PROJECT}
        return {
            "__typename": "Artifact",
            "id": "QQ==",
            "artifactSequence": sequence,
            "versionIndex": 0,
            "description": "",
            "artifactType": {"name": made["artifactTypeName"]},
            "metadata": made["metadata"],
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED",
            "size": 1,
            "digest": "d",
            "commitHash": None,
            "fileCount": 1,
            "createdAt": WHEN,
            "updatedAt": None,
            "aliases": [],
        }


def _run(id: str) -> dict:
    return {
        "id": id,
        "name": id,
        "projectId": "7",
        "state": "finished",
        "user": USER,
        "tags": [],
        "displayName": id,
        "sweepName": None,
        "group": None,
        "jobType": "fit",
        "commit": None,
        "readOnly": False,
        "createdAt": WHEN,
        "heartbeatAt": None,
        "description": None,
        "notes": None,
        "historyLineCount": 0,
    }


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    """The address of the server."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            found: dict = {}
            if self.path == "/graphql":
                asked = json.loads(body)
                operation = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
                variables = asked.get("variables") or {}
                stand_in.asked.append((operation, variables))
                refused = operation in stand_in.refuses
                found = {"errors": [{"message": "not allowed"}]} if refused else {"data": stand_in.answer(operation, variables)}
            elif self.command == "PUT":
                stand_in.files[self.path.removeprefix("/upload/")] = body
            out = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stand_in.base = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stand_in.base
    finally:
        server.shutdown()
        server.server_close()
