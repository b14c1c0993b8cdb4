"""Which runs have the numbers that this code would give them.

A run remembers the fingerprint of the code that computed it. Of every state of this code that was published, known_code.txt
has the fingerprint of each trainer and how many of the CHANGES it held: between two such states a run's numbers differ where
a change touches its configuration, and nowhere else (tests/integration/test_head.py trains what earlier states trained).
Code with a fingerprint that is not listed is somebody's own: nothing is known of its numbers, and it stays apart.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from research.runs.base_model import option, placed
from research.runs.changes import CHANGES, COUNTED
from research.runs.fingerprint import counted_since, fingerprint

LIST = Path(__file__).with_name("known_code.txt")


@functools.cache
def known_code() -> dict[str, int]:
    """Map the fingerprint of each published state to how many of CHANGES it held."""
    lines = (line.split() for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {fingerprint: int(count) for fingerprint, count, *_ in lines}


def held_by(fingerprint: str | None) -> int | None:
    """Return how many of CHANGES the code with this fingerprint held; None of code that was not published."""
    return known_code().get((fingerprint or "").partition("+")[0])


def fingerprints_of(provenance: dict) -> list[str | None]:
    """Return the fingerprints of all code that computed a part of a run, also of that which began it."""
    return [provenance.get("fingerprint"), *(provenance.get("earlier_fingerprints") or [])]


def stale_because(
    fingerprints: Iterable[str | None], config: dict, run: Path | None = None, data: tuple[dict, dict] | None = None
) -> str:
    """Return why a run does not have the numbers that this code would give it; "" where it has them.

    Args:
        fingerprints: of the code that computed it; several where another one went on with it.
        config: its resolved configuration.
        run: its folder, from which relative paths of the configuration are found.
        data: the data's facts as the run has noted them, and as they are counted now.
    """
    computed_by, now = {*fingerprints}, fingerprint(config)
    if computed_by == {now}:
        return ""
    published, published_now = [held_by(code) for code in computed_by], held_by(now)
    if published_now is None or None in published or not _have_same_classes(computed_by | {now}):
        if packages := counted_since(computed_by, config):
            return f"it was done before what your classes import from {', '.join(packages)} was noted"
        return f"it was done by other code than this ({', '.join(sorted(map(str, computed_by - {now})))})"
    config = placed(config, run)
    touched = {change: change.touches(config) for change in CHANGES[min(published) : published_now]}
    reasons = [change.what for change, touches in touched.items() if touches]
    then, today = data or ({}, {})
    reasons += [what for fact, what in COUNTED.items() if today.get(fact) and fact not in then]
    if None in touched.values():
        reasons.append(
            f"its base model {option(config, 'model.model')} is not here, which says whether a mend has changed its numbers"
        )
    return "; ".join(reasons)


def numbers_key(fingerprints: Iterable[str | None], config: dict, run: Path | None = None) -> str:
    """Return a text that is equal for runs of one configuration whose numbers may be averaged, whichever code computed them."""
    computed_by = {*fingerprints} - {None, ""}
    published = {held_by(code) for code in computed_by}
    if not computed_by or None in published or not _have_same_classes(computed_by):
        return " ".join(sorted(map(str, computed_by)))
    config = placed(config, run)
    touched = [(change.name, change.touches(config)) for change in CHANGES[: max(published)]]
    change_names = ["" if touches is False else name if touches else f"{name}?" for name, touches in touched]
    names = [" ".join(filter(None, change_names[:count])) for count in sorted(published)]
    users_classes = " ".join({code.partition("+")[2] for code in computed_by if "+" in code})
    return f"known: {' / '.join(dict.fromkeys(names))}" + (f" with {users_classes}" if users_classes else "")


def _have_same_classes(fingerprints: Iterable[str | None]) -> bool:
    """Return whether the user's own classes are the same in all; older runs did not record them."""
    return len({(code or "").partition("+")[2] for code in fingerprints} - {""}) <= 1
