"""The page's explorer: runs to sort, filter, group, draw and compare, as data and the scripts that show it."""

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from research.report.entries import Entry
from research.report.factors import named, shown
from research.report.figures.render import VERSION, can_draw
from research.report.figures.theme import COLOURS, CONFIG, SHAPES, Figure, for_page
from research.report.goals import declaration, direction, recorded
from research.report.numbers import counted
from research.report.outputs import outputs
from research.report.page.explorer_curves import thinned_curves
from research.runs.options import SEED
from research.types import Direction, Json

SCRIPTS = ("elements", "data", "view", "filter", "table", "chart", "figures", "run", "compare", "main")
"""Files of page/, in the order in which each needs the one before; they share one scope."""
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
Provenance = Sequence[tuple[str, str, bool]]
"""(name, value, is it code) of where a run's numbers came from."""
OURS = ("run", "kind", "state", "error", "system")
"""Ids of columns that the scripts ask for."""


class Explorer(NamedTuple):
    """What the page's template inserts.

    Attributes:
        data: JSON, safe inside a script element.
        library: of the charts; "" where vl-convert is not installed.
        script: of the explorer.
        hashes: of both scripts, for the page's Content-Security-Policy: no other script runs.
        holds: what the entries are: `3 systems and 2 trainings`.
    """

    data: str
    library: str
    script: str
    hashes: list[str]
    holds: str


def explorer(
    entries: Sequence[Entry],
    metric: str | None,
    higher: bool,
    factors: Sequence[str],
    facts: Sequence[Provenance],
    figures: Sequence[Figure] = (),
    labels: Mapping[str, str] = {},
) -> Explorer:
    """Make the explorer of these runs.

    Args:
        entries: lines, in the order of the report.
        metric: that they are judged by.
        higher: whether its highest value is the best.
        factors: options that the study varies.
        facts: each entry's provenance.
        figures: of the page; they react to the pointer.
        labels: option or metric → what the page calls it.
    """
    specs = {"figures": json.loads(for_page(json.dumps({figure.name: figure.spec for figure in figures})))}
    text = json.dumps(data(entries, metric, higher, factors, facts, labels) | specs, ensure_ascii=False, separators=(",", ":"))
    scripts = [library(), script()]
    hashes = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts if code]
    return Explorer(text.replace("<", "\\u003c"), *scripts, hashes, _holds(entries))


def _holds(entries: Sequence[Entry]) -> str:
    kinds = Counter(entry.kind for entry in entries)
    return " and ".join(counted(kinds[kind], kind) for kind in ("system", "training") if kinds[kind])


def data(
    entries: Sequence[Entry],
    metric: str | None,
    higher: bool,
    factors: Sequence[str],
    facts: Sequence[Provenance],
    labels: Mapping[str, str] = {},
) -> dict:
    """Collect what the scripts read; see page/data.js for its use."""
    columns, same = _columns(entries, factors, metric, higher, labels)
    options = {column.pop("name"): column["id"] for column in columns if column["kind"] == "option"}
    judged = {column.pop("name"): column["id"] for column in columns if column["kind"] == "metric"}
    return {
        "metric": judged.get(metric),
        "factors": [options[name] for name in factors if name in options],
        "names": [entry.run.name for entry in entries],
        "columns": columns,
        "same": same,
        **thinned_curves([entry.curves for entry in entries], metric),
        "provenance": _provenance(facts),
        "outputs": outputs(entries, metric),
        "style": json.loads(for_page(json.dumps({"colours": COLOURS, "shapes": SHAPES, "config": CONFIG})))
        | {"schema": SCHEMA},
    }


def _columns(
    entries: Sequence[Entry], factors: Sequence[str], metric: str | None, higher: bool, labels: Mapping[str, str]
) -> tuple[list[dict], dict[str, Json]]:
    """Make the columns of the table, the options that vary first; and the options that all entries have in common.

    An id is a column's alone: W&B's programs have an option `loss` beside a metric `loss`, and a metric `error`.
    """
    taken = {*OURS} - ({"system"} if any(entry.kind == "system" for entry in entries) else set())

    def id_of(kind: str, name: str) -> str:
        id = f"{kind}.{name}" if name in taken else name
        taken.add(id)
        return id

    metrics = list(dict.fromkeys(name for entry in entries for name in entry.run.metrics))
    sides = recorded(entry.run for entry in entries)
    ids = {name: id_of("metric", name) for name in metrics}  # first: their names are also those of curves and examples
    options = list(dict.fromkeys([*factors, *(name for entry in entries for name in entry.run.options)]))
    varied, same = [], {}
    # of a point that was never begun only the sweep's options are known: that the others are absent is no difference
    known = [i for i, entry in enumerate(entries) if entry.run.provenance or entry.run.metrics] or range(len(entries))
    for name in options:
        values = [_plain(entry.run.options.get(name)) for entry in entries]
        if name in factors or len({json.dumps(values[i]) for i in known}) > 1:
            varied.append((name, values))
        else:
            same[name] = values[known[0]]
    option_labels = named([name for name, _ in varied], {SEED: "seed"} | labels)
    columns: list[dict] = []
    for kind in ("kind", "state", "error"):
        values = [entry.kind if kind == "kind" else getattr(entry.run, kind) for entry in entries]
        if len(set(values)) > 1 or (kind == "state" and any(values)):
            columns.append({"id": kind, "label": kind, "kind": "state", "values": values})
    columns += [
        {"id": id_of("option", name), "name": name, "label": option_labels[name], "kind": "option", "values": values}
        for name, values in varied
    ]
    columns += [
        {
            "id": ids[name],
            "name": name,
            "label": labels.get(name, name),
            "kind": "metric",
            "values": [_number(entry.run.metrics.get(name)) for entry in entries],
            **({"lower": not higher} if name == metric else _better(name, sides)),
        }
        for name in metrics
    ]
    for name in dict.fromkeys(name for entry in entries for name in entry.run.facts):
        values = [_number(entry.run.facts.get(name)) for entry in entries]
        columns.append({"id": id_of("fact", name), "label": name.replace("_", " "), "kind": "fact", "values": values})
    return columns, same


def _better(metric: str, sides: dict[str, Direction]) -> dict[str, bool | None]:
    """Return `lower`: whether less of a metric is better, None if unknown; `named`: whether only the metric's name says so."""
    side = direction(metric, sides)
    return {
        "lower": None if side is None else side == "lower",
        "named": side is not None and declaration(metric, sides) is None,
    }


def _plain(value: Json) -> Json:
    """Return an option as the table has it: a number, a truth value, or a text."""
    if value is None or isinstance(value, bool | str):
        return shown(value) if isinstance(value, str) else value
    return _number(value) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)


def _number(value: Json) -> Json:
    """Round to ten digits, as many as a table can show; None for nan and infinity, which JSON does not have."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.10g}") if math.isfinite(value) else None


def _provenance(facts: Sequence[Provenance]) -> dict[str, Json]:
    """Return {"values": …, "runs": for each entry (name, index of its value, is it code)}: a shared value is stored once."""
    values: dict[str, int] = {}
    runs = [[[term, values.setdefault(value, len(values)), code] for term, value, code in of_run] for of_run in facts]
    return {"values": list(values), "runs": runs}


# ---- scripts --------------------------------------------------------------------------------------------------------


def script() -> str:
    """Join the explorer's own script: the files of page/ in one scope."""
    here = Path(__file__).parent
    parts = [f"// {name}.js\n{(here / f'{name}.js').read_text(encoding='utf-8')}" for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, from vl-convert: the page draws with what drew the figures."""
    if not can_draw():
        return ""
    import vl_convert

    text = vl_convert.javascript_bundle(vl_version=VERSION)
    # neither may stand in a script element: they would end it, or hide its end
    return text.replace("</script", "<\\/script").replace("<!--", "\\x3c!--")
