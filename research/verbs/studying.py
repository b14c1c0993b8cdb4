"""The study of a report: trainings that differ by options and seeds, compared."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError, suggest
from research.progress import say
from research.runs.reading import read_json

DRAWN = 12  # trainings whose curves a page draws one by one; of more, its explorer does


class Found(NamedTuple):
    """What a study adds to a report.

    Attributes:
        title, finding: of the page.
        sheets, warnings: its tables, and what to know before them.
        figures: of the paper and the page; none where they cannot be drawn here.
        runs: the tidy table.
        trainings: (folder, name) of the runs whose curves are drawn.
        summary, counts: for programs.
        exit_code: 1 where a claim is broken.
        study: its groups.
    """

    title: str
    finding: str
    sheets: list
    figures: list
    warnings: list[str]
    runs: list
    trainings: list[tuple[Path, str]]
    summary: dict[str, Any]
    counts: dict[str, Any]
    exit_code: int
    study: Any


def study_of(paths: list[Path], spec: Any, has_sweep: bool, claims: Path | None) -> Found | None:
    """The study of these runs and sweeps; None where there is nothing to compare: one setting and no sweep, or no metric.

    Raises:
        UserError: a metric, baseline, factor or claim that is not there; runs that cannot be read.
    """
    from research.report import claims as claiming
    from research.report import study_sheets as sheets
    from research.report.doubts import unmeasured
    from research.report.factor_sheets import by_factor, factorial, not_factorial, shares
    from research.report.factors import factors, short_names
    from research.report.figures import of_study
    from research.report.figures.render import MISSING, can_draw
    from research.report.groups import study
    from research.report.importance import importance
    from research.report.main_table import main_results
    from research.report.notes import code_notes
    from research.report.sheets import distinct
    from research.report.study_record import study_record
    from research.runs.table import read_runs

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
    if not (has_sweep or asked or _shares(runs, names)):
        return None
    if not asked and (bare := unmeasured(runs)):
        say(f"warning: {bare}")
        return None
    runs, names, main = grouped(runs, paths, spec)
    metric = main.metric
    for name, short in short_names(names).items() if spec.baseline else ():
        spec = spec._replace(baseline=spec.baseline.replace(f"{name}=", f"{short}="))
    spec = spec._replace(baseline=_label(spec.baseline, [group.label for group in main.groups if group.values]))
    made = [
        sheets.results(main, spec.baseline, spec.pair_by_seed),
        sheets.grid(main),
        *(by_factor(main, name, spec.pair_by_seed) for name in main.factors),
        factorial(main, spec.pair_by_seed),
        sheets.matched(main),
    ]
    explained = importance(main)
    made += [shares(explained, metric, not_factorial(main, spec.pair_by_seed))] if explained else []
    made = [sheet for sheet in made if sheet is not None]
    studies = {metric: main}

    def of(name: str) -> Any:
        """The same runs, judged by another metric."""
        if name not in studies:
            studies[name] = study(runs, name, names, every=spec.factors is not None)
        return studies[name]

    if len(spec.metrics) > 1 or (spec.metrics and spec.metrics != (metric,)):
        columns = [of(name) for name in spec.metrics]
        made.insert(0, main_results(columns, spec.baseline, spec.pair_by_seed))
        main.warnings.extend(dict.fromkeys(one for other in columns for one in other.warnings if one not in main.warnings))
    verdicts = []
    if claims is not None:
        stated = [one._replace(metric=one.metric or metric) for one in dict.fromkeys(claiming.read_claims(claims))]
        wanted = {one.metric: of(one.metric) for one in stated}
        verdicts = claiming.check(stated, wanted, str(claims), spec.pair_by_seed)
        made.append(claiming.sheet(verdicts))
    made = distinct([*made, sheets.every_run(main)])
    states: dict[str, int] = {}
    for run in runs:
        states[run.state] = states.get(run.state, 0) + 1
    trained = [run for run in runs if run.state in ("done", "pruned") and run.history is None]
    drawn = [(run.path, run.name) for run in trained]
    if len(drawn) > DRAWN:  # of few, the page's trainings say it themselves
        main.warnings.extend(code_notes({run.name: run.provenance for run in trained}))
    stated = [{"claim": one.claim.text, "state": one.state, "words": one.words} for one in verdicts]
    summary = {"study": {**study_record(main, stated), "states": states, "warnings": main.warnings}}
    broken = sum(v.state == claiming.BROKEN for v in verdicts)
    counts = {"runs": len(runs), "states": states, **({"broken": broken} if verdicts else {})}
    drawings = distinct(of_study(main, partial(_curve, metric), explained, partial(_curve, "train/loss")))
    if not can_draw():
        say(f"warning: {MISSING}")
    return Found(
        _title(paths, runs),
        sheets.finding(main, spec.pair_by_seed),
        made,
        drawings,
        main.warnings,
        runs,
        drawn if len(drawn) <= DRAWN else [],
        summary,
        counts,
        int(broken > 0),
        main,
    )


def grouped(runs: list, paths: list[Path], spec: Any) -> tuple[list, list[str], Any]:
    """The runs with alpha / r where it is a factor, the options that differ, and the study of the spec's metric or the one that
    the runs were monitored by.

    Raises:
        UserError: a metric or factor that is not there.
    """
    from research.report.factors import factors, with_scale
    from research.report.groups import study

    runs, names = with_scale(runs, factors(runs))
    names = _chosen(spec.factors, runs, names)
    if spec.metric is None:
        _refuse_mixed(runs)
    metric = spec.metric or _monitored(runs, paths)
    goal = spec.goal or next((run.goal for run in runs if run.goal and run.monitor == metric), None)  # of W&B's sweeps
    higher = None if goal is None else goal == "maximize"
    return runs, names, study(runs, metric, names, higher, every=spec.factors is not None)


def _refuse_mixed(runs: list) -> None:
    """Trainings that were judged by different metrics have no order, unless the user names one."""
    from research.report.factors import some

    by: dict[str, list[str]] = {}
    for run in runs:
        if run.metrics and run.monitor:
            by.setdefault(run.monitor, []).append(run.name)
    if len(by) > 1:
        parts = ", ".join(f"{len(names)} by {metric} ({some(names)})" for metric, names in by.items())
        raise UserError(
            f"the runs were monitored by different metrics: {parts}; expected one metric for all. Name it by "
            "--metric, or leave some runs out."
        )


def kept_of(paths: list[Path], spec: Any) -> dict[str, Any]:
    """What report.json keeps of trainings, also of those that are no study (see report.study_record).

    Raises:
        UserError: they cannot be read, or none is finished.
    """
    from research.report.study_record import study_record
    from research.runs.table import read_runs

    return study_record(grouped(read_runs(paths, spec.seed), paths, spec)[2])


def _curve(metric: str, run: Any) -> list[tuple[int, float]]:
    """(step, value) of a run's validations."""
    from research.runs.curves import history

    if run.history is not None:  # W&B's
        return run.history(metric)
    return history(run.path, metric)


def _label(wanted: str | None, labels: list[str]) -> str | None:
    """A setting by its label, whose parts may stand in any order.

    Raises:
        UserError: none of them.
    """
    if wanted is None or wanted in labels:
        return wanted
    found = [label for label in labels if sorted(label.lower().split()) == sorted(wanted.lower().split())]
    if len(found) != 1:
        raise UserError(f"baseline {wanted!r} is no setting with a value; {suggest(wanted, labels)}. Name one of them.")
    return found[0]


def _shares(runs: list, names: list[str]) -> bool:
    """Whether plain run folders are an ablation: some setting has two seeds or more, and each seed is there once."""
    settings = [(str([run.options.get(name) for name in names]), run.seed) for run in runs]
    known = [setting for setting, seed in settings if seed is not None]
    judged = {run.monitor for run in runs if run.metrics}
    return len(known) == len(runs) == len({*settings}) and len({*known}) < len(runs) and len(judged) < 2


def _chosen(wanted: tuple[str, ...] | None, runs: list, names: list[str]) -> list[str]:
    """The factors that the spec asks for, by whole or short name."""
    if wanted is None:
        return names
    known = list(dict.fromkeys([*names, *(name for run in runs for name in run.options)]))
    found = []
    for name in wanted:
        matches = [one for one in known if one == name or one.endswith(f".{name}")]
        if len(matches) != 1:
            what = "is an option of no run" if not matches else f"is {len(matches)} options ({', '.join(matches[:3])})"
            raise UserError(f"factor {name!r} {what}; {suggest(name, known)}. Correct the spec.")
        found += matches
    return found


def _monitored(runs: list, paths: list[Path]) -> str:
    """The metric that the runs' best models were chosen by; of a sweep that never got so far, none."""
    from research.report.doubts import unmeasured
    from research.report.factors import some

    finished = [run for run in runs if run.metrics]
    for run in finished:
        if run.monitor:
            return run.monitor
    if finished:  # W&B's, of a program that does not say it
        common = [name for name in finished[0].metrics if all(name in run.metrics for run in finished)]
        if len(common) == 1:
            return common[0]
        known = ", ".join(sorted(common)[:20]) or "none that all of them have"
        raise UserError(
            f"the runs have several metrics and do not say which one they are about; expected one of {known}. Name "
            "it by --metric."
        )
    if bare := unmeasured(runs):
        raise UserError(bare)
    states = some([f"{run.name} {run.state}" for run in runs])
    raise UserError(
        f"none of {len(runs)} runs in {', '.join(map(str, paths[:3]))} is finished ({states}); expected one or "
        "more. Run the sweep, or wait for it."
    )


def _title(paths: list[Path], runs: list) -> str:
    from research.report.factors import some
    from research.runs.wandb.records import is_wandb

    if len(paths) == 1 and (paths[0] / "sweep.json").is_file():
        owner = read_json(paths[0] / "sweep.json")
        return str((isinstance(owner, dict) and owner.get("name")) or paths[0].resolve().name)
    # a folder of W&B's is called wandb, or by a time: its runs' sweep or group says more
    groups = dict.fromkeys(run.sweep for run in runs if run.history is not None and run.sweep)
    names = [*(path.resolve().name for path in paths if not is_wandb(path)), *groups]
    names = names or [path.resolve().name for path in paths]
    return some(names)
