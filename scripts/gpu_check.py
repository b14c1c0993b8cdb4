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
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NEEDED = ("torch", "transformers", "peft", "lightning", "sentence_transformers")
"""Without them nothing below `main` is imported: what is missing is said first."""
MINUTES = {"device": 1.5, "tests": 4, "training": 7, "language": 7, "inference": 3.5, "packing": 2}
"""Of each part, a function of benching.gpu_parts; the most informative first."""


def run_part(name: str, out: Path, device: str) -> None:
    """Inside the part's own process."""
    from benching import gpu_parts

    check = gpu_parts.Check(name, out / f"{name}.json", device, 60 * MINUTES[name])
    getattr(gpu_parts, name)(check)
    check.end()


def run_parts(names: list[str], out: Path, device: str) -> int:
    """Each in a process of its own; how many of them are not done afterwards."""
    from benching.device import environment
    from benching.gpu_parts import read, same_place

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
                code = process.wait(timeout=60 * min(8, MINUTES[name] + 1))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        facts = read(path) or {"done": False, "cases": {}, "left_out": {}}
        errors = sum("error" in one for case in facts["cases"].values() for one in (case, *case.get("sides", {}).values()))
        bad += not facts["done"]
        print(
            f"{name}: {'done' if facts['done'] else f'not done ({code})'}, {len(facts['cases'])} cases, {errors} with an "
            f"error, {len(facts['left_out'])} left out, {time.monotonic() - start:.0f} s",
            file=sys.stderr,
        )
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=list(MINUTES), help="only this one")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"), metavar="DIR")
    parser.add_argument("--dry-run", action="store_true", help="every part on the CPU at a tiny size: does it run?")
    parser.add_argument("--table", action="store_true", help="print what the files of --out hold, as Markdown")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        from benching.gpu_table import table

        print(table(args.out, list(MINUTES)))
        return 0
    if args.inside:
        run_part(args.part, args.out, args.device)
        return 0
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            print(
                f"error: {name} is not installed for {sys.executable}; expected it. Install it, or name another Python: "
                "PYTHON=/path/to/python scripts/gpu_check.sh",
                file=sys.stderr,
            )
            return 2
    if not args.dry_run:
        import torch

        if not torch.cuda.is_available():
            print(
                "error: torch sees no GPU; expected one. `--dry-run` runs every part on the CPU at a tiny size.",
                file=sys.stderr,
            )
            return 2
    return 1 if run_parts([args.part] if args.part else list(MINUTES), args.out, "cpu" if args.dry_run else "cuda") else 0


if __name__ == "__main__":
    sys.exit(main())
