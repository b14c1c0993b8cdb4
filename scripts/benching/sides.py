"""The parent's end of a benchmark: sides are processes that train one case after the other (turns.py), and take turns,
A B A B, so that all meet the same machine; while one works the others wait for a line, and their device is idle.
"""

import contextlib
import json
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any


class SideError(Exception):
    """A side could not do a case; says why."""


class Side:
    """A process that trains when told to.

    Args:
        script: its file; it is run with `--side NAME OPTIONS`.
        name: which side.
        options: what holds for all cases.
        limit: seconds to wait for an answer.
    """

    def __init__(self, script: str, name: str, options: dict, limit: float = 150):
        self.script, self.name, self.options, self.limit = script, name, options, limit
        self.process: subprocess.Popen | None = None

    def tell(self, **order: Any) -> dict:
        """An order and its answer.

        Raises:
            SideError: the side could not; its next case begins in a new process.
        """
        self.send(**order)
        return self.receive()

    def send(self, **order: Any) -> None:
        if self.process is None:
            self._start()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def _start(self) -> None:
        """On a pipe of its own for the answers: libraries may print what they like."""
        reading, writing = os.pipe()
        options = json.dumps(self.options | {"answers": writing})
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        command = [sys.executable, self.script, "--side", self.name, options]
        self.process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, pass_fds=[writing]
        )
        os.close(writing)
        self.answers = os.fdopen(reading)

    def receive(self) -> dict:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.answers, selectors.EVENT_READ)
            ready = waiting.select(self.limit)
        if not ready:
            self.process.kill()
        line = self.answers.readline()
        why = f"{self.name} ended without a word" if ready else f"{self.name} gave no answer in {self.limit} s"
        answer = json.loads(line) if line.strip() else {"error": why}
        if "error" in answer:
            self.process.wait()
            self.log.seek(0)
            print(self.log.read()[-3000:], file=sys.stderr, flush=True)
            self.close()
            raise SideError(answer["error"])
        return answer

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.answers.close()
            self.log.close()
            self.process = None


def compare(
    sides: Sequence[Side], case: dict, rounds: int, steps: int | None, lead: int = 0, count: bool = True, first: bool = False
) -> dict:
    """One case on all sides, in turns.

    Args:
        sides: ours first.
        rounds: turns of each side.
        steps: of a turn; None: as many as take the slowest side a second, 5 to 50.
        lead: steps before each turn's clock starts.
        count: also profile a step, at the end.
        first: ours is ready before the others begin: it leaves something that they read.

    Returns:
        {side: {"seconds" (of each turn), "gib", "loss", "loader_share", "start_seconds", launches …} or {"error": …}}.
    """
    found: dict[str, dict] = {side.name: {"seconds": [], "loader": []} for side in sides}
    for together in (sides[:1], sides[1:]) if first else (sides,):  # most of a start is importing
        for side in together:
            _try(found, side, lambda side=side: side.send(case=case))
        for side in together:
            _try(found, side, lambda side=side: found[side.name].update(side.receive()))
    if steps is None:
        tried = [_tried(found, side) for side in sides]
        steps = max(5, min(50, round(1 / max(filter(None, tried), default=1))))
    for _ in range(rounds):
        for side in sides:
            _try(found, side, lambda side=side: _turn(side, found[side.name], steps, lead))
    for side in sides if count else ():
        _try(found, side, lambda side=side: found[side.name].update(side.tell(count=True)), "count_error")
    for side in sides:
        if "count_error" not in found[side.name]:
            _try(found, side, lambda side=side: side.tell(end=True))
        if "error" not in (row := found[side.name]):
            waited = sum(row.pop("loader"))
            if row["seconds"]:
                row["loader_share"] = round(waited / sum(row["seconds"]), 4)
                row["seconds_per_step"], row["steps"] = statistics.median(row["seconds"]) / steps, steps
    return found


def _try(found: dict[str, dict], side: Side, act: Callable[[], Any], what: str = "error") -> None:
    """Do it, unless the side has failed before; where it fails now, say so in its row."""
    row = found[side.name]
    if "error" not in row:
        try:
            act()
        except SideError as error:
            found[side.name] = {"error": str(error)} if what == "error" else row | {what: str(error)}


def _tried(found: dict[str, dict], side: Side) -> float | None:
    """Seconds of a step, roughly."""
    answers: list[dict] = []
    _try(found, side, lambda: answers.append(side.tell(steps=3)))
    return answers[0]["seconds"] / 3 if answers else None


def _turn(side: Side, row: dict, steps: int, lead: int) -> None:
    answer = side.tell(steps=steps, lead=lead)
    row["seconds"].append(answer["seconds"])
    row["loader"].append(answer["loader_seconds"])
    row["gib"], row["loss"] = round(answer["gib"], 3), answer["loss"]
    if "device_seconds" in answer:
        row.setdefault("device_seconds", []).append(answer["device_seconds"])


def verdict(found: dict[str, dict], peers: Sequence[str]) -> dict:
    """What the sides' numbers say of each other.

    Returns:
        peer: the fastest; ratio: our speed over its, the median of the turns; range; memory_ratio: our peak over its. No
        more than an empty peer where no side of the two has worked.
    """
    ours, able = found["ours"], [name for name in peers if found[name].get("seconds")]
    if not able or not ours.get("seconds"):
        return {"peer": ""}
    peer = min(able, key=lambda name: statistics.median(found[name]["seconds"]))
    turned = [b / a for a, b in zip(ours["seconds"], found[peer]["seconds"], strict=True)]
    return {
        "peer": peer,
        "ratio": round(statistics.median(turned), 3),
        "range": [round(min(turned), 3), round(max(turned), 3)],
        "memory_ratio": round(ours["gib"] / found[peer]["gib"], 3),
    }
