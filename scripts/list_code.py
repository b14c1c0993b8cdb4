"""Adds this state of the code to research/runs/known_code.txt: its numbers are those of before, but for numbers.CHANGES.

    python scripts/list_code.py

Run it after a change in a room that computes, when tests/integration/test_head.py has passed; a change that gives
other numbers needs an entry in research.runs.changes.CHANGES first.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from research.runs.numbers import CHANGES, LIST, code_fingerprint, known_code

if code_fingerprint() not in known_code():
    with open(LIST, "a", encoding="utf-8") as stream:
        stream.write(f"{code_fingerprint()} {len(CHANGES)}\n")
print(f"{code_fingerprint()}: {len(CHANGES)} changes of numbers")
