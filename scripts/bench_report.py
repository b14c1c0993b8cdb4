#!/usr/bin/env python3
"""How long a report of a large sweep takes, stage by stage, and how much memory: run folders are made up on the spot.

  python scripts/bench_report.py                  1,000 points of four factors; a quarter of a minute on one core
  python scripts/bench_report.py --points 3000 --outputs 32 --json

A stage's seconds are those in the functions of its line of STAGES while `research report` runs, in a process of its own.
Where there is a
Chromium, the page is opened in it too.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGES = {
    "read": ["research.runs.table.read_runs"],
    "group": ["research.report.factors.factors", "research.report.groups.make_study"],
    "tables": [
        "research.report.factor_sheets.by_factor",
        *(f"research.report.study_sheets.{name}" for name in ("results", "grid", "matched", "every_run", "finding")),
    ],
    "figures": [f"research.report.figures.{name}" for name in ("of_study", "render.svg", "render.write_figures")],
    "curves": ["research.report.training.read_training"],
    "markdown": ["research.report.markdown.document"],
    "explorer": ["research.report.entries.of_run", "research.report.page.explorer.explorer"],
    "page": ["research.report.page.html.page"],
    "write": ["research.report.export.write_tidy", "research.report.export.write_sheets", "research.runs.files.write_json"],
}
"""Stage → the functions that it consists of."""


def measure(sweep: Path, out: Path) -> dict[str, float]:
    """Seconds by stage and peak MiB of one report, made in this process."""
    import importlib

    started = time.perf_counter()
    seconds = dict.fromkeys(["import", *STAGES], 0.0)
    for stage, functions in STAGES.items():
        for function in functions:
            module, _, name = function.rpartition(".")
            room = importlib.import_module(module)
            setattr(room, name, timed(getattr(room, name), seconds, stage))
    from research.cli import main

    seconds["import"] = time.perf_counter() - started
    code = main(["report", str(sweep), "--out", str(out), "--json"])
    if code:
        sys.exit(code)
    found = {name: round(value, 3) for name, value in seconds.items()}
    total = time.perf_counter() - started
    found |= {"other": round(total - sum(seconds.values()), 3), "seconds": round(total, 3)}
    return found | {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}


def timed(function: Callable, seconds: dict[str, float], stage: str) -> Callable:
    def wrapped(*args, **options):
        started = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            seconds[stage] += time.perf_counter() - started

    return wrapped


def opened(page: Path, times: int = 5) -> dict[str, float]:
    """Seconds from the start of loading until the table and the chart are there and answer: the median of some openings."""
    from tests.e2e.browsing import CHROMIUM, Page, browser

    if CHROMIUM is None:
        return {}
    with browser() as started:
        ready = []
        for _ in range(times):
            shown = Page(started, page)
            ready.append(shown.evaluate("performance.getEntriesByName('explorer-ready')[0].startTime") / 1000)
            shown.close()
    return {"page_ready_s": round(statistics.median(ready), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--outputs", type=int, default=0, help="answers that each run keeps (0)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--measure", nargs=2, type=Path, metavar=("SWEEP", "OUT"), help="of a sweep that is there")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    sys.path.insert(0, str(ROOT))
    from tests.synthetic_runs import write_study

    with tempfile.TemporaryDirectory() as scratch:
        sweep, out = Path(scratch) / "sweep", Path(scratch) / "out"
        write_study(sweep, args.points, args.outputs)
        command = [sys.executable, __file__, "--measure", str(sweep), str(out)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        result = {"points": args.points, "outputs": args.outputs, **json.loads(done.stdout.splitlines()[-1])}
        result["page_kib"] = round((out / "index.html").stat().st_size / 1024)
        result |= opened(out / "index.html")
    print(json.dumps(result) if args.json else "\n".join(f"{name:12} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
