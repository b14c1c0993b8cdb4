"""Run folders, sweeps and W&B's runs → one table, a row a run: the one way by which a report reads runs.

runs = read_runs([Path("runs/sweeps/lora")])      # typed records
frame = as_frame(runs)                            # the same as a pandas frame: what runs.csv and runs.parquet hold
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from research.errors import UserError, suggest_file
from research.progress import say
from research.runs.folder import RunFolder
from research.runs.layout import PROVENANCE
from research.runs.ledger import Ledger
from research.runs.options import as_key
from research.runs.plan import FILE as PLAN
from research.runs.plan import read_plan
from research.runs.printable import is_deep
from research.runs.record import RunRecord, SweepPoint, read_record
from research.runs.wandb.records import is_wandb, read_wandb
from research.types import Json


def read_runs(paths: Sequence[Path], seed: str | None = None) -> list[RunRecord]:
    """Read runs of `research fit`, all points of sweeps, and then the runs of W&B.

    Args:
        paths: run folders, folders of sweeps (they hold a plan.jsonl), W&B's logs and folders, and wandb:ENTITY/PROJECT.
        seed: the option of W&B's runs that holds the seed; None: seed_everything or seed.

    Raises:
        UserError: a folder that is none of them, is given twice, or is damaged; runs that W&B does not give.
    """
    folders: list[tuple[Path, SweepPoint | None]] = []
    wandb = []
    for path in paths:
        if is_sweep(path):
            folders += [(path / planned.point, planned) for planned in points_in(path)]
        elif (path / PROVENANCE).is_file():
            folders.append((path, None))
        elif is_wandb(path):
            wandb.append(path)
        else:
            what, near = "does not exist", suggest_file(path)
            if path.exists():
                what, near = "is no folder of a run or a sweep, and holds no log of W&B", ""
            raise UserError(
                f"{path} {what}; expected what `research fit` or `research sweep` wrote, or W&B. Check the path.{near}"
            )
    if not folders and not wandb:
        raise UserError("no runs; expected folders of `research fit` or `research sweep`, or of W&B. Name one.")
    names = name_folders([path for path, _ in folders]) if folders else {}
    runs = in_one_spelling([read_record(RunFolder(path, names[path]), planned) for path, planned in folders])
    return runs + (read_wandb(wandb, seed, names.values()) if wandb else [])


def read_frame(runs: str | Path | Sequence[str | Path], seed: str | None = None) -> pd.DataFrame:
    """Read runs into a pandas frame, a row a run: trainings, points of sweeps, and runs of W&B.

    Args:
        runs: run folders of `research fit`, folders of sweeps (every point of them), W&B's logs, or wandb:ENTITY/PROJECT.
        seed: the option of W&B's runs that holds the seed; None takes seed_everything or seed.

    Returns:
        Columns run, sweep, point, state (done, failed, stale, …), error and seed; `option.NAME` for each option of the
        configuration, metrics under their own names (`val/loss`, `val/ndcg@10`), `fact.NAME` and `made_of.NAME`.

    Raises:
        UserError: a folder that is none of them, is given twice, or is damaged.

    Example:
        >>> from research import read_runs
        >>> runs = read_runs("my-run")
        >>> runs[["run", "seed"]].values.tolist()
        [['my-run', 0]]
    """
    given = [runs] if isinstance(runs, str | Path) else runs
    return as_frame(read_runs([Path(run) for run in given], seed))


def as_frame(runs: Sequence[RunRecord]) -> pd.DataFrame:
    """Return the runs as a pandas frame: a row for each, whatever has become of it; a column for each option, metric and fact.

    Cells hold what the run says (None where it says nothing), in columns of objects: pandas would make 2.0 of a 2 beside a gap.
    """
    columns: dict[str, list[object]] = {
        name: [getattr(run, name) for run in runs] for name in ("name", "sweep", "point", "state", "error", "seed")
    }
    columns = {"run": columns.pop("name"), **columns}
    for name in _names(run.options for run in runs):
        columns[f"option.{name}"] = [plain_cell(run.options.get(name)) for run in runs]
    for name in _names(run.metrics for run in runs):
        columns[name if name not in columns else f"metric.{name}"] = [run.metrics.get(name) for run in runs]
    for name in _names(run.facts for run in runs):
        columns[f"fact.{name}"] = [run.facts.get(name) for run in runs]
    for i, name in enumerate(("data", "code", "base")):
        columns[f"made_of.{name}"] = [run.made_of[i] for run in runs]
    if any(run.host for run in runs):  # only W&B says it
        columns["host"] = [run.host for run in runs]
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def option_keys(runs: Sequence[RunRecord]) -> pd.DataFrame:
    """Return options as texts that are equal for equal values: a row a run, a column an option; NaN where a run lacks it."""
    return pd.DataFrame([{name: as_key(value) for name, value in run.options.items()} for run in runs])


def _names(parts: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def plain_cell(value: Json) -> Json:
    """Return the value, as JSON where it is a list or a mapping."""
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)


def in_one_spelling(runs: list[RunRecord]) -> list[RunRecord]:
    """Bring options that say how runs were computed, and that differ between them, to one spelling: they are no setting.

    A batch size is then that of all processes. Where a sweep has such an option for a parameter, all stay as typed.
    """
    differ = {
        name
        for run in runs
        for name in run.how
        if len({as_key(other.options[name]) for other in runs if name in other.options}) > 1
    }
    if not differ or any(name in run.swept for run in runs for name in differ):
        return runs
    return [run._replace(options=run.options | {name: run.how[name][1] for name in run.how}) for run in runs]


def name_folders(paths: list[Path]) -> dict[Path, str]:
    """Name folders by the shortest ends of their paths that tell them apart; where the caller stands changes nothing.

    Raises:
        UserError: a folder is given twice.
    """
    resolved = [path.resolve() for path in paths]
    for path, times in Counter(resolved).items():
        if times > 1:
            raise UserError(f"run folder {path} is given {times} times; expected different runs. Name it once.")
    parts, length = [path.parts for path in resolved], 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return {path: "/".join(part[-length:]) for path, part in zip(paths, parts, strict=True)}


# ---- sweeps ---------------------------------------------------------------------------------------------------------


def is_sweep(path: Path) -> bool:
    """Return whether the folder is a sweep's."""
    return (path / PLAN).is_file()


def with_inner(paths: Sequence[Path]) -> list[Path]:
    """Replace each folder that only holds run folders or sweeps by these, sorted by name; what else lies there is said."""
    runs: list[Path] = []
    for path in paths:
        children = sorted(path.iterdir()) if path.is_dir() and not is_sweep(path) and not (path / PROVENANCE).is_file() else []
        inner = [child for child in children if is_sweep(child) or (child / PROVENANCE).is_file()]
        if inner:
            rest = [child.name for child in children if child not in inner and not child.name.startswith(".")]
            left = f"; not read: {', '.join(rest)}" if rest else ""
            say(f"{path} holds {len(inner)} {'run' if len(inner) == 1 else 'runs'}: {', '.join(c.name for c in inner)}{left}")
        runs += inner or [path]
    return runs


def points_in(folder: Path) -> list[SweepPoint]:
    """Read the points of a sweep: values from its plan, state and error from its ledger.

    Raises:
        UserError: the plan is damaged.
    """
    everything = Ledger(folder).events()
    events = {event["point"]: event for event in everything}  # the last of each
    attempts = Counter(event["point"] for event in everything if event["state"] == "running")
    points, lines, sweep = [], {}, folder.resolve().name
    for number, planned in enumerate(read_plan(folder), 1):
        if is_deep(planned.values):
            raise UserError(
                f"{folder / PLAN}:{number} is damaged (its values are nested too deeply); expected a point a line. Plan the "
                "sweep again."
            )
        if (first := lines.setdefault(planned.point, number)) != number:
            raise UserError(
                f"{folder / PLAN}:{first} and :{number} are both {planned.point}; expected each point once. Plan "
                "the sweep again."
            )
        event, begun = events.get(planned.point, {}), attempts[planned.point]
        points.append(SweepPoint(planned.point, planned.values, planned.facts, sweep, event, begun))
    if not points:
        raise UserError(f"{folder / PLAN} has no points; expected one or more. Plan the sweep again.")
    return points
