"""A file of mined triplets and the facts beside it: `negatives.jsonl` and `negatives.jsonl.json`."""

import json
import tempfile
from pathlib import Path

from research.errors import UserError
from research.runs.disk import disk_error, require_space
from research.runs.hashes import hash_file
from research.runs.reading import read_json


def sidecar(triplets: Path) -> Path:
    """Name the file where `mine` writes what a triplets file was made from."""
    return triplets.with_name(f"{triplets.name}.json")


def mined_from(triplets: Path) -> tuple[str | None, str | None]:
    """Read the source and split that a triplets file was mined from; None where no facts lie beside it."""
    try:
        facts = json.loads(sidecar(triplets).read_text(encoding="utf-8"))
        return str(facts["source"]), str(facts["split"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def open_out(out: Path, source: str, split: str) -> dict:
    """Check the path of a triplets file, and read what an earlier `mine` wrote beside it; {} if the file is new.

    Raises:
        UserError: no file of triplets, one that is not ours to replace, or a place that cannot be written.
    """
    if out.is_dir() or out.suffix != ".jsonl":
        wrong, better = ("is a folder", out / "negatives.jsonl") if out.is_dir() else ("does not end in .jsonl", f"{out}.jsonl")
        raise UserError(f"--out {out} {wrong}; expected a file of triplets. Name another, {better} for example.")
    facts: dict = {}
    if sidecar(out).exists():
        facts = read_json(sidecar(out))
        if not isinstance(facts, dict) or facts.get("verb") != "mine" or not {"key", "sha256", "counts"} <= facts.keys():
            raise UserError(
                f"{sidecar(out)} is not one that `research mine` wrote; expected the facts of {out.name}. Nothing "
                "was touched: name another --out, or delete both."
            )
        if [facts.get("source"), facts.get("split")] != [source, split]:
            raise UserError(
                f"--out {out} was mined from {facts.get('source')} split {facts.get('split')}, expected "
                f"{source} split {split}; nothing was touched. Name another file, or delete this one."
            )
        if facts["sha256"] and out.exists() and hash_file(out) != facts["sha256"]:
            raise UserError(
                f"--out {out} was changed since it was mined, expected sha256 {facts['sha256'][:12]}…; nothing "
                "was touched. Name another file, or delete this one."
            )
    elif out.exists():
        raise UserError(
            f"--out {out} exists, but not the {sidecar(out).name} that `research mine` writes beside its files, "
            "expected with it; nothing was touched. Name another file."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise disk_error(error, out) from error
    require_space(out.parent, 2**20, "a file of negatives")
    return facts
