"""W&B's runs, from its logs or from its server → records like those of run folders.

The metrics are W&B's summary, as its table shows it: the last value, or what `define_metric` and the program made of it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from research.errors import UserError, suggest
from research.runs.curves import Curve
from research.runs.defaults import without_later_defaults
from research.runs.folder import COUNTS
from research.runs.identity import known_facts
from research.runs.known_code import numbers_key
from research.runs.options import SEED, options_from
from research.runs.record import FACTS, FINISHED, RunRecord
from research.runs.wandb.log import STEPS, is_logged, is_number
from research.runs.wandb.offline import read_logs
from research.runs.wandb.source import API, WandbRun
from research.types import Json

SEEDS = (SEED, "seed")
OUTPUTS = ("output_dir", "logging_dir", "run_name")  # Hugging Face's Trainer gives W&B its places as options too
SUMMARISED = (".min", ".max", ".mean", ".best", ".last")
UNSAID = "unsaid"  # the code of a run outside of a git repository


def is_wandb(path: Path) -> bool:
    """Return whether runs come from W&B: `wandb:ENTITY/PROJECT`, a log, or a folder of logs."""
    return str(path).startswith(API) or is_logged(path)


def read_wandb(paths: Sequence[Path], seed: str | None = None, taken: Iterable[str] = ()) -> list[RunRecord]:
    """Read runs of W&B, in the order of their starts within a project.

    Args:
        paths: `wandb:ENTITY/PROJECT[/SWEEP_OR_GROUP]`, logs, and folders that hold logs.
        seed: the option that holds the seed; None: seed_everything or seed.
        taken: names that other rows have.

    Raises:
        UserError: nothing to read, no key, no network, or no such project.
    """
    logs = [path for path in paths if not str(path).startswith(API)]
    sources = read_logs(logs) if logs else []
    for path in paths:
        if str(path).startswith(API):
            from research.runs.wandb.server import read_api  # here: wandb takes a second, and most reports read folders

            sources += read_api(str(path))
    runs = [_record(run, name, seed) for run, name in zip(sources, _names(sources, set(taken)), strict=True)]
    if seed is not None and all(run.seed is None for run in runs):
        options = dict.fromkeys(name for run in runs for name in run.options)
        raise UserError(
            f"seed {seed!r} is an option with a whole number in no run of W&B; {suggest(seed, options)}. Correct the spec."
        )
    return runs


def _names(runs: list[WandbRun], taken: set[str]) -> list[str]:
    """Name each run as W&B shows it; with its id where that names another row too, and with its place where ids do too."""
    names = [run.name or run.id for run in runs]
    for more in ("id", "path"):
        times = Counter(names)
        names = [
            f"{name} ({getattr(run, more)})" if times[name] > 1 or name in taken else name
            for name, run in zip(names, runs, strict=True)
        ]
    return names


def _record(run: WandbRun, name: str, seed: str | None) -> RunRecord:
    config, summary = dict(run.config), dict(run.summary)
    hashes = config.pop("made_of", None)
    sweep = config.pop("sweep", None)
    if not isinstance(sweep, dict) or "point" not in sweep:  # not ours: an option like others
        config |= {} if sweep is None else {"sweep": sweep}
        sweep = {}
    options = {name: value for name, value in options_from(without_later_defaults(config)).items() if name not in OUTPUTS}
    number = _seed(options, seed)
    ours = summary.pop("tandem", None)
    ours = ours if isinstance(ours, dict) else {}
    # W&B writes its tables in no order: sorted, of our own trainings as metrics.json has them, which has no last step either
    order = [f"val/{name}" for name in ours.get("metrics") or ()]
    metrics = {
        metric: value
        for metric, value in sorted(
            _numbers(summary), key=lambda item: (order.index(item[0]) if item[0] in order else len(order), item)
        )
        if run.state in FINISHED and not (ours and (metric in ours or metric.startswith("train/")))
    }
    facts = {name: ours[name] for name in (*FACTS, *COUNTS) if is_number(ours.get(name))}
    if not facts and is_number(runtime := summary.get("_runtime")):
        facts = {"seconds": runtime}
    state, error = run.state, run.error
    if state == "done" and ours.get("pruned"):
        state = "pruned"
    made_of, key = ("", run.commit or UNSAID, ""), ""
    if isinstance(hashes, dict) and {"data", "code", "base_model"} <= hashes.keys():
        facts_of_data = known_facts(hashes["data"]) if isinstance(hashes["data"], dict) else hashes["data"]
        data = json.dumps(facts_of_data, sort_keys=True) if hashes["data"] else ""
        key = numbers_key([str(hashes["code"])], config)
        made_of = (data, str(hashes["code"]), str(hashes["base_model"]))
    return RunRecord(
        name,
        run.path,
        state,
        error,
        str(sweep.get("name") or run.sweep),
        str(sweep.get("point") or run.id),
        number,
        options,
        metrics,
        facts if state in FINISHED else {},
        {},
        made_of,
        tuple(name for name in run.swept if name in options and name not in SEEDS),
        monitor=str(run.config.get("monitor") or run.monitor),
        goal=run.goal,
        host=run.host,
        numbers=key,
        history=lambda metric: _history(run, metric),
        provenance=origin_facts(made_of, run.host) | ({"git_commit": ours["commit"]} if ours.get("commit") else {}),
        directions=ours.get("directions") or {},
    )


def origin_facts(made_of: tuple[str, str, str], host: str) -> dict[str, Json]:
    """Return where a run came from, by the names of provenance.json: our trainings tell their code, others a commit."""
    data, code, base = made_of
    ours = bool(data or base)
    facts = {"fingerprint" if ours else "git_commit": "" if code == UNSAID else code, "host": host}
    if ours:
        hashes = json.loads(data) if data.startswith("{") else {"": data}
        facts |= {"data": ", ".join(f"{name} {value}".strip() for name, value in hashes.items() if isinstance(value, str))}
        facts |= {"models": {"base": base}} if base else {}
    return {name: value for name, value in facts.items() if value}


def _history(run: WandbRun, metric: str) -> Curve:
    """Return the curve of a metric; that of `loss.min`, as W&B summarises `loss`, is the curve of `loss`."""
    stem, _, how = metric.rpartition(".")
    return run.history(metric) or (run.history(stem) if f".{how}" in SUMMARISED else [])


def _seed(options: dict[str, Json], name: str | None) -> int | None:
    """Return the seed, which then is no option any more but by our own name."""
    for option in SEEDS if name is None else (name,):
        value = options.get(option)
        if isinstance(value, str) and value.lstrip("-").isdigit():
            value = int(value)
        if is_number(value) and value == int(value):
            if option != SEED:
                del options[option]
            options[SEED] = int(value)
            return int(value)
    return None


def _numbers(summary: dict[str, Json], prefix: str = "") -> Iterable[tuple[str, float]]:
    """Yield metrics by their names in W&B's table; its own begin with _, pictures and tables have a _type."""
    for key, value in summary.items():
        name = f"{prefix}.{key}" if prefix else key
        if key.startswith("_") or name in STEPS:
            continue
        if isinstance(value, dict) and "_type" not in value:
            yield from _numbers(value, name)
        elif is_number(value):
            yield name, float(value)  # W&B writes 0.0 as 0
