"""What changed between two reports, in words: Markdown, tables, and the numbers for programs."""

import math
from typing import Any

from research.report.diff import AGAIN, Break, Diff, Moved
from research.report.diff_match import SHORT
from research.report.export import as_markdown
from research.report.factors import shown, some
from research.report.markdown import escape
from research.report.numbers import counted, p_value
from research.report.sheets import NOTHING, Cell, Sheet, number

LISTED = 10  # names before the rest are counted


def verdict(broken: list[str], breaks: list[Break], study: int | None, systems: int | None) -> str:
    """The sentence at the head: whether the conclusions stand.

    Args:
        broken: claims that held and are broken.
        breaks: values of identical runs that are another.
        study, systems: how many settings and claims, how many systems could have contradicted; None where there are none.
    """
    found = []
    if broken:
        found.append(f"{counted(len(broken), 'claim')} that held {'is' if len(broken) == 1 else 'are'} broken")
    if breaks:
        runs = len({one.run for one in breaks})
        found.append(
            f"{counted(len(breaks), 'value')} of {counted(runs, 'identical run')} {'is' if len(breaks) == 1 else 'are'} another"
        )
    if found:
        return f"Not the same: {'; '.join(found)}."
    if study or systems:
        return "The same conclusions."
    why = ["no identical run is in both, and no setting can be tested"] if study is not None else []
    why += ["no identical system is in both"] if systems is not None else []
    return f"Nothing could be contradicted: {'; '.join(why)}."


def facts(diff: Diff) -> list[str]:
    """What changed besides the tables' numbers, a line each."""
    resolved = sum(one.verdict == "differs" for one in diff.moved)
    again = sum(one.kind == AGAIN for one in diff.moved)
    more = f" ({again} of them trained again, {resolved} of these resolved over seeds)" if again else ""
    lines = [f"{counted(diff.settings, 'setting')} in both; {diff.metric} moved in {len(diff.moved)}{more}"]
    if diff.identical:
        wrong = len({one.run for one in diff.breaks})
        lines.append(
            f"{counted(diff.identical, 'identical run')}: {diff.identical - wrong} with the same values to the last bit"
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
        lines.append(f"{name}: {_hashes(before)} → {_hashes(after)}")
    return lines


def sheets(diff: Diff) -> list[Sheet]:
    """Tables of what changed; only those with a row."""
    made = [
        Sheet(
            "claims",
            "Claims whose verdict changed",
            ["claim", "before", "after", "numbers"],
            [[Cell(one, one) for one in row] for row in diff.claims],
            [],
            4,
        ),
        breaks_sheet("identical", diff.breaks),
        Sheet(
            "moved",
            f"{diff.metric} before and after",
            ["setting", "runs", "before", "after", "difference", "p (Holm)", "verdict"],
            [_moved(one) for one in diff.moved],
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
            [[Cell(one, one) for one in row] for row in diff.states],
            [],
            4,
        ),
    ]
    return [sheet for sheet in made if sheet.rows]


def breaks_sheet(name: str, breaks: list[Break]) -> Sheet:
    """Values that should have been the same, with all their digits."""
    rows = [
        [
            *(Cell(one, one) for one in row[:3]),
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
    """All of it as Markdown.

    Args:
        old, new: names of the two.
        head: the verdict.
        lines: what changed besides the tables.
        tables: what changed.
        notes: what was not compared.
    """
    parts = [f"# What changed: {escape(old)} → {escape(new)}", escape(head)]
    parts += ["\n".join(f"- {escape(line)}" for line in lines)] if lines else []
    parts += [f"## {escape(sheet.title)}\n\n{as_markdown(sheet)}" for sheet in tables]
    parts += ["## Not compared\n\n" + "\n".join(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def summary(diff: Diff) -> dict[str, Any]:
    """Return the comparison as JSON, for programs."""
    moved = [
        {
            "setting": one.label,
            "seeds": list(one.seeds),
            "old": one.old,
            "new": one.new,
            "difference": one.difference,
            "kind": one.kind,
            "p": None if one.test is None else _known(one.test.p),
            "p_holm": _known(one.p_holm),
            "verdict": one.verdict or None,
        }
        for one in diff.moved
    ]
    return {
        "metric": diff.metric,
        "settings": diff.settings,
        "identical": diff.identical,
        "added": diff.added,
        "removed": diff.removed,
        "moved": moved,
        "breaks": [one._asdict() for one in diff.breaks],
        "states": [dict(zip(("run", "setting", "old", "new"), row, strict=True)) for row in diff.states],
        "runs": {"removed": diff.runs[0], "added": diff.runs[1]},
        "claims": [dict(zip(("claim", "old", "new", "words"), row, strict=True)) for row in diff.claims],
        "best": diff.best and {"old": diff.best[0], "new": diff.best[1]},
        "options": {name: {"old": before, "new": after} for name, (before, after) in diff.options.items()},
        "made_of": {name: {"old": before, "new": after} for name, (before, after) in diff.hashes.items()},
        "notes": diff.notes,
        "compared": diff.compared,
    }


def _moved(one: Moved) -> list[Cell]:
    # two digits of the difference at least
    digits = min(12, max(4, 1 - math.floor(math.log10(abs(one.difference))))) if one.difference else 4
    seeds = f"{one.seeds[0]} → {one.seeds[1]}" if one.seeds[0] != one.seeds[1] else str(one.seeds[0])
    means = [Cell(NOTHING) if value is None else Cell(number(value, digits), value) for value in (one.old, one.new)]
    change = Cell(NOTHING) if one.difference is None else Cell(number(one.difference, digits, plus=True), one.difference)
    p, word = _known(one.p_holm), one.verdict or one.kind
    return [
        Cell(one.label, one.label),
        Cell(seeds, seeds),
        *means,
        change,
        Cell(NOTHING) if p is None else Cell(p_value(p), p),
        Cell(word, word),
    ]


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _known(value: float | None) -> float | None:
    return None if value is None or value != value else value


def _hashes(values: list[str]) -> str:
    return (
        " and ".join(value[:SHORT] for value in values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "") or "–"
    )
