"""What changed between two reports, or between the runs that they would be made from: `research report --diff OLD NEW`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from research.errors import UserError
from research.runs.files import atomic_write, replace_files, write_json
from research.runs.layout import MARKER as RUN_MARKER
from research.runs.layout import leftover
from research.runs.reading import read_json

if TYPE_CHECKING:
    from research.report.claim_sides import Claim
    from research.report.study_record import StudyRecord

REPORT = "report.json"
OURS = "diff.json"  # a folder that holds this file is ours to write into again
VERB = "report --diff"
UNCHECKED = "cannot be checked"  # a claim about settings that one side has not


class Side(NamedTuple):
    """One of the two.

    Attributes:
        name: as the user gave it.
        study: its trainings; None of systems alone.
        systems: report.json's part about retrievals; None without any.
    """

    name: str
    study: "StudyRecord | None"
    systems: dict[str, Any] | None


def run(args: argparse.Namespace) -> int:
    from research.report import diff, diff_words
    from research.report.diff_systems import compare_systems, system_facts, system_sheet
    from research.report.export import write_sheets
    from research.report.spec import read_spec
    from research.verbs.report import files_of

    if len(args.runs) != 2:
        raise UserError(
            f"--diff has {len(args.runs)} folder{'s' * (len(args.runs) != 1)}; expected two, the earlier and the "
            "later report (or sweep, or run). Name two."
        )
    if args.baseline is not None:
        raise UserError(
            f"--baseline {args.baseline} is of one report; expected none with --diff, which compares each setting "
            "with itself. Leave it out."
        )
    if args.wandb is not None or args.dry_run:
        raise UserError(
            "--wandb and --dry-run are of one report; expected neither with --diff, which publishes nothing. Leave them out."
        )
    if args.out is not None:
        check_out(args.out)
    spec = read_spec(args.spec)
    spec = spec._replace(metric=args.metric or spec.metric)
    old, new = (read_side(path, spec) for path in args.runs)
    if args.claims is not None:
        old, new = _claimed(old, new, args.claims, spec.metric)
    found = diff.compare(old.study, new.study, spec.metric) if old.study and new.study else None
    systems = compare_systems(old.systems, new.systems, (old.name, new.name)) if old.systems and new.systems else None
    if found is None and systems is None:
        raise UserError(f"{old.name} holds {_kind(old)}, {new.name} {_kind(new)}; expected two of one kind. Compare others.")
    broken = found.broken if found else []
    breaks = [*(found.breaks if found else []), *(systems.breaks if systems else [])]
    same = not (broken or breaks)
    compared = [one.compared if one else None for one in (found, systems)]
    head, lines, tables, notes = diff_words.verdict(broken, breaks, *compared), [], [], []
    if found is not None:
        lines, tables, notes = diff_words.facts(found), diff_words.sheets(found), list(found.notes)
    if systems is not None:
        lines += system_facts(systems)
        made = [system_sheet(systems), diff_words.breaks_sheet("identical_systems", systems.breaks)]
        tables, notes = [*tables, *(sheet for sheet in made if sheet.rows)], [*notes, *systems.notes]
    notes += [f"{side.name} holds {_kind(side)}" for side in (old, new) if _kind(old) != _kind(new)]
    text = diff_words.document(old.name, new.name, head, lines, tables, notes)
    summary = {
        "verb": VERB,
        "old": old.name,
        "new": new.name,
        "same": same,
        "verdict": head,
        "compared": sum(one for one in compared if one),
        "study": diff_words.summary(found) if found else None,
        "systems": _systems(systems) if systems else None,
    }
    if args.out is not None:
        with replace_files(args.out, OURS, files_of(args.out / OURS)) as folder:
            with atomic_write(folder / "diff.md") as stream:
                stream.write(text)
            write_sheets(folder, tables, f"{old.name} to {new.name}")
            files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            write_json(folder / OURS, summary | {"files": files})
    print(json.dumps({**summary, "out": str(args.out) if args.out else None}) if args.json else text.rstrip("\n"))
    return 0 if same else 1


def read_side(path: Path, spec: Any) -> Side:
    """A report, a sweep, a run, or W&B's runs.

    Raises:
        UserError: none of them, or one that cannot be read.
    """
    from research.report.study_record import read_study_record
    from research.runs.folder import RunFolder
    from research.runs.table import is_sweep
    from research.runs.wandb.records import is_wandb
    from research.verbs.report import rows_of
    from research.verbs.studying import kept_of

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
        kept = json.loads(json.dumps(kept_of([path], spec), default=str))  # what a report would have kept, in the same types
        return Side(str(path), read_study_record(kept, str(path)), None)
    if (path / RUN_MARKER).is_file():
        return Side(str(path), None, json.loads(json.dumps(rows_of([path]))))
    what = "does not exist" if not path.exists() else "is a file" if path.is_file() else "is no report, sweep or run"
    raise UserError(
        f"{path} {what}; expected a folder that `research report`, `sweep`, `fit` or `retrieve` wrote. Check the path."
    )


def check_out(out: Path) -> None:
    """
    Raises:
        UserError: a file, or a folder that holds something else.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder. Name another.")
    if out.is_dir() and not all(map(leftover, out.iterdir())):
        try:
            ours = json.loads((out / OURS).read_text(encoding="utf-8"))["verb"] == VERB
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise UserError(
                f"--out {out} holds files but no {OURS} of an earlier --diff; nothing was touched. Name a new or empty folder."
            )


def _claimed(old: Side, new: Side, path: Path, metric: str | None) -> tuple[Side, Side]:
    """Both with the verdicts on the claims of a file, in place of those that were made with the reports.

    Raises:
        UserError: claims that cannot be read, or that neither side can check.
    """
    from research.report.claims import read_claims

    if old.study is None or new.study is None:
        bare = (old if old.study is None else new).name
        raise UserError(
            f"--claims {path} is about trainings, and {bare} has none; expected a study on both sides. Leave it out."
        )
    stated = [one._replace(metric=one.metric or metric) for one in dict.fromkeys(read_claims(path))]
    verdicts = [_verdicts(side.study, stated, str(path)) for side in (old, new)]
    for claim in stated:
        if all(found[claim.text][0] == UNCHECKED for found in verdicts):
            raise UserError(verdicts[1][claim.text][1])
    return tuple(
        side._replace(study=side.study._replace(claims=found)) for side, found in zip((old, new), verdicts, strict=True)
    )


def _verdicts(study: "StudyRecord", stated: "list[Claim]", where: str) -> dict[str, tuple[str, str]]:
    """Text → (state, words); a claim whose settings one side has not is said, and is in no family."""
    from research.report.claim_sides import sides
    from research.report.claims import check

    studies, found, checkable = {}, {}, []
    for claim in stated:
        claim = claim._replace(metric=claim.metric or study.metric)
        studies[claim.metric] = study.study(claim.metric)
        try:
            sides(claim, studies[claim.metric], where)
            checkable.append(claim)
        except UserError as error:
            found[claim.text] = (UNCHECKED, str(error))
    found |= {one.claim.text: (one.state, one.words) for one in check(checkable, studies, where)}
    return {claim.text: found[claim.text] for claim in stated}


def _kind(side: Side) -> str:
    kinds = [name for name, value in (("trainings", side.study), ("systems", side.systems)) if value is not None]
    return " and ".join(kinds) or "nothing"


def _systems(found: Any) -> dict[str, Any]:
    moved = [dict(zip(("system", "metric", "old", "new"), row, strict=True)) for row in found.moved]
    return found._asdict() | {"moved": moved, "breaks": [one._asdict() for one in found.breaks]}
