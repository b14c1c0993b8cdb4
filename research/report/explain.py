"""Words around the numbers: what was found, what each metric means, how interval and test are to be read."""

from research.metrics import retrieval
from research.metrics.significance import Comparison
from research.report.numbers import column, p_phrase, share, signed
from research.report.tables import Line, compare_pairs, title
from research.report.training import Training

METRICS = {  # words of a page, kept out of metrics/: a run is not stale because a sentence has changed
    "ndcg": "Credit for each relevant document among the first {k}, less the further down it stands, divided by the "
    "credit of the best possible order. 1 is a perfect ranking, 0 has nothing relevant in the first {k}.",
    "mrr": "One over the rank of the first relevant document: 1 if it is first, 1/2 if second, 0 if it is not among "
    "the first {k}.",
    "map": "The share of relevant documents seen so far, taken at each relevant document among the first {k} and "
    "averaged over all relevant documents. It rewards finding all of them, early.",
    "recall": "The share of a query’s relevant documents that are among the first {k}, in whatever order.",
    "precision": "The share of the first {k} documents that are relevant. A query with one relevant document can reach "
    "1/{k} at most.",
}
INTERVAL = (
    "The queries are a sample of those one might ask. They are drawn again 10,000 times with repetition (bootstrap); "
    "95% of the means so obtained lie within the interval. It says how far the mean would move with other queries like "
    "these."
)
TEST = (
    "Each query is answered by both systems. If they were equally good, swapping their values on any query would "
    "change nothing; p is the share of random swaps whose mean difference is at least as large as the one observed "
    "(paired permutation test, two-sided). A small p, below .05 by custom, means that chance alone rarely does this. "
    "Testing many rows makes a small p by accident more likely: the table's are corrected for that (Holm). Interval and test "
    "speak of these trained models on queries like these, not of how a method would fare when trained again."
)
TIME = (
    "Total time of answering all queries in one batch, encoding of the queries included, divided by their number. A "
    "fused system needs all its parts, and its time is their sum. Encoding the documents and building the index come "
    "before and are not in it. It is the machine's at that moment: runs made beside other work do not compare."
)
ANN = (
    "An HNSW index looks at part of the documents only. ANN recall is the share of the documents an exact search "
    "returns that it returns too."
)


def finding(lines: list[Line], metric: str, pairs: dict[tuple[int, int], tuple[Comparison, float]] | None = None) -> str:
    """Return one sentence: the best system, and whether the next best is really worse."""
    name = title(metric)
    best = max(lines, key=lambda line: line.mean)
    interval = f"95% interval {share(best.low)} to {share(best.high)}"
    ms = best.row.facts.get("ms_per_query")
    time = f", at {column([ms])[0]} ms a query" if ms else ""
    leak = f" {best.row.label} was trained on some of these queries: its numbers are too high." if best.row.leaks else ""
    if len(lines) == 1:
        return f"{best.row.label} reaches {name} {share(best.mean)} ({interval}){time}.{leak}"
    following = max((line for line in lines if line is not best), key=lambda line: line.mean)
    # the two were chosen by their values: their p is one of all pairs'
    pairs = compare_pairs(lines, metric) if pairs is None else pairs
    i, j = sorted(next(k for k, line in enumerate(lines) if line is system) for system in (best, following))
    test, p = pairs[i, j]
    phrase = p_phrase(p) + (" after Holm over all pairs" if len(pairs) > 1 else "")
    verdict = "too little to tell the two apart" if p >= 0.05 else "more than chance would give"
    return (
        f"{best.row.label} has the highest {name} of {len(lines)} systems: {share(best.mean)} ({interval}){time}. "
        f"Its lead over {following.row.label} is {signed(abs(test.difference))} ({phrase}), {verdict} on these "
        f"queries.{leak}"
    )


def untested(trainings: list[Training]) -> str:
    """Write the sentence of a page that has trainings and no test."""
    models = "1 model" if len(trainings) == 1 else f"{len(trainings)} models"
    return (
        f"{models.capitalize()}, seen on validation splits only. For a test, run research retrieve with the run folder as "
        "--retriever or --reranker, and name its folder beside."
    )


def definitions(metrics: list[str], ann: bool) -> list[tuple[str, str]]:
    """List (term, explanation) of everything the page shows."""
    terms = []
    for name in metrics:
        kind, _, k = name.partition("@")
        if meaning := METRICS.get(kind) or _first_line(kind):
            terms.append((title(name), meaning.format(k=k)))
    terms += [("95% interval", INTERVAL), ("Difference and p", TEST), ("ms a query", TIME)]
    return [*terms, ("ANN recall", ANN)] if ann else terms


def _first_line(kind: str) -> str:
    """Return what the function of a metric says that it does, for one that has no sentence here."""
    function = retrieval.METRICS[kind][0] if kind in retrieval.METRICS else None
    return ((function and function.__doc__) or "").split("\n")[0].replace("{", "{{").replace("}", "}}")


def rank_phrase(metrics: dict[str, dict[str, float]], query: str) -> str:
    """Return where a system's first relevant document stands, read back from its reciprocal rank; "" without such a metric."""
    name = max((name for name in metrics if name.startswith("mrr@")), key=lambda name: int(name[4:]), default=None)
    value = metrics[name].get(query) if name else None
    if value is None:
        return ""
    return f"first relevant at rank {round(1 / value)}" if value else f"nothing relevant in the first {name[4:]}"
