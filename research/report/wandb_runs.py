"""What W&B knows of a run, from its logs or from its API → a row of the study.

The metrics are W&B's summary, as its table shows it: the last value, or what `define_metric` and the program made of it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError, suggest
from research.progress import say
from research.report.options import options_from
from research.report.study import FINISHED, SEED, Run
from research.report.wandb_log import STEPS, Log, curve, find_logs, is_logged, is_number, read_log
from research.runs.defaults import without_later_defaults
from research.runs.identity import known_facts
from research.runs.known_code import numbers_key

API = "wandb:"
SEEDS = (SEED, "seed")
OUTPUTS = ("output_dir", "logging_dir", "run_name")  # Hugging Face's Trainer gives W&B its places as options too
SUMMARISED = (".min", ".max", ".mean", ".best", ".last")
PREEMPTED, SIGNALLED = 85, 128  # our exit code; a shell's, of a process that signal N ended, is 128 + N
UNSAID = "unsaid"  # the code of a run outside of a git repository


class Known(NamedTuple):
    """What W&B knows of one run.

    Attributes:
        id, name: as W&B shows them; a name may be "".
        path: of its log, or its page.
        sweep: its sweep, else its group, else "".
        state, error: as study.Run has them.
        commit, host: "" where they are not known.
        config, summary: nested.
        history: metric → (step, value), in order.
        monitor, goal: the metric of its sweep, and maximize or minimize; "" and None where there is none.
        swept: parameters of its sweep.
    """

    id: str
    name: str
    path: Path
    sweep: str
    state: str
    error: str
    commit: str
    host: str
    config: dict[str, Any]
    summary: dict[str, Any]
    history: Callable[[str], list[tuple[int, float]]]
    monitor: str = ""
    goal: str | None = None
    swept: tuple[str, ...] = ()


def is_wandb(path: Path) -> bool:
    """Whether runs come from W&B: `wandb:ENTITY/PROJECT`, a log, or a folder of logs."""
    return str(path).startswith(API) or is_logged(path)


def read_wandb(paths: Sequence[Path], seed: str | None = None, taken: Iterable[str] = ()) -> list[Run]:
    """Runs of W&B, in the order of their starts within a project.

    Args:
        paths: `wandb:ENTITY/PROJECT[/SWEEP_OR_GROUP]`, logs, and folders that hold logs.
        seed: the option that holds the seed; None: seed_everything or seed.
        taken: names that other rows have.

    Raises:
        UserError: nothing to read, no key, no network, or no such project.
    """
    from research.report.wandb_api import read_api

    logs = [path for path in paths if not str(path).startswith(API)]
    known = read_logs(logs) if logs else []
    for path in paths:
        known += read_api(str(path)) if str(path).startswith(API) else []
    names = _names(known, set(taken))
    runs = [_row(one, name, seed) for one, name in zip(known, names, strict=True)]
    if seed is not None and all(run.seed is None for run in runs):
        options = dict.fromkeys(name for run in runs for name in run.options)
        raise UserError(
            f"seed {seed!r} is an option with a whole number in no run of W&B; {suggest(seed, options)}. Correct the spec."
        )
    return runs


# ---- logs -----------------------------------------------------------------------------------------------------------


def read_logs(paths: Sequence[Path]) -> list[Known]:
    """Logs of one id are one run that went on: the later says what became of it.

    Raises:
        UserError: no log, or none that can be read; a log that is named itself and cannot be read.
    """
    files = list(dict.fromkeys(file.resolve() for path in paths for file in find_logs(path)))
    if not files:
        raise UserError(
            f"{', '.join(map(str, paths[:3]))} holds no log of W&B (run-ID.wandb); expected one in each folder "
            "of a run. Copy the whole wandb folder, or check the path."
        )
    named = {path.resolve() for path in paths}
    runs: dict[tuple[str, str], list[Log]] = {}
    broken: list[tuple[Path, str]] = []
    for file in files:
        try:
            log = read_log(file)
            runs.setdefault((log.project, log.id), []).append(log)
        except UserError as error:
            if file in named:
                raise
            broken.append((file, str(error)))
    if not runs:
        raise UserError(f"none of {len(files)} logs can be read: {broken[0][1]}")
    begun = sorted(([*sorted(logs, key=lambda log: log.started)] for logs in runs.values()), key=_begun)
    found = [_logged(logs) for logs in begun]
    found += [_broken(file, why) for file, why in broken]
    return found


def _begun(logs: list[Log]) -> tuple[float, str]:
    return logs[0].started, logs[0].id


def _logged(logs: list[Log]) -> Known:
    last = logs[-1]
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for log in logs:
        config |= log.config
        summary |= log.summary
        if "damaged" in log.damage and log is not last:
            say(f"warning: {log.path}: {log.damage}; the run went on, its curve has a gap")
    state, error = _ended(last)
    commits = list(dict.fromkeys(log.commit for log in logs if log.commit))
    if len(commits) > 1 and "made_of" not in config:  # a training of ours says itself what it is made of
        say(
            f"warning: run {last.id} was begun by code {commits[0][:12]} and went on with {commits[-1][:12]}: it is averaged "
            "with runs of neither"
        )
    return Known(
        last.id,
        last.name,
        last.path,
        last.sweep or last.group,
        state,
        error,
        " ".join(commits),
        last.host,
        config,
        summary,
        lambda metric: curve(logs, metric),
    )


def _ended(log: Log) -> tuple[str, str]:
    """The state of a run by the end of its last log."""
    code = log.exit_code
    if code == 0:
        return "done", ""
    if code is None:
        return "half-written", log.damage or "its log has no end: it is running, or was killed"
    state = "preempted" if code == PREEMPTED or log.preempting else "killed" if code > SIGNALLED else "failed"
    return state, f"exit code {code}"


def _broken(file: Path, why: str) -> Known:
    return Known(file.stem.removeprefix("run-"), "", file, "", "half-written", why, "", "", {}, {}, lambda metric: [])


# ---- rows -----------------------------------------------------------------------------------------------------------


def _names(known: list[Known], taken: set[str]) -> list[str]:
    """As W&B shows each run; where that names another row too, with its id, and where that is not enough, its place."""
    names = [one.name or one.id for one in known]
    for more in ("id", "path"):
        times = Counter(names)
        names = [
            f"{name} ({getattr(one, more)})" if times[name] > 1 or name in taken else name
            for name, one in zip(names, known, strict=True)
        ]
    return names


def _row(known: Known, name: str, seed: str | None) -> Run:
    config, summary = dict(known.config), dict(known.summary)
    made_of = config.pop("made_of", None)
    sweep = config.pop("sweep", None)
    if not isinstance(sweep, dict) or "point" not in sweep:  # not ours: an option like others
        config |= {} if sweep is None else {"sweep": sweep}
        sweep = {}
    options = {name: value for name, value in options_from(without_later_defaults(config)).items() if name not in OUTPUTS}
    number = _seed(options, seed)
    ours = summary.pop("tandem", None)
    ours = ours if isinstance(ours, dict) else {}
    # sorted: W&B writes its tables in no order; of our own trainings the folder's table has no last step either
    metrics = {
        metric: value
        for metric, value in sorted(_numbers(summary))
        if known.state in FINISHED and not (ours and (metric in ours or metric.startswith("train/")))
    }
    facts = {name: value for name, value in ours.items() if is_number(value)}
    if not facts and is_number(runtime := summary.get("_runtime")):
        facts = {"seconds": runtime}
    state, error = known.state, known.error
    if state == "done" and ours.get("pruned"):
        state = "pruned"
    origin, key = ("", known.commit or UNSAID, ""), ""
    if isinstance(made_of, dict) and {"data", "code", "base_model"} <= made_of.keys():
        facts_of_data = known_facts(made_of["data"]) if isinstance(made_of["data"], dict) else made_of["data"]
        data = json.dumps(facts_of_data, sort_keys=True) if made_of["data"] else ""
        key = numbers_key([str(made_of["code"])], config)
        origin = (data, str(made_of["code"]), str(made_of["base_model"]))
    return Run(
        name,
        known.path,
        state,
        error,
        str(sweep.get("name") or known.sweep),
        str(sweep.get("point") or known.id),
        number,
        options,
        metrics,
        facts if state in FINISHED else {},
        {},
        origin,
        tuple(name for name in known.swept if name in options and name not in SEEDS),
        monitor=str(known.config.get("monitor") or known.monitor),
        goal=known.goal,
        host=known.host,
        history=_history(known.history),
        numbers=key,
    )


def _history(read: Callable[[str], list[tuple[int, float]]]) -> Callable[[str], list[tuple[int, float]]]:
    """W&B summarises `loss` as `loss.min`: its curve is that of `loss`."""

    def history(metric: str) -> list[tuple[int, float]]:
        stem, _, how = metric.rpartition(".")
        return read(metric) or (read(stem) if f".{how}" in SUMMARISED else [])

    return history


def _seed(options: dict[str, Any], name: str | None) -> int | None:
    """The seed, which then is no option any more but by our own name."""
    for one in SEEDS if name is None else (name,):
        value = options.get(one)
        if isinstance(value, str) and value.lstrip("-").isdigit():
            value = int(value)
        if is_number(value) and value == int(value):
            if one != SEED:
                del options[one]
            options[SEED] = int(value)
            return int(value)
    return None


def _numbers(summary: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    """Metrics by their names in W&B's table; its own begin with _, pictures and tables have a _type."""
    for key, value in summary.items():
        name = f"{prefix}.{key}" if prefix else key
        if key.startswith("_") or name in STEPS:
            continue
        if isinstance(value, dict) and "_type" not in value:
            yield from _numbers(value, name)
        elif is_number(value):
            yield name, float(value)  # W&B writes 0.0 as 0
