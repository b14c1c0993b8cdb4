"""Runs → numbers, as the verbs that evaluate write and print them."""

import itertools
from collections.abc import Sequence

from research.metrics.families import holm
from research.metrics.retrieval import DEFAULT_METRICS, evaluate, mean, parse_metric, unscorable
from research.metrics.significance import compare
from research.progress import say
from research.types import Qrels, Run


def check_metrics(names: Sequence[str] | None) -> list[str]:
    """The metrics asked for, or the default ones.

    Raises:
        UserError: an unknown one.
    """
    names = [name.lower() for name in names or DEFAULT_METRICS]  # reports write nDCG@10
    for name in names:
        parse_metric(name)
    return names


def score(qrels: Qrels, run: Run, metrics: Sequence[str]) -> dict:
    """{"metrics": {name: mean}, "per_query": {name: {query: value}}}."""
    per_query = evaluate(qrels, run, metrics)
    return {"metrics": {name: mean(values) for name, values in per_query.items()}, "per_query": per_query}


def report_unscorable(qrels: Qrels) -> list[str]:
    """Queries that no metric is defined on, said once so that nobody wonders about the count."""
    left_out = unscorable(qrels)
    if left_out:
        say(f"{len(left_out)} of {len(qrels)} queries have no relevant document and are left out of every mean")
    return left_out


def comparisons(scored: dict[str, dict], metric: str) -> list[dict]:
    """Every pair of systems on one metric: paired permutation test (p, and p_holm over all pairs), bootstrap interval."""
    pairs = [
        {"a": a, "b": b, "metric": metric,
         **compare(scored[a]["per_query"][metric], scored[b]["per_query"][metric])._asdict()}
        for a, b in itertools.combinations(scored, 2)
    ]  # fmt: skip
    return [pair | {"p_holm": p} for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True)]


def table(rows: dict[str, dict[str, float]]) -> str:
    """Plain text, one row a system, aligned."""
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{name:>14}" for name in columns)]
    for label, values in rows.items():
        cells = (f"{values[name]:>14.4f}" if name in values else f"{'–':>14}" for name in columns)
        lines.append(f"{label:{width}}" + "".join(cells))
    return "\n".join(lines)


def comparison_lines(pairs: list[dict]) -> str:
    after = [f", {pair['p_holm']:.4f} after Holm" if len(pairs) > 1 else "" for pair in pairs]
    return "\n".join(
        f"{p['b']} − {p['a']}: {p['metric']} {p['difference']:+.4f} [{p['low']:+.4f}, {p['high']:+.4f}], "
        f"p = {p['p']:.4f}{holm} (better on {p['better']}, worse on {p['worse']} of {p['queries']} queries)"
        for p, holm in zip(pairs, after, strict=True)
    )
