"""What a study adds to a report: trainings that differ by options and seeds, compared in tables, figures and claims."""

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.progress import say
from research.report import claims as claiming
from research.report import study_sheets
from research.report.claims import Verdict
from research.report.doubts import unmeasured
from research.report.factor_sheets import by_factor, factorial, not_factorial, shares
from research.report.factors import factors, short_names
from research.report.figures import of_study
from research.report.figures.render import MISSING, can_draw
from research.report.figures.theme import Figure
from research.report.groups import make_study
from research.report.importance import Importance, importance
from research.report.main_table import main_results
from research.report.notes import code_notes, left_out_notes, trained_on_notes
from research.report.sheets import Sheet, distinct
from research.report.spec import Spec
from research.report.study import Study
from research.report.study_record import study_record
from research.report.subject import grouped, is_ablation, label_of, title_of
from research.runs.curves import Curve, history
from research.runs.record import RunRecord
from research.runs.table import read_runs
from research.types import Json

DRAWN = 12  # trainings whose curves a page draws one by one; of more, its explorer does


class StudyReport(NamedTuple):
    """What a study adds to a report.

    Attributes:
        title, finding: of the page.
        sheets, warnings: its tables, and what to know before them.
        figures: of the paper and the page; none where they cannot be drawn here.
        runs: the tidy table.
        trainings: runs whose curves are drawn.
        summary, counts: for programs.
        exit_code: 1 where a claim is broken.
        study: its groups.
    """

    title: str
    finding: str
    sheets: list[Sheet]
    figures: list[Figure]
    warnings: list[str]
    runs: list[RunRecord]
    trainings: list[RunRecord]
    summary: dict[str, Json]
    counts: dict[str, Json]
    exit_code: int
    study: Study


def study_report(paths: list[Path], spec: Spec, has_sweep: bool, claims: Path | None) -> StudyReport | None:
    """Compare these runs and sweeps; None where there is nothing to compare: one setting and no sweep, or no metric.

    Raises:
        UserError: a metric, baseline, factor or claim that is not there; runs that cannot be read.
    """
    asked = any(value is not None for value in (spec.metric, spec.baseline, spec.factors, claims))
    if not paths:
        if asked:
            raise UserError(
                "--metric, --baseline, --claims and a spec's factors are about trainings, and none is given; "
                "expected folders of `research fit` or `research sweep`. Name some."
            )
        return None
    runs = read_runs(paths, spec.seed)
    if spec.seed is not None and not any(run.history for run in runs):
        raise UserError(
            f"the spec's seed {spec.seed!r} is for runs of W&B, and none is given; a training of `research fit` "
            "has its own. Leave seed out."
        )
    names = factors(runs)
    if not (has_sweep or asked or is_ablation(runs, names)):
        return None
    if not asked and (reason := unmeasured(runs)):
        say(f"warning: {reason}")
        return None
    runs, names, main = grouped(runs, paths, spec)
    spec = spec._replace(baseline=_baseline(spec.baseline, names, main))
    factor_shares = importance(main)
    sheets = _sheets(main, spec, factor_shares)
    studies = {main.metric: main}

    def study_of(metric: str) -> Study:
        """Group the same runs, judged by another metric."""
        if metric not in studies:
            studies[metric] = make_study(runs, metric, names, every=spec.factors is not None, labels=main.labels)
        return studies[metric]

    if len(spec.metrics) > 1 or (spec.metrics and spec.metrics != (main.metric,)):
        columns = [study_of(metric) for metric in spec.metrics]
        sheets.insert(0, main_results(columns, spec.baseline, spec.pair_by_seed))
        new_warnings = [warning for column in columns for warning in column.warnings if warning not in main.warnings]
        main.warnings.extend(dict.fromkeys(new_warnings))
    verdicts: list[Verdict] = []
    if claims is not None:
        file_claims = [
            claim._replace(metric=claim.metric or main.metric) for claim in dict.fromkeys(claiming.read_claims(claims))
        ]
        by_metric = {claim.metric: study_of(claim.metric) for claim in file_claims}
        verdicts = claiming.check(file_claims, by_metric, str(claims), spec.pair_by_seed)
        sheets.append(claiming.sheet(verdicts))
    local_runs = [run for run in runs if run.state in ("done", "pruned") and run.history is None]
    if len(local_runs) > DRAWN:  # of few, the page's trainings say it themselves
        main.warnings.extend(
            code_notes({run.name: run.provenance for run in local_runs})
            + trained_on_notes(local_runs)
            + left_out_notes(local_runs)
        )
    display_names = {run.name: group.called(run) for group in main.groups for run in group.runs}
    if not can_draw():
        say(f"warning: {MISSING}")
    curves = [partial(_curve, metric) for metric in (main.metric, "train/loss")]
    states: dict[str, int] = {}
    for run in runs:
        states[run.state] = states.get(run.state, 0) + 1
    claim_records = [{"claim": verdict.claim.text, "state": verdict.state, "words": verdict.words} for verdict in verdicts]
    record = study_record(main, claim_records, spec.baseline, spec.pair_by_seed)
    broken = sum(verdict.state == claiming.BROKEN for verdict in verdicts)
    return StudyReport(
        title=title_of(paths, runs),
        finding=study_sheets.finding(main, spec.pair_by_seed),
        sheets=distinct([*sheets, study_sheets.every_run(main)]),
        figures=distinct(of_study(main, curves[0], factor_shares, curves[1])),
        warnings=main.warnings,
        runs=runs,
        trainings=[run._replace(name=display_names[run.name]) for run in local_runs] if len(local_runs) <= DRAWN else [],
        summary={"study": {**record, "states": states, "warnings": main.warnings}},
        counts={"runs": len(runs), "states": states, **({"broken": broken} if verdicts else {})},
        exit_code=int(broken > 0),
        study=main,
    )


def _baseline(baseline: str | None, names: list[str], main: Study) -> str | None:
    """Return the label of the setting that others are compared with, its options in short or in whole."""
    keys = {group.key: group.label for group in main.groups if group.values}
    if baseline is None or baseline in keys.values():
        return baseline
    for name, label in main.labels.items():
        baseline = re.sub(rf"(?<![\w./]){re.escape(label)}=", f"{name}=", baseline)
    for name, short in short_names(names).items():
        baseline = re.sub(rf"(?<![\w./]){re.escape(name)}=", f"{short}=", baseline)
    return keys[label_of(baseline, list(keys))]


def _sheets(main: Study, spec: Spec, factor_shares: Importance | None) -> list[Sheet]:
    """Make the tables on the study's own metric."""
    sheets = [
        study_sheets.results(main, spec.baseline, spec.pair_by_seed),
        study_sheets.grid(main),
        *(by_factor(main, name, spec.pair_by_seed) for name in main.factors),
        factorial(main, spec.pair_by_seed),
        study_sheets.matched(main),
        shares(factor_shares, main.metric_name, not_factorial(main, spec.pair_by_seed)) if factor_shares else None,
    ]
    return [sheet for sheet in sheets if sheet is not None]


def _curve(metric: str, run: RunRecord) -> Curve:
    """Read (step, value) of a run's validations."""
    if run.history is not None:  # W&B's
        return run.history(metric)
    return history(run.path, metric)
