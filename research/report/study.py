"""Trainings of a sweep, or of several → one tidy table: a row a run, with its state, factors, seed and metrics.

A run that failed, was pruned, or is missing is a row as well: a table that leaves it out would average what survived.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError
from research.report.options import options_from, options_of, with_method
from research.report.printable import is_deep
from research.report.runs import name_folders
from research.report.shapes import check_metrics, check_provenance
from research.report.training import read_config
from research.runs.defaults import without_later_defaults
from research.runs.identity import known_facts
from research.runs.known_code import fingerprints_of, numbers_key
from research.runs.layout import MARKER, is_name
from research.runs.reading import read_json
from research.runs.spelling import one_spelling
from research.types import Direction

PLAN, LEDGER = "plan.jsonl", "ledger.jsonl"
SEED = "seed_everything"
FACTS = ("trained_parameters", "adapter_parameters", "adapter_bytes", "effective_scale", "virtual_tokens", "parameters")
FINISHED = ("done", "pruned")


class Run(NamedTuple):
    """One row of a study.

    Attributes:
        name: the folder, by the shortest end of its path that tells it from the others.
        path: resolved; of a point that was never begun, where it would lie.
        state: done | pruned | failed | killed | preempted | running | missing | half-written.
        error: why, of one that is not done.
        sweep: name of the sweep's folder; "" of a run alone.
        point: its id.
        seed: of the training.
        options: every option of its configuration by dotted name, as a user types it; of a point never begun, its sweep's.
        metrics: {"val/loss": …, "test/rouge_l": …}: of the best model on the validation split, and of `research test`.
        facts: parameters, bytes, seconds, steps.
        examples: {"val/loss": {example or query id: value}}.
        made_of: (data, code, base model) by hash.
        swept: parameters of its sweep that stand alone, not tied to others.
        monitor: the metric that chose its model, or that its sweep is about; "" of one that does not say.
        goal: maximize | minimize, where its sweep says it.
        host: the machine, where it is known.
        numbers: equal for code that gives this configuration the same numbers; "": the code's hash alone tells.
        how: option → (as it was typed, as it stands for what is computed): devices at an equal global batch, kernels.
        history: metric → (step, value), of a run whose curves are not in a folder of `research fit`.
        directions: metric of its validation → which side is better, as its trainer declares it.
    """

    name: str
    path: Path
    state: str
    error: str
    sweep: str
    point: str
    seed: int | None
    options: dict[str, Any]
    metrics: dict[str, float]
    facts: dict[str, float]
    examples: dict[str, dict[str, dict[str, float]]]
    made_of: tuple[str, str, str]
    swept: tuple[str, ...] = ()
    monitor: str = ""
    goal: str | None = None
    host: str = ""
    numbers: str = ""
    how: dict[str, tuple[Any, Any]] = {}  # noqa: RUF012 (never changed)
    directions: dict[str, Direction] = {}  # noqa: RUF012 (never changed)
    history: Callable[[str], list[tuple[int, float]]] | None = None

    @property
    def origin(self) -> tuple[str, str, str]:
        """Only runs of one origin may be averaged."""
        data, code, base = self.made_of
        return data, self.numbers or code, base


def collect(paths: Sequence[Path], seed: str | None = None) -> list[Run]:
    """Runs of `research fit`, all points of sweeps, and then the runs of W&B.

    Args:
        paths: run folders, folders of sweeps (they hold a plan.jsonl), W&B's logs and folders, and wandb:ENTITY/PROJECT.
        seed: the option of W&B's runs that holds the seed; None: seed_everything or seed.

    Raises:
        UserError: a folder that is none of them, is given twice, or is damaged; runs that W&B does not give.
    """
    from research.report.wandb_runs import is_wandb, read_wandb

    found: list[tuple[Path, dict[str, Any]]] = []  # a folder, and what its sweep knows of it
    wandb = []
    for path in paths:
        if (path / PLAN).is_file():
            found += [(path / one["point"], one) for one in points_of(path)]
        elif (path / MARKER).is_file():
            found.append((path, {}))
        elif is_wandb(path):
            wandb.append(path)
        else:
            what = "is no folder of a run or a sweep, and holds no log of W&B" if path.exists() else "does not exist"
            raise UserError(f"{path} {what}; expected what `research fit` or `research sweep` wrote, or W&B. Check the path.")
    if not found and not wandb:
        raise UserError("no runs; expected folders of `research fit` or `research sweep`, or of W&B. Name one.")
    names = name_folders([path for path, _ in found]) if found else {}
    runs = by_what_is_computed([read(path, names[path], known) for path, known in found])
    return runs + (read_wandb(wandb, seed, names.values()) if wandb else [])


def by_what_is_computed(runs: list[Run]) -> list[Run]:
    """Options that say how runs were computed, and that differ between them, in one spelling: they are no setting.

    A batch size is then that of all processes. Where a sweep has such an option for a parameter, all stay as typed.
    """
    differ = {
        name for run in runs for name in run.how if len({as_key(one.options[name]) for one in runs if name in one.options}) > 1
    }
    if not differ or any(name in run.swept for run in runs for name in differ):
        return runs
    return [run._replace(options=run.options | {name: run.how[name][1] for name in run.how}) for run in runs]


def is_sweep(path: Path) -> bool:
    """Whether the folder is a sweep's."""
    return (path / PLAN).is_file()


def points_of(folder: Path) -> list[dict[str, Any]]:
    """The points of a sweep: values from its plan, state and error from its ledger.

    Raises:
        UserError: the plan is damaged.
    """
    sweep, points, lines = folder.resolve().name, [], {}
    for number, text in enumerate((folder / PLAN).read_bytes().splitlines(), 1):
        one = _planned(f"{folder / PLAN}:{number}", text)
        if (first := lines.setdefault(one["point"], number)) != number:
            raise UserError(
                f"{folder / PLAN}:{first} and :{number} are both {one['point']}; expected each point once. Plan "
                "the sweep again."
            )
        points.append(one | {"sweep": sweep})
    if not points:
        raise UserError(f"{folder / PLAN} has no points; expected one or more. Plan the sweep again.")
    last: dict[str, dict] = {}
    for line in (folder / LEDGER).read_bytes().splitlines() if (folder / LEDGER).exists() else []:
        try:
            event = json.loads(line)
            if isinstance(event["point"], str) and isinstance(event["state"], str):
                last[event["point"]] = event
        except (ValueError, TypeError, KeyError, RecursionError):  # a line that a killed process left unfinished
            continue
    return [one | {"event": last.get(one["point"], {})} for one in points]


def _planned(where: str, text: bytes) -> dict[str, Any]:
    """A line of a plan."""
    try:
        line = json.loads(text)
        point, values, facts = line["point"], line["values"], line.get("facts") or {}
        if not is_name(point):  # ".." would be the folder above
            raise ValueError(f"point is {json.dumps(point)}")
        if not (isinstance(values, dict) and isinstance(facts, dict)):
            raise ValueError("values or facts are no mapping")
        if is_deep(values):
            raise ValueError("its values are nested too deeply")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{where} is damaged ({error}); expected a point a line. Plan the sweep again.") from None
    return {"point": point, "values": values, "facts": facts}


def read(path: Path, name: str, known: dict[str, Any]) -> Run:
    """One run.

    Args:
        path: its folder.
        name: of the row.
        known: what its sweep says: values, event, sweep, point.

    Raises:
        UserError: a file of it is damaged.
    """
    event = known.get("event", {})
    begun = (path / MARKER).is_file()
    provenance = check_provenance(path / MARKER, _object(path / MARKER)) if begun else {}
    metrics = _result(path / "metrics.json") if begun else {}
    config = read_config(path / "config.yaml") if begun and (path / "config.yaml").exists() else {}
    options = options_from(without_later_defaults(config)) if config else with_method(options_of(known.get("values", {})))
    one_way = options_from(one_spelling(_as_run(config, provenance.get("processes"))))
    how = {name: (value, one_way[name]) for name, value in options.items() if one_way.get(name, value) != value}
    data = known_facts(provenance["data"]) if isinstance(provenance.get("data"), dict) else {}
    code = provenance.get("fingerprint") or provenance.get("git_commit") or ""
    made_of = (json.dumps(data, sort_keys=True) if data else "", str(code), str(provenance.get("model_hash") or ""))
    state, error = _state(begun, metrics, event)
    numbers, examples = _measured(path, metrics) if state in FINISHED else ({}, {})
    facts = {
        name: metrics["trained"][name]
        for name in FACTS
        if isinstance(metrics.get("trained"), dict) and metrics["trained"].get(name) is not None
    }
    for fact in ("trained_parameters", "adapter_bytes"):  # what the plan has counted, of trainings that do not say it
        if state in FINISHED and known.get("facts", {}).get(fact):
            facts.setdefault(fact, known["facts"][fact])
    facts |= {name: metrics[name] for name in ("seconds", "steps", "temperature") if metrics.get(name) is not None}
    return Run(
        name,
        path.resolve(),
        state,
        error,
        known.get("sweep", ""),
        known.get("point") or provenance.get("point") or "",
        options.get(SEED),
        options,
        numbers,
        facts,
        examples,
        made_of,
        tuple(name for name, value in known.get("values", {}).items() if not isinstance(value, dict)),
        monitor=str(metrics.get("monitor") or ""),
        how=how,
        numbers=numbers_key(fingerprints_of(provenance), config, path),
        directions=metrics.get("directions") or {},
    )


def _as_run(config: dict, processes: Any) -> dict:
    """With the number of processes that trained in the place of "auto"."""
    trainer = config.get("trainer")
    if not isinstance(processes, int) or not isinstance(trainer, dict):
        return config
    return config | {"trainer": trainer | {"devices": processes, "num_nodes": 1}}


def _state(begun: bool, metrics: dict, event: dict) -> tuple[str, str]:
    if metrics.get("finished"):
        return ("pruned" if metrics.get("pruned") else "done"), ""
    state = event.get("state", "half-written" if begun else "missing")
    if state in FINISHED:  # the ledger says so, and the folder does not
        return "missing", "its folder is gone or half-written"
    return state, str(event.get("error") or "")


def _measured(path: Path, metrics: dict) -> tuple[dict[str, float], dict]:
    numbers, examples = {}, {}
    for split, result in (("val", metrics), ("test", _result(path / "test.json"))):
        numbers |= {f"{split}/{name}": value for name, value in (result.get("metrics") or {}).items() if value is not None}
        examples |= {f"{split}/{name}": values for name, values in (result.get("per_query") or {}).items()}
    return numbers, examples


# ---- configurations -------------------------------------------------------------------------------------------------


def factors(runs: Iterable[Run]) -> list[str]:
    """Options that differ between the runs, but for the seed, in the order of the first configuration that has each.

    An option that only follows from another kind of class (r of LoRA beside num_virtual_tokens of a prompt) differs too: it
    has a value here and none there.
    """
    runs = [run for run in runs if run.options]
    names = list(dict.fromkeys(name for run in runs for name in run.options))
    unstarted = [run for run in runs if not any(run.made_of)]  # these have the options of their sweep only
    full = [run for run in runs if run not in unstarted] or runs
    varied = [name for name in names if len({as_key(run.options.get(name)) for run in full}) > 1]
    swept = [name for name in names if len({as_key(run.options[name]) for run in runs if name in run.options}) > 1]
    return [name for name in names if name in {*varied, *swept} and name != SEED]


def with_scale(runs: list[Run], names: list[str]) -> tuple[list[Run], list[str]]:
    """LoRA's alpha as alpha / r, where the runs tie the two: the axes of such a sweep are r and the scale.

    Args:
        runs: of a study.
        names: its factors.
    """
    for alpha in [name for name in names if name.endswith("lora_alpha")]:
        r = f"{alpha.removesuffix('lora_alpha')}r"
        ratios = [_ratio(run.options.get(alpha), run.options.get(r)) for run in runs]
        known = {run.options.get(alpha) for run in runs} - {None}
        if r in names and len({*ratios} - {None}) < len(known):
            scale = f"{alpha}/r"
            runs = [run._replace(options=run.options | {scale: ratio}) for run, ratio in zip(runs, ratios, strict=True)]
            names = [scale if name == alpha else name for name in names]
            if len({*ratios} - {None}) < 2:  # a fixed ratio is no factor
                names.remove(scale)
    return runs, names


def _ratio(alpha: Any, r: Any) -> float | int | None:
    if not isinstance(alpha, int | float) or not isinstance(r, int | float) or not r:
        return None
    ratio = alpha / r
    return int(ratio) if ratio == int(ratio) else ratio


def as_key(value: Any) -> str:
    """Equal for equal values: W&B's server gives a 1.0 of a configuration back as 1."""
    return json.dumps(_whole(value), sort_keys=True, default=str)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_whole(one) for one in value] if isinstance(value, list) else value


def _result(path: Path) -> dict:
    return check_metrics(path, _object(path)) if path.exists() else {}


def _object(path: Path) -> dict:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not one this tool wrote; expected an object. Make the run again, or leave it out.")
    return value
