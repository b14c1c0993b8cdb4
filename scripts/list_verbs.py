"""Writes docs/reference/verbs.md: what `research VERB --help` prints, for each verb and each step of a sweep.

python scripts/list_verbs.py
"""

import contextlib
import io
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from research import cli

PAGE = Path(__file__).parents[1] / "docs/reference/verbs.md"
STEPS = ("compile", "plan", "run", "submit", "status")
HEAD = """# Verbs

What `research VERB --help` prints. A configuration's own options and values: `research fit -c CONFIG --help`.
Results go to stdout, progress to stderr. Exit codes: 0 done, 1 a bug or a check that did not hold, 2 wrong input,
3 a training that diverged, 85 preempted (run it again), 130 interrupted.

(Made by `scripts/list_verbs.py`.)
"""


def page() -> str:
    """The page, at a width of 100 columns."""
    sections = [HEAD]
    for verb in cli.VERBS:
        sections.append(f"## {verb}\n\n```text\n{_help(verb)}```\n")
        sections += [f"### sweep {step}\n\n```text\n{_help(verb, step)}```\n" for step in STEPS if verb == "sweep"]
    return "\n".join(sections)


def _help(*words: str) -> str:
    """What the help prints; ends with a line break."""
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "100"
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            cli.main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return printed.getvalue().strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
