"""The two sides of a benchmark: processes that train one case after the other, in turns, and say what it took.

The parent tells a `Side` what to do, and its process does it inside its training loop, where a `Turns` waits for the next
word:

  {"case": {...}}  build it and train `warmup` steps → {"start_seconds"}
  {"steps": n}     n steps between two synchronisations → {"seconds", "loader_seconds", "gib", "loss"}, on a GPU also
                   "device_seconds" between two of its events; with "lead": m after m more steps, which use up what loader
                   processes have made ready in the pause
  {"count": true}  one step under the profiler → {"launches", "syncs", "aten_ops", …}
  {"end": true}    leave the loop → {"ended"}

A side that fails answers {"error": …} and ends; it is started anew for the next case. Sides take turns, A B A B, so that both
meet the same machine; while one works the other waits for a line, and its device is idle.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import resource
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from bench_device import synchronize

VIEWS = {*"""
view _unsafe_view reshape _reshape_alias as_strided expand expand_as slice select transpose t permute unsqueeze squeeze detach
alias split split_with_sizes chunk unbind narrow numpy_T view_as lift_fresh result_type is_same_size to contiguous item empty
empty_like empty_strided resize_ set_ unflatten flatten swapaxes movedim broadcast_to diagonal
""".split()}  # fmt: skip
"""ATen operations that start no kernel."""
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"}
"""ATen operations that wait for the device where there is one."""


class Over(Exception):
    """Leaves a training loop when its case has ended."""


class Turns:
    """A side's end of the conversation.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str):
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        import lightning.fabric.plugins.environments.mpi as mpi

        mpi._MPI4PY_AVAILABLE = (
            False  # Lightning imports mpi4py where it is installed: it fails or hangs without an MPI
        )
        self.device, self.left, self.lead, self.task = device, 0, 0, ""
        self.loader_seconds = 0.0
        self.profiler: Any = None
        self._time_loaders()

    # ---- what the training loop calls -----------------------------------------------------------------------------------

    def begin(self, warmup: int) -> None:
        """At the loop's start: `warmup` steps follow, which pay for what later ones find ready."""
        self.task, self.left, self.started = "case", warmup, time.perf_counter()

    def step_done(self, loss: Callable[[], float | None] = lambda: None) -> None:
        """After each optimizer step.

        Args:
            loss: the value to report; it is called when a turn is over.

        Raises:
            Over: the case has ended.
        """
        if self.lead:
            self.lead -= 1
            if not self.lead:
                self._start_clock()
            return
        self.left -= 1
        if self.left > 0:
            return
        end = event(self.device)
        synchronize(self.device)
        seconds = time.perf_counter() - self.started
        if self.task == "case":
            self._answer({"start_seconds": time.perf_counter() - self.built})
        elif self.task == "count":
            self.profiler.__exit__(None, None, None)
            self._answer(counts(self.profiler, self.device))
            self.profiler = None
        else:
            self._answer({"seconds": seconds, "loader_seconds": self.loader_seconds, "gib": peak_gib(self.device),
                          "loss": loss(),
                          **({"device_seconds": self.begun.elapsed_time(end) / 1000} if end else {})})  # fmt: skip
        self._take_order()

    # ---- the conversation -------------------------------------------------------------------------------------------------

    def serve(self, train: Callable[[dict, "Turns"], None]) -> None:
        """Train the cases that come, until the parent closes the pipe.

        Args:
            train: runs a case until `step_done` raises Over.
        """
        while order := self._read():
            self.built = time.perf_counter()
            forget_peak(self.device)
            try:
                with contextlib.suppress(Over):
                    train(order["case"], self)
                    raise RuntimeError("the training ended before its case did")
            except BaseException as error:
                traceback.print_exc()
                for child in multiprocessing.active_children():  # loaders, which would hold on to the card
                    child.kill()
                    child.join()
                self._answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"})
                os._exit(1)
            self._answer({"ended": True})

    def _take_order(self) -> None:
        order = self._read()
        if order is None:
            os._exit(0)
        if order.get("end"):
            raise Over
        self.left, self.lead = order.get("steps", 1), order.get("lead", 0)
        self.task = "count" if order.get("count") else "steps"
        if self.task == "count":
            self.profiler = profiler(self.device)
            self.profiler.__enter__()
        self._start_clock()

    def _start_clock(self) -> None:
        synchronize(self.device)
        self.loader_seconds, self.started, self.begun = 0.0, time.perf_counter(), event(self.device)

    def _read(self) -> dict | None:
        line = sys.stdin.readline().strip()
        return json.loads(line) if line else None

    def _answer(self, value: dict) -> None:
        if self.device == "cuda":
            torch.cuda.empty_cache()  # the other side, on the same card, is next
        print(json.dumps(value), file=self.out, flush=True)

    def _time_loaders(self) -> None:
        """Count the seconds that a training loop waits for any DataLoader."""
        from torch.utils.data.dataloader import _BaseDataLoaderIter

        plain = _BaseDataLoaderIter.__next__

        def timed(iterator):
            start = time.perf_counter()
            try:
                return plain(iterator)
            finally:
                self.loader_seconds += time.perf_counter() - start

        _BaseDataLoaderIter.__next__ = timed


def event(device: str):
    """Now, as the card sees it; None on a CPU."""

    if device != "cuda":
        return None
    now = torch.cuda.Event(enable_timing=True)
    now.record()
    return now


def forget_peak(device: str) -> None:
    """Free what the last case has left, and begin a new peak."""

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            open("/proc/self/clear_refs", "w").write("5")  # VmHWM begins at what is resident now


def peak_gib(device: str) -> float:
    """Most memory since `forget_peak`: allocated on the card, or resident in the process where the CPU computes."""

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    with contextlib.suppress(OSError, StopIteration):
        line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# ---- launches and waits -----------------------------------------------------------------------------------------------------


def profiler(device: str):
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" and torch.cuda.is_available() else [])
    return profile(activities=kinds, acc_events=True)


def counts(profile, device: str) -> dict:
    """What one step did, from its profile.

    Returns:
        aten_ops: ATen operations that compute (the kernels of an eager GPU step, about); waits: those that wait for a device.
        On CUDA also launches, syncs (waits of the host for a stream or an event; our own wait for the whole device is not
        counted), copies to the host, and gpu_seconds, the time in kernels; None where the profiler saw none of them.
    """
    events = list(profile.events())
    leaves = [
        event.name.removeprefix("aten::")
        for event in events
        if event.name.startswith("aten::") and not any(child.name.startswith("aten::") for child in event.cpu_children)
    ]
    found = {"aten_ops": sum(name not in VIEWS for name in leaves), "waits": sum(name in WAITING for name in leaves)}
    if device != "cuda":
        return found
    names = [event.name for event in events]
    kernels = [e for e in events if str(e.device_type).endswith("CUDA") and not getattr(e, "is_user_annotation", False)]
    launches = sum(name.startswith(("cudaLaunch", "cuLaunch", "cudaGraphLaunch")) for name in names)
    if not launches:
        return found | dict.fromkeys(("launches", "syncs", "copies_to_host", "gpu_seconds"))
    return found | {
        "launches": launches,
        "syncs": sum(name.startswith(("cudaStreamSynchronize", "cudaEventSynchronize")) for name in names),
        "copies_to_host": sum("Memcpy DtoH" in name for name in names),
        "gpu_seconds": sum(event.time_range.elapsed_us() for event in kernels) / 1e6,
    }


# ---- the parent's end -----------------------------------------------------------------------------------------------------


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
            command = [sys.executable, self.script, "--side", self.name, json.dumps(self.options)]
            self.log = tempfile.TemporaryFile("w+", errors="replace")
            self.process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=self.log)  # fmt: skip
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def receive(self) -> dict:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.process.stdout, selectors.EVENT_READ)
            ready = waiting.select(self.limit)
        if not ready:
            self.process.kill()
        line = self.process.stdout.readline()
        answer = (
            json.loads(line)
            if line.strip()
            else {
                "error": f"{self.name} ended without a word"
                if ready
                else f"{self.name} gave no answer in {self.limit} s"
            }
        )
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
            self.process.stdout.close()
            self.log.close()
            self.process = None


def compare(
    sides: Sequence[Side], case: dict, rounds: int, steps: int | None, lead: int = 0, count: bool = True
) -> dict:
    """One case on all sides, in turns.

    Args:
        sides: ours first.
        rounds: turns of each side.
        steps: of a turn; None: as many as take the slowest side a second, 5 to 50.
        lead: steps before each turn's clock starts.
        count: also profile a step, at the end.

    Returns:
        {side: {"seconds" (of each turn), "gib", "loss", "loader_share", "start_seconds", launches …} or {"error": …}}.
    """
    found: dict[str, dict] = {side.name: {"seconds": [], "loader": []} for side in sides}
    for side in sides:  # they start together: most of it is importing
        _try(found, side, lambda side=side: side.send(case=case))
    for side in sides:
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


def ratios(found: dict[str, dict], peers: Sequence[str]) -> tuple[str, list[float]]:
    """The fastest peer, and our speed over its, turn by turn; ("", []) where no side of the two has worked."""
    able = [name for name in peers if found.get(name, {}).get("seconds")]
    if not able or not found["ours"].get("seconds"):
        return "", []
    peer = min(able, key=lambda name: statistics.median(found[name]["seconds"]))
    return peer, [b / a for a, b in zip(found["ours"]["seconds"], found[peer]["seconds"], strict=True)]
