"""The page: one self-contained HTML file made by jinja2 with autoescape, the same bytes for the same runs."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from research.report import explain, provenance, tables, training_words
from research.report.figures.render import MISSING, can_draw
from research.report.figures.theme import SIGNS, Figure, for_page, look
from research.report.notes import notes
from research.report.page import examples
from research.report.page.explorer import Explorer
from research.report.row_notes import leak_notes, mix_words, reading_notes
from research.report.sheets import Sheet
from research.report.systems import Systems
from research.report.tables import Line
from research.report.training import Training

HERE = Path(__file__).parent
LAYOUTS = ("wide", "narrow")  # of a figure: one is shown, by the width of the window
SETTINGS = {"precision": "{}", "pooling": "{} pooling", "max_length": "{} tokens", "ef": "ef {}", "M": "M {}"}
LEAD = ("pairs", "main", "results")  # tables that stand before the figures; the first of a study
QUERY_SHOWN = 260  # characters of a query before the rest folds away


def heading(runs: Systems | None) -> str:
    """Write the heading: `Retrieval on builtin:stdlib, test split`; `Training runs` where nothing was tested."""
    if runs is None:
        return "Training runs"
    return f"Retrieval on {training_words.source_name(runs.data['source'])}, {runs.data['split']} split"


def page(
    runs: Systems | None,
    lines: list[Line],
    title: str,
    finding: str,
    trainings: Sequence[Training] = (),
    sheets: Sequence[Sheet] = (),
    warnings: Sequence[str] = (),
    drawn: Sequence[tuple[Figure, str, str]] = (),
    explorer: Explorer | None = None,
    made_from: Sequence[tuple[str, str]] = (),
    latency: Sequence[tuple[Figure, str]] = (),
    curves: Sequence[Sequence[tuple[Figure, str]]] = (),
) -> str:
    """Render index.html as text.

    Args:
        runs: as `systems.read_systems` gives them; None shows the trainings alone.
        lines: as `tables.measure` computed them.
        title: of the page.
        finding: the sentence at its head.
        trainings: as `training.read_training` read them.
        sheets: tables of a study.
        warnings: what must be known before its numbers.
        drawn: figures of a study with their SVG, and another for a phone; "" where the same serves.
        explorer: of all runs; None where there is nothing to compare.
        made_from: (what, value) of a study's runs, for its head.
        latency: quality against time with their SVG: for a wide page and for a phone.
        curves: of each training, with their SVG; without any, each says what it lacks.
    """
    folders, rows = runs.folders if runs else [], [line.row for line in lines]
    values = _tested(runs, lines, latency) if runs else {"lines": lines}
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            css=Markup("".join((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "explorer.css"))),
            explorer=explorer,
            made_from=made_from,
            tested=runs is not None,
            heading=title,
            notes=[*warnings, *leak_notes(rows), *reading_notes(rows), *notes(folders, trainings)],
            sheets=sheets,
            lead=sum(sheet.name in LEAD for sheet in sheets),
            warnings=warnings,
            drawn=[(figure, *(Markup(for_page(drawing)) for drawing in drawings)) for figure, *drawings in drawn],
            finding=finding,
            **values,
            trainings=[
                _training(training, figures, runs)
                for training, figures in itertools.zip_longest(trainings, curves, fillvalue=())
            ],
            folders=[
                (folder.name, provenance.facts(folder.provenance))
                for folder in [*folders, *(training.run for training in trainings)]
            ],
        )
    )
    return text.encode("utf-8", "replace").decode()  # a lone surrogate in somebody's document cannot be written


def _tested(runs: Systems, lines: list[Line], latency: Sequence[tuple[Figure, str]]) -> dict:
    """Collect what the sections of a comparison are made from."""
    shown, rule = examples.examples(runs)
    metrics = list(dict.fromkeys(name for row in runs.rows for name in row.means))
    ann = any(name.startswith("ann_recall@") for row in runs.rows for name in row.facts)
    return {
        "data": runs.data,
        "metric": tables.title(runs.metric),
        "baseline": runs.baseline,
        "lines": lines,
        "settings": [_settings(line.row.facts) for line in lines],
        "systems": tables.systems_table(lines, runs.metric),
        "metrics": tables.metrics_table(runs.rows),
        "cost": tables.cost_table(runs.rows),
        "latency": list(zip(LAYOUTS, _in_page(latency), strict=True)) if latency else [],
        "undrawn": MISSING
        if not can_draw()
        else "Fewer than two systems have times, or too many to tell apart; the tables have them.",
        "untimed": [line.row.label for line in lines if not line.row.facts.get("ms_per_query")],
        "examples": shown,
        "rule": rule,
        "kinds": examples.KINDS,
        "query_shown": QUERY_SHOWN,
        "definitions": explain.definitions(metrics, ann),
    }


def _training(training: Training, curves: Sequence[tuple[Figure, str]], runs: Systems | None) -> dict:
    """Collect one training's figures and sentences."""
    recorded = (
        ("loss", training.loss, "No training step was logged."),
        ("value", training.values or training.best, "Nothing was validated."),
    )
    return {
        "name": training.run.name,
        "state": training_words.state(training),
        "result": training_words.result(training),
        "facts": training_words.facts(training),
        "used": training_words.used_in(training, runs.rows) if runs else [],
        "figures": _in_page(curves),
        "absent": [text for _, values, text in recorded if not values],
    }


def _in_page(drawn: Sequence[tuple[Figure, str]]) -> list[tuple[Figure, Markup]]:
    """Return figures with their SVG, whose texts the renderer has escaped, in the page's colours."""
    return [(figure, Markup(for_page(svg))) for figure, svg in drawn]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["look"] = lambda i: (i % len(SIGNS), SIGNS[look(i)[1]])
    return environment


def _settings(facts: dict) -> str:
    """Write the settings that distinguish a system from another of the same name, in a few words."""
    parts = [form.format(facts[name]) for name, form in SETTINGS.items() if name in facts]
    if "depth" in facts:
        parts.append(f"depth {facts['depth']}" + mix_words(facts))
    return " · ".join(parts) or str(facts.get("model", ""))
