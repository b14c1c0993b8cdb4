"""Hashes of what a run is made from: values, texts, files."""

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from research.types import Json


def hash_json(value: Json) -> str:
    """Hash a JSON-able value by sha256; dict order does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def hash_strings(strings: Iterable[str]) -> str:
    """Hash a sequence of strings by sha256; lengths are hashed too, so ["ab", "c"] differs from ["a", "bc"]."""
    digest = hashlib.sha256()
    for string in strings:
        data = string.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, remembered while the file stays as it is."""
    facts = os.stat(path)
    return _hash_of(os.path.realpath(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.lru_cache(maxsize=256)
def _hash_of(path: str, *_unchanged: int) -> str:
    """Hash a file once a process, as long as it is the same: a sweep's points share half a gigabyte of weights."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
