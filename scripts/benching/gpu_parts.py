"""What gpu_check.sh measures: the parts, each a list of cases, and the file that a part leaves."""

import functools
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benching import ROOT
from benching.device import bench_device, environment
from benching.shapes import encoder_folder, texts_of
from research.runs.files import write_json
from research.runs.reading import read_json


class Check:
    """One part's cases and its file.

    Args:
        name: of the part.
        path: of its JSON.
        device: "cuda", or "cpu" for a dry run, where everything is tiny.
        seconds: until when a further case may begin.
    """

    def __init__(self, name: str, path: Path, device: str, seconds: float):
        self.path, self.device, self.tiny = path, device, device == "cpu"
        self.started, self.seconds, self.took = time.monotonic(), seconds, [0.0]
        self.facts = {"part": name, "done": False, "environment": environment(device), "cases": {}, "left_out": {}}
        before = read(path)
        if before and same_place(before["environment"], self.facts["environment"]):
            self.facts["cases"] = {name: case for name, case in before["cases"].items() if "error" not in case}

    def case(self, name: str, run: Callable[[], dict]) -> None:
        """Run a case, unless it is there or no time is left, and write the file."""
        if name in self.facts["cases"]:
            return
        left, likely = self.seconds - (time.monotonic() - self.started), max(self.took[-3:])
        if left < likely:
            self.leave_out(name, f"{left:.0f} s of {self.seconds:.0f} were left; the last cases took up to {likely:.0f}")
            return
        print(f"{self.facts['part']}: {name} ({left:.0f} s left)", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            found = run()
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
        self.took.append(time.monotonic() - start)
        self.facts["cases"][name] = found | {"took_seconds": round(self.took[-1], 1)}
        self.write()

    def leave_out(self, name: str, why: str) -> None:
        self.facts["left_out"][name] = why
        self.write()

    def end(self) -> None:
        self.facts["done"] = True
        self.write()

    def write(self) -> None:
        self.facts["seconds"] = round(time.monotonic() - self.started, 1)
        write_json(self.path, self.facts)

    @property
    def peak(self) -> float | None:
        return self.peak_of("bf16")

    def peak_of(self, precision: str) -> float | None:
        """Return the FLOP/s of the fastest product, as the part `device` has measured it."""
        found = read(self.path.with_name("device.json"))
        limits = found["cases"].get("limits", {}) if found else {}
        name = f"peak_tflops_{precision}"
        return limits[name] * 1e12 if name in limits else None


def read(path: Path) -> dict | None:
    """Read a part's file, if it is there."""
    return read_json(path) if path.exists() else None


def same_place(a: dict, b: dict) -> bool:
    """Return whether numbers of two environments belong into one table."""
    return all(a.get(name) == b.get(name) for name in ("sources", "packages", "device", "card", "python"))


# ---- the parts ------------------------------------------------------------------------------------------------------------


def device(check: Check) -> None:
    check.case("limits", lambda: bench_device(check.device, check.tiny))


def tests(check: Check) -> None:
    if importlib.util.find_spec("pytest") is None:
        check.leave_out("tests/gpu", "pytest is not installed")
        return

    def run(*which: str) -> dict:
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch, "junit.xml")
            options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "-o", "addopts=", f"--junitxml={report}"]
            command = [sys.executable, "-m", "pytest", *which, *options]
            place = {"TANDEM_GPU_TESTS": "cpu"} if check.tiny else {}
            done = subprocess.run(command, cwd=ROOT, env=os.environ | place, stdout=sys.stderr, check=False, timeout=200)
            if not report.exists():
                raise RuntimeError(f"pytest ended with {done.returncode} and wrote no report")
            return outcomes(report) | {"exit_code": done.returncode}

    if check.tiny:  # nothing hangs on a CPU: one start for all
        check.case("tests/gpu", lambda: run("tests/gpu"))
        return
    for which in (
        ["test_steps.py", "-k", "not ddp"],
        ["test_inference.py"],
        ["test_resume.py"],
        ["test_steps.py", "-k", "ddp"],
    ):
        check.case(" ".join(which), lambda which=which: run(f"tests/gpu/{which[0]}", *which[1:]))


def outcomes(report: Path) -> dict:
    """Count what passed, failed and was skipped, with what each test recorded and why it failed."""
    found: dict = {"passed": 0, "failed": 0, "skipped": 0, "recorded": {}, "reasons": {}}
    for test in ElementTree.parse(report).iter("testcase"):
        name = f"{test.get('classname', '').rsplit('.', 1)[-1]}::{test.get('name')}"
        bad = [child for child in test if child.tag in ("failure", "error", "skipped")]
        kind = {"failure": "failed", "error": "failed", "skipped": "skipped"}[bad[0].tag] if bad else "passed"
        found[kind] += 1
        if values := {one.get("name"): one.get("value") for one in test.iter("property")}:
            found["recorded"][name] = values
        if bad:
            found["reasons"][name] = (bad[0].get("message") or "")[:600]
    return found


def measured(bench: Any, case: tuple, *options: Any) -> dict:
    """Make a case of bench_training or bench_lm, and run it; `case`, `options` are what its Bench.case and speed take."""
    return bench.speed(bench.case(*case), *options)


def training(check: Check) -> None:
    """Contrastive and cross-encoder training."""
    import bench_training

    tiny = (("tiny",), (32,), (16,))
    shapes, tokens, sizes = tiny if check.tiny else (("minilm", "110m"), (128, 64), (64, 256, 1024))
    rounds, steps = (1, 1) if check.tiny else (3, None)
    grid = [
        (f"{task} {shape} {size} pairs x {length} tokens, from {given}", (task, size, length, shape, given))
        for length, size, shape, given, task in itertools.product(
            tokens, sizes, shapes, ("texts", "tokens"), bench_training.TASKS
        )
    ]
    # all positions of so many pairs through so large a model want more than 80 GiB: last, to see who can
    grid.sort(key=lambda case: case[1][0] == "contrastive" and case[1][1:4] == (1024, 128, "110m"))
    half = len(grid) if check.tiny else len(grid) // 2  # those of 128 tokens
    with tempfile.TemporaryDirectory() as scratch:
        bench = bench_training.Bench(check.device, True, Path(scratch), check.peak)
        kinds = [*itertools.product(bench_training.TASKS, shapes)]
        try:
            for task, shape in kinds:
                run = functools.partial(losses, bench, (task, sizes[0], tokens[-1], shape))
                check.case(f"{task} {shape}: loss after {bench_training.STEPS} steps", run)
            for name, case in grid[:half]:
                check.case(name, functools.partial(measured, bench, case, rounds, steps, False))
            for task, shape in kinds:
                run = functools.partial(measured, bench, (task, sizes[0], tokens[0], shape, "tokens"), 1, steps or 5)
                check.case(f"{task} {shape}: launches of a step, {sizes[0]} pairs x {tokens[0]} tokens", run)
            bench.close()  # a process that was profiled may be slower from then on
            for name, case in grid[half:]:
                check.case(name, functools.partial(measured, bench, case, rounds, steps, False))
        finally:
            bench.close()


def losses(bench: Any, case: tuple) -> dict:
    return bench.losses(bench.case(*case))


def language(check: Check) -> None:
    """SFT and DPO by LoRA."""
    import bench_lm

    shapes, tokens = (("tiny",), (32,)) if check.tiny else (("1.5b", "135m"), (2048, 256))
    rounds, steps = (1, 1) if check.tiny else (2, None)
    cases = {}
    for shape, length, task in itertools.product(shapes, tokens, ("sft", "dpo")):
        batch = 4 if check.tiny else 8 if length == 256 else 4 if task == "sft" else 2
        cases[f"{task} {shape} {batch} rows x {length} tokens"] = (task, "lora", length, shape, batch)
    with tempfile.TemporaryDirectory() as scratch:
        bench = bench_lm.Bench(check.device, Path(scratch), random_weights=True, peak=check.peak)
        if "trl" not in bench.names():
            check.leave_out("TRL's trainers", "trl or datasets is not installed; the peer is a plain transformers + PEFT loop")
        try:
            for name, case in cases.items():
                check.case(name, functools.partial(measured, bench, case, rounds, steps))
            for name, case in [] if check.tiny else cases.items():  # a compilation takes a minute
                if (case[2], case[3]) in ((2048, "1.5b"), (256, "135m")) and case[0] == "sft":
                    check.case(
                        f"{name}, against torch.compile",
                        functools.partial(measured, bench, case, rounds, steps, ["ours", "compiled"]),
                    )
        finally:
            bench.close()


def inference(check: Check) -> None:
    """Encoding and reranking."""
    from bench_retrieval import bench_encode, bench_rerank

    tiny = (("tiny",), 64, [32], 1)
    shapes, count, sizes, rounds = tiny if check.tiny else (("minilm", "110m"), 2000, [32, 128, 512], 3)
    with tempfile.TemporaryDirectory() as scratch:

        def run(bench: Callable, shape: str, precision: str) -> dict:
            folder = Path(scratch, shape)
            if not folder.exists():
                encoder_folder(shape, folder)
            return bench(folder, texts_of(count), precision, check.device, rounds, sizes, check.peak_of(precision))

        for shape, precision in itertools.product(shapes, ("bf16", "fp32")):
            for name, bench in {"encode": bench_encode, "rerank": bench_rerank}.items():
                check.case(f"{name} {shape} {precision}", functools.partial(run, bench, shape, precision))


def packing(check: Check) -> None:
    """Several small trainings on one device."""
    from bench_packing import bench_packing

    values = ([1, 2], "tiny", 32, 2, 4) if check.tiny else ([1, 4, 8], "135m", 256, 20, 8)
    check.case("sft", lambda: bench_packing(check.device, *values))
