"""Where a run's numbers came from, in words: the same for a page's sections and its explorer."""

import shlex

from research.types import Json

UNKNOWN = "unknown"


def facts(provenance: dict[str, Json]) -> list[tuple[str, str, bool]]:
    """List (name, value, is it code) of where a run's numbers came from, in the order of asking; "unknown" if not recorded.

    Args:
        provenance: as a run folder of any verb has it; {} of a point that was never begun.
    """
    if not provenance:
        return []
    facts = _as_run(provenance) if "made_of" in provenance and "verb" not in provenance else provenance
    commit, seconds = facts.get("git_commit"), facts.get("seconds")
    packages = ", ".join(f"{name} {version}" for name, version in (facts.get("packages") or {}).items() if version)
    models = ", ".join(f"{name} {value}" for name, value in (facts.get("models") or {}).items() if value)
    if "models" in facts and not facts["models"]:
        models = "none"
    outside = "git_commit" in facts and commit is None
    processors = f"{facts['cpus']} processors" if facts.get("cpus") else ""
    asked = [
        ("Command", shlex.join(facts.get("command") or []), True),
        ("Git commit", "none: not run from a git repository" if outside else _commit(facts), not outside),
        ("Code, sha256", facts.get("fingerprint"), True),
        ("Data, sha256", facts.get("data"), True),
        ("Model, sha256", models, True),
        ("Packages", packages, False),
        ("Python", facts.get("python"), False),
        ("Device", facts.get("device"), False),
        ("Machine", ", ".join(filter(None, (facts.get("host"), facts.get("platform"), processors))), False),
    ]
    times = [
        ("Started", facts.get("started", ""), False),
        ("Finished", facts.get("time", ""), False),
        ("Took", f"{seconds:,.1f} s" if seconds is not None else "", False),
        ("Seed", "" if facts.get("seed") is None else str(facts["seed"]), False),
    ]
    # the other verbs do not note a fingerprint, their code is the commit's; W&B holds little, and is not asked for the rest
    known = [row for row in asked if row[1] or ("command" in facts and not (row[0] == "Code, sha256" and "verb" in facts))]
    return [(name, str(value or UNKNOWN), code and bool(value)) for name, value, code in known] + [
        row for row in times if row[1]
    ]


def _commit(facts: dict[str, Json]) -> str:
    commit = facts.get("git_commit") or ""
    return f"{commit} with uncommitted changes" if commit and facts.get("git_dirty") else commit


def _as_run(facts: dict[str, Json]) -> dict[str, Json]:
    """Return a training's provenance under the names of a retrieval's; its time is that of the start."""
    data = facts.get("data") if isinstance(facts.get("data"), dict) else {}
    hashes = ", ".join(f"{name} {value}" for name, value in data.items() if isinstance(value, str))
    return {**facts, "data": hashes, "models": {"base": facts.get("model_hash")}, "started": facts.get("time", ""), "time": ""}
