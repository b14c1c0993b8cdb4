"""The page: one self-contained HTML file made by jinja2 with autoescape, the same bytes for the same runs."""

import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from research.report import examples, explain, figures, tables
from research.report.notes import notes
from research.report.runs import Folder, Runs
from research.report.tables import Line

HERE = Path(__file__).parent
SETTINGS = {"precision": "{}", "pooling": "{} pooling", "max_length": "{} tokens", "ef": "ef {}", "M": "M {}"}
QUERY_SHOWN = 260  # characters of a query before the rest folds away


def heading(runs: Runs) -> str:
    """`Retrieval on builtin:stdlib, test split`."""
    return f"Retrieval on {runs.data['source']}, {runs.data['split']} split"


def page(runs: Runs, lines: list[Line]) -> str:
    """index.html as text.

    Args:
        runs: as `runs.collect` read them.
        lines: as `tables.measure` computed them.
    """
    shown, rule = examples.examples(runs)
    metrics = list(dict.fromkeys(name for row in runs.rows for name in row.means))
    ann = any(name.startswith("ann_recall@") for row in runs.rows for name in row.facts)
    untimed = [line.row.label for i, line in enumerate(lines) if i not in figures.plotted(lines)]
    text = _environment().get_template("page.html.j2").render(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        heading=heading(runs), data=runs.data, metric=tables.title(runs.metric),
        finding=explain.finding(lines, runs.metric), notes=notes(runs.folders), lines=lines,
        settings=[_settings(line.row.facts) for line in lines],
        systems=tables.systems_table(lines, runs.metric), metrics=tables.metrics_table(runs.rows),
        cost=tables.cost_table(runs.rows), plots=_plots(lines, runs.metric), untimed=untimed, examples=shown, rule=rule,
        kinds=examples.KINDS, definitions=explain.definitions(metrics, ann),
        folders=[(folder.name, _provenance(folder)) for folder in runs.folders], query_shown=QUERY_SHOWN,
    )  # fmt: skip
    return text.encode("utf-8", "replace").decode()  # a lone surrogate in somebody's document cannot be written


def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.globals["marker"] = lambda i: Markup(  # made of numbers only, nothing to escape
        f'<svg class="key" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">{figures.marker(i)}</svg>'
    )
    return environment


def _plots(lines: list[Line], metric: str) -> list[dict]:
    """Each layout's SVG, whose texts figures.py has escaped, and whether the page must add a legend to it."""
    if not figures.plotted(lines):
        return []
    plots = []
    for layout in figures.LAYOUTS:
        svg, named = figures.latency_plot(lines, metric, layout)
        plots.append({"name": layout.name, "svg": Markup(svg), "legend": [] if named else figures.plotted(lines)})
    return plots


def _settings(facts: dict) -> str:
    """What tells this system from one with the same name, in a few words."""
    parts = [form.format(facts[name]) for name, form in SETTINGS.items() if name in facts]
    return " · ".join(parts) or str(facts.get("model", ""))


def _provenance(folder: Folder) -> list[tuple[str, str, bool]]:
    """(name, value, is it code) of where a run's numbers came from, in the order of asking."""
    facts = folder.provenance
    commit = facts.get("git_commit")
    state = {True: " with uncommitted changes", False: "", None: ""}[facts.get("git_dirty")]
    packages = ", ".join(f"{name} {version}" for name, version in (facts.get("packages") or {}).items() if version)
    models = ", ".join(f"{name} {value}" for name, value in (facts.get("models") or {}).items() if value)
    seconds = facts.get("seconds")
    found = [
        ("Command", shlex.join(facts.get("command") or []), True),
        ("Finished", facts.get("time", ""), False),
        ("Took", f"{seconds:,.1f} s" if seconds is not None else "", False),
        ("Git commit", commit + state if commit else "none: not run from a git repository", bool(commit)),
        ("Data, sha256", facts.get("data") or "", True),
        ("Model, sha256", models, True),
        ("Packages", packages, False),
        ("Python", facts.get("python", ""), False),
        ("Machine", f"{facts.get('platform', '')}, {facts.get('cpus', '?')} processors", False),
    ]
    return [entry for entry in found if entry[1]]
