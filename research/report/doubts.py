"""What makes a study's numbers weaker than they look: runs without a value, few seeds, settings that differ in more."""

from collections.abc import Mapping, Sequence

from research.report.factors import factors, named, shown, some
from research.report.study import Group
from research.runs.record import RunRecord

ENOUGH = 3  # seeds
ASIDE = 5  # options that are named beside the factors


def doubts(groups: Sequence[Group], metric: str) -> list[str]:
    """What makes the numbers weaker than they look."""
    notes = []
    called = {id(run): group.called(run) for group in groups for run in group.runs}
    few = [group for group in groups if 0 < len(group.values) < ENOUGH]
    if few:
        notes.append(
            f"{len(few)} of {len(groups)} groups have fewer than {ENOUGH} seeds ({some([g.label for g in few])}): "
            "their spread says little"
        )
    if empty := [group for group in groups if not group.values]:
        notes.append(f"{len(empty)} of {len(groups)} groups have no value of {metric} ({some([g.label for g in empty])})")
    for state in dict.fromkeys(run.state for group in groups for run in group.missing if run.state != "done"):
        rows = [run for group in groups for run in group.missing if run.state == state]
        errors = {run.error for run in rows if run.error}
        subject = "runs are" if len(rows) > 1 else "run is"
        notes.append(
            f"{len(rows)} {subject} {state} and in no mean: {some([called[id(run)] for run in rows])}"
            + (f" ({some(sorted(errors))})" if errors else "")
        )
    if without := [run for group in groups for run in group.runs if run.state == "done" and metric not in run.metrics]:
        notes.append(f"{len(without)} finished runs have no {metric}: {some([called[id(run)] for run in without])}")
    if not_finite := [run for group in groups for run in group.missing if run.state == "done" and run not in without]:
        notes.append(
            f"{len(not_finite)} finished runs have a {metric} that is not finite and are in no mean: "
            f"{some([called[id(run)] for run in not_finite])}"
        )
    return notes


def unmeasured(runs: Sequence[RunRecord]) -> str:
    """The message about finished trainings without any metric; "" where one has a metric, or none is finished."""
    done = [run.name for run in runs if run.state == "done"]
    if not done or any(run.metrics for run in runs):
        return ""
    return (
        f"{len(done)} finished runs have no metrics, since they had no validation data ({some(done)}); expected one to "
        "compare by. Run `research test -c RUN/config.yaml --data.test FILE` on each, and name its --metric."
    )


def aside(firsts: list[RunRecord], columns: Sequence[str], labels: Mapping[str, str]) -> str:
    """Options that differ between settings and are in no column, such as a rate that each method has of its own.

    Args:
        firsts: one run of each group.
        columns: options that have a column in the table.
        labels: option → what tables call it.
    """
    # what a method's name says already, and alpha beside r and alpha / r
    implied = (
        "train_layers",
        "train_pattern",
        *(("lora_alpha",) if any(name.endswith("lora_alpha/r") for name in columns) else ()),
    )
    names = [
        name
        for name in factors(firsts)
        if name not in columns
        and not name.endswith(implied)
        and not any(name.startswith(f"{column}.") for column in columns if column.endswith("adapter"))
    ]
    short = named([*columns, *names], labels)
    parts = []
    for name in names[:ASIDE]:
        values = list(dict.fromkeys(shown(run.options.get(name)) for run in firsts))
        parts.append(f"{short[name]} ({', '.join(values[:4])}{', …' if len(values) > 4 else ''})")
    more = f" and {len(names) - ASIDE} more options" if len(names) > ASIDE else ""
    return f"the settings differ in {', '.join(parts)}{more} too: a difference may come from that" if names else ""
