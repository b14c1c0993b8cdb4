"""A side's end of a benchmark: a process that trains when told to, and says what it took (sides.py is the other end).

Its orders and answers, a line of JSON each:

  {"case": {...}}  build it and train `warmup` steps → {"start_seconds"}
  {"steps": n}     n steps between two synchronisations → {"seconds", "loader_seconds", "gib", "loss"}, on a GPU also
                   "device_seconds" between two of its events; with "lead": m after m more steps, which use up what loader
                   processes have made ready in the pause
  {"count": true}  one step under the profiler → {"launches", "syncs", "aten_ops", …}
  {"end": true}    leave the training loop → {"ended"}

A side that fails answers {"error": …} and ends.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import lightning.fabric.plugins.environments.mpi as mpi
import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from benching.device import synchronize

mpi._MPI4PY_AVAILABLE = False  # Lightning imports mpi4py where it is installed: it fails or hangs without an MPI

VIEWS = {
    *"""
view _unsafe_view reshape _reshape_alias as_strided expand expand_as slice select transpose t permute unsqueeze squeeze detach
alias split split_with_sizes chunk unbind narrow numpy_T view_as lift_fresh result_type is_same_size to contiguous item empty
empty_like empty_strided resize_ set_ unflatten flatten swapaxes movedim broadcast_to diagonal
""".split()
}
"""ATen operations that start no kernel."""
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"}
"""ATen operations that wait for the device where there is one."""


class Over(Exception):
    """Leaves a training loop when its case has ended."""


class Turns:
    """A side's end of the conversation.

    Args:
        options: as Side gives them: "device", "cpu" or "cuda", and "answers", the file descriptor to answer on.
    """

    def __init__(self, options: dict):
        self.out = os.fdopen(options["answers"], "w")
        self.device, self.left, self.lead, self.task = options["device"], 0, 0, ""
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
            self._answer(
                {
                    "seconds": seconds,
                    "loader_seconds": self.loader_seconds,
                    "gib": peak_gib(self.device),
                    "loss": loss(),
                    **({"device_seconds": self.begun.elapsed_time(end) / 1000} if end else {}),
                }
            )
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
