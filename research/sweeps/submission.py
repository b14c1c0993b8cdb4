"""What the tasks of one submission read, and how points are numbered."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from research.runs.files import atomic_write
from research.runs.plan import FILE as PLAN
from research.sweeps.configs import kept
from research.sweeps.folder import folder_of
from research.sweeps.spec import Sweep


class Submission(NamedTuple):
    """What the tasks of one submission read, whatever becomes of the sweep's file and its plan in the meantime.

    Attributes:
        name: of the sweep.
        file: a copy of its YAML.
        plan: a copy of its points.
        folder: of the sweep.
        seed: of its draws.
    """

    name: str
    file: Path
    plan: Path
    folder: Path
    seed: int


def submission(sweep: Sweep, folder: Path, seed: int, write: bool = True) -> Submission:
    """Keep a copy of the sweep and its plan for the tasks of a submission.

    Args:
        sweep: see spec.
        folder: of it.
        seed: of its draws.
        write: False names the places only.
    """
    n = 1
    while (place := folder / "submit" / str(n)).exists():
        n += 1
    copies = Submission(sweep.name, place / sweep.path.name, place / PLAN, folder, seed)
    if not write:
        return copies
    with atomic_write(copies.file) as stream:
        stream.write(kept(sweep, folder_of(sweep)).text)
    if (folder / PLAN).exists():  # a search has no plan yet
        with atomic_write(copies.plan) as stream:
            stream.write((folder / PLAN).read_text(encoding="utf-8"))
    return copies


def withdraw(copies: Submission) -> None:
    """Remove the copies of a submission that was refused."""
    shutil.rmtree(copies.file.parent)
    for place in (copies.file.parent.parent, copies.folder / "logs"):
        with contextlib.suppress(OSError):  # of earlier ones
            place.rmdir()


def ranges(numbers: Iterable[int]) -> str:
    """Write numbers as ranges: `0-3,7` for 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def numbers(text: str) -> list[int]:
    """Parse ranges: 0, 1, 2, 3, 7 for `0-3,7`."""
    pairs = [part.partition("-") for part in text.split(",")]
    return [n for a, _, b in pairs for n in range(int(a), int(b or a) + 1)]
