#!/usr/bin/env python3
"""The studies of sweeps/quick: trains the points that are missing, and keeps in docs/studies what they gave.

    python scripts/studies.py                                # every study: what is missing of it
    python scripts/studies.py prefix_tokens --threads 1 --workers 2   # one, two points at a time
    python scripts/studies.py --minutes 60                   # stops as a point ends after an hour; the same command goes on
    python scripts/studies.py --report                       # trains nothing: pages and tables of the points that are there

docs/studies/NAME/points/ID/ holds the small files of a finished run, without its model. They are put back into the sweep's
folder, where `research sweep run` takes them as done: a study goes on from the repository alone, on any machine. What is
trained is copied here as each point ends; commit it when you like. In README.md the text above the mark is yours; below it,
and in all other files, stands what the last call made. report.yaml and claims.yaml, where they are there, are the report's
--spec and --claims; claims are checked once every point is done.
"""

import argparse
import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from research import cli
from research.errors import PREEMPTED
from research.progress import say
from research.runs.files import replace_folder, write_json
from research.runs.layout import CONFIG, CURVES, METRICS, PROVENANCE
from research.runs.ledger import Ledger
from research.runs.plan import read_plan
from research.runs.state import is_finished
from research.sweeps.folder import folder_of
from research.sweeps.process import on_signals
from research.sweeps.shown import short_options
from research.sweeps.spec import Sweep, read_sweep

SWEEPS, STUDIES = Path("sweeps/quick"), Path("docs/studies")
SMALL = (CONFIG, PROVENANCE, METRICS, CURVES)  # files of a run that a report reads
COST = "cost.json"
MARK = "<!-- Below: made by scripts/studies.py -->"
COPIED = {"index.html": "page.html", "tables/results.tex": "table.tex", "tables/results.csv": "table.csv"}
COPIED |= {"wandb_report.json": "wandb_report.json", "report.json": "report.json"}
POLL = 1.0  # seconds


class Study(NamedTuple):
    """A sweep and its place in docs/studies.

    Attributes:
        sweep: read from sweeps/quick.
        folder: of its runs, with their models.
        home: what the repository holds.
    """

    sweep: Sweep
    folder: Path
    home: Path

    @property
    def committed(self) -> list[str]:
        """List the ids of the points that the repository holds."""
        return sorted(path.parent.name for path in self.home.glob(f"points/*/{METRICS}"))

    @property
    def core_hours(self) -> float:
        """Sum the processor time of its points, as far as it was noted."""
        costs = [json.loads(path.read_text()) for path in self.home.glob(f"points/*/{COST}")]
        return sum(cost["cpu_seconds"] for cost in costs) / 3600


def main(argv: list[str] | None = None) -> int:
    """Bring the named studies further; return 0 when they are complete, 85 when points are missing, else a command's code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of files in sweeps/quick (all)")
    parser.add_argument("--threads", type=int, default=2, help="of each process that trains (2)")
    parser.add_argument("--workers", type=int, default=1, help="processes that train, each its own point (1)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no further point is begun")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args(argv)
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:  # while nothing trains: at once
            raise KeyboardInterrupt
        stopped.append(number)

    with on_signals(stop):
        return bring_further(args, stopped)


def bring_further(args: argparse.Namespace, stopped: list[int]) -> int:
    """Train what is missing of each study until a signal is in `stopped`, and write its pages; return the exit code."""
    limit, missing, has_trained = time.monotonic() + 60 * args.minutes, 0, False
    for name in args.names or sorted(path.stem for path in SWEEPS.glob("*.yaml")):
        sweep = read_sweep(SWEEPS / f"{name}.yaml")
        study = Study(sweep, folder_of(sweep), STUDIES / name)
        put_back(study)
        trains = len(study.committed) < sweep.size and not args.report and not stopped
        trains &= not (has_trained and time.monotonic() > limit)
        if trains or study.committed:  # what a report has of points that are not begun, is their plan
            plan(study, args.threads, measure=trains)
        if trains:
            has_trained, code = True, train(study, args.threads, args.workers, limit, stopped)
            if code not in (0, PREEMPTED):
                return code
        write(study)
        missing += sweep.size - len(study.committed)
    list_studies()
    return PREEMPTED if missing else 0


def put_back(study: Study) -> None:
    """Put the committed points into the sweep's folder, where they are not there already."""
    for point in study.committed:
        if not (study.folder / point).exists():
            with replace_folder(study.folder / point) as run:
                for name in SMALL:
                    shutil.copyfile(study.home / "points" / point / name, run / name)


def keep(study: Study) -> int:
    """Copy the small files of points that have finished since; return how many they are."""
    count = 0
    for planned in read_plan(study.folder):
        point, place = planned.point, study.home / "points" / planned.point
        if place.exists() or not is_finished(study.folder / point):
            continue
        ends = [event for event in Ledger(study.folder).events() if event["point"] == point and "seconds" in event]
        if not ends:  # its worker is about to note it
            continue
        with replace_folder(place) as new:
            for name in SMALL:
                shutil.copyfile(study.folder / point / name, new / name)
            total = {name: round(sum(end.get(name, 0) for end in ends), 1) for name in ("seconds", "cpu_seconds")}
            write_json(new / COST, total)
        count += 1
    return count


def research(*words: str) -> str:
    """Run a command and return what it prints. This process ends where it fails; a report's 1 is a broken claim."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = cli.main([*words])
    if code not in (0, *([1] if words[0] == "report" else [])):
        sys.exit(code)
    return output.getvalue()


def plan(study: Study, threads: int, measure: bool) -> None:
    """Check every point and say what those that are left will cost: as those that are there did, or from some real steps."""
    timed = ["--measure", "4", "--kinds", "1", "--threads", str(threads)] if measure and not study.committed else []
    facts = json.loads(research("sweep", "plan", str(study.sweep.path), "--json", *timed))
    name, left = study.sweep.name, [row for row in facts["points"] if row["point"] not in study.committed]
    text = f"{name}: {len(left)} of {len(facts['points'])} points to run"
    if timed:
        hours = sum(row["seconds"] * row["devices"] for row in left) / 3600
        text += f", about {hours:.2f} hours of one process, at most {hours * threads:.2f} core-hours"
    elif measure:
        text += (
            f", about {len(left) * study.core_hours / len(study.committed):.2f} core-hours, if they cost what the others did"
        )
    say(text)


def train(study: Study, threads: int, workers: int, limit: float, stopped: list[int]) -> int:
    """Run what is missing, and keep each point as it ends; return the exit code of `sweep run`.

    A signal is noted in `stopped` and passed on to `sweep run`, whose trainings save their points.
    """
    words = ["sweep", "run", str(study.sweep.path), "--threads", str(threads), "--workers", str(workers)]
    with on_signals(lambda number, _: stopped.append(number)):
        process = subprocess.Popen([sys.executable, "-m", "research", *words], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(POLL)
            if (keep(study) and time.monotonic() > limit) or stopped:
                process.send_signal(stopped[0] if stopped else signal.SIGTERM)  # at the limit, the next point has only begun
                break
        code = process.wait()
    keep(study)
    return code


def write(study: Study) -> None:
    """Write page, tables, W&B's report (dry run) and README.md of the points that are there."""
    name, size, count = study.home.name, study.sweep.size, len(study.committed)
    parts = [f"**{count} of {size} points**, {study.core_hours:.2f} core-hours of processor time."]
    if count:
        parts += report(study)
    if (study.home / "claims.yaml").exists():
        parts.append("[Claims](claims.yaml), checked once every point is done.")
    parts.append(
        f"Made by `python scripts/studies.py {name}`: `research sweep run {study.sweep.path}`, then `research report`."
    )
    below_mark(study.home / "README.md", f"# {study.sweep.facts.get('description', name)}", parts)


def report(study: Study) -> list[str]:
    """Make the report of the points that are there and copy its files; return what README.md says of it."""
    points = {planned.point: planned.values for planned in read_plan(study.folder)}
    gone = [
        options for point, options in zip(points, short_options(points.values()), strict=True) if point not in study.committed
    ]
    words = [str(study.folder), "--out", str(study.folder / "report"), "--wandb", "tandem/studies", "--dry-run"]
    given = {"--spec": study.home / "report.yaml"} | ({} if gone else {"--claims": study.home / "claims.yaml"})
    research("report", *words, *(word for option, file in given.items() if file.exists() for word in (option, str(file))))
    made, figures = study.folder / "report", study.home / "figures"
    for source, target in COPIED.items():
        shutil.copyfile(made / source, study.home / target)
    shutil.rmtree(figures, ignore_errors=True)
    figures.mkdir()
    for path in made.glob("figures/*.svg"):
        if not path.stem.endswith("-column") and not path.stem.startswith("training-"):  # a column wide; of one run
            shutil.copyfile(path, figures / path.name)
    return [
        *([f"Missing: {'; '.join(gone)}."] if gone else []),
        *(path.read_text().strip() for path in (made / "tables/results.md", made / "tables/claims.md") if path.exists()),
        *(f"![{path.stem}](figures/{path.name})" for path in sorted(figures.iterdir())),
        "[Page](page.html) · [LaTeX](table.tex) · [CSV](table.csv) · [W&B Report, dry run](wandb_report.json)",
    ]


def list_studies() -> None:
    """Write the page that lists all studies."""
    rows = ["| study | question | points | core-hours |", "| --- | --- | --: | --: |"]
    for file in sorted(SWEEPS.glob("*.yaml")):
        sweep = read_sweep(file)
        study = Study(sweep, folder_of(sweep), STUDIES / file.stem)
        cells = [sweep.facts.get("description", ""), f"{len(study.committed)} of {sweep.size}", f"{study.core_hours:.2f}"]
        rows.append(f"| [{file.stem}]({file.stem}/README.md) | {' | '.join(cells)} |")
    below_mark(STUDIES / "README.md", "# Studies", ["\n".join(rows)])


def below_mark(page: Path, title: str, parts: list[str]) -> None:
    """Write what is made below the mark of a page; above it stays what was written by hand."""
    above = page.read_text(encoding="utf-8").partition(MARK)[0].rstrip() if page.exists() else title
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join([above, MARK, *parts]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
