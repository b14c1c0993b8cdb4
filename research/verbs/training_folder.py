"""The folder of a training: what is done in it, what it was made of, and the numbers that it ends with."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from research.errors import UserError
from research.progress import say
from research.runs.files import write_json
from research.runs.fingerprint import fingerprint
from research.runs.hashes import hash_json
from research.runs.identity import PATHS, PLACE, differences, known_facts
from research.runs.known_code import fingerprints_of, stale_because
from research.runs.layout import CHECKPOINTS, CONFIG, MARKER, METRICS
from research.runs.reading import read_json
from research.runs.writers import write_config, write_provenance
from research.verbs.configuration import take_normal_form

if TYPE_CHECKING:
    import lightning as L


def is_finished(out: Path, resolved: dict) -> bool:
    """Whether this very run is done.

    Raises:
        UserError: the folder holds another run.
    """
    if not any((out / name).exists() for name in (CHECKPOINTS, METRICS)):
        return False  # nothing was trained yet: a configuration that was refused may be corrected
    try:
        earlier = yaml.safe_load((out / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        earlier = None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{out / 'config.yaml'} is not readable YAML ({str(error).splitlines()[0]}); expected the "
            "configuration of this run. Name another --out, or delete this folder."
        ) from None
    earlier = earlier if isinstance(earlier, dict) else {}
    if isinstance(earlier.get("trainer"), dict):
        take_normal_form(earlier["trainer"])  # of before there was one
    found = differences(earlier, resolved)
    if "TANDEM_POINT" in os.environ:  # the point's id stands for what lies there, however its place is spelled
        found = {name: values for name, values in found.items() if name not in PATHS}
    changed = [f"{name} {old!r}, now {new!r}" for name, (old, new) in found.items()]
    if changed:
        raise UserError(
            f"--out {out} holds a run with another configuration ({'; '.join(changed[:5])}); expected the same, to "
            "go on with it. Name another --out, or delete this folder."
        )
    return (out / METRICS).exists() and bool(metrics_of(out).get("finished"))


def metrics_of(out: Path) -> dict:
    """A run's metrics.json.

    Raises:
        UserError: it is not one that fit wrote.
    """
    metrics = read_json(out / METRICS)
    if not isinstance(metrics, dict) or not isinstance(metrics.get("metrics"), dict):
        raise UserError(
            f"{out / 'metrics.json'} is not one that `research fit` wrote; expected an object with metrics. Name "
            "another --out, or delete this folder."
        )
    return metrics


def place_of(out: str, ids: tuple[str, ...]) -> str:
    """--out of a point: under the id by which it was begun, else under the one that it has now."""
    places = [out.replace(PLACE, one) for one in ids]
    return next((place for place in places if (Path(place) / MARKER).exists()), places[0])


def write_origin(
    args: argparse.Namespace, out: Path, resolved: dict, module: Any, data: Any, trainer: "L.Trainer", resumed: bool, point: str
) -> None:
    """Write what the run is made of, or check that it still is.

    Raises:
        UserError: a resumed run's data or base model have changed.
    """
    facts = {"model_hash": module.base_hash, "data": known_facts(data.describe())}
    made_of = hash_json(facts)
    if resumed:
        marker = read_json(out / MARKER)
        marker = marker if isinstance(marker, dict) else {}
        if (earlier := marker.get("made_of")) != made_of:
            raise UserError(
                f"the data or the base model of {out} have changed since its checkpoint (hash "
                f"{str(earlier)[:12]}…, now {made_of[:12]}…); expected the same, to go on. Name another --out, "
                "or delete it."
            )
        code = fingerprint(resolved)
        before = {*fingerprints_of(marker)} - {None, code}
        if before:
            if reason := stale_because(before, resolved, out):
                say(f"warning: {out}: {reason}; it goes on with this code, and counts as stale")
            write_json(out / MARKER, marker | {"fingerprint": code, "earlier_fingerprints": sorted(before)})
        return
    # the marker first: a folder that holds other files and no marker would be taken for somebody else's
    device = str(trainer.strategy.root_device)
    write_provenance(
        out,
        args.command,
        made_of=made_of,
        seed=resolved["seed_everything"],
        device=device,
        processes=trainer.world_size,
        point=point,
        fingerprint=fingerprint(resolved),
        **facts,
    )
    write_config(out, resolved)


def print_result(args: argparse.Namespace, out: Path | None, result: dict) -> int:
    """Metrics on stdout, as a table or as --json; the exit code. `out` is None where nothing was written."""
    if args.json:
        print(json.dumps({"metrics": result["metrics"], "out": None if out is None else str(out)}))
        return 0
    if not result["metrics"]:
        print(f"trained for {result.get('steps')} steps, without validation")
    width = max(map(len, result["metrics"]), default=0)
    for name, value in result["metrics"].items():
        before = (result.get("untrained") or {}).get(name)
        print(f"{name:{width}} {value:.4f}" + ("" if before is None else f"   untrained {before:.4f}"))
    print(f"\nwritten to {out}" if out is not None else "\nnothing is written: there is no run folder yet")
    return 0
