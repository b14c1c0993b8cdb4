"""What must be read below a table of systems: leaks, lengths that differ, how rerankers were used, which rows are merged."""

from research.report.numbers import plain
from research.report.systems import Row

LEAK = "‡"


def row_notes(rows: list[Row]) -> list[str]:
    """List everything that a table of these systems must say below it."""
    return leak_notes(rows) + reading_notes(rows) + repeated(rows)


def reading_notes(rows: list[Row]) -> list[str]:
    """Say that encoders were compared which read different lengths, and how each reranker was used."""
    lengths = {
        row.label: row.facts["max_length"] for row in rows if row.stage.startswith("dense") and "max_length" in row.facts
    }
    notes = []
    if len({*lengths.values()}) > 1:
        each = ", ".join(f"{label} {length:,}" for label, length in lengths.items())
        notes.append(f"The encoders read different numbers of a document's tokens ({each}): a difference may come from that.")
    reranked = [row for row in rows if "depth" in row.facts]
    return notes + [f"{row.label}: the first {row.facts['depth']} re-ordered{mix_words(row.facts)}." for row in reranked]


def mix_words(facts: dict) -> str:
    """Write `, λ .25 chosen on dev`: the retriever's share beside the reranker's score; "" where the reranker is alone."""
    mix, split = facts.get("mix"), facts.get("mix_split")
    if mix is None or not (mix or split):
        return ""
    return f", λ {plain(mix)}" + (f" chosen on {split}" if split else "")


def leak_notes(rows: list[Row]) -> list[str]:
    """Say what the mark of a leak means, where a row has one."""
    if not any(row.leaks for row in rows):
        return []
    return [f"{LEAK}: a model of this system was trained on some of these queries; its numbers are too high."]


def repeated(rows: list[Row]) -> list[str]:
    """Write which systems several runs hold: they are one row."""
    return [f"{row.label} of {row.run}/{row.stage} is the same in {', '.join(row.also)}." for row in rows if row.also]
