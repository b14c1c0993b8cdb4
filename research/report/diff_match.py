"""Which settings of two reports are the same, and what the runs of each were made of."""

import json
import re
from collections.abc import Sequence

from research.errors import UserError
from research.report.study_record import MADE_OF, Setting, StudyRecord
from research.runs.record import RunRecord
from research.runs.wandb.records import UNSAID

COMMIT = re.compile(r"[0-9a-f]{40}( [0-9a-f]{40})*")  # W&B's logs know git's commit, our folders the code's fingerprint
SHORT = 12  # digits of a hash


def match(
    old: StudyRecord, new: StudyRecord, notes: list[str]
) -> tuple[list[tuple[Setting, Setting]], list[Setting], list[Setting]]:
    """Pair the settings that both have (before, after); return also those that only the later, only the earlier has.

    They are the same where every option has the same value that tells settings apart in either report; an option that is a
    factor of one report may be the same in all runs of the other.
    """
    names: dict[str, None] = {}
    for name in [*new.factors, *old.factors]:
        base, tied, _ = name.partition("lora_alpha/r")  # alpha over r, of r: alpha says the same in both reports
        names |= dict.fromkeys([f"{base}lora_alpha", f"{base}r"] if tied else [name])
    for side, other, word in ((old, new, "earlier"), (new, old, "later")):
        if absent := [name for name in names if not _has_option(side, name) and _has_option(other, name)]:
            notes.append(f"no run of the {word} report has {', '.join(absent)}")
    sides = [_by_key(side, list(names)) for side in (old, new)]
    pairs, added, removed = [], [], []
    for key in dict.fromkeys([*sides[1], *sides[0]]):
        before, after = (list(side.get(key, [])) for side in sides)
        # runs of one setting but other data or code are groups of their own: first those of one origin
        for b in list(after):
            a = next((setting for setting in before if _origin(setting) == _origin(b)), None)
            if a is not None:
                pairs.append((a, b))
                before.remove(a)
                after.remove(b)
        if len(before) == len(after) == 1:
            pairs.append((before.pop(), after.pop()))
        added += after
        removed += before
    if not pairs:
        shown = [", ".join(setting.label for setting in side.settings[:3]) for side in (old, new)]
        raise UserError(
            f"the reports have no setting in common: {len(old.settings)} before ({shown[0]}), {len(new.settings)} "
            f"after ({shown[1]}); expected one or more. Compare reports of one study."
        )
    return pairs, added, removed


def _has_option(side: StudyRecord, name: str) -> bool:
    return name in side.options or any(name in setting.options for setting in side.settings)


def _by_key(side: StudyRecord, names: list[str]) -> dict[str, list[Setting]]:
    settings: dict[str, list[Setting]] = {}
    for setting in side.settings:
        values = [setting.options.get(name, side.options.get(name)) for name in names]
        settings.setdefault(json.dumps(values, sort_keys=True, default=str), []).append(setting)
    return settings


def _origin(setting: Setting) -> tuple[str, ...]:
    """Return data, code and base model of a setting's runs; () where none was begun."""
    return next((run.made_of for run in setting.runs if any(run.made_of)), ())


def hashes(old: Sequence[RunRecord], new: Sequence[RunRecord], notes: list[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Return what runs were made of, before and after, where it differs: code, base, data.train, …

    A part that one side does not record, or records as another kind of hash, is not a change: it goes to the notes.
    """
    sides: list[dict[str, dict[str, None]]] = [{}, {}]
    for side, runs in zip(sides, (old, new), strict=True):
        for run in runs:
            for part, value in zip(MADE_OF, run.made_of, strict=True):
                for name, digest in _split_hashes(part, value).items():
                    side.setdefault(name, {})[digest] = None
    known = [{name.partition(".")[0] for name in side} for side in sides]
    for word, parts, other_parts in (("earlier", *known), ("later", *reversed(known))):
        if missing := [part for part in MADE_OF if part in other_parts - parts]:
            notes.append(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not recorded in the {word} report")
    incomparable = known[0] ^ known[1]
    codes = [list(side.get("code", {})) for side in sides]
    kinds = [{_code_kind(code) for code in side} for side in codes]
    if all(kinds) and not kinds[0] & kinds[1]:
        described = [
            f"{' and '.join(sorted(kind))} in the {word} ({', '.join(code[:SHORT] for code in side[:3])})"
            for kind, word, side in zip(kinds, ("earlier report", "later"), codes, strict=True)
        ]
        notes.append(f"code is {' and '.join(described)}")
        incomparable.add("code")
    return {
        name: (sorted(sides[0].get(name, {})), sorted(sides[1].get(name, {})))
        for name in {**sides[0], **sides[1]}
        if sides[0].get(name, {}).keys() != sides[1].get(name, {}).keys() and name.partition(".")[0] not in incomparable
    }


def _split_hashes(name: str, value: str) -> dict[str, str]:
    """Map each part to its hash: data has several, as JSON; an unknown one is left out."""
    if value == UNSAID:
        return {}
    if name != "data" or not value.startswith("{"):
        return {name: value} if value else {}
    return {f"data.{key}": str(digest) for key, digest in json.loads(value).items()}


def _code_kind(code: str) -> str:
    return "git's commit" if COMMIT.fullmatch(code) else "the package's fingerprint"
