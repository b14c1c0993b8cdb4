"""A study's groups → the tables of a paper: main results, one factor at a time, two factors, matched parameters, all runs."""

import itertools
import math
import statistics

from research.metrics.families import DIFFERS, Pair, compare_methods, compare_pair, compare_paired_methods
from research.metrics.planning import noise_floor, pooled_sd
from research.metrics.seeds import summarise
from research.report.factors import shown, some
from research.report.notes import left_out_notes, time_notes, trained_on_notes
from research.report.numbers import MOST, column, counted, decimals_of, p_phrase, plain
from research.report.sheets import (
    ALPHA,
    MARK,
    NOTHING,
    Cell,
    Sheet,
    count_cell,
    decimals,
    difference_cells,
    mean_cells,
    number,
    ranks,
    untestable,
)
from research.report.study import Group, Study

PLANNED = 5  # seeds from which the power of a planned study is what the noncentral t says
MATCHED = 0.1  # trainable parameters within a tenth of each other count as equal


def results(study: Study, baseline: str | None = None, paired: bool = False) -> Sheet:
    """Show mean ± spread over seeds of each group, its interval, and its difference from the baseline.

    Args:
        study: groups.
        baseline: label that the others are compared with; None: the first with a value.
        paired: runs of one seed belong together (see metrics.seeds.paired_test).
    """
    pairs = against(study, baseline, paired)
    first = next(iter(pairs.values())).a if pairs else None
    names, digits = study.names, decimals(study.groups)
    means = [summarise(list(group.values.values())) if group.values else None for group in study.groups]
    places = ranks([None if mean is None else round(mean.mean, digits) for mean in means], study.higher)
    columns = [
        *(names[name] for name in study.factors),
        "seeds",
        study.metric_name,
        "95% interval",
        "difference",
        "p (Holm)",
        "parameters",
        "seconds",
    ]
    rows = []
    times = _times([group.numbers.get("seconds") for group in study.groups])
    for group, mean, place, time in zip(study.groups, means, places, times, strict=True):
        pair = pairs.get(group.label)
        seeds = str(len(group.values)) if not group.missing else f"{len(group.values)} of {len(group.runs)}"
        mark = MARK if pair is not None and pair.verdict == DIFFERS else ""
        rows.append(
            [
                *(Cell(shown(group.factors[name]), group.factors[name]) for name in study.factors),
                Cell(seeds, len(group.values)),
                *mean_cells(mean, digits, place, mark),
                *difference_cells(pair, digits, group.label == first),
                count_cell(group.numbers.get("trained_parameters")),
                time,
            ]
        )
    always = len(study.factors) + 2
    visible = [i for i in range(len(columns)) if i < always or any(row[i].text != NOTHING for row in rows)]
    return Sheet(
        "results",
        f"{study.metric_name} by setting",
        [columns[i] for i in visible],
        [[row[i] for i in visible] for row in rows],
        _notes(study, pairs, first, paired, digits),
        len(study.factors),
    )


def _times(seconds: list[float | None]) -> list[Cell]:
    """Show whole seconds, or as many digits as the smallest needs."""
    known = [value for value in seconds if value is not None]
    texts, whole = iter(column(known, 0)), not decimals_of(known, 0)
    return [Cell(NOTHING) if value is None else Cell(next(texts), round(value) if whole else value) for value in seconds]


def against(study: Study, baseline: str | None, paired: bool) -> dict[str, Pair]:
    """Map each label to its comparison with the baseline, over the seeds."""
    compared = {group.label: group.values for group in study.groups if group.values}
    if len(compared) < 2:
        return {}
    baseline = baseline or next(iter(compared))
    if not paired:
        return {pair.b: pair for pair in compare_methods(compared, baseline, ALPHA)}
    seeds = compared[baseline].keys()
    complete = {label: values for label, values in compared.items() if values.keys() == seeds}
    return {pair.b: pair for pair in compare_paired_methods(complete, baseline, ALPHA)}


def finding(study: Study, paired: bool = False) -> str:
    """Return one sentence: the best setting, over how many seeds, and whether they resolve it from the second.

    Args:
        study: groups.
        paired: runs of one seed belong together; used where all settings have the same seeds.
    """
    known = [(summarise(list(group.values.values())), group) for group in study.groups if group.values]
    known.sort(key=lambda entry: entry[0].mean, reverse=study.higher)
    digits, (mean, best) = decimals(study.groups), known[0]
    spread = "" if math.isnan(mean.sd) else f" ± {number(mean.sd, digits)}"
    seeds = "1 seed" if mean.n == 1 else f"{mean.n} seeds"
    value = f"{number(mean.mean, digits)}{spread} over {seeds}"
    if len(known) < 2:
        return f"{study.metric_name} of {best.label}: {value}."
    text = f"{best.label} has the best {study.metric_name} of {len(known)} settings: {value}"
    second = known[1][1]
    values = {group.label: group.values for _, group in known}
    if paired and len({frozenset(by_seed) for by_seed in values.values()}) == 1:
        labels, test = {best.label, second.label}, "paired"
        pair = next(pair for pair in compare_paired_methods(values) if {pair.a, pair.b} == labels)
    else:
        pair, test = compare_pair(values, best.label, second.label), "Welch's"
    pairs = math.comb(len(known), 2)
    verdict = "resolved" if pair.verdict == DIFFERS else "not resolved by these seeds"
    gap = number(abs(pair.comparison.difference), digits)
    after = f" after Holm over all {pairs} pairs" if pairs > 1 else ""
    p = "" if math.isnan(pair.p_holm) else f" ({p_phrase(pair.p_holm)} by {test} t test{after})"
    return f"{text}. Its lead of {gap} over {second.label} is {verdict}{p}."


def grid(study: Study) -> Sheet | None:
    """Show two factors, one down and one across; None where they are not two."""
    if len(study.factors) != 2:
        return None
    down, across = study.factors
    names, digits = study.names, decimals(study.groups)
    cells = {(shown(g.factors[down]), shown(g.factors[across])): g for g in study.groups}
    lines, heads = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    # an option that some settings have not (r of what has no adapter) spans no grid with another
    if len(cells) != len(study.groups) or len(lines) < 2 or len(heads) < 2 or NOTHING in (*lines, *heads):
        return None
    keys = list(itertools.product(lines, heads))
    means = [summarise(list(cells[key].values.values())) if key in cells and cells[key].values else None for key in keys]
    places = ranks([None if mean is None else round(mean.mean, digits) for mean in means], study.higher)
    by_key = {key: mean_cells(mean, digits, place)[0] for key, mean, place in zip(keys, means, places, strict=True)}
    rows = [[Cell(line, line), *(by_key[line, head] for head in heads)] for line in lines]
    note = "Mean ± standard deviation over seeds; – where nothing was trained. Best bold, second underlined."
    columns = [f"{names[down]} ↓  {names[across]} →", *heads]
    return Sheet("grid", f"{study.metric_name} by {names[down]} and {names[across]}", columns, rows, [note])


def matched(study: Study) -> Sheet | None:
    """Show groups in blocks of about equal trainable parameters; None where no block has two."""
    known = [group for group in study.groups if group.values and "trained_parameters" in group.numbers]
    known.sort(key=lambda group: group.numbers["trained_parameters"])
    blocks: list[list[Group]] = []
    for group in known:
        size = group.numbers["trained_parameters"]
        if blocks and size <= blocks[-1][0].numbers["trained_parameters"] * (1 + MATCHED):
            blocks[-1].append(group)
        else:
            blocks.append([group])
    sizes = [{group.numbers["trained_parameters"] for group in block} for block in blocks]
    # settings that differ in nothing that has parameters (alpha, a rate) are not matched, they are the same model
    blocks = [block for block, different in zip(blocks, sizes, strict=True) if len(different) > 1]
    if not blocks:
        return None
    digits, rows = decimals(known), []
    for block in blocks:
        means = [summarise(list(group.values.values())) for group in block]
        places = ranks([round(mean.mean, digits) for mean in means], study.higher)
        rows += [
            [
                Cell(group.label, group.label),
                count_cell(group.numbers["trained_parameters"]),
                Cell(str(mean.n), mean.n),
                *mean_cells(mean, digits, place),
            ]
            for group, mean, place in zip(block, means, places, strict=True)
        ]
    columns = ["setting", "parameters", "seeds", study.metric_name, "95% interval"]
    note = f"Blocks of settings whose trainable parameters lie within {MATCHED:.0%} of the smallest; best and second of each."
    return Sheet("matched", f"{study.metric_name} at matched trainable parameters", columns, rows, [note])


def every_run(study: Study) -> Sheet:
    """Show every run, finished or not."""
    names = study.names
    metrics = list(dict.fromkeys(name for g in study.groups for run in g.runs for name in run.metrics))
    runs = [run for group in study.groups for run in group.runs]
    known = {name: [run.metrics[name] for run in runs if name in run.metrics] for name in metrics}
    places = {name: min(MOST, decimals_of(values, 4)) for name, values in known.items()}
    rows = []
    for group in study.groups:
        factors = [Cell(shown(group.factors[name]), group.factors[name]) for name in study.factors]
        for run in group.runs:
            values = [
                Cell(number(run.metrics[name], places[name]), run.metrics[name]) if name in run.metrics else Cell(NOTHING)
                for name in metrics
            ]
            rows.append(
                [Cell(run.name, run.name), *factors, Cell(str(run.seed), run.seed), Cell(run.state, run.state), *values]
            )
    titles = [study.labels.get(name, name) for name in metrics]
    columns = ["run", *(names[name] for name in study.factors), "seed", "state", *titles]
    return Sheet("runs", "Every run", columns, rows, [], 1 + len(study.factors))


def _notes(study: Study, pairs: dict[str, Pair], first: str | None, paired: bool, digits: int) -> list[str]:
    better = "higher" if study.higher else "lower"
    notes = [
        f"Mean ± standard deviation over seeds ({better} is better), 95% t interval of the mean. Best bold, second underlined."
    ]
    runs, split = [run for group in study.groups for run in group.runs], [study.metric.partition("/")[0]]
    notes += trained_on_notes(runs, split) + left_out_notes(runs, split)
    notes += time_notes([run for group in study.groups for run in group.counted])
    if study.aside:
        notes.append(f"{study.aside[0].upper()}{study.aside[1:]}.")
    if not pairs:
        return notes
    test = "the paired t test over seeds" if paired else "Welch's t test over seeds"
    comparisons = counted(len(pairs), "comparison") + untestable(pair.comparison.p for pair in pairs.values())
    notes.append(
        f"Difference from {first} by {test}, p after Holm over {comparisons}; {MARK} p < {plain(ALPHA)}. It speaks "
        "of the method trained again with other seeds, on these examples."
    )
    tested = {first, *pairs}
    if untested := [group.label for group in study.groups if group.values and group.label not in tested]:
        notes.append(f"Not tested, since a pair of runs is lacking (other seeds than {first}): {some(untested)}.")
    weak = dict.fromkeys(pair.comparison.note for pair in pairs.values() if pair.comparison.note)
    notes += [f"{note[0].upper()}{note[1:]}." for note in weak]
    spread = [list(group.values.values()) for group in study.groups if len(group.values) > 1]
    sd = pooled_sd(spread)[0] if spread else 0.0
    if sd > 0 and not paired:  # pairs have a spread of their own
        n = statistics.mode(map(len, spread))
        floor = noise_floor(sd, n, len(pairs), alpha=ALPHA)
        # the plan's power is that of Welch's test from about five seeds on (LOG.md): below, it would promise too much
        power = f"; a true one of {number(floor.detectable, digits)} is found in 4 of 5 such studies" if n >= PLANNED else ""
        below = sum(pair.verdict == DIFFERS and abs(pair.comparison.difference) < floor.critical for pair in pairs.values())
        quiet = f"; the {counted(below, 'marked row')} below it {'has' if below == 1 else 'have'} less spread" if below else ""
        notes.append(
            f"Noise floor: between settings of n = {n} and the usual spread ({number(sd, digits)}) differences below "
            f"{number(floor.critical, digits)} are not resolved{quiet}{power}."
        )
    return notes
