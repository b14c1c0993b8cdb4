"""Two studies, an earlier and a later: what changed, and whether it changes a conclusion.

A run is identical to an earlier one if it has the same id (configuration, seed, data, base model) and was made by the same
code: then every value must be the same to the last bit. Where all runs of a setting were trained again, with other seeds or by
other code, the means are compared by Welch's test, after Holm over the settings so compared. (A little over 250 lines: the
comparison and the record of its outcome are read side by side.)
"""

from typing import NamedTuple

from research.errors import UserError
from research.metrics.families import DIFFERS, UNRESOLVED, UNTESTABLE, holm
from research.metrics.seeds import MethodComparison, summarise, welch_test
from research.report.claims import BROKEN, HELD
from research.report.diff_match import hashes, match
from research.report.study_record import Setting, StudyRecord, equal
from research.report.study_sheets import against
from research.runs.record import RunRecord
from research.types import Json

ALPHA = 0.05
REPEATED, EXTENDED, AGAIN = "the same runs", "some of the same runs", "trained again"
ABSENT = "not claimed"  # a claim that one side does not make


class Moved(NamedTuple):
    """One setting whose mean changed.

    Attributes:
        label: in the later report.
        seeds: runs with a value, before and after.
        old, new: means; None where no run has a value.
        kind: REPEATED | EXTENDED | AGAIN: whether its runs are those of before.
        test: of runs trained again; None of others, and where a side has no value.
        p_holm: over all settings that were trained again.
        verdict: differs | unresolved | not estimable; "" where nothing is tested.
    """

    label: str
    seeds: tuple[int, int]
    old: float | None
    new: float | None
    kind: str
    test: MethodComparison | None = None
    p_holm: float | None = None
    verdict: str = ""

    @property
    def difference(self) -> float | None:
        """Compute after minus before; None where a side has no value."""
        return None if self.old is None or self.new is None else self.new - self.old


class Break(NamedTuple):
    """A value of an identical run, or of an identical system, that changed."""

    run: str
    setting: str
    metric: str
    old: float
    new: float


class Diff(NamedTuple):
    """What changed.

    Attributes:
        metric: whose means are compared.
        settings: those that both have.
        identical: runs that were compared exactly.
        added, removed: labels of settings.
        moved: settings whose mean changed, the largest change first.
        breaks: values of identical runs that differ.
        states: (run, setting, before, after), of runs with one id.
        runs: ids that only the earlier, only the later has.
        claims: (text, before, after, words) whose verdict changed.
        best: labels of the best setting before and after, where it changed.
        options: those that all runs of a report share and whose value changed: name → before and after.
        hashes: what the runs were made of: part → hashes before and after, where they differ.
        notes: what could not be compared.
        marks: (setting, against, differed before, differs after), where a setting's mark of a resolved difference has changed.
        compared: settings and claims that could have contradicted: with identical runs, equal values or a test; held or broken
            on both sides.
    """

    metric: str
    settings: int
    identical: int
    added: list[str]
    removed: list[str]
    moved: list[Moved]
    breaks: list[Break]
    states: list[tuple[str, str, str, str]]
    runs: tuple[list[str], list[str]]
    claims: list[tuple[str, str, str, str]]
    best: tuple[str, str] | None
    options: dict[str, tuple[Json, Json]]
    hashes: dict[str, tuple[list[str], list[str]]]
    notes: list[str]
    compared: int
    marks: list[tuple[str, str, bool, bool]] = []  # noqa: RUF012 (never changed)

    @property
    def broken(self) -> list[str]:
        """List the claims that held and are broken."""
        return [text for text, before, after, _ in self.claims if (before, after) == (HELD, BROKEN)]


def compare(old: StudyRecord, new: StudyRecord, metric: str | None = None) -> Diff:
    """Compare two reports' studies.

    Args:
        old, new: the studies of the earlier and the later report.
        metric: whose means are compared; None takes the later report's, or one that both have.

    Raises:
        UserError: no metric or no setting in common.
    """
    notes: list[str] = []
    metric = _metric(old, new, metric, notes)
    pairs, added, removed = match(old, new, notes)
    if old.higher_is_better(metric) != new.higher_is_better(metric):
        notes.append(f"{metric} is to be {_goal(old, metric)} before and {_goal(new, metric)} after")
    moved, breaks, identical, compared = [], [], 0, _count_decided_claims(old, new)
    for a, b in pairs:
        same = _identical(a, b)
        identical += len(same)
        breaks += [changed for before, after in same for changed in _breaks(before, after, b.label)]
        if (change := _mean_change(a, b, metric, len(same))) is not None:
            moved.append(change)
        compared += bool(same or (change is None and b.values(metric)))
    moved = _adjust_tests(moved)
    compared += sum(change.verdict in (DIFFERS, UNRESOLVED) for change in moved)
    before, after = ({run.id: (run, setting) for setting in side.settings for run in setting.runs} for side in (old, new))
    states = [
        (run.name, setting.label, before[id][0].state, run.state)
        for id, (run, setting) in after.items()
        if id in before and before[id][0].state != run.state
    ]
    runs = [id for id in before if id not in after], [id for id in after if id not in before]
    return Diff(
        metric,
        len(pairs),
        identical,
        [setting.label for setting in added],
        [setting.label for setting in removed],
        moved,
        breaks,
        states,
        runs,
        _changed_claims(old, new),
        _best(old, new, metric, pairs),
        _options(old, new),
        hashes(old.runs, new.runs, notes),
        notes,
        compared,
        _changed_marks(old, new, metric, pairs),
    )


def _metric(old: StudyRecord, new: StudyRecord, wanted: str | None, notes: list[str]) -> str:
    common = [name for name in new.metrics if name in old.metrics]
    if wanted is not None and wanted not in common:
        known = ", ".join(common) or "none: they share none"
        raise UserError(f"metric {wanted} is not in both reports; expected one of {known}. Name another.")
    if not common:
        raise UserError(
            f"the reports have no metric in common: {', '.join(old.metrics)} before, {', '.join(new.metrics)} "
            "after; expected one. Compare reports of one study."
        )
    metric = wanted or next((name for name in (new.metric, old.metric) if name in common), common[0])
    if wanted is None and old.metric != new.metric:
        notes.append(f"the earlier report is about {old.metric}, the later about {new.metric}: compared by {metric}")
    return metric


def _options(old: StudyRecord, new: StudyRecord) -> dict[str, tuple[Json, Json]]:
    """List options of all runs that changed; None stands for an option that no run of a side has."""
    varied = {name for side in (old, new) for setting in side.settings for name in setting.options}
    names = [name for name in {**old.options, **new.options} if name not in varied]
    return {
        name: (old.options.get(name), new.options.get(name)) for name in names if old.options.get(name) != new.options.get(name)
    }


def _goal(side: StudyRecord, metric: str) -> str:
    return "high" if side.higher_is_better(metric) else "low"


def _identical(a: Setting, b: Setting) -> list[tuple[RunRecord, RunRecord]]:
    """Pair the finished runs of both that must have the same values."""
    before = {(run.id, run.made_of): run for run in a.runs if run.state == "done"}
    return [(before[key], run) for run in b.runs if run.state == "done" and (key := (run.id, run.made_of)) in before]


def _breaks(before: RunRecord, after: RunRecord, label: str) -> list[Break]:
    """List the metrics of one run that have another value in the later report."""
    both = [name for name in before.metrics if name in after.metrics]
    return [
        Break(after.name, label, name, before.metrics[name], after.metrics[name])
        for name in both
        if not equal(before.metrics[name], after.metrics[name])
    ]


def _mean_change(a: Setting, b: Setting, metric: str, same: int) -> Moved | None:
    """Return how a setting's mean changed; None where every value is the same. `same` counts its identical runs."""
    before, after = a.values(metric), b.values(metric)
    if before.keys() == after.keys() and all(equal(before[seed], after[seed]) for seed in before):
        return None
    old, new = (summarise(list(values.values())).mean if values else None for values in (before, after))
    seeds = (len(before), len(after))
    if same:
        return Moved(b.label, seeds, old, new, REPEATED if (same, same) == seeds else EXTENDED)
    test = welch_test(list(before.values()), list(after.values())) if before and after else None
    return Moved(b.label, seeds, old, new, AGAIN, test)


def _adjust_tests(moved: list[Moved]) -> list[Moved]:
    """Add Holm's p, and sort by the size of the change; a setting without a value on one side comes last."""
    adjusted = iter(holm([change.test.p for change in moved if change.test is not None]))
    changes = []
    for change in moved:
        if change.test is not None:
            p = next(adjusted)
            verdict = UNTESTABLE if p != p else DIFFERS if p < ALPHA else UNRESOLVED
            change = change._replace(p_holm=p, verdict=verdict)
        changes.append(change)
    return sorted(changes, key=lambda change: -abs(change.difference) if change.difference is not None else 1)


def _changed_marks(
    old: StudyRecord, new: StudyRecord, metric: str, pairs: list[tuple[Setting, Setting]]
) -> list[tuple[str, str, bool, bool]]:
    """List settings whose difference from the baseline is resolved on one side alone; none where the baselines are others."""
    tests = [against(side.study(metric), side.baseline, side.paired) for side in (old, new)]
    first = [next((pair.a for pair in side.values()), None) for side in tests]
    if not any(a.label == first[0] and b.label == first[1] for a, b in pairs):
        return []
    marked = [{label for label, pair in side.items() if pair.verdict == DIFFERS} for side in tests]
    both = [(a, b) for a, b in pairs if a.label in tests[0] and b.label in tests[1]]
    changed = [(b.label, first[1], a.label in marked[0], b.label in marked[1]) for a, b in both]
    return [row for row in changed if row[2] != row[3]]


def _changed_claims(old: StudyRecord, new: StudyRecord) -> list[tuple[str, str, str, str]]:
    changed = []
    for text in dict.fromkeys([*new.claims, *old.claims]):
        (before, _), (after, words) = (side.claims.get(text, (ABSENT, "")) for side in (old, new))
        if before != after:
            changed.append((text, before, after, words))
    return changed


def _count_decided_claims(old: StudyRecord, new: StudyRecord) -> int:
    """Count the claims that both sides decided (held or broken); an undecided one contradicts nothing."""
    both = [{old.claims[text][0], new.claims[text][0]} for text in new.claims if text in old.claims]
    return sum(states <= {HELD, BROKEN} for states in both)


def _best(old: StudyRecord, new: StudyRecord, metric: str, pairs: list[tuple[Setting, Setting]]) -> tuple[str, str] | None:
    a, b = (best(side, metric) for side in (old, new))
    if a is None or b is None or any(before is a and after is b for before, after in pairs):
        return None
    return a.label, b.label


def best(side: StudyRecord, metric: str) -> Setting | None:
    """Find the setting with the best mean; the first of equals."""
    measured = [setting for setting in side.settings if setting.values(metric)]
    choose = max if side.higher_is_better(metric) else min
    return choose(measured, key=lambda setting: summarise(list(setting.values(metric).values())).mean) if measured else None
