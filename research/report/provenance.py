"""Where a run's numbers came from, in words: the same for a page's sections and its explorer."""

import shlex


def facts(provenance: dict) -> list[tuple[str, str, bool]]:
    """(name, value, is it code) of where a run's numbers came from, in the order of asking.

    Args:
        provenance: as a run folder of any verb has it.
    """
    facts = _as_run(provenance) if "made_of" in provenance and "verb" not in provenance else provenance
    commit = facts.get("git_commit")
    state = {True: " with uncommitted changes", False: "", None: ""}[facts.get("git_dirty")]
    packages = ", ".join(f"{name} {version}" for name, version in (facts.get("packages") or {}).items() if version)
    models = ", ".join(f"{name} {value}" for name, value in (facts.get("models") or {}).items() if value)
    seconds = facts.get("seconds")
    code = [("Code, sha256", facts.get("fingerprint") or "", True)]  # of W&B's runs, whose commit it does not say
    if "git_commit" in facts:
        code = [("Git commit", commit + state if commit else "none: not run from a git repository", bool(commit))]
    processors = f"{facts['cpus']} processors" if facts.get("cpus") else ""
    machine = ", ".join(filter(None, (facts.get("host"), facts.get("platform"), processors)))
    found = [
        ("Command", shlex.join(facts.get("command") or []), True),
        ("Started", facts.get("started", ""), False),
        ("Finished", facts.get("time", ""), False),
        ("Took", f"{seconds:,.1f} s" if seconds is not None else "", False),
        *code,
        ("Data, sha256", facts.get("data") or "", True),
        ("Model, sha256", models, True),
        ("Packages", packages, False),
        ("Python", facts.get("python", ""), False),
        ("Machine", machine, False),
    ]
    return [entry for entry in found if entry[1]]


def _as_run(facts: dict) -> dict:
    """A training's provenance under the names of a retrieval's; its time is that of the start."""
    data = facts.get("data") if isinstance(facts.get("data"), dict) else {}
    hashes = ", ".join(f"{name} {value}" for name, value in data.items() if isinstance(value, str))
    return {**facts, "data": hashes, "models": {"base": facts.get("model_hash")}, "started": facts.get("time", ""), "time": ""}
