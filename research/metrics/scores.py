"""Rankings → means, per-query values and paired comparisons; and the tables that show them."""

import itertools
from collections.abc import Sequence

from research.errors import UserError
from research.metrics.retrieval import DEFAULT_METRICS, evaluate, mean, missing, parse_metric, unscorable
from research.metrics.significance import compare, holm
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
    """Report the queries that no metric is defined on, and how means count them."""
    left_out = unscorable(qrels)
    if left_out:
        effect = "are left out of every mean" if over == "scorable" else "count 0, as trec_eval has it"
        say(f"{len(left_out)} of {len(qrels)} queries have no relevant document and {effect}")
    return left_out


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


def table(rows: dict[str, dict[str, float]]) -> str:
    """Lay out numbers as plain text, one row a system."""
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{name:>14}" for name in columns)]
    for label, values in rows.items():
        cells = (f"{values[name]:>14.4f}" if name in values else f"{'–':>14}" for name in columns)
        lines.append(f"{label:{width}}" + "".join(cells))
    return "\n".join(lines)


def comparison_lines(pairs: list[dict]) -> str:
    """Write each comparison as a line."""
    after = [f", {pair['p_holm']:.4f} after Holm" if len(pairs) > 1 else "" for pair in pairs]
    return "\n".join(
        f"{p['b']} − {p['a']}: {p['metric']} {p['difference']:+.4f} [{p['low']:+.4f}, {p['high']:+.4f}], "
        f"p = {p['p']:.4f}{holm} (better on {p['better']}, worse on {p['worse']} of {p['queries']} queries)"
        for p, holm in zip(pairs, after, strict=True)
    )
