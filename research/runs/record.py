"""One run as a row: what its folder, its sweep's ledger or W&B say of it, in one shape whatever wrote it.

A run that failed, was pruned, or is missing is a record as well: a table that leaves it out would average what survived.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from research.runs.curves import Curve
from research.runs.defaults import without_later_defaults
from research.runs.folder import COUNTS, RunFolder
from research.runs.identity import known_facts
from research.runs.known_code import fingerprints_of, numbers_key
from research.runs.options import SEED, options_from, options_of, with_method
from research.runs.spelling import one_spelling
from research.types import Direction, Json

FACTS = ("trained_parameters", "adapter_parameters", "adapter_bytes", "effective_scale", "virtual_tokens", "parameters")
COUNTED = ("trained_parameters", "adapter_bytes")  # before the training, by the plan of its sweep
FINISHED = ("done", "pruned")


class RunRecord(NamedTuple):
    """One run of a study.

    Attributes:
        name: the folder, by the shortest end of its path that tells it from the others.
        path: resolved; of a point that was never begun, where it would lie.
        state: done | pruned | failed | killed | preempted | running | missing | half-written; "" of a stage of a retrieval.
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
        provenance: as its folder recorded it; of W&B's runs their code and machine.
        directions: metric of its validation → which side is better, as its trainer declares it.
        history: metric → (step, value), of a run whose curves are not in a folder of `research fit`.
        attempts: how often its sweep has begun it; 0 where none has.
        ran_on: the machine that its sweep's ledger names; "" where none is.
    """

    name: str
    path: Path
    state: str
    error: str
    sweep: str
    point: str
    seed: int | None
    options: dict[str, Json]
    metrics: dict[str, float]
    facts: dict[str, float]
    examples: dict[str, dict[str, dict[str, float]]]
    made_of: tuple[str, str, str]
    swept: tuple[str, ...] = ()
    monitor: str = ""
    goal: str | None = None
    host: str = ""
    numbers: str = ""
    how: dict[str, tuple[Json, Json]] = {}  # noqa: RUF012 (never changed)
    provenance: dict[str, Json] = {}  # noqa: RUF012 (never changed)
    directions: dict[str, Direction] = {}  # noqa: RUF012 (never changed)
    history: Callable[[str], Curve] | None = None
    attempts: int = 0
    ran_on: str = ""

    @property
    def id(self) -> str:
        """Return what it computes: its point id, or its name where it has none."""
        return self.point or self.name

    @property
    def origin(self) -> tuple[str, str, str]:
        """Return what runs must have in common to be averaged: data, code (or its numbers) and base model."""
        data, code, base = self.made_of
        return data, self.numbers or code, base


class SweepPoint(NamedTuple):
    """What a sweep knows of one of its points.

    Attributes:
        point: its id, and its folder's name.
        values: parameter → value, from the plan.
        facts: what the plan has counted.
        sweep: name of the sweep's folder.
        event: its last one in the ledger; {} of none.
        attempts: how often the ledger says that it was begun.
    """

    point: str = ""
    values: dict[str, Json] = {}  # noqa: RUF012 (never changed)
    facts: dict[str, Json] = {}  # noqa: RUF012 (never changed)
    sweep: str = ""
    event: dict[str, Json] = {}  # noqa: RUF012 (never changed)
    attempts: int = 0


def read_record(folder: RunFolder, planned: SweepPoint | None = None) -> RunRecord:
    """Read one run of `research fit`, finished or not.

    Args:
        folder: with the name of the row.
        planned: what its sweep knows of it; None of a run alone.

    Raises:
        UserError: a file of it is damaged.
    """
    planned = planned or SweepPoint()
    begun, provenance = folder.is_begun, folder.provenance
    metrics = folder.metrics if begun else {}
    config = folder.config if begun and folder.has_config else {}
    options = options_from(without_later_defaults(config)) if config else with_method(options_of(planned.values))
    one_way = options_from(one_spelling(_as_run(config, provenance.get("processes"))))
    state, error = _state(begun, metrics, planned.event)
    values, examples = _measured(folder) if state in FINISHED else ({}, {})
    trained = metrics.get("trained") or {}
    facts = {name: trained[name] for name in FACTS if trained.get(name) is not None}
    for name in COUNTED if state in FINISHED else ():
        if planned.facts.get(name):  # of trainings that do not say it
            facts.setdefault(name, planned.facts[name])
    facts |= {name: metrics[name] for name in COUNTS if metrics.get(name) is not None}
    tested = folder.test if state in FINISHED else {}
    shared = {"val_trained": (provenance.get("data") or {}).get("val_trained"), "test_trained": tested.get("trained_rows")}
    facts |= {name: count for name, count in (shared | _lost_rows(metrics, tested)).items() if count}
    return RunRecord(
        folder.name,
        folder.path.resolve(),
        state,
        error,
        planned.sweep,
        planned.point or provenance.get("point") or "",
        options.get(SEED),
        options,
        values,
        facts,
        examples,
        _made_of(provenance),
        swept=tuple(name for name, value in planned.values.items() if not isinstance(value, dict)),
        monitor=str(metrics.get("monitor") or config.get("monitor") or ""),
        how={name: (value, one_way[name]) for name, value in options.items() if one_way.get(name, value) != value},
        numbers=numbers_key(fingerprints_of(provenance), config, folder.path),
        provenance=provenance,
        directions=metrics.get("directions") or {},
        attempts=planned.attempts,
        ran_on=str(planned.event.get("host") or ""),
    )


def _lost_rows(*results: dict[str, Json]) -> dict[str, float]:
    """Return "val_dropped", … (rows of a split that were dropped, or left out as equal) and "val_rows", … (of how many)."""
    counts = {}
    for split, lost in [pair for result in results for pair in (result.get("lost_rows") or {}).items()]:
        if dropped := lost.get("dropped", 0) + lost.get("equal", 0):
            counts |= {f"{split}_dropped": dropped, f"{split}_rows": lost["rows"]}
    return counts


def data_key(facts: Json) -> str:
    """Return the data's facts as one text, equal for equal data; "" where nothing is known of it."""
    known = known_facts(facts) if isinstance(facts, dict) else {}
    return json.dumps(known, sort_keys=True) if known else ""


def _made_of(provenance: dict[str, Json]) -> tuple[str, str, str]:
    """Return (data, code, base model) by hash."""
    code = provenance.get("fingerprint") or provenance.get("git_commit") or ""
    return data_key(provenance.get("data")), str(code), str(provenance.get("model_hash") or "")


def _as_run(config: dict[str, Json], processes: Json) -> dict[str, Json]:
    """Return the configuration with the number of processes that trained in place of devices: auto."""
    trainer = config.get("trainer")
    if not isinstance(processes, int) or not isinstance(trainer, dict):
        return config
    return config | {"trainer": trainer | {"devices": processes, "num_nodes": 1}}


def _state(begun: bool, metrics: dict[str, Json], event: dict[str, Json]) -> tuple[str, str]:
    """Return state and error of a run: by its folder, else by its sweep's ledger."""
    if metrics.get("finished"):
        return ("pruned" if metrics.get("pruned") else "done"), ""
    state = event.get("state", "half-written" if begun else "missing")
    if state in FINISHED:  # the ledger says so, and the folder does not
        return "missing", "its folder is gone or half-written"
    return state, str(event.get("error") or "")


def _measured(folder: RunFolder) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Read metrics, and their values of each example, by split."""
    values, examples = {}, {}
    for split, result in (("val", folder.metrics), ("test", folder.test)):
        values |= {f"{split}/{name}": value for name, value in (result.get("metrics") or {}).items() if value is not None}
        examples |= {f"{split}/{name}": by_example for name, by_example in (result.get("per_query") or {}).items()}
    return values, examples
