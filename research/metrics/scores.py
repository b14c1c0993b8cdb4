"""Rankings → means, per-query values and paired comparisons; and the tables that show them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.errors import UserError, suggest
from research.metrics.retrieval import DEFAULT_METRICS, MEANS, evaluate, mean, missing, parse_metric, unscorable
from research.metrics.significance import compare, holm, mean_interval
from research.progress import say
from research.types import Qrels, Ranking, Scores


def check_metrics(names: Sequence[str] | None) -> list[str]:
    """Return the metrics asked for, or the default ones.

    Raises:
        UserError: an unknown one.
    """
    names = [name.lower() for name in names or DEFAULT_METRICS]  # reports write nDCG@10
    for name in names:
        parse_metric(name)
    return names


def score(label: object, qrels: Qrels, run: Ranking, metrics: Sequence[str], over: str = "scorable") -> Scores:
    """Measure one ranking, and report the queries that it lacks.

    Args:
        label: what is measured, for messages.
        qrels: judgements.
        run: the ranking.
        metrics: name@k, one or more.
        over: which queries a mean is over: scorable | trec_eval | trec_eval-c.

    Raises:
        UserError: the mean is over no query.
    """
    if absent := missing(qrels, run):
        effect = "are left out of the mean" if over == "trec_eval" else "count 0 (--mean trec_eval leaves them out)"
        say(f"{label}: {len(absent)} of {len(qrels)} queries have no ranking, {absent[0]!r} for example, and {effect}")
    per_query = evaluate(qrels, run, metrics, over)
    if not per_query[metrics[0]]:
        raise UserError(
            f"--mean {over} is over the judged queries that a run has, and this one has none of the {len(qrels)}; "
            "expected one or more. Pass --mean scorable, in which they count 0."
        )
    return {"metrics": {name: mean(values) for name, values in per_query.items()}, "per_query": per_query}


def report_unscorable(qrels: Qrels, over: str = "scorable") -> list[str]:
    """Report the queries on which no metric is defined, and how the means count them."""
    left_out = unscorable(qrels)
    if left_out:
        effect = "are left out of every mean" if over == "scorable" else "count 0, as trec_eval has it"
        say(f"{len(left_out)} of {len(qrels)} queries have no relevant document and {effect}")
    return left_out


class Evaluation(NamedTuple):
    """Rankings that were measured on the same judgements, by name.

    Attributes:
        metrics: {name: {metric: mean over queries}}.
        per_query: {name: {metric: {query id: value}}}.
        comparisons: a mapping each pair of rankings, on the first metric: a, b, metric, difference (b − a), its bootstrap
            interval low to high, p of a paired permutation test, p_holm, queries, better, worse.
    """

    metrics: dict[str, dict[str, float]]
    per_query: dict[str, dict[str, dict[str, float]]]
    comparisons: list[dict]


def evaluate_runs(
    qrels: Qrels,
    runs: Mapping[str, Ranking],
    metrics: Sequence[str] | None = None,
    mean: str = "scorable",
    names: Mapping[str, object] | None = None,
) -> Evaluation:
    """Measure rankings against judgements, query by query, and test the differences between them.

    Args:
        qrels: {query id: {document id: relevance}}; above 0 is relevant.
        runs: {name: ranking}, each {query id: {document id: score}}, as `search` and `read_run` give it.
        metrics: ndcg, mrr, map, recall, precision at any K, such as "ndcg@10"; the first one is tested. None takes ndcg@10,
            mrr@10, map@100, recall@10, recall@100 and precision@10. Values are trec_eval's.
        mean: over which queries: "scorable" (those with a relevant document; one without a ranking counts 0), "trec_eval"
            (those that the ranking has) or "trec_eval-c" (every judged one); in the last two one without a relevant document
            counts 0.
        names: what a ranking is called in messages, where that is not its name.

    Returns:
        Evaluation(metrics, per_query, comparisons).

    Raises:
        UserError: an unknown metric or mean, no relevant document, or a ranking without any judged query.

    Example:
        >>> from research import evaluate
        >>> qrels = {"q1": {"a": 1}, "q2": {"b": 1}}
        >>> first = {"q1": {"a": 2.0, "b": 1.0}, "q2": {"b": 1.0}}
        >>> second = {"q1": {"b": 2.0, "a": 1.0}, "q2": {"b": 1.0}}
        >>> evaluate(qrels, {"first": first, "second": second}, ["mrr@10"]).metrics
        {'first': {'mrr@10': 1.0}, 'second': {'mrr@10': 0.75}}
    """
    metrics = check_metrics(metrics)
    if mean not in MEANS:
        raise UserError(f"--mean {mean!r} is not known; {suggest(mean, MEANS)}. Correct it.")
    if not runs or not any(grade > 0 for docs in qrels.values() for grade in docs.values()):
        wrong = "there is no ranking" if not runs else f"the judgements of {len(qrels)} queries have no relevant document"
        raise UserError(f"{wrong}; expected one or more. Give one.")
    for name, run in runs.items():
        _check_ranking(name, run, qrels)
    report_unscorable(qrels, mean)
    scored = {name: score((names or {}).get(name, name), qrels, run, metrics, mean) for name, run in runs.items()}
    means = {name: values["metrics"] for name, values in scored.items()}
    per_query = {name: values["per_query"] for name, values in scored.items()}
    return Evaluation(means, per_query, comparisons(scored, metrics[0]))


def _check_ranking(name: str, run: Ranking, qrels: Qrels) -> None:
    if not all(isinstance(docs, Mapping) and not any(isinstance(d, Mapping) for d in docs.values()) for docs in run.values()):
        raise UserError(
            f"runs[{name!r}] is no ranking; expected {{query id: {{document id: score}}}}. Give rankings by name: "
            'runs={"bm25": ranking}.'
        )
    if not qrels.keys() & run.keys():
        raise UserError(
            f"{name}: none of its {len(run)} queries is judged; expected rankings of the queries of these judgements, "
            f"{next(iter(qrels))!r} for example. Name those."
        )


def comparisons(scored: dict[str, Scores], metric: str) -> list[dict]:
    """Compare every pair of systems on one metric: paired permutation test (p, and p_holm over all pairs), bootstrap interval.

    Over the queries that both have a value for: by trec_eval's own mean a run can lack some.
    """
    pairs = []
    for a, b in itertools.combinations(scored, 2):
        first, second = (scored[name]["per_query"][metric] for name in (a, b))
        both = [query for query in first if query in second]
        if both:
            test = compare({query: first[query] for query in both}, {query: second[query] for query in both})
            pairs.append({"a": a, "b": b, "metric": metric, **test._asdict()})
    return [pair | {"p_holm": p} for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True)]


def interval(per_query: Mapping[str, float]) -> tuple[float, float] | None:
    """95% bootstrap interval of a metric's mean over queries like these; None of fewer than two queries."""
    return mean_interval(np.array(list(per_query.values()))) if len(per_query) > 1 else None


def table(rows: dict[str, dict[str, float]], intervals: Mapping[str, tuple[float, float] | None] | None = None) -> str:
    """Lay out numbers as plain text, one row for each system.

    Args:
        rows: {system: {metric: value}}.
        intervals: of the first metric, {system: low and high}, which stand behind it; None leaves them out.
    """
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    cells = {label: [f"{values[name]:.4f}" if name in values else "–" for name in columns] for label, values in rows.items()}
    if intervals is not None:
        columns.insert(1, "95% interval")
        for label, row in cells.items():
            row.insert(1, "[{:.4f}, {:.4f}]".format(*found) if (found := intervals.get(label)) else "–")
    label_width = max(map(len, rows))
    widths = [max(map(len, column)) + 2 for column in zip(columns, *cells.values(), strict=True)]
    lines = [
        f"{label:{label_width}}" + "".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for label, row in {"": columns, **cells}.items()
    ]
    return "\n".join(lines)


def comparison_lines(pairs: list[dict]) -> str:
    """Write each comparison as a line."""
    after = [f", {pair['p_holm']:.4f} after Holm" if len(pairs) > 1 else "" for pair in pairs]
    return "\n".join(
        f"{p['b']} − {p['a']}: {p['metric']} {p['difference']:+.4f} [{p['low']:+.4f}, {p['high']:+.4f}], "
        f"p = {p['p']:.4f}{holm} (better on {p['better']}, worse on {p['worse']} of {p['queries']} queries)"
        for p, holm in zip(pairs, after, strict=True)
    )
