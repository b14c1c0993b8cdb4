"""The systems of two retrieval reports: which are new, and whose metrics changed.

A system is identical to an earlier one if its settings, models, data and code are: then every mean must be the same to the
last bit. Other systems are compared by number alone: a test needs the values of each query, which one report of both runs has.
"""

from typing import Any, NamedTuple

from research.errors import UserError
from research.report.diff import Break
from research.report.sheets import Cell, Sheet, number
from research.report.study_record import equal


class Systems(NamedTuple):
    """What changed.

    Attributes:
        both: systems that both reports have.
        identical: those that were compared exactly.
        added, removed: labels.
        moved: (label, metric, before, after), of systems that are not identical.
        breaks: values of identical systems that differ.
        notes: what was not compared.
        compared: identical systems, and others whose values are the same.
    """

    both: int
    identical: int
    added: list[str]
    removed: list[str]
    moved: list[tuple[str, str, float, float]]
    breaks: list[Break]
    notes: list[str]
    compared: int


def compare_systems(old: dict[str, Any], new: dict[str, Any], where: tuple[str, str]) -> Systems:
    """Compare the systems of two reports.

    Args:
        old, new: report.json's `rows` with data and split, as `research report` writes them.
        where: names of the two, for messages.

    Raises:
        UserError: the reports are of different data or splits, or their rows cannot be read.
    """
    try:
        if (old["data"], old["split"]) != (new["data"], new["split"]):
            shown = [f"{report['source']} split {report['split']} (data {report['data'][:12]})" for report in (old, new)]
            raise UserError(
                f"the systems were measured on different data: {shown[0]} in {where[0]}, {shown[1]} in {where[1]}; "
                "expected the same, since their numbers cannot be compared. Compare reports of one "
                "collection."
            )
        sides = [{row["label"]: row for row in report["rows"]} for report in (old, new)]
        both = [label for label in sides[1] if label in sides[0]]
        same = [label for label in both if _identical(sides[0][label], sides[1][label])]
        changed = [
            (label, metric, sides[0][label]["metrics"][metric], value)
            for label in both
            for metric, value in sides[1][label]["metrics"].items()
            if metric in sides[0][label]["metrics"] and not equal(sides[0][label]["metrics"][metric], value)
        ]
        shared = [label for label in both if sides[0][label]["metrics"].keys() & sides[1][label]["metrics"].keys()]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{where[0]} or {where[1]} has rows without {error}; expected what `research report` writes. Make the report again."
        ) from None
    notes = []
    if both and not same:
        notes.append("no system of both has the same settings, models and clean commit, so none was compared to the last bit")
    if moved := [change for change in changed if change[0] not in same]:
        notes.append(
            "differences between systems that are not identical are not tested here: name both run folders in one report"
        )
    compared = sum(label in same or all(change[0] != label for change in changed) for label in shared)
    return Systems(
        len(both),
        len(same),
        [label for label in sides[1] if label not in sides[0]],
        [label for label in sides[0] if label not in sides[1]],
        moved,
        [Break(label, label, *rest) for label, *rest in changed if label in same],
        notes,
        compared,
    )


def _identical(a: dict[str, Any], b: dict[str, Any]) -> bool:
    known = a.get("code") is not None and a.get("settings") is not None
    return known and (a["code"], a["settings"]) == (b.get("code"), b.get("settings"))


def system_facts(systems: Systems) -> list[str]:
    """List what changed besides the table's numbers, a line each."""
    lines = [f"systems: {systems.both} in both, {systems.identical} of them identical"]
    for labels, word in ((systems.added, "new"), (systems.removed, "gone")):
        if labels:
            lines.append(f"systems {word}: {', '.join(labels)}")
    return lines


def system_sheet(systems: Systems) -> Sheet:
    """Show metrics of systems before and after."""
    rows = [
        [
            Cell(label, label),
            Cell(metric, metric),
            Cell(number(a, 4), a),
            Cell(number(b, 4), b),
            Cell(number(b - a, 4, plus=True), b - a),
        ]
        for label, metric, a, b in systems.moved
    ]
    columns = ["system", "metric", "before", "after", "difference"]
    return Sheet("systems", "Systems before and after", columns, rows, [], 2)
