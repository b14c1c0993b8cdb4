"""The study of a report: trainings that differ by options and seeds, compared."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError, suggest
from research.progress import say
from research.runfolder import read_json

DRAWN = 60  # trainings whose curves a page draws one by one


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


def study_of(paths: list[Path], spec: Any, has_sweep: bool, claims: Path | None) -> Found | None:
    """The study of these runs and sweeps; None where there is nothing to compare: runs of one setting, and no sweep.

    Raises:
        UserError: a metric, baseline, factor or claim that is not there; runs that cannot be read.
    """
    from research.report import claims as claiming
    from research.report import study_sheets as sheets
    from research.report.factor_sheets import factorial, not_factorial, shares
    from research.report.groups import short_names, study
    from research.report.importance import importance
    from research.report.plots import figures
    from research.report.render import MISSING, can_draw
    from research.report.study import collect, factors, with_scale

    asked = any(value is not None for value in (spec.metric, spec.baseline, spec.factors, claims))
    if not paths:
        if asked:
            raise UserError("--metric, --baseline, --claims and a spec's factors are about trainings, and none is given; "
                            "expected folders of `research fit` or `research sweep`. Name some.")  # fmt: skip
        return None
    runs = collect(paths)
    names = factors(runs)
    if not (names or has_sweep or asked) or (not has_sweep and not asked and not _shares(runs, names)):
        return None
    runs, names = with_scale(runs, names)
    names = _chosen(spec.factors, runs, names)
    metric = spec.metric or _monitored(runs, paths)
    higher = None if spec.goal is None else spec.goal == "maximize"
    main = study(runs, metric, names, higher)
    for name, short in short_names(names).items() if spec.baseline else ():
        spec = spec._replace(baseline=spec.baseline.replace(f"{name}=", f"{short}="))
    if spec.baseline is not None and spec.baseline not in {group.label for group in main.groups if group.values}:
        labels = [group.label for group in main.groups if group.values]
        raise UserError(f"baseline {spec.baseline!r} is no setting with a value; {suggest(spec.baseline, labels)}. Name one of "
                        "them.")  # fmt: skip
    made = [sheets.results(main, spec.baseline, spec.pair_by_seed), sheets.grid(main),
            *(sheets.by_factor(main, name) for name in main.factors), factorial(main, spec.pair_by_seed),
            sheets.matched(main)]  # fmt: skip
    explained = importance(main)
    made += [shares(explained, metric, not_factorial(main, spec.pair_by_seed))] if explained else []
    made = [sheet for sheet in made if sheet is not None]
    verdicts = []
    if claims is not None:
        stated = [one._replace(metric=one.metric or metric) for one in dict.fromkeys(claiming.read_claims(claims))]
        others = dict.fromkeys(one.metric for one in stated if one.metric != metric)
        studies = {metric: main} | {name: study(runs, name, names) for name in others}
        verdicts = claiming.check(stated, studies, str(claims))
        made.append(claiming.sheet(verdicts))
    made.append(sheets.every_run(main))
    states: dict[str, int] = {}
    for run in runs:
        states[run.state] = states.get(run.state, 0) + 1
    drawn = [(run.path, run.name) for run in runs if run.state in ("done", "pruned")]
    stated = [{"claim": one.claim.text, "state": one.state, "words": one.words} for one in verdicts]
    summary = {
        "study": {"metric": metric, "factors": names, "states": states, "warnings": main.warnings, "claims": stated}
    }
    broken = sum(v.state == claiming.BROKEN for v in verdicts)
    counts = {"runs": len(runs), "states": states, **({"broken": broken} if verdicts else {})}
    drawings = figures(main, partial(_curve, metric), explained) if can_draw() else []
    if not can_draw():
        say(f"warning: {MISSING}")
    return Found(_title(paths), sheets.finding(main), made, drawings, main.warnings, runs, drawn if len(drawn) <= DRAWN else [],
                 summary, counts, int(broken > 0))  # fmt: skip


def _curve(metric: str, run: Any) -> list[tuple[int, float]]:
    """(step, value) of a run's validations."""
    from research.verbs.searching import history_by_step

    return history_by_step(run.path, metric)


def _shares(runs: list, names: list[str]) -> bool:
    """Whether plain run folders are an ablation: some setting has two seeds or more, and each seed is there once."""
    settings = [(str([run.options.get(name) for name in names]), run.seed) for run in runs]
    known = [setting for setting, seed in settings if seed is not None]
    return len(known) == len(runs) and len({*settings}) == len(runs) and len({*known}) < len(runs)


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
    for run in runs:
        if run.metrics:
            monitor = read_json(run.path / "metrics.json").get("monitor")
            if monitor:
                return monitor
    states = ", ".join(f"{run.name} {run.state}" for run in runs[:3])
    raise UserError(f"none of {len(runs)} runs in {', '.join(map(str, paths[:3]))} is finished ({states}); expected one or "
                    "more. Run the sweep, or wait for it.")  # fmt: skip


def _title(paths: list[Path]) -> str:
    if len(paths) == 1 and (paths[0] / "sweep.json").is_file():
        return str(read_json(paths[0] / "sweep.json").get("name") or paths[0].resolve().name)
    return ", ".join(path.resolve().name for path in paths[:3]) + (
        f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    )
