"""What a quickstart notes in its folder, so that it resumes where it stopped and never mixes two sizes."""

from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.quickstart.plan import Sizes, Speed
from research.runs.files import write_json
from research.runs.layout import leftover
from research.runs.reading import read_json

FILE = "quickstart.json"


class State(NamedTuple):
    """A quickstart that has begun.

    Attributes:
        minutes: that it was sized to; None for --full.
        speed: of the machine that planned it.
        plan: the sizes at its start.
        sizes: step that has begun → its sizes.
        seconds: step that is finished → what it took.
        cpu_seconds: the same of all its threads.
    """

    minutes: float | None
    speed: Speed
    plan: Sizes
    sizes: dict[str, Sizes]
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]

    def write(self, out: Path) -> None:
        """Write the state into the quickstart's folder."""
        values = self._asdict() | {"speed": self.speed._asdict(), "plan": self.plan._asdict()}
        values["sizes"] = {name: sizes._asdict() for name, sizes in self.sizes.items()}
        write_json(out / FILE, values)


def read_state(out: Path, minutes: float | None, typed: str) -> State | None:
    """Read what an earlier quickstart of the same size left in `out`; None if there is none.

    Args:
        out: the quickstart's folder.
        minutes: that are asked for; None for --full.
        typed: the option as users type it.

    Raises:
        UserError: the folder holds a quickstart of another size, or files of something else.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a directory. Name another folder.")
    if not (out / FILE).exists():
        others = [path.name for path in out.iterdir() if not leftover(path)] if out.is_dir() else []
        if others and minutes is not None:  # earlier versions wrote no state: --full resumes there too
            raise UserError(
                f"--out {out} holds files of something else ({others[0]}); expected an empty folder, or a quickstart of the "
                "same size. Nothing was touched. Name another --out, or delete the folder."
            )
        return None
    values = read_json(out / FILE)
    try:
        sizes = {name: Sizes(**fields) for name, fields in values["sizes"].items()}
        values = values | {"speed": Speed(**values["speed"]), "plan": Sizes(**values["plan"]), "sizes": sizes}
        state = State(**values)
    except (TypeError, KeyError, AttributeError):
        raise UserError(
            f"{out / FILE} is not one this tool wrote; expected the plan of a quickstart. Delete {out}, or name another --out."
        ) from None
    if state.minutes != minutes:
        raise UserError(
            f"{typed}: {out} holds a quickstart of {option(state.minutes)}, whose numbers would mix with these; expected the "
            f"same size. Nothing was touched. Pass {option(state.minutes)} to go on with it, or name another --out."
        )
    return state


def option(minutes: float | None) -> str:
    """Return the option that asks for a size."""
    return "--full" if minutes is None else f"--minutes {minutes:g}"
