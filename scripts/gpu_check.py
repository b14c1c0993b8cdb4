"""The parts of gpu_check.sh: each writes one JSON, DIR/PART.json, case by case.

A part is a process of its own with a limit; one that fails or runs out of time does not stop the next. A case that is in the
file already, measured with the same code, packages and card, is not run again, and a part that is done is skipped. A case for
which no time is left, or that cannot run here, is in "left_out" with its reason.

Where a command may take ten minutes and machines come and go: one part a command (--part), and the files of the parts before
it brought along, since shares of peak are of the product that the part "device" has measured. A copy without .git is told its
commit by TANDEM_COMMIT.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]


class Check:
    """One part's cases and its file.

    Args:
        name: of the part.
        path: of its JSON.
        device: "cuda", or "cpu" for a dry run, where everything is tiny.
        seconds: until when a further case may begin.
    """

    def __init__(self, name: str, path: Path, device: str, seconds: float):
        from bench_device import environment

        self.path, self.device, self.tiny = path, device, device == "cpu"
        self.started, self.seconds, self.took = time.monotonic(), seconds, [0.0]
        self.facts = {"part": name, "done": False, "environment": environment(device), "cases": {}, "left_out": {}}
        before = read(path)
        if before and same_place(before["environment"], self.facts["environment"]):
            self.facts["cases"] = {name: case for name, case in before["cases"].items() if "error" not in case}

    def case(self, name: str, run: Callable[[], dict]) -> None:
        """Run it, unless it is there or no time is left, and write the file."""
        if name in self.facts["cases"]:
            return
        left, likely = self.seconds - (time.monotonic() - self.started), max(self.took[-3:])
        if left < likely:
            self.leave_out(
                name, f"{left:.0f} s of {self.seconds:.0f} were left; the last cases took up to {likely:.0f}"
            )
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".tmp")
        new.write_text(json.dumps(self.facts, indent=1) + "\n")
        new.replace(self.path)

    @property
    def peak(self) -> float | None:
        return self.peak_of("bf16")

    def peak_of(self, precision: str) -> float | None:
        """FLOP/s of the fastest product, as the part `device` has measured it."""
        found = read(self.path.with_name("device.json"))
        limits = found["cases"].get("limits", {}) if found else {}
        name = f"peak_tflops_{precision}"
        return limits[name] * 1e12 if name in limits else None


def read(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def same_place(a: dict, b: dict) -> bool:
    """Whether numbers of two environments belong into one table."""
    return all(a.get(name) == b.get(name) for name in ("sources", "packages", "device", "card", "python"))


# ---- the parts ------------------------------------------------------------------------------------------------------------


def device(check: Check) -> None:
    from bench_device import bench_device

    check.case("limits", lambda: bench_device(check.device, check.tiny))


def tests(check: Check) -> None:
    if importlib.util.find_spec("pytest") is None:
        check.leave_out("tests/gpu", "pytest is not installed")
        return

    def run(*which: str) -> dict:
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch, "junit.xml")
            command = [sys.executable, "-m", "pytest", *which, "-m", "gpu", "-q", "-p", "no:cacheprovider", "-o", "addopts=",
                       f"--junitxml={report}"]  # fmt: skip
            place = {"TANDEM_GPU_TESTS": "cpu"} if check.tiny else {}
            done = subprocess.run(
                command, cwd=ROOT, env=os.environ | place, stdout=sys.stderr, check=False, timeout=200
            )
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
    """passed, failed and skipped, with what each test recorded and why it failed."""
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
            tokens, sizes, shapes, ("texts", "tokens"), bench_training.TASKS)
    ]  # fmt: skip
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
            check.leave_out(
                "TRL's trainers", "trl or datasets is not installed; the peer is a plain transformers + PEFT loop"
            )
        try:
            for name, case in cases.items():
                check.case(name, functools.partial(measured, bench, case, rounds, steps))
            for name, case in [] if check.tiny else cases.items():  # a compilation takes a minute
                if (case[2], case[3]) in ((2048, "1.5b"), (256, "135m")) and case[0] == "sft":
                    check.case(f"{name}, against torch.compile", functools.partial(
                        measured, bench, case, rounds, steps, ["ours", "compiled"]))  # fmt: skip
        finally:
            bench.close()


def inference(check: Check) -> None:
    """Encoding and reranking."""
    from bench_retrieval import bench_encode, bench_rerank
    from bench_shapes import encoder_folder, texts_of

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


class Part(NamedTuple):
    run: Callable[[Check], None]
    minutes: float


PARTS = {"device": Part(device, 1.5), "tests": Part(tests, 4), "training": Part(training, 7), "language": Part(language, 7),
         "inference": Part(inference, 3.5), "packing": Part(packing, 2)}  # fmt: skip
"""Most informative first."""


# ---- together -------------------------------------------------------------------------------------------------------------


def run_part(name: str, out: Path, device: str) -> None:
    """Inside the part's own process."""
    check = Check(name, out / f"{name}.json", device, 60 * PARTS[name].minutes)
    PARTS[name].run(check)
    check.end()


def run_parts(names: list[str], out: Path, device: str) -> int:
    """Each in a process of its own; how many of them are not done afterwards."""
    from bench_device import environment

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends with us
    place, bad = environment(device), 0
    for name in names:
        path = out / f"{name}.json"
        if (before := read(path)) and before["done"] and same_place(before["environment"], place):
            print(f"{name}: there already ({path}); delete it to measure again", file=sys.stderr)
            continue
        start = time.monotonic()
        command = [sys.executable, __file__, "--inside", "--part", name, "--out", str(out), "--device", device]
        settings = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        settings |= {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}  # tiny models gain nothing from a second one
        process = subprocess.Popen(command, process_group=0, env=settings | os.environ)
        code: int | str = "stopped at its limit"
        with contextlib.suppress(subprocess.TimeoutExpired):
            try:
                code = process.wait(timeout=60 * min(8, PARTS[name].minutes + 1))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        facts = read(path) or {"done": False, "cases": {}, "left_out": {}}
        errors = sum(
            "error" in one for case in facts["cases"].values() for one in (case, *case.get("sides", {}).values())
        )
        bad += not facts["done"]
        print(f"{name}: {'done' if facts['done'] else f'not done ({code})'}, {len(facts['cases'])} cases, {errors} with an "
              f"error, {len(facts['left_out'])} left out, {time.monotonic() - start:.0f} s", file=sys.stderr)  # fmt: skip
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--part", choices=list(PARTS), help="only this one")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"), metavar="DIR")
    parser.add_argument("--dry-run", action="store_true", help="every part on the CPU at a tiny size: does it run?")
    parser.add_argument("--table", action="store_true", help="print what the files of --out hold, as Markdown")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        from gpu_table import table

        print(table(args.out))
        return 0
    if args.inside:
        run_part(args.part, args.out, args.device)
        return 0
    for name in ("torch", "transformers", "peft", "lightning", "sentence_transformers"):
        if importlib.util.find_spec(name) is None:
            print(f"error: {name} is not installed for {sys.executable}; expected it. Install it, or name another Python: "
                  "PYTHON=/path/to/python scripts/gpu_check.sh", file=sys.stderr)  # fmt: skip
            return 2
    if not args.dry_run:
        import torch

        if not torch.cuda.is_available():
            print("error: torch sees no GPU; expected one. `--dry-run` runs every part on the CPU at a tiny size.",
                  file=sys.stderr)  # fmt: skip
            return 2
    return 1 if run_parts([args.part] if args.part else list(PARTS), args.out, "cpu" if args.dry_run else "cuda") else 0


if __name__ == "__main__":
    sys.exit(main())
