"""Checks the places of models and data that a configuration names, before torch is loaded."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from research.models.sources import check_name
from research.runs.class_source import is_ours
from research.runs.layout import PROVENANCE
from research.training.option_names import dotted
from research.types import Json

DATA = ("train", "val", "test", "other", "corpus_file", "queries_file")
"""Options of our data that name files, folders or sources."""
COMMAND = "research.data.candidates.CandidateData"
"""A class that itself says how candidates that are not there are made."""


def values_of(files: Mapping[str, dict], typed: list[tuple[str, str]]) -> dict[str, Json]:
    """Map each option's dotted name to its value, as far as it is known without importing the classes.

    Args:
        files: configuration → its sections, in the order in which they are read.
        typed: options of the command line with their values.
    """
    values = {name: value for sections in files.values() for name, value in dotted(sections)}
    for name, text in typed:
        name = name.replace(".init_args", "")
        structured = text.startswith(("[", "{")) or text == "null"
        try:
            value = yaml.safe_load(text) if structured else text
        except yaml.YAMLError:
            value = None  # the parser says what is wrong with it
        values |= {name: value} | (dict(dotted(value, f"{name}.")) if isinstance(value, dict) else {})
    return values


def check_places(args: argparse.Namespace, check_source: Callable[[str], None]) -> None:
    """Refuse a model or data that are not there; a run that has begun does not need the model from which it started.

    Args:
        args: as arguments.parse gives them.
        check_source: refuses a data source that is not there.

    Raises:
        UserError: one is not.
    """
    values = args.values
    if args.resumes or (Path(str(values.get("out"))) / PROVENANCE).exists():
        return
    data, model = (values.get(f"{section}.class_path") or values.get(section) for section in ("data", "model"))
    if isinstance(model, str) and is_ours(model) and isinstance(name := values.get("model.model"), str):
        check_name(name)
    if not isinstance(data, str) or not is_ours(data):
        return
    for option in DATA:
        value = values.get(f"data.{option}")
        if f"data.{option}+" in values or (data == COMMAND and option == "train"):
            continue
        for source in value if isinstance(value, list) else [value]:
            if isinstance(source, str):
                check_source(source)
