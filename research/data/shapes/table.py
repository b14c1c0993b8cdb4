"""The shapes of training rows: how each is recognised, its reader, and an example for docs and messages."""

from collections.abc import Callable
from typing import NamedTuple

from research.data.shapes import columns, dpr, embedding_training, flag_embedding, graded, llama_index, ms_marco, tevatron
from research.data.shapes.columns import Columns
from research.data.shapes.texts import shown_row
from research.types import Triplets


class Shape(NamedTuple):
    """A shape that a row is in.

    Attributes:
        name: for messages.
        reads: the columns that say something here.
        read: row → Triplets; raises BadRow.
        by_ids: documents are named by ids, and data.corpus_file has them.
        own_ids: a query is one row with an id; else rows of one query are put together.
        by_label: a label says what is positive, and data.positive_from how high it is.
    """

    name: str
    reads: frozenset[str]
    read: Callable[[dict], Triplets]
    by_ids: bool = False
    own_ids: bool = False
    by_label: bool = False


class Known(NamedTuple):
    """A shape that is known by the columns of a row.

    Attributes:
        needs: columns that are only together in this shape.
        shape: the reader.
        example: a row.
    """

    needs: tuple[str, ...]
    shape: Shape
    example: dict


TABLE = (
    Known(
        tevatron.NEEDS,
        Shape("tevatron", frozenset(tevatron.READS), tevatron.read, own_ids=True),
        {
            "query_id": "q1",
            "query": "a bee",
            "positive_passages": [{"docid": "d1", "title": "Bees", "text": "make honey"}],
            "negative_passages": [{"docid": "d2", "title": "", "text": "flour is ground"}],
        },
    ),
    Known(
        tevatron.ID_NEEDS,
        Shape("tevatron, by ids", frozenset(tevatron.ID_READS), tevatron.read_ids, by_ids=True, own_ids=True),
        {"query_id": "q1", "query_text": "a bee", "positive_document_ids": ["d1"], "negative_document_ids": ["d2"]},
    ),
    Known(
        tevatron.TEXT_NEEDS,
        Shape("tevatron, texts", frozenset(tevatron.TEXT_READS), tevatron.read_texts),
        {"query": "a bee", "positives": ["bees make honey"], "negatives": ["flour is ground"]},
    ),
    Known(
        flag_embedding.NEEDS,
        Shape("FlagEmbedding", frozenset(flag_embedding.READS), flag_embedding.read),
        {"query": "a bee", "pos": ["bees make honey"], "neg": ["flour is ground"], "pos_scores": [0.9], "neg_scores": [0.1]},
    ),
    Known(
        dpr.NEEDS,
        Shape("DPR", frozenset(dpr.READS), dpr.read),
        {"question": "a bee", "positive_ctxs": [{"title": "Bees", "text": "make honey"}], "hard_negative_ctxs": []},
    ),
)
PAIRS = (
    {"anchor": "a bee", "positive": "bees make honey", "negative": "flour is ground"},
    {"query": "a bee", "answer": "bees make honey"},
    {"anchor": "a bee", "positive": "bees make honey", "negative_1": "flour is ground", "negative_2": "cloth is woven"},
    {"sentence1": "a bee", "sentence2": "an insect", "score": 1.0},
    {"query": "a bee", "documents": ["bees make honey", "flour is ground"], "labels": [1, 0]},
)
"""Examples of what `columns` and `graded` read."""
EXAMPLES = (
    *(known.example for known in TABLE),
    *PAIRS,
    ms_marco.EXAMPLE,
    embedding_training.PAIR,
    embedding_training.SET,
    llama_index.EXAMPLE,
)


def shape_of(row: dict, mapping: Columns | None, positive_from: float | None) -> Shape | None:
    """Return the shape of a row, by its columns or by data.columns; None if it has no known shape."""
    if mapping is not None:
        return _mapped(mapping, positive_from)
    for needs, shape, _ in TABLE:
        if all(name in row for name in needs):
            return shape
    if ms_marco.is_one(row):
        return Shape("MS MARCO", frozenset(ms_marco.READS), ms_marco.read)
    if (roles := graded.columns_of_graded(row, positive_from)) is not None:
        return _mapped(roles, positive_from)
    roles = columns.columns_of(row)
    return _mapped(roles, positive_from) if roles is not None else None


def expected(row: dict, shape: Shape | None) -> str:
    """Return the message for a row that has no known shape, or another shape than the rows before it."""
    if shape is not None:
        return (
            f"{shown_row(row)} has the columns {', '.join(row) or 'none'}, expected those of the rows before it "
            f"({shape.name}: {', '.join(sorted(shape.reads))})"
        )
    return (
        f"{shown_row(row)} has the columns {', '.join(row) or 'none'}, which are no shape of training rows; expected "
        f"{', '.join('+'.join(known.needs) for known in TABLE)}, or a query and a positive under usual names, such as "
        f"{PAIRS[0]}"
    )


def header_names() -> list[str]:
    """Return the names that the header of a table may have."""
    return sorted(
        {
            *columns.QUERY,
            *columns.POSITIVE,
            *graded.LABEL,
            *graded.LISTS,
            *columns.ROLES,
            *(name for known in TABLE for name in known.shape.reads),
        }
    )


def _mapped(mapping: Columns, positive_from: float | None) -> Shape:
    reads = frozenset(columns.named(mapping))
    if "label" in mapping:
        return Shape("graded pairs", reads, lambda row: graded.read(row, mapping, positive_from), by_label=True)
    return Shape("columns", reads, lambda row: columns.read(row, mapping))
