"""Write the files that every run folder holds: config.yaml, provenance.json, metrics.json (named in layout.py)."""

from collections.abc import Iterable
from pathlib import Path

import yaml

from research.runs.files import atomic_write, write_json
from research.runs.layout import CONFIG, METRICS, PROVENANCE, SCHEMA
from research.runs.provenance import provenance
from research.types import Json


def write_config(out: Path, config: dict[str, Json]) -> None:
    """Write the resolved configuration of a run, with every default."""
    with atomic_write(out / CONFIG) as stream:
        yaml.safe_dump(config, stream, sort_keys=False, allow_unicode=True)


def write_provenance(out: Path, command: list[str], classes: Iterable[Path] = (), **facts: Json) -> None:
    """Write where a run's numbers come from. It is the first file of a folder: later commands recognise a run folder by it.

    Args:
        out: the run folder.
        command: as the user typed it.
        classes: files of the classes that a configuration names.
        facts: what the verb knows of data, models and code.
    """
    write_json(out / PROVENANCE, {"schema": SCHEMA, **provenance(command, classes, **facts)})


def write_metrics(out: Path, metrics: dict[str, Json]) -> None:
    """Write a run's summary and its values per query."""
    write_json(out / METRICS, metrics)
