"""Points of a sweep as its verbs see them: where they lie, which of them are to be run, and which were made by other code."""

import argparse
import contextlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.progress import bar, say
from research.runs.state import is_done, stale_reason
from research.verbs.describing import describe

OWNER, LOCK = "sweep.json", "sweep.lock"  # says whose folder it is


def folder_of(sweep: Any) -> Path:
    """Where a sweep's points lie: what --out of its command says before {point}; else runs/sweeps/NAME."""
    from research.runs.plan import PLACE
    from research.sweeps.command import ours

    words = sweep.argv_of({})
    if (ours(words) or [""])[0] != "fit":
        return Path("runs/sweeps") / sweep.name
    given = [value for flag, value in itertools.pairwise(words) if flag == "--out"]
    given += [word.partition("=")[2] for word in words if word.startswith("--out=")]
    if not given or not given[-1].endswith(f"/{PLACE}"):
        what = f"--out {given[-1]}" if given else "no --out"
        raise UserError(
            f"{sweep.path}: the command has {what}; expected a folder for each point: --out "
            f"runs/sweeps/{sweep.name}/{PLACE}. Correct it."
        )
    return Path(given[-1].removesuffix(f"/{PLACE}"))


def planned_points(args: argparse.Namespace, sweep: Any) -> list:
    """The points, checked: from the plan where it is this sweep's, else planned now; of a search, those so far."""
    from research.runs.plan import is_planned, points_so_far, read_plan, write_plan
    from research.sweeps.plan import plan
    from research.sweeps.search import open_search, refuse_other_search
    from research.verbs.searching import describe_for

    if not sweep.is_exhaustive and not sweep.is_searched:
        raise UserError(
            f"{args.file}: random without run_cap has no end; expected a number of trials. Add run_cap: 24, or "
            "run it by `wandb agent`."
        )
    folder, key = folder_of(sweep), plan_key(args, sweep)
    refuse_other(folder, sweep, args.seed)
    if sweep.is_searched:
        refuse_other_search(folder, sweep, args.seed)
        if points := points_so_far(folder):
            if not _are_current(points):
                raise UserError(
                    f"{folder} holds a search over other data or another model than are there now; expected the "
                    "same, to go on. Give the sweep another name, or move that folder."
                )
            return points
    elif is_planned(folder, key):
        if _are_current(points := read_plan(folder)):
            return points
        say("data or model have changed since the plan: it is made anew, and its points are others")
    points, problems = plan(sweep, describe_for(sweep), args.seed, watched)
    points = as_begun(folder, points)
    if problems:
        raise UserError(f"{args.file}: {len(problems)} points cannot be run, the first: {problems[0].reason}")
    with taken(folder, sweep, args.seed):
        if sweep.is_searched:
            open_search(folder, sweep, args.seed)
            return []  # those were its extremes; its points are proposed one by one
        write_plan(folder, points, key)
    return points


@contextlib.contextmanager
def taken(folder: Path, sweep: Any, seed: int) -> Iterator[None]:
    """Note whose folder it is, and write into it: of two sweeps that come at once the second sees the first.

    Raises:
        UserError: as refuse_other.
    """
    from research.runs.files import write_json
    from research.runs.locks import locked

    with locked(folder / LOCK):
        refuse_other(folder, sweep, seed)
        write_json(
            folder / OWNER,
            {
                "name": sweep.name,
                "method": sweep.method,
                "content": sweep.content,
                "varied": sweep.varied,
                "file": str(sweep.path.resolve()),
            },
        )
        yield


def refuse_other(folder: Path, sweep: Any, seed: int) -> None:
    """
    Raises:
        UserError: the folder is another sweep's, whose plan and ledger would be mixed with this one's.
    """
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        name = owner["name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if name != sweep.name:
        raise UserError(
            f"{folder} is the folder of the sweep {name}, and {sweep.path} is {sweep.name}; expected a folder "
            "each. Change --out in its command."
        )
    if not _is_same(folder, owner, sweep, seed):
        from research.runs.plan import points_so_far
        from research.sweeps.plan import shown

        first = points_so_far(folder)
        other = f" ({owner['file']})" if owner.get("file") else ""
        points = f", whose first point is {shown(first[0].values)}" if first else ""
        raise UserError(
            f"{folder} is the folder of another sweep called {name}{other}{points}; {sweep.path} sweeps something "
            "else; expected a folder each. Give it another name (and another --out in its command), or move that "
            "folder."
        )


def _is_same(folder: Path, owner: dict, sweep: Any, seed: int) -> bool:
    """Whether a sweep of the folder's name is the folder's sweep: the same, an edit of its file, or one that goes further."""
    from research.runs.plan import points_so_far
    from research.sweeps.sampling import points_of

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
        return content is None and all("draw" in one.facts for one in earlier)  # search.key says the rest
    # elsewhere, or of an earlier version, which has noted its name alone: the points tell, of this version with their commands
    as_key = json.dumps
    if content is None:
        theirs = {as_key(one.values, sort_keys=True) for one in earlier}
        mine = {as_key(values, sort_keys=True) for values in points_of(sweep, seed)}
    else:
        theirs = {as_key(one.argv) for one in earlier}
        mine = {as_key(sweep.argv_of(values)) for values in points_of(sweep, seed)}
    return theirs <= mine or mine <= theirs


def as_begun(folder: Path, points: list) -> list:
    """Points by the ids under which this folder knows them: those that an earlier version gave, where it began them."""
    from research.runs.ledger import Ledger

    begun = {event["point"] for event in Ledger(folder).events()}
    begun |= {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [
        one._replace(point=next((old for old in _ids({"point": one.point} | one.facts) if old in begun), one.point))
        for one in points
    ]


def _ids(facts: dict) -> list[str]:
    return [facts["point"], *facts.get("former", [])]


def _are_current(points: list) -> bool:
    """Whether the data and models that a plan was made of are still there: one point of each kind is described again."""
    kinds = {json.dumps([one.facts.get("base_hash"), one.facts.get("data")]): one for one in points if is_fit(one)}
    try:
        return all(one.point in _ids(describe(one.argv)) for one in kinds.values())
    except UserError:
        return False  # planning says what is wrong


def plan_key(args: argparse.Namespace, sweep: Any) -> str:
    """Hash of the sweep, its command as it stands now, the configurations that this names, the seed and the code."""
    from research.runs.fingerprint import package_fingerprint
    from research.runs.hashes import hash_json

    files = [Path(word) for word in sweep.command if word.endswith((".yaml", ".yml")) and Path(word).is_file()]
    command = sweep.argv_of({})  # with the variables of the environment
    texts = [path.read_text(encoding="utf-8") for path in files]
    return hash_json([sweep.facts, command, args.seed, package_fingerprint(), texts])


def tell_again(args: argparse.Namespace, ledger: Any, points: list, folder: Path) -> list:
    """Tell the ledger of the points that are run again because the user asks for it, or because what they made is gone."""
    again = due_again(args, ledger, points, folder)
    for one in again:
        if args.rerun_stale and stale_reason(folder / one.point, one.facts.get("data")):
            _move_aside(folder / one.point)
        ledger.append(one.point, "missing", reason="run again")
    return again


def due_again(args: argparse.Namespace, ledger: Any, points: list, folder: Path) -> list:
    """Those points; nothing is changed."""
    standings = ledger.standings([one.point for one in points])
    reasons = [stale_reason(folder / one.point, one.facts.get("data")) for one in points]
    stale = [one for one, reason in zip(points, reasons, strict=True) if reason]
    if stale and not args.rerun_stale:
        told = "; ".join(dict.fromkeys(filter(None, reasons)))
        say(f"{len(stale)} points are stale ({told}); --rerun-stale runs them again")
    again = stale if args.rerun_stale else []
    ended = [one for one in points if standings[one.point].state in ("done", "pruned")]
    gone = [one for one in ended if is_fit(one) and not is_done(folder / one.point)]
    failed = [one for one in points if standings[one.point].state in ("failed", "killed")] if args.retry else []
    return [*again, *gone, *failed]


def to_do(args: argparse.Namespace, sweep: Any, points: list, folder: Path) -> list[int]:
    """Numbers of the points that are to be run, after the ledger was told of those again; a dry run tells it nothing."""
    from research.runs.ledger import AGAIN, Ledger

    ledger = Ledger(folder)
    tell = due_again if args.dry_run else tell_again
    again = {one.point for one in tell(args, ledger, points, folder)}
    standings = ledger.standings([one.point for one in points])
    return task_numbers(sweep, points, lambda one: standings[one.point].state in AGAIN or one.point in again)


def task_numbers(sweep: Any, points: list, is_wanted: Callable[[Any], bool]) -> list[int]:
    """Numbers of an array's tasks: of the points that are wanted; of a search, as many as are wanted or not proposed yet."""

    wanted = [i for i, one in enumerate(points) if is_wanted(one)]
    return list(range(len(wanted) + max(0, sweep.run_cap - len(points)))) if sweep.is_searched else wanted


def is_fit(one: Any) -> bool:
    """Whether the point is a training of ours."""
    from research.sweeps.command import ours

    return (ours(one.argv) or [""])[0] == "fit"


def _move_aside(run: Path) -> None:
    """Keep what other code made, under another name."""
    n = 1
    while (aside := run.with_name(f"{run.name}.stale-{n}")).exists():
        n += 1
    run.rename(aside)


def write_report(folder: Path, points: list) -> Path | None:
    """The page of a sweep, as `research report FOLDER` makes it; None where nothing is finished, or it cannot be made."""
    from research import cli

    out = folder / "report"
    if not any(is_fit(one) and is_done(folder / one.point) for one in points):
        return None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(["report", str(folder), "--out", str(out)])
    except UserError as error:  # the points are done whatever becomes of their page
        say(f"warning: no report ({error})")
        return None
    return out / "index.html" if code == 0 else None


def watched(points: Iterable) -> Iterable:
    """The points, with a bar that shows how far the plan is."""
    points = list(points)
    with bar(len(points), "plan", "point") as progress:
        for point in points:
            yield point
            progress.update(1)
