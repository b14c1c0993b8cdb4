"""Which runs have the numbers that this code would give them.

A run remembers the fingerprint of the code that computed it. Of every state of this code that was published, known_code.txt
has the fingerprint and how many of the CHANGES it held: between two such states a run's numbers differ where a change
touches its configuration, and nowhere else (tests/integration/test_head.py trains what earlier states trained). Code with
a fingerprint that is not listed is somebody's own: nothing is known of its numbers, and it stays apart.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from research.runs.changes import CHANGES, COUNTED, option, placed
from research.runs.hashes import hash_strings
from research.runs.identity import LENGTH

PACKAGE = Path(__file__).parents[1]
LIST = Path(__file__).with_name("known_code.txt")
COMPUTES = ("losses", "metrics", "models", "data", "retrieval", "training", "prompts.py", "types.py")


@functools.cache
def code_fingerprint() -> str:
    """Hash of the code that computes numbers."""
    parts = [PACKAGE / name for name in COMPUTES]
    return _hash(path for part in parts for path in ([part] if part.is_file() else part.rglob("*.py")))


@functools.cache
def package_fingerprint() -> str:
    """Hash of all of this package's code."""
    return _hash(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js"))


def _hash(paths: Iterable[Path]) -> str:
    texts = (f"{path.relative_to(PACKAGE)}\n{path.read_text(encoding='utf-8')}" for path in sorted(paths))
    return hash_strings(texts)[:LENGTH]


@functools.cache
def known_code() -> dict[str, int]:
    """Fingerprint of a published state → how many of CHANGES it held."""
    lines = (line.split() for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {fingerprint: int(count) for fingerprint, count, *_ in lines}


def fingerprints_of(provenance: dict) -> list[str | None]:
    """Of all code that computed a part of a run: what other code began has its numbers in part."""
    return [provenance.get("fingerprint"), *(provenance.get("earlier_fingerprints") or [])]


def stale_because(
    fingerprints: Iterable[str | None], config: dict, run: Path | None = None, data: tuple[dict, dict] | None = None
) -> str:
    """Why a run does not have the numbers that this code would give it; "" where it has them.

    Args:
        fingerprints: of the code that computed it; several where another one went on with it.
        config: its resolved configuration.
        run: its folder, from which relative paths of the configuration are found.
        data: the data's facts as the run has noted them, and as they are counted now.
    """
    made, now = {*fingerprints}, code_fingerprint()
    if made == {now}:
        return ""
    known = known_code()
    if now not in known or not made <= known.keys():
        return f"it was done by other code than this ({', '.join(sorted(map(str, made - {now})))})"
    config = placed(config, run)
    touched = {change: change.touches(config) for change in CHANGES[min(known[one] for one in made) : known[now]]}
    reasons = [change.what for change, touches in touched.items() if touches]
    then, today = data or ({}, {})
    reasons += [what for fact, what in COUNTED.items() if today.get(fact) and fact not in then]
    if None in touched.values():
        reasons.append(
            f"its base model {option(config, 'model.model')} is not here, which says whether a mend has changed its numbers"
        )
    return "; ".join(reasons)


def numbers_key(fingerprints: Iterable[str | None], config: dict, run: Path | None = None) -> str:
    """Equal for runs of one configuration whose numbers may be averaged, whatever published code computed them."""
    made, known = {*fingerprints} - {None, ""}, known_code()
    if not made or any(one not in known for one in made):
        return " ".join(sorted(map(str, made)))
    config = placed(config, run)
    touched = [(change.name, change.touches(config)) for change in CHANGES[: max(known[one] for one in made)]]
    words = ["" if touches is False else name if touches else f"{name}?" for name, touches in touched]
    held = [" ".join(filter(None, words[:count])) for count in sorted({known[one] for one in made})]
    return f"known: {' / '.join(dict.fromkeys(held))}"
