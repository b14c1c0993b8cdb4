"""What the tasks of one submission read, and how points are numbered."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from research.runs.files import atomic_write
from research.runs.plan import FILE as PLAN


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


def submission(name: str, file: Path, folder: Path, seed: int, write: bool = True) -> Submission:
    """Keep a copy of the sweep and its plan for the tasks of a submission.

    Args:
        name, file, folder, seed: of the sweep.
        write: False names the places only.
    """
    n = 1
    while (place := folder / "submit" / str(n)).exists():
        n += 1
    copies = Submission(name, place / Path(file).name, place / PLAN, folder, seed)
    for source, copy in ((Path(file), copies.file), (folder / PLAN, copies.plan)) if write else ():
        if source.exists():  # a search has no plan yet
            with atomic_write(copy) as stream:
                stream.write(source.read_text(encoding="utf-8"))
    return copies


def ranges(numbers: Iterable[int]) -> str:
    """0-3,7 of 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def numbers(text: str) -> list[int]:
    """0, 1, 2, 3, 7 of 0-3,7."""
    pairs = [part.partition("-") for part in text.split(",")]
    return [n for a, _, b in pairs for n in range(int(a), int(b or a) + 1)]
