"""The configurations that a sweep's command names, kept in its folder: no later edit of the user's files changes its points.

A copy has its content's hash in its name, so that none is ever changed: what was submitted trains what was submitted, whatever
becomes of the user's file. `sweep.json` notes whose copy each is; ids and hashes of a sweep are those of the names as typed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from research.errors import UserError
from research.runs.files import atomic_write
from research.runs.folder import sweep_owner
from research.runs.hashes import hash_file
from research.runs.layout import PROVENANCE
from research.runs.ledger import Ledger
from research.runs.options import flat
from research.runs.plan import WRITTEN, PlannedPoint, points_so_far
from research.sweeps.command import ours
from research.sweeps.spec import Sweep
from research.types import Json

PLACE, NOTED = "config", "copies"  # the copies' folder; in sweep.json: name of a copy → the file as typed
DIGITS, LISTED = 8, 4


def kept(sweep: Sweep, folder: Path) -> Sweep:
    """Return the sweep with a command that names the copies in its folder, as workers and clusters read it."""
    command = _renamed(sweep.command, lambda path: str(_copy(folder, path)))
    if command == list(sweep.command):
        return sweep
    facts = sweep.facts | {"command": command}
    head = "".join(line for line in sweep.text.splitlines(keepends=True) if line.startswith("#"))
    text = head + yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=120)
    return sweep._replace(command=tuple(command), facts=facts, text=text)


def typed(sweep: Sweep, folder: Path) -> Sweep:
    """Return the sweep with a command that names the files as the user did, where it is a copy in its folder."""
    names = _noted(folder)
    command = _renamed(sweep.command, lambda path: names.get(path.name, str(path)) if _is_copy(folder, path) else str(path))
    return sweep._replace(command=tuple(command), facts=sweep.facts | {"command": command}) if names else sweep


def keep(sweep: Sweep, folder: Path) -> dict[str, str]:
    """Write copies of the configurations; return the name of each copy → the file as typed, those of before first."""
    names = _noted(folder)
    for path in configs_of(sweep.command):
        copy = _copy(folder, path)
        if copy == path:
            continue
        names.pop(copy.name, None)  # the last one that is noted of a file is the one of now
        names[copy.name] = str(path)
        if not copy.exists():
            with atomic_write(copy, "wb") as stream:
                stream.write(path.read_bytes())
    return names


def kept_points(points: list[PlannedPoint], sweep: Sweep, folder: Path) -> list[PlannedPoint]:
    """Return points whose commands name the copies, as that of the sweep that is kept does."""
    if not _is_fit(sweep.command):
        return points

    def renamed(words: list[str]) -> list[str]:
        return _renamed(words, lambda path: str(_copy(folder, path)))

    kept = (planned._replace(argv=renamed(planned.argv)) for planned in points)
    return [
        planned._replace(facts=planned.facts | {WRITTEN: renamed(planned.facts[WRITTEN])})
        if WRITTEN in planned.facts
        else planned
        for planned in kept
    ]


def typed_words(words: Sequence[str], folder: Path) -> list[str]:
    """Return a command with the names as typed in place of those of the copies."""
    names = _noted(folder)
    return _renamed(words, lambda path: names.get(path.name, str(path)))


def configs_of(command: Sequence[str]) -> list[Path]:
    """List the configurations that a command of `fit` names, as far as they are files; of a foreign one its YAML files."""
    if not _is_fit(command):
        return [Path(word) for word in command if word.endswith((".yaml", ".yml")) and Path(word).is_file()]
    return [Path(path) for _, _, path in _places(command) if Path(path).is_file()]


def changes(sweep: Sweep, folder: Path) -> list[str]:
    """Describe the configurations that have changed since the folder's points were planned: `a.yaml (lr 0.1 → 0.2)`."""
    last = {file: folder / PLACE / name for name, file in _noted(folder).items()}
    told = []
    for path in configs_of(sweep.command):
        copy = last.get(str(path))
        if copy is not None and copy.is_file() and copy.name != _copy(folder, path).name:
            before, now = (_options(file) for file in (copy, path))
            different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            shown = [f"{name} {_shown(before, name)} → {_shown(now, name)}" for name in different[:LISTED]]
            more = [f"{len(different) - LISTED} more"] if len(different) > LISTED else []
            told.append(f"{path} ({', '.join([*shown, *more]) or 'its layout alone'})")
    return told


def refuse_changed(sweep: Sweep, folder: Path, points: Iterable[PlannedPoint]) -> None:
    """Refuse configurations that were edited since points of the folder were begun, and make other points of them.

    Args:
        sweep: with the names as typed.
        folder: of it.
        points: as they would be planned now.

    Raises:
        UserError: points are begun that would be none of the sweep's any more.
    """
    if not (told := changes(sweep, folder)):
        return
    known = {event["point"] for event in Ledger(folder).events()}
    begun = [planned.point for planned in points_so_far(folder) if planned.point in known or (folder / planned.point).exists()]
    now = {planned.point for planned in points}
    if lost := [point for point in begun if point not in now]:
        raise UserError(
            f"{'; '.join(told)} changed since the points of {folder} were planned, and {len(lost)} of them "
            f"{'is' if len(lost) == 1 else 'are'} begun with what was there before; expected the same for all points of a "
            f"folder. Put it back (the copy is in {folder / PLACE}), or pass another --name or --out."
        )


def _options(path: Path) -> dict[str, Json]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError):  # `fit` says what is wrong with it
        return {}
    return flat(value) if isinstance(value, dict) else {}


def _shown(options: dict[str, Json], name: str) -> str:
    return str(options[name])[:60] if name in options else "nothing"


def _noted(folder: Path) -> dict[str, str]:
    names = sweep_owner(folder).get(NOTED)
    return {str(name): str(file) for name, file in names.items()} if isinstance(names, dict) else {}


def _copy(folder: Path, path: Path) -> Path:
    """Return where the copy of a file belongs; the file itself where it is one, or lies in a run folder, which keeps it."""
    if not path.is_file() or _is_copy(folder, path) or (path.parent / PROVENANCE).exists():
        return path
    return folder / PLACE / f"{path.stem}-{hash_file(path)[:DIGITS]}{path.suffix}"


def _is_copy(folder: Path, path: Path) -> bool:
    return path.parent.name == PLACE and path.parent.resolve() == (folder / PLACE).resolve()


def _is_fit(command: Sequence[str]) -> bool:
    words = [word for word in command if word != "${env}"]
    return (ours(["python" if word == "${interpreter}" else word for word in words]) or [""])[0] == "fit"


def _places(command: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield the configurations of a command: the number of the word, what stands before the path in it, and the path."""
    for i, word in enumerate(command):
        name, equals, path = word.partition("=")
        if name in ("-c", "--config") and equals:
            yield i, f"{name}=", path
        elif i and command[i - 1] in ("-c", "--config"):
            yield i, "", word


def _renamed(command: Sequence[str], rename: Callable[[Path], str]) -> list[str]:
    words = list(command)
    if _is_fit(command):
        for i, before, path in _places(command):
            words[i] = before + rename(Path(path))
    return words
