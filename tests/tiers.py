"""Which tests `--quick` runs: all but those marked `thorough`; of a family marked `sample(n)` n cases, chosen by the commit.

Every commit draws others, so that a family is seen whole in the course of time; `scripts/test.sh --all` runs everything.
"""

import functools
import hashlib
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@functools.cache
def commit() -> str:
    """The commit that is tested; empty outside a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def sample(names: Iterable[str], count: int, seed: str) -> set[str]:
    """`count` of the names (all, where there are fewer): another draw for another seed."""
    return {*sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:count]}


def left_out(items: list[pytest.Item], seed: str) -> list[pytest.Item]:
    """What `--quick` does not run."""
    families = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sample") and not item.get_closest_marker("slow"):
            families[_family(item)].append(item)
    drawn: set[str] = set()
    for some in families.values():
        drawn |= sample([item.nodeid for item in some], some[0].get_closest_marker("sample").args[0], seed)
    return [
        item
        for item in items
        if item.get_closest_marker("thorough") or (item.get_closest_marker("sample") and item.nodeid not in drawn)
    ]


def _family(item: pytest.Item) -> str:
    """The test function, whatever its parameters."""
    return item.nodeid.partition("[")[0]
