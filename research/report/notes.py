"""What a reader must know before trusting the numbers, in plain sentences."""

from research.report.factors import some
from research.report.training import Training
from research.runs.folder import RunFolder

LISTED = 5  # ids named before the rest are counted
NAMED = 12  # runs likewise


def notes(folders: list[RunFolder], trainings: list[Training]) -> list[str]:
    """Notes of every run, each said once; what concerns single runs names them."""
    said = [note for folder in folders for note in _data_notes(folder.metrics)]
    return (
        list(dict.fromkeys(said))
        + code_notes({one.name: one.provenance for one in [*folders, *trainings]})
        + _machine_notes(folders)
    )


def _data_notes(metrics: dict) -> list[str]:
    split, found = metrics["split"], []
    if left_out := metrics.get("unscorable"):
        more = f" and {len(left_out) - LISTED:,} more" if len(left_out) > LISTED else ""
        found.append(
            f"{_count(len(left_out), 'query', 'queries')} of {metrics['queries']:,} without any relevant "
            f"document, so left out of every mean: {', '.join(left_out[:LISTED])}{more}."
        )
    for key, value in (metrics.get("notes") or {}).items():
        if key == "leaks":
            found += _leak_notes(split, value)
        elif key == "skipped_rows":
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in value.items())
            rows = _count(sum(value.values()), "row")
            found.append(f"{rows} of the data broke the format, skipped as asked: {reasons}.")
        else:
            found.append(f"{key.replace('_', ' ')}: {value}")
    return found


def _leak_notes(split: str, leaks: dict[str, dict[str, int]]) -> list[str]:
    found, clean = [], []
    for other, shared in leaks.items():
        ids, texts, documents = (shared.get(key, 0) for key in ("query_ids", "query_texts", "documents"))
        if ids or texts:
            found.append(
                f"Leak: {split} shares {_count(ids, 'query id')} and {_count(texts, 'query text')} with "
                f"{other}. What was trained on {other} may not be judged by these numbers."
            )
        else:
            clean.append(other)
        if documents:
            verb = "is" if documents == 1 else "are"
            found.append(
                f"{_count(documents, 'document')} relevant in {split} {verb} also relevant to queries of "
                f"{other}, as is usual where all splits search one corpus."
            )
    return found + ([f"No query of {split} occurs in the collection's {' or '.join(clean)}."] if clean else [])


def code_notes(runs: dict[str, dict]) -> list[str]:
    """What weakens the commit that the runs name.

    Args:
        runs: name → provenance.
    """
    found = []
    if dirty := [name for name, facts in runs.items() if facts.get("git_dirty")]:
        found.append(f"Made from code with uncommitted changes, so the commit does not tell all: {some(dirty, NAMED)}.")
    if unknown := [name for name, facts in runs.items() if not facts.get("git_commit")]:
        found.append(f"Made from code outside a git repository, so no commit is known: {some(unknown, NAMED)}.")
    return found


def _machine_notes(folders: list[RunFolder]) -> list[str]:
    machines = {tuple(folder.provenance.get(key) for key in ("platform", "cpus")) for folder in folders}
    devices = {folder.provenance.get("device") for folder in folders} - {None}  # a run without a model names none
    if len(machines) > 1 or len(devices) > 1:
        return ["The runs were made on different machines or numbers of processors: their times do not compare."]
    return []


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
