"""What `research report --diff OLD NEW` does: what changed between two reports, or the runs that they would be made from."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError, suggest_file
from research.report import diff, diff_words
from research.report.claim_sides import Claim, sides
from research.report.claims import check, read_claims
from research.report.diff_systems import Systems, compare_systems, system_facts, system_sheet
from research.report.export import write_sheets
from research.report.sheets import Sheet
from research.report.spec import Spec
from research.report.study import Study
from research.report.study_record import StudyRecord, read_study_record
from research.report.subject import record_of
from research.report.summary import rows_of
from research.report.target import REPORT, files_of, open_target
from research.runs.files import atomic_write, replace_files, write_json
from research.runs.folder import RunFolder
from research.runs.layout import PROVENANCE
from research.runs.reading import read_json
from research.runs.table import is_sweep
from research.runs.wandb.records import is_wandb
from research.types import Json

OURS = "diff.json"  # a folder that holds this file is ours to write into again
VERB = "report --diff"
UNCHECKED = "cannot be checked"  # a claim about settings that are missing on one side


class Side(NamedTuple):
    """The earlier or the later report.

    Attributes:
        name: as the user gave it.
        study: its trainings; None of systems alone.
        systems: report.json's part about retrievals; None where it has none.
    """

    name: str
    study: StudyRecord | None
    systems: dict[str, Any] | None


class Difference(NamedTuple):
    """What changed.

    Attributes:
        same: no claim is broken, and no value of an identical run changed.
        text: Markdown, for people.
        summary: for programs.
        sheets: tables for a paper.
    """

    same: bool
    text: str
    summary: dict[str, Json]
    sheets: list[Sheet]


def compare(paths: list[Path], spec: Spec, claims: Path | None, out: Path | None) -> Difference:
    """Compare an earlier and a later report, sweep or run, and write what changed.

    Args:
        paths: the earlier and the later.
        spec: metric and goal.
        claims: a file of claims, checked on both sides in place of those that were made with the reports.
        out: a folder for Markdown and tables; None writes none.

    Raises:
        UserError: one that cannot be read, or two of different kinds.
    """
    if out is not None:
        open_target(out, OURS, VERB, "an earlier --diff", "empty folder")
    old, new = (read_side(path, spec) for path in paths)
    if claims is not None:
        old, new = _with_claims(old, new, claims, spec.metric)
    difference = _difference(old, new, spec.metric)
    if out is not None:
        with replace_files(out, OURS, files_of(out / OURS)) as folder:
            with atomic_write(folder / "diff.md") as stream:
                stream.write(difference.text)
            write_sheets(folder, difference.sheets, f"{old.name} to {new.name}")
            files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            write_json(folder / OURS, difference.summary | {"files": files})
    return difference


def _difference(old: Side, new: Side, metric: str | None) -> Difference:
    study = diff.compare(old.study, new.study, metric) if old.study and new.study else None
    systems = compare_systems(old.systems, new.systems, (old.name, new.name)) if old.systems and new.systems else None
    if study is None and systems is None:
        raise UserError(f"{old.name} holds {_kind(old)}, {new.name} {_kind(new)}; expected two of one kind. Compare others.")
    broken = study.broken if study else []
    breaks = [*(study.breaks if study else []), *(systems.breaks if systems else [])]
    same = not (broken or breaks)
    compared = [part.compared if part else None for part in (study, systems)]
    verdict = diff_words.verdict(broken, breaks, *compared, marks=len(study.marks) if study else 0)
    facts, sheets, notes = [], [], []
    if study is not None:
        facts, sheets, notes = diff_words.facts(study), diff_words.sheets(study), list(study.notes)
    if systems is not None:
        facts += system_facts(systems)
        system_sheets = [system_sheet(systems), diff_words.breaks_sheet("identical_systems", systems.breaks)]
        sheets, notes = [*sheets, *(sheet for sheet in system_sheets if sheet.rows)], [*notes, *systems.notes]
    notes += [f"{side.name} holds {_kind(side)}" for side in (old, new) if _kind(old) != _kind(new)]
    summary = {
        "verb": VERB,
        "old": old.name,
        "new": new.name,
        "same": same,
        "verdict": verdict,
        "compared": sum(count for count in compared if count),
        "study": diff_words.summary(study) if study else None,
        "systems": _systems_summary(systems) if systems else None,
    }
    return Difference(same, diff_words.document(old.name, new.name, verdict, facts, sheets, notes), summary, sheets)


def read_side(path: Path, spec: Spec) -> Side:
    """Read a report, a sweep, a run, or W&B's runs.

    Raises:
        UserError: none of them, or one that cannot be read.
    """
    if (path / REPORT).is_file():
        value = read_json(path / REPORT)
        if not isinstance(value, dict) or value.get("verb") != "report":
            raise UserError(
                f"{path / REPORT} is no report's; expected what `research report --out` wrote. Make the report again."
            )
        study = read_study_record(value["study"], str(path / REPORT)) if value.get("study") is not None else None
        if study is None and not value.get("rows") and value.get("trainings"):
            raise UserError(
                f"{path / REPORT} says nothing of its runs: none was finished when it was made, or they were of "
                "different metrics or one seed twice; expected values to compare. Make that report again of "
                "finished runs."
            )
        return Side(str(path), study, value if value.get("rows") else None)
    if is_sweep(path) or RunFolder(path).is_training or is_wandb(path):
        record = json.loads(json.dumps(record_of([path], spec), default=str))  # in the types that a report's file gives
        return Side(str(path), read_study_record(record, str(path)), None)
    if (path / PROVENANCE).is_file():
        return Side(str(path), None, json.loads(json.dumps(rows_of([path]))))
    problem = "does not exist" if not path.exists() else "is a file" if path.is_file() else "is no report, sweep or run"
    near = "" if path.exists() else suggest_file(path)
    raise UserError(
        f"{path} {problem}; expected a folder that `research report`, `sweep`, `fit` or `retrieve` wrote. Check the path.{near}"
    )


def _with_claims(old: Side, new: Side, path: Path, metric: str | None) -> tuple[Side, Side]:
    """Return both sides with verdicts on the claims of a file, in place of those that the reports hold.

    Raises:
        UserError: claims that cannot be read, or that neither side can check.
    """
    if old.study is None or new.study is None:
        without_study = (old if old.study is None else new).name
        raise UserError(
            f"--claims {path} is about trainings, and {without_study} has none; expected a study on both sides. Leave it out."
        )
    file_claims = [claim._replace(metric=claim.metric or metric) for claim in dict.fromkeys(read_claims(path))]
    verdicts = [_verdicts(side.study, file_claims, str(path)) for side in (old, new)]
    for claim in file_claims:
        if all(side[claim.text][0] == UNCHECKED for side in verdicts):
            raise UserError(verdicts[1][claim.text][1])
    return tuple(
        side._replace(study=side.study._replace(claims=claims)) for side, claims in zip((old, new), verdicts, strict=True)
    )


def _verdicts(study: StudyRecord, claims: list[Claim], where: str) -> dict[str, tuple[str, str]]:
    """Map each claim to (state, words). One whose settings are missing on one side cannot be checked, and is in no family."""
    studies: dict[str, Study] = {}
    verdicts: dict[str, tuple[str, str]] = {}
    checkable: list[Claim] = []
    for claim in claims:
        claim = claim._replace(metric=claim.metric or study.metric)
        studies[claim.metric] = study.study(claim.metric)
        try:
            sides(claim, studies[claim.metric], where)
            checkable.append(claim)
        except UserError as error:
            verdicts[claim.text] = (UNCHECKED, str(error))
    verdicts |= {verdict.claim.text: (verdict.state, verdict.words) for verdict in check(checkable, studies, where)}
    return {claim.text: verdicts[claim.text] for claim in claims}


def _kind(side: Side) -> str:
    kinds = [name for name, value in (("trainings", side.study), ("systems", side.systems)) if value is not None]
    return " and ".join(kinds) or "nothing"


def _systems_summary(systems: Systems) -> dict[str, Json]:
    """Return the comparison of systems as JSON, for programs."""
    moved = [dict(zip(("system", "metric", "old", "new"), row, strict=True)) for row in systems.moved]
    return systems._asdict() | {"moved": moved, "breaks": [changed._asdict() for changed in systems.breaks]}
