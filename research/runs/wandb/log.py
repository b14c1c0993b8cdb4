"""W&B's `.wandb` logs, which every run writes and an offline run has alone → what each says of its run.

What cannot be read of a log is left out, and `Log.damage` says where reading stopped.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from research.runs.layout import CURVES, PROVENANCE, WANDB
from research.runs.plan import FILE as PLAN
from research.runs.printable import is_deep
from research.runs.wandb.frames import read_bytes, unframe
from research.types import Json

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import ConfigItem, ConfigRecord, HistoryItem, HistoryRecord, SummaryItem, SummaryRecord

FOLDER = re.compile(r"(offline-)?run-\d{8}_\d{6}-.")
STEPS = ("trainer/global_step", "train/global_step")
"""The optimizer's steps as Lightning's and Hugging Face's loggers write them; W&B's own `_step` counts what was logged."""


class Log(NamedTuple):
    """One log.

    Attributes:
        path: of the file.
        id, project, name: of the run; the name is as W&B shows it, "" of one that W&B names when it is uploaded.
        started: seconds since 1970.
        group, sweep: "" where it is in none.
        host, commit: machine and git commit, "" where they are not known.
        config: as the program gave it, nested; W&B's own `_wandb` is left out.
        summary: the last value of each metric, nested where W&B summarises it (min, max, best).
        history: a record a logged step.
        exit_code: None of a log without its end.
        preempting: whether the run said that it would be stopped and go on.
        damage: what cannot be read and where; "" of a good log.
    """

    path: Path
    id: str
    project: str
    name: str
    started: float
    group: str
    sweep: str
    host: str
    commit: str
    config: dict[str, Json]
    summary: dict[str, Json]
    history: "list[HistoryRecord]"
    exit_code: int | None
    preempting: bool
    damage: str


# ---- which files ----------------------------------------------------------------------------------------------------


def find_logs(path: Path) -> list[Path]:
    """Find the logs of a file, of a run's folder, or of everything below a folder, in the order of their names (by time).

    Folders that `research` wrote are passed by: their own files say more, and are read where they are named. Links are
    not followed, W&B's `latest-run` would name a run twice.

    Args:
        path: a `.wandb` file, or a folder.
    """
    if path.suffix == ".wandb" and not path.is_dir():
        return [path]
    logs = []
    for folder, folders, files in os.walk(path):
        # of hidden folders W&B writes into .wandb alone
        folders[:] = sorted(name for name in folders if not name.startswith(".") or name == ".wandb")
        if Path(folder) != path and ({PROVENANCE, PLAN} & {*files}):
            folders.clear()
            continue
        logs += [Path(folder) / name for name in sorted(files) if name.endswith(".wandb")]
    return logs


def is_logged(path: Path) -> bool:
    """Return whether this is a log of W&B's, or a folder that it writes into; one of `research` is neither."""
    if path.suffix == ".wandb" and not path.is_dir():
        return True
    # ours, also a copy that lacks its provenance: it is damaged, and its log is no replacement
    if not path.is_dir() or any((path / name).is_file() for name in (PROVENANCE, PLAN, WANDB, CURVES)):
        return False
    return any(FOLDER.match(folder.name) for folder in (path, *path.iterdir())) or bool(find_logs(path))


# ---- one log --------------------------------------------------------------------------------------------------------


def read_log(path: Path) -> Log:
    """Read one log, up to its first damage.

    Raises:
        UserError: the file cannot be read, is empty, is no log of W&B's, or one of another version.
    """
    # here: wandb takes a second, and telling its logs from other files (is_logged) needs none of it
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    records, damage = unframe(read_bytes(path))
    config: dict[str, Json] = {}
    summary: dict[str, Json] = {}
    facts = dict.fromkeys(("id", "project", "name", "group", "sweep", "host", "commit"), "")
    history, exit_code, preempting, started = [], None, False, 0.0
    for number, data in enumerate(records, 1):
        try:
            record = Record.FromString(data)
        except DecodeError as error:
            damage = f"record {number} is none of W&B's ({error})"
            break
        kind = record.WhichOneof("record_type")
        if kind == "history":
            history.append(record.history)
        elif kind == "summary":
            _update(summary, record.summary)
        elif kind == "config":
            _update(config, record.config)
        elif kind == "run":
            run = record.run
            _update(config, run.config)
            _update(summary, run.summary)
            started = started or run.start_time.seconds + run.start_time.nanos / 1e9
            named = {
                "id": run.run_id,
                "project": run.project,
                "name": run.display_name,
                "group": run.run_group,
                "sweep": run.sweep_id,
                "host": run.host,
                "commit": run.git.commit,
            }
            facts |= {name: value for name, value in named.items() if value}  # a later record may repeat only a part
        elif kind == "environment":
            named = {"host": record.environment.host, "commit": record.environment.git.commit}
            facts |= {name: value for name, value in named.items() if value}
        elif kind == "exit":
            exit_code = record.exit.exit_code
        elif kind == "preempting":
            preempting = True
    facts["id"] = facts["id"] or path.stem.removeprefix("run-")
    config.pop("_wandb", None)
    try:
        config, summary = _decoded(config), _decoded(summary)
        if is_deep(config) or is_deep(summary):
            raise RecursionError("nested deeper than anything is configured by")
    except (ValueError, RecursionError) as error:
        config, summary, damage = {}, {}, f"its configuration or summary is no JSON ({error})"
    return Log(
        path,
        **facts,
        started=started,
        config=config,
        summary=summary,
        history=history,
        exit_code=None if damage else exit_code,
        preempting=preempting,
        damage=damage,
    )


def _update(values: dict[str, Json], record: "SummaryRecord | ConfigRecord") -> None:
    """Apply what a record says is new and what is gone; values stay JSON: of a summary the last alone is ever wanted."""
    for item in record.update:
        inside, name = _within(values, item)
        inside[name] = item.value_json
    for item in record.remove:
        inside, name = _within(values, item)
        inside.pop(name, None)


def _within(values: dict[str, Json], item: "SummaryItem | ConfigItem") -> tuple[dict[str, Json], str]:
    if item.key:
        return values, item.key
    *outer, name = item.nested_key or [""]
    for section in outer:
        inner = values.get(section)
        if isinstance(inner, str) and isinstance(whole := _json(inner), dict):  # once given as one value
            values[section] = {key: json.dumps(value) for key, value in whole.items()}
        elif not isinstance(inner, dict):
            values[section] = {}
        values = values[section]
    return values, name


def _decoded(values: dict[str, Json]) -> dict[str, Json]:
    return {name: json.loads(value) if isinstance(value, str) else _decoded(value) for name, value in values.items()}


def _json(text: str) -> Json:
    """Parse JSON; None of what is none, or is nested too deeply to be read."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if is_deep(value) else value


# ---- curves ---------------------------------------------------------------------------------------------------------


def curve(logs: Sequence[Log], metric: str) -> list[tuple[int, float]]:
    """Return (step, value) of a metric, in order, each step once: a run that went on in another log has computed it again.

    Args:
        logs: of one run, the earliest first.
        metric: as W&B shows it; of a nested one, `val.loss`.
    """
    values: dict[int, float] = {}
    for log in logs:
        for record in log.history:
            row = dict(_wanted(record, {metric, "_step", *STEPS}))
            if is_number(value := row.get(metric)):
                step = next((row[name] for name in (*STEPS, "_step") if name in row), record.step.num)
                values[int(step)] = float(value)
    return sorted(values.items())


def is_number(value: object) -> bool:
    """Return whether this is a finite number: W&B writes nan and inf as texts, and pictures and tables as mappings."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wanted(record: "HistoryRecord", names: set[str]) -> Iterator[tuple[str, Json]]:
    for item in record.item:
        name = item.key or ".".join(item.nested_key)
        if name in names:
            yield name, _value(item)


def _value(item: "HistoryItem") -> Json:
    """Return the value of a history item, which newer versions of W&B may write by its type."""
    if item.value_json or "value" not in item.DESCRIPTOR.oneofs_by_name:
        return _json(item.value_json or "null")
    kind = item.WhichOneof("value")
    return _json(item.json) if kind == "json" else None if kind in (None, "none") else getattr(item, kind)
