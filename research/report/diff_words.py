"""What changed between two reports, in words: Markdown, tables, and the numbers for programs."""

import math

from research.report.diff import AGAIN, Break, Diff, Moved
from research.report.diff_match import SHORT
from research.report.export import as_markdown
from research.report.factors import shown, some
from research.report.markdown import escape
from research.report.numbers import counted, p_value
from research.report.sheets import MARK, NOTHING, Cell, Sheet, number
from research.types import Json

LISTED = 10  # names before the rest are counted


def verdict(broken: list[str], breaks: list[Break], study: int | None, systems: int | None, marks: int = 0) -> str:
    """Write the sentence at the head: whether the conclusions stand.

    Args:
        broken: claims that held and are broken.
        breaks: values of identical runs that changed.
        marks: settings whose mark of a resolved difference has changed.
        study, systems: how many settings and claims, how many systems could have contradicted; None where there are none.
    """
    changes = []
    if broken:
        changes.append(f"{counted(len(broken), 'claim')} that held {'is' if len(broken) == 1 else 'are'} broken")
    if breaks:
        runs = len({changed.run for changed in breaks})
        changes.append(
            f"{counted(len(breaks), 'value')} of {counted(runs, 'identical run')} {'is' if len(breaks) == 1 else 'are'} another"
        )
    if changes:
        return f"Not the same: {'; '.join(changes)}."
    if marks:
        return (
            f"No claim is broken and no identical run has another value; {counted(marks, 'mark')} {MARK} "
            f"{'has' if marks == 1 else 'have'} changed."
        )
    if study or systems:
        return "The same conclusions."
    reasons = ["no identical run is in both, and no setting can be tested"] if study is not None else []
    reasons += ["no identical system is in both"] if systems is not None else []
    return f"Nothing could be contradicted: {'; '.join(reasons)}."


def facts(diff: Diff) -> list[str]:
    """List what changed besides the tables' numbers, a line each."""
    resolved = sum(change.verdict == "differs" for change in diff.moved)
    again = sum(change.kind == AGAIN for change in diff.moved)
    more = f" ({again} of them trained again, {resolved} of these resolved over seeds)" if again else ""
    lines = [f"{counted(diff.settings, 'setting')} in both; {diff.metric} moved in {len(diff.moved)}{more}"]
    if diff.identical:
        changed_runs = len({changed.run for changed in diff.breaks})
        lines.append(
            f"{counted(diff.identical, 'identical run')}: {diff.identical - changed_runs} with the same values to the last bit"
        )
    for names, word in ((diff.added, "new"), (diff.removed, "gone")):
        if names:
            lines.append(f"{counted(len(names), 'setting')} {word}: {some(names, LISTED)}")
    for ids, word in zip(diff.runs, ("gone", "new"), strict=True):
        if ids:
            lines.append(f"{counted(len(ids), 'run')} {word}: {some(ids, LISTED)}")
    if diff.best:
        lines.append(f"best setting: {diff.best[0]} → {diff.best[1]}")
    lines += [f"{name}: {shown(before)} → {shown(after)} in every run" for name, (before, after) in diff.options.items()]
    for name, (before, after) in diff.hashes.items():
        lines.append(f"{name}: {_short_hashes(before)} → {_short_hashes(after)}")
    return lines


def sheets(diff: Diff) -> list[Sheet]:
    """Make tables of what changed; only those with a row."""
    tables = [
        Sheet(
            "claims",
            "Claims whose verdict changed",
            ["claim", "before", "after", "numbers"],
            [[Cell(text, text) for text in row] for row in diff.claims],
            [],
            4,
        ),
        breaks_sheet("identical", diff.breaks),
        Sheet(
            "marks",
            f"Marks {MARK} that changed",
            ["setting", "against", "before", "after"],
            [[Cell(text, text) for text in (*row[:2], *(_resolved(differs) for differs in row[2:]))] for row in diff.marks],
            [f"{MARK}: the difference in {diff.metric} is resolved over seeds, after Holm over the settings of its report."],
            4,
        ),
        Sheet(
            "moved",
            f"{diff.metric} before and after",
            ["setting", "runs", "before", "after", "difference", "p (Holm)", "verdict"],
            [_moved_row(change) for change in diff.moved],
            [
                "Means over seeds. Settings trained again: Welch's t test over the runs before and after, p after Holm over "
                "these settings. Runs that are there before and after are no new draw, and are not tested."
            ],
            2,
        ),
        Sheet(
            "states",
            "Runs whose state changed",
            ["run", "setting", "before", "after"],
            [[Cell(text, text) for text in row] for row in diff.states],
            [],
            4,
        ),
    ]
    return [sheet for sheet in tables if sheet.rows]


def breaks_sheet(name: str, breaks: list[Break]) -> Sheet:
    """Show the values that should have been the same, with all their digits."""
    rows = [
        [
            *(Cell(text, text) for text in row[:3]),
            Cell(_minus(repr(row.old)), row.old),
            Cell(_minus(repr(row.new)), row.new),
            Cell(_minus(f"{row.new - row.old:+.3g}"), row.new - row.old),
        ]
        for row in breaks
    ]
    note = "The same configuration, seed, data, models and code gave another value: it cannot be reproduced as it is."
    return Sheet(
        name,
        "Values of identical runs that differ",
        ["run", "setting", "metric", "before", "after", "difference"],
        rows,
        [note],
        3,
    )


def document(old: str, new: str, head: str, lines: list[str], tables: list[Sheet], notes: list[str]) -> str:
    """Return the whole comparison as Markdown.

    Args:
        old, new: names of the two reports.
        head: the verdict on the conclusions.
        lines: what changed besides the tables.
        tables: what changed.
        notes: what was not compared.
    """
    parts = [f"# What changed: {escape(old)} → {escape(new)}", escape(head)]
    parts += ["\n".join(f"- {escape(line)}" for line in lines)] if lines else []
    parts += [f"## {escape(sheet.title)}\n\n{as_markdown(sheet)}" for sheet in tables]
    parts += ["## Not compared\n\n" + "\n".join(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def summary(diff: Diff) -> dict[str, Json]:
    """Return the comparison as JSON, for programs."""
    moved = [
        {
            "setting": change.label,
            "seeds": list(change.seeds),
            "old": change.old,
            "new": change.new,
            "difference": change.difference,
            "kind": change.kind,
            "p": None if change.test is None else _or_none(change.test.p),
            "p_holm": _or_none(change.p_holm),
            "verdict": change.verdict or None,
        }
        for change in diff.moved
    ]
    return {
        "metric": diff.metric,
        "settings": diff.settings,
        "identical": diff.identical,
        "added": diff.added,
        "removed": diff.removed,
        "moved": moved,
        "breaks": [changed._asdict() for changed in diff.breaks],
        "states": [dict(zip(("run", "setting", "old", "new"), row, strict=True)) for row in diff.states],
        "runs": {"removed": diff.runs[0], "added": diff.runs[1]},
        "claims": [dict(zip(("claim", "old", "new", "words"), row, strict=True)) for row in diff.claims],
        "marks": [dict(zip(("setting", "against", "old", "new"), row, strict=True)) for row in diff.marks],
        "best": diff.best and {"old": diff.best[0], "new": diff.best[1]},
        "options": {name: {"old": before, "new": after} for name, (before, after) in diff.options.items()},
        "made_of": {name: {"old": before, "new": after} for name, (before, after) in diff.hashes.items()},
        "notes": diff.notes,
        "compared": diff.compared,
    }


def _moved_row(change: Moved) -> list[Cell]:
    """Make a row of the table of means before and after."""
    # at least two significant digits of the difference
    digits = min(12, max(4, 1 - math.floor(math.log10(abs(change.difference))))) if change.difference else 4
    seeds = f"{change.seeds[0]} → {change.seeds[1]}" if change.seeds[0] != change.seeds[1] else str(change.seeds[0])
    means = [Cell(NOTHING) if value is None else Cell(number(value, digits), value) for value in (change.old, change.new)]
    difference = (
        Cell(NOTHING) if change.difference is None else Cell(number(change.difference, digits, plus=True), change.difference)
    )
    p, verdict = _or_none(change.p_holm), change.verdict or change.kind
    return [
        Cell(change.label, change.label),
        Cell(seeds, seeds),
        *means,
        difference,
        Cell(NOTHING) if p is None else Cell(p_value(p), p),
        Cell(verdict, verdict),
    ]


def _resolved(differs: bool) -> str:
    return f"differs {MARK}" if differs else "not resolved"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _or_none(value: float | None) -> float | None:
    """Return the value; None in place of NaN, which JSON does not have."""
    return None if value is None or value != value else value


def _short_hashes(values: list[str]) -> str:
    return (
        " and ".join(value[:SHORT] for value in values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "") or "–"
    )
