"""Which stages of a run folder are finished, and what each was made from."""

import time
from collections.abc import Iterable
from pathlib import Path

from research.errors import UserError
from research.progress import say
from research.runs.files import write_json
from research.runs.hashes import hash_file
from research.runs.provenance import cpu_count, git_state
from research.runs.reading import read_json


class Stages:
    """Which stages of a run folder are finished, with the hash of what each was made from.

    A stage is skipped when its inputs hash to the same key and its file is byte for byte what was written then.
    """

    FILE = "stages.json"

    def __init__(self, out: Path):
        self.out = out
        path = out / self.FILE
        self.entries: dict[str, dict] = read_json(path) if path.exists() else {}
        if not isinstance(self.entries, dict):
            raise UserError(f"{path} is not one this tool wrote; expected an object. Delete it, and the stages are made again.")

    def finished(self, name: str, key: str) -> dict | None:
        """Return the recorded facts of stage `name` if it still stands for `key`, else None."""
        entry = self.entries.get(name)
        if not entry or entry["key"] != key:
            return None
        path = self.out / entry["file"]
        return entry["facts"] if path.exists() and hash_file(path) == entry["sha256"] else None

    def finish(self, name: str, key: str, file: str, facts: dict) -> None:
        """Record a finished stage: its key, its file's hash, its facts, and when and where it ran."""
        origin = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "cpus": cpu_count(), **git_state()}
        digest = hash_file(self.out / file)
        self.entries[name] = {"key": key, "file": file, "sha256": digest, "facts": facts, "made": origin}
        write_json(self.out / self.FILE, self.entries)

    def origins(self) -> dict[str, dict]:
        """Return when, by which commit and on how many processors each stage was computed; later commands may reuse a stage."""
        return {name: entry.get("made", {}) for name, entry in self.entries.items()}

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove the files of stages that this command does not have: a stale run must not reach a report."""
        for name in sorted(set(self.entries) - set(names)):
            file = self.entries.pop(name)["file"]
            say(f"{name}: not part of this command; {file}, which an earlier one made, is removed")
            (self.out / file).unlink(missing_ok=True)
        write_json(self.out / self.FILE, self.entries)
