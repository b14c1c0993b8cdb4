"""Five queries to look at, chosen by a fixed rule so that nobody picked the flattering ones."""

from typing import NamedTuple

from research.report.explain import rank_phrase
from research.report.systems import Row, Systems

SHOWN = 5
DIFFER = 3  # of which: queries on which the systems differ
SNIPPET = 400  # characters of a document that `retrieve` keeps; a text of this length goes on
RELEVANT_SHOWN = 3
Docs = dict[str, dict[str, str]]
"""document id → {"title": …, "text": …}"""
KINDS = {"differ": "Systems differ", "none": "No system succeeds", "all": "Every system succeeds"}


class RankedDoc(NamedTuple):
    """A document, and the systems that ranked it first: (position of the row, rank phrase)."""

    doc: str
    title: str
    text: str
    cut: bool
    relevant: bool
    systems: list[tuple[int, str]]

    @property
    def code(self) -> bool:
        """Return whether the text has several lines, and is shown as code."""
        return "\n" in self.text


class Example(NamedTuple):
    """One query.

    Attributes:
        query_id, query: its id and text.
        kind: a key of KINDS.
        found: documents that a system ranked first.
        silent: rows that found no document.
        missed: relevant documents that no system ranked first.
        more: how many of these are not shown.
    """

    query_id: str
    query: str
    kind: str
    found: list[RankedDoc]
    silent: list[int]
    missed: list[RankedDoc]
    more: int


def examples(runs: Systems) -> tuple[list[Example], str]:
    """Choose the queries, and state the rule in a sentence; no examples if the runs kept no texts in common."""
    texts = [folder.examples for folder in runs.folders if folder.examples]
    rows = [(i, row) for i, row in enumerate(runs.rows) if row.top]
    if not texts or not rows:
        return [], "The runs kept no texts of queries, so there is nothing to show."
    relevant = texts[0]["relevant"]
    pool = [query for query in texts[0]["queries"] if relevant.get(query) and all(query in row.top for _, row in rows)]
    docs = {doc: text for of_run in reversed(texts) for doc, text in of_run["docs"].items()}
    hits = {query: tuple(_first(row, query) in relevant[query] for _, row in rows) for query in pool}
    chosen = [
        _example(query, texts[0]["queries"][query], _kind(hits[query]), rows, relevant[query], docs) for query in choose(hits)
    ]
    silent = [row.label for row in runs.rows if not row.top]
    return chosen, (
        f"Of the {len(pool)} queries whose texts the runs kept (picked by a hash of their id): the first {DIFFER} on "
        "which some systems rank a relevant document first and others do not, another pattern of success each time if "
        "there is one; then the first on which no system does, and the first on which all do. Others take the place of "
        "what is missing." + (f" Without texts, so not shown: {', '.join(silent)}." if silent else "")
    )


def choose(hits: dict[str, tuple[bool, ...]]) -> list[str]:
    """Choose the queries to show.

    Args:
        hits: {query: for each system, whether its first document is relevant}, in an order that no result decided.

    Returns:
        Up to 5 queries: 3 on which the systems differ, 1 none, 1 all; what is missing is filled in the same order.
    """
    kinds: dict[str, list[str]] = {kind: [query for query in hits if _kind(hits[query]) == kind] for kind in KINDS}
    seen: set[tuple] = set()
    fresh = [query for query in kinds["differ"] if hits[query] not in seen and not seen.add(hits[query])]
    kinds["differ"] = fresh + [query for query in kinds["differ"] if query not in fresh]
    picked = [*kinds["differ"][:DIFFER], *kinds["none"][:1], *kinds["all"][:1]]
    rest = [query for queries in kinds.values() for query in queries if query not in picked]
    picked += rest[: SHOWN - len(picked)]
    return [query for queries in kinds.values() for query in queries if query in picked]


def _kind(hits: tuple[bool, ...]) -> str:
    return "all" if all(hits) else "differ" if any(hits) else "none"


def _first(row: Row, query: str) -> str | None:
    return next(iter(row.top[query]), None)


def _example(query: str, text: str, kind: str, rows: list[tuple[int, Row]], relevant: list[str], docs: Docs) -> Example:
    by_doc: dict[str | None, list[tuple[int, str]]] = {}
    for i, row in rows:
        by_doc.setdefault(_first(row, query), []).append((i, rank_phrase(row.per_query, query)))
    silent = [i for i, _ in by_doc.pop(None, [])]
    ranked = [_ranked_doc(doc, docs, doc in relevant, systems) for doc, systems in by_doc.items()]
    missing = [doc for doc in relevant if doc not in by_doc]
    known = [doc for doc in missing if doc in docs][:RELEVANT_SHOWN]
    missed = [_ranked_doc(doc, docs, True, []) for doc in known]
    return Example(query, text, kind, ranked, silent, missed, len(missing) - len(known))


def _ranked_doc(doc: str, docs: Docs, relevant: bool, systems: list[tuple[int, str]]) -> RankedDoc:
    entry = docs.get(doc, {"title": "", "text": ""})
    return RankedDoc(doc, entry["title"], entry["text"], len(entry["text"]) >= SNIPPET, relevant, systems)
