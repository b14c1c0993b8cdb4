"""The folder of a sweep: where it is, and whose."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from research.errors import UserError
from research.progress import say
from research.runs.files import atomic_write, write_json
from research.runs.folder import sweep_owner
from research.runs.hashes import hash_file
from research.runs.identity import PLACE
from research.runs.layout import SWEEP
from research.runs.ledger import Ledger
from research.runs.locks import locked
from research.runs.plan import PlannedPoint, points_so_far
from research.sweeps.command import Point, ours
from research.sweeps.configs import NOTED, keep, kept, typed, typed_words
from research.sweeps.sampling import sampled_points
from research.sweeps.spec import COPY, Sweep

LOCK = "sweep.lock"


def folder_of(sweep: Sweep) -> Path:
    """Return where a sweep's points lie: what --out of its command says before {point}; else runs/sweeps/NAME."""
    arguments = sweep.argv_of({})
    if (ours(arguments) or [""])[0] != "fit":
        return Path("runs/sweeps") / sweep.name
    places = [value for flag, value in itertools.pairwise(arguments) if flag == "--out"]
    places += [argument.partition("=")[2] for argument in arguments if argument.startswith("--out=")]
    if not places or not places[-1].endswith(f"/{PLACE}"):
        what = f"--out {places[-1]}" if places else "no --out"
        raise UserError(
            f"{sweep.path}: the command has {what}; expected a folder for each point: --out "
            f"runs/sweeps/{sweep.name}/{PLACE}. Correct it."
        )
    return Path(places[-1].removesuffix(f"/{PLACE}"))


@contextlib.contextmanager
def claimed(folder: Path, sweep: Sweep, seed: int) -> Iterator[None]:
    """Note whose folder it is, and write into it: of two sweeps that come at once the second sees the first.

    Raises:
        UserError: as refuse_other_sweep.
    """
    with locked(folder / LOCK):
        refuse_other_sweep(folder, sweep, seed)
        copy = folder / COPY
        is_copy = sweep.path.resolve() == copy.resolve()
        if is_copy and sweep_owner(folder).get("file") not in (None, str(copy.resolve())):  # the owner's file says more
            yield
            return
        write_json(
            folder / SWEEP,
            {
                "name": sweep.name,
                "method": sweep.method,
                "content": sweep.content,
                "varied": sweep.varied,
                "overlay": list(sweep.overlay),
                "file": str(sweep.path.resolve()),
                "source": hash_file(sweep.path),
                NOTED: keep(sweep, folder),
            },
        )
        if not is_copy:
            with atomic_write(copy) as stream:
                stream.write(kept(sweep, folder).text)
        yield


def say_file_changed(sweep: Sweep) -> None:
    """Say that a sweep that is read from its folder is not what the file says now that it was planned from."""
    folder, owner = sweep.path.parent, sweep_owner(sweep.path.parent)
    file = Path(str(owner.get("file")))
    if sweep.path.name != COPY or not file.is_file() or owner.get("source") in (None, hash_file(file)):
        return
    file = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    words = [f"--set {word[2:]}" if word.startswith("--") else word for word in owner.get("overlay", [])]
    more = [*words, f"--name {owner['name']} --out {folder}"] if words else []
    say(
        f"note: {file} has changed since {folder} was planned from it, and the folder's copy is what is used; to take what it "
        f"says now: {' '.join(['research sweep plan', str(file), *more])}"
    )


def refuse_other_sweep(folder: Path, sweep: Sweep, seed: int) -> None:
    """Refuse a folder of another sweep.

    Raises:
        UserError: it is one: that sweep's plan and ledger would be mixed with this one's.
    """
    owner, sweep = sweep_owner(folder), typed(sweep, folder)
    if (name := owner.get("name")) is None:
        return
    if (before := owner.get("overlay", [])) != list(sweep.overlay) and owner.get("content") != sweep.content:
        theirs, ours = (" ".join(settings) or "the options of its file alone" for settings in (before, sweep.overlay))
        raise UserError(
            f"{folder} holds the points of {name} with {theirs}, and {sweep.path} comes with {ours}; expected a folder "
            "each. Pass another --out or --name, or those options."
        )
    if name != sweep.name:
        raise UserError(
            f"{folder} is the folder of the sweep {name}, and {sweep.path} is {sweep.name}; expected a folder "
            "each. Change --out in its command."
        )
    if not _is_same(folder, owner, sweep, seed):
        earlier = points_so_far(folder)
        file = f" ({owner['file']})" if owner.get("file") else ""
        points = f", whose first point is {as_text(earlier[0].values)}" if earlier else ""
        raise UserError(
            f"{folder} is the folder of another sweep called {name}{file}{points}; {sweep.path} sweeps something "
            "else; expected a folder each. Give it another name (and another --out in its command), or move that "
            "folder."
        )


def _is_same(folder: Path, owner: dict, sweep: Sweep, seed: int) -> bool:
    """Return whether a sweep of the folder's name is the folder's sweep: the same, an edit of its file, or an extension."""
    content = owner.get("content")
    if content == sweep.content:
        return True
    earlier = points_so_far(folder)
    if content is not None:
        if (owner.get("method") == "bayes") != sweep.is_searched:
            return False
        axes, before = {*sweep.varied}, {*owner.get("varied", [])}
        if owner.get("file") == str(sweep.path.resolve()) and (axes & before or not axes or not before):
            return True
    if not earlier:  # a folder of before, where nothing was planned yet, or a search that has not begun
        return content is None
    if sweep.is_searched:
        return content is None and all("draw" in planned.facts for planned in earlier)  # search.key says the rest
    # elsewhere, or of an earlier version, which has noted its name alone: the points tell, of this version with their commands
    if content is None:
        theirs = {json.dumps(planned.values, sort_keys=True) for planned in earlier}
        mine = {json.dumps(values, sort_keys=True) for values in sampled_points(sweep, seed)}
    else:
        theirs = {json.dumps(typed_words(planned.argv, folder)) for planned in earlier}
        mine = {json.dumps(sweep.argv_of(values)) for values in sampled_points(sweep, seed)}
    return theirs <= mine or mine <= theirs


def with_earlier_ids(folder: Path, points: list[PlannedPoint]) -> list[PlannedPoint]:
    """Return points with the ids by which this folder knows them: those of an earlier version, where it began them."""
    begun = {event["point"] for event in Ledger(folder).events()}
    begun |= {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [
        planned._replace(point=next((name for name in known_ids(planned.point, planned.facts) if name in begun), planned.point))
        for planned in points
    ]


def known_ids(point: str, facts: dict) -> list[str]:
    """List a point's id, and those that earlier versions gave it."""
    return [point, *facts.get("former", [])]


def as_text(values: Point) -> str:
    """Write a point as a user reads it."""
    settings = (f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items())
    return " ".join(settings) or "the only point"
