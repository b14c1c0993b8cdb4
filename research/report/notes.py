"""What a reader must know before trusting the numbers, in plain sentences."""

from collections.abc import Sequence

from research.report.factors import some
from research.report.training import Training
from research.runs.folder import RunFolder
from research.runs.record import FINISHED, RunRecord
from research.types import Json

LISTED = 5  # ids named before the rest are counted
NAMED = 12  # runs likewise


def notes(folders: list[RunFolder], trainings: list[Training]) -> list[str]:
    """Notes on every run, each once; a note about single runs names them."""
    about_data = [note for folder in folders for note in _data_notes(folder.metrics)]
    return (
        list(dict.fromkeys(about_data))
        + trained_on_notes(runs := [training.run for training in trainings])
        + left_out_notes(runs)
        + code_notes({run.name: run.provenance for run in [*folders, *(training.run for training in trainings)]})
        + _machine_notes(folders)
    )


def _data_notes(metrics: dict[str, Json]) -> list[str]:
    split = metrics["split"]
    notes = [f"Leak: {warning}." for warning in metrics.get("warnings") or []]  # models that know these queries
    if left_out := metrics.get("unscorable"):
        more = f" and {len(left_out) - LISTED:,} more" if len(left_out) > LISTED else ""
        notes.append(
            f"{_count(len(left_out), 'query', 'queries')} of {metrics['queries']:,} without any relevant "
            f"document, so left out of every mean: {', '.join(left_out[:LISTED])}{more}."
        )
    for key, value in (metrics.get("notes") or {}).items():
        if key == "leaks":
            notes += _leak_notes(split, value)
        elif key == "skipped_rows":
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in value.items())
            rows = _count(sum(value.values()), "row")
            notes.append(f"{rows} of the data broke the format, skipped as asked: {reasons}.")
        else:
            notes.append(f"{key.replace('_', ' ')}: {value}")
    return notes


def _leak_notes(split: str, leaks: dict[str, dict[str, int]]) -> list[str]:
    notes, clean = [], []
    for other, shared in leaks.items():
        ids, texts, documents = (shared.get(key, 0) for key in ("query_ids", "query_texts", "documents"))
        if ids or texts:
            notes.append(
                f"Leak: {split} shares {_count(ids, 'query id')} and {_count(texts, 'query text')} with "
                f"{other}. What was trained on {other} may not be judged by these numbers."
            )
        else:
            clean.append(other)
        if documents:
            verb = "is" if documents == 1 else "are"
            notes.append(
                f"{_count(documents, 'document')} relevant in {split} {verb} also relevant to queries of "
                f"{other}, as is usual where all splits search one corpus."
            )
    return notes + ([f"No query of {split} occurs in the collection's {' or '.join(clean)}."] if clean else [])


def trained_on_notes(runs: Sequence[RunRecord], splits: Sequence[str] = ("val", "test")) -> list[str]:
    """Notes on runs that were measured on rows that they were trained on too.

    Args:
        runs: trainings.
        splits: val, test.
    """
    notes = []
    for split in splits:
        if counts := {run.name: count for run in runs if (count := run.facts.get(f"{split}_trained"))}:
            rows = " or ".join(f"{count:,}" for count in dict.fromkeys(counts.values()))
            notes.append(
                f"Leak: {len(counts):,} of {_count(len(runs), 'training')} had {rows} of the rows of {split} among what was "
                f"trained on: numbers on {split} are too good ({some(list(counts), NAMED)})."
            )
    return notes


def left_out_notes(runs: Sequence[RunRecord], splits: Sequence[str] = ("train", "val", "test")) -> list[str]:
    """Notes on runs that were trained or measured on fewer rows than their data have: data.max_length left nothing of them.

    Args:
        runs: trainings.
        splits: train, val, test.
    """
    notes = []
    for split in splits:
        if not any(f"{split}_dropped" in run.facts for run in runs):
            continue
        by_count: dict[str, list[str]] = {}
        for run in (run for run in runs if run.state in FINISHED):
            dropped, rows = run.facts.get(f"{split}_dropped", 0), run.facts.get(f"{split}_rows")
            key = f"{dropped:,} of {rows:,} rows of {split}" if dropped else f"no row of {split}"
            by_count.setdefault(key, []).append(run.name)
        each = "; ".join(f"{key} ({some(names, NAMED)})" for key, names in by_count.items())
        what = "trained on" if split == "train" else "part of any mean"
        notes.append(
            f"Left out, since data.max_length leaves them no label or room, and not {what}: {each}."
            + (" Runs with other rows do not compare." if len(by_count) > 1 and split != "train" else "")
        )
    return notes


def code_notes(runs: dict[str, dict[str, Json]]) -> list[str]:
    """Notes on runs whose commit does not tell their code.

    Args:
        runs: name → provenance.
    """
    notes = []
    if dirty := [name for name, facts in runs.items() if facts.get("git_dirty")]:
        notes.append(f"Made from code with uncommitted changes, so the commit does not tell all: {some(dirty, NAMED)}.")
    if unknown := [name for name, facts in runs.items() if not facts.get("git_commit")]:
        notes.append(f"Made from code outside a git repository, so no commit is known: {some(unknown, NAMED)}.")
    return notes


def time_notes(runs: Sequence[RunRecord]) -> list[str]:
    """Say why seconds of these trainings may not compare: other machines, or runs that were begun more than once."""
    machines: set[tuple[Json, ...]] = set()
    timed = again = 0
    for run in runs:
        if "seconds" in run.facts:
            about = (run.provenance.get(name) for name in ("platform", "cpus", "processes"))
            machines.add((run.ran_on or run.host, *about, str(run.provenance.get("device")).partition(":")[0]))
            timed, again = timed + 1, again + (run.attempts > 1)
    notes = []
    if len(machines) > 1:
        notes.append(f"Seconds were measured on {len(machines)} different machines or devices: they do not compare.")
    if again:
        was, its = ("was", "its") if again == 1 else ("were", "their")
        notes.append(
            f"{again} of {_count(timed, 'run')} {was} begun more than once, and {its} seconds are those of the last process "
            "alone."
        )
    return notes


def _machine_notes(folders: list[RunFolder]) -> list[str]:
    machines = {tuple(folder.provenance.get(key) for key in ("platform", "cpus")) for folder in folders}
    devices = {folder.provenance.get("device") for folder in folders} - {None}  # a run without a model names none
    if len(machines) > 1 or len(devices) > 1:
        return ["The runs were made on different machines or numbers of processors: their times do not compare."]
    return []


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
