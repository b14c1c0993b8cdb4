"""What a study's runs were made from, in the few words that a reader wants beside the numbers."""

from collections.abc import Sequence

from research.report.factors import shown, some
from research.runs.record import RunRecord

ASKED = {"Model": ("model.model", "model.retriever"), "Data": ("data.train", "data.data")}
SHORT = 8  # characters of a commit


def origin(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Return (Model, …), (Data, …), (Commit, …) of the runs that have values; what no run says is left out.

    Args:
        runs: of a study.
    """
    known = [run for run in runs if run.metrics]
    facts = []
    for label, names in ASKED.items():
        values = dict.fromkeys(shown(run.options[name]) for run in known for name in names if run.options.get(name))
        facts.append((label, some(list(values))))
    firsts = {run.made_of: run for run in reversed(known)}
    facts.append(("Commit", some(list(dict.fromkeys(filter(None, map(_commit, firsts.values())))))))
    return [(label, value) for label, value in facts if value]


def _commit(run: RunRecord) -> str:
    return str(run.provenance.get("git_commit") or "")[:SHORT]  # that it had changes is a note of its own
