"""What a study's runs were made from, in the few words that a reader wants beside the numbers."""

from collections.abc import Sequence

from research.report.groups import shown, some
from research.report.study import Run
from research.runs.layout import MARKER
from research.runs.reading import read_json

ASKED = {"Model": ("model.model", "model.retriever"), "Data": ("data.train", "data.data")}
SHORT = 8  # characters of a commit


def origin(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(Model, …), (Data, …), (Commit, …) of the runs that have values; what no run says is left out.

    Args:
        runs: of a study.
    """
    known = [run for run in runs if run.metrics]
    found = []
    for label, names in ASKED.items():
        values = dict.fromkeys(shown(run.options[name]) for run in known for name in names if run.options.get(name))
        found.append((label, some(list(values))))
    firsts = {run.made_of: run for run in reversed(known)}
    found.append(("Commit", some(list(dict.fromkeys(filter(None, map(_commit, firsts.values())))))))
    return [(label, value) for label, value in found if value]


def _commit(run: Run) -> str:
    marker = run.path / MARKER
    if run.history is not None or not marker.is_file():
        return ""
    return str(read_json(marker).get("git_commit") or "")[:SHORT]  # that it had changes is a note of its own
