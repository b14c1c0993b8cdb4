"""The folder of a training: whether it is finished, and what it was made from."""

import os
from pathlib import Path

import lightning as L

from research.errors import UserError
from research.progress import say
from research.runs.files import write_json
from research.runs.fingerprint import files_of_classes
from research.runs.folder import RunFolder
from research.runs.hashes import hash_json
from research.runs.identity import PATHS, PLACE, differences, known_facts
from research.runs.known_code import fingerprints_of, stale_because
from research.runs.layout import CHECKPOINTS, METRICS, PROVENANCE
from research.runs.writers import write_config, write_provenance
from research.training.base import TrainingModule
from research.training.normal_form import take_normal_form


def has_finished(out: Path, resolved: dict) -> bool:
    """Return whether a folder holds the finished training of this configuration.

    Raises:
        UserError: the folder holds another run.
    """
    if not any((out / name).exists() for name in (CHECKPOINTS, METRICS)):
        return False  # nothing was trained yet: a configuration that was refused may be corrected
    folder = RunFolder(out)
    try:
        earlier, metrics = folder.config if folder.has_config else {}, metrics_of(out) if (out / METRICS).exists() else {}
    except UserError as error:
        raise UserError(f"{error} Or name another folder by --out, or delete {out}.") from None
    if isinstance(earlier.get("trainer"), dict):
        take_normal_form(earlier["trainer"])  # earlier versions had none
    # of a sweep's point the id has the hashes of its files, wherever they lie
    passed_over = PATHS if "TANDEM_POINT" in os.environ else ()
    pairs = {name: pair for name, pair in differences(earlier, resolved).items() if name not in passed_over}
    changed = [f"{name} {old!r}, now {new!r}" for name, (old, new) in pairs.items()]
    if changed:
        raise UserError(
            f"the run folder {out} holds a run with another configuration ({'; '.join(changed[:5])}); expected the same, to go "
            f"on with it. Name another folder by --out, or delete {out}."
        )
    return bool(metrics.get("finished"))


def metrics_of(out: Path) -> dict:
    """Read a run's metrics.json.

    Raises:
        UserError: it is not one that fit wrote.
    """
    metrics = RunFolder(out).metrics
    if not isinstance(metrics.get("metrics"), dict):
        raise UserError(
            f"{out / METRICS} is not one that `research fit` wrote; expected an object with metrics. Make the run again."
        )
    return metrics


def place_of(out: str, ids: tuple[str, ...]) -> str:
    """Return --out of a point: under the id with which it was begun, else under its present id."""
    places = [out.replace(PLACE, point) for point in ids]
    return next((place for place in places if (Path(place) / PROVENANCE).exists()), places[0])


def point_of(ids: tuple[str, ...]) -> str:
    """Return the id of a training; if a sweep runs it, the id in the sweep's plan.

    Raises:
        UserError: the sweep has planned another one.
    """
    point = os.environ.get("TANDEM_POINT", ids[0])
    if point not in ids:
        raise UserError(
            f"this is point {ids[0]}, and the sweep's plan has {point} for it: data, model or configuration have "
            "changed since; expected what was planned. Plan the sweep again."
        )
    return point


def write_origin(
    out: Path,
    command: list[str],
    resolved: dict,
    module: TrainingModule,
    data: L.LightningDataModule,
    trainer: L.Trainer,
    point: str,
    code: str,
) -> None:
    """Write what a new run is made from: first provenance.json, which marks the folder as a run's, then config.yaml.

    Args:
        out: its folder.
        command: as the user typed it.
        resolved: the configuration with every default.
        module, data, trainer: built from it.
        point: id of the training.
        code: fingerprint of the code that computes it.
    """
    facts = _made_of(module, data)
    write_provenance(
        out,
        command,
        files_of_classes(resolved),
        made_of=hash_json(facts),
        seed=resolved["seed_everything"],
        device=str(trainer.strategy.root_device),
        processes=trainer.world_size,
        point=point,
        fingerprint=code,
        **module.say_cut(data, resolved["model"]["init_args"].get("model", "the model")),
        **facts,
    )
    write_config(out, resolved)


def check_origin(out: Path, resolved: dict, module: TrainingModule, data: L.LightningDataModule, code: str) -> None:
    """Check that a run is resumed with the settings of its start; changed code is reported and noted in provenance.json.

    Raises:
        UserError: data or base model have changed.
    """
    provenance = RunFolder(out).provenance
    earlier, now = provenance.get("made_of"), hash_json(_made_of(module, data))
    if earlier != now:
        raise UserError(
            f"the data or the base model of {out} have changed since its checkpoint (hash "
            f"{str(earlier)[:12]}…, now {now[:12]}…); expected the same, to go on. Name another --out, "
            "or delete it."
        )
    if others := {*fingerprints_of(provenance)} - {None, code}:
        if reason := stale_because(others, resolved, out):
            say(f"warning: {out}: {reason}; it goes on with this code, and counts as stale")
        write_json(out / PROVENANCE, provenance | {"fingerprint": code, "earlier_fingerprints": sorted(others)})


def _made_of(module: TrainingModule, data: L.LightningDataModule) -> dict:
    return {"model_hash": module.base_hash, "data": known_facts(data.describe())}
