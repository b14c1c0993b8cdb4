"""Adds this state of the code to research/runs/known_code.txt: its numbers are those of before, but for CHANGES.

    python scripts/list_code.py

The line is a promise by which old runs stay done and are averaged with new ones, and nothing here can check it. Before:

1. the change of the rooms that compute is committed, so that the state that is listed can be found again; with
   uncommitted changes there, or without git, the script refuses;
2. tests/integration/test_head.py passes: it trains what earlier states trained, and compares the numbers;
3. a change that gives other numbers has its entry in research.runs.changes.CHANGES, which says for which configurations.
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from research.runs.changes import CHANGES
from research.runs.fingerprint import PACKAGE, TRAINERS, code_fingerprint, reached_files
from research.runs.known_code import LIST, known_code


def uncommitted() -> list[str]:
    """Changed and new files of those that compute, as git names them.

    Raises:
        OSError, subprocess.CalledProcessError: there is no git, or no repository.
    """
    command = ["git", "status", "--porcelain", "--untracked-files=all", "--", *map(str, reached_files())]
    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=True)
    return [line[3:] for line in done.stdout.splitlines()]


def main() -> int:
    states = {trainer: code_fingerprint(*classes) for trainer, classes in TRAINERS.items()}
    if new := {trainer: state for trainer, state in states.items() if state not in known_code()}:
        try:
            changed = [name for name in uncommitted() if name.strip('"').endswith(".py")]
        except (OSError, subprocess.CalledProcessError) as error:
            print(
                f"error: git does not say whether this code is committed ({error}); expected a clone of the repository. "
                "Nothing was listed.",
                file=sys.stderr,
            )
            return 2
        if changed:
            print(
                f"error: {len(changed)} files of rooms that compute are not committed ({', '.join(changed[:3])}); expected "
                "the state that others will have. Commit or undo them; nothing was listed.",
                file=sys.stderr,
            )
            return 2
        with open(LIST, "a", encoding="utf-8") as stream:
            stream.writelines(f"{state} {len(CHANGES)} {trainer}\n" for trainer, state in new.items())
    for trainer, state in states.items():
        print(f"{state} {len(CHANGES)} {trainer}" + (" (new)" if trainer in new else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
