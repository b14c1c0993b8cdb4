"""Training rows that name documents and queries by id, and the files that hold their texts."""

from collections.abc import Iterator
from pathlib import Path

from research.data.rows import BadRows
from research.data.shapes import triples
from research.data.tables import read_table
from research.errors import UserError
from research.types import Corpus, Document, Triplets


def with_texts(rows: list[Triplets], source: str, corpus: str | None, queries: str | None, bad: BadRows) -> list[Triplets]:
    """Replace the ids in the rows by their texts."""
    if corpus is None:
        raise UserError(
            f"the rows of {source} name documents by id; expected the file of their texts. Pass --data.corpus_file "
            "collection.tsv, or corpus.jsonl."
        )
    wanted = {doc for row in rows for docs in (row.positives, row.negatives) for doc in docs}
    documents = _documents(corpus, wanted, bad)
    unnamed = {row.query_id for row in rows if not row.query}
    if rows and queries is not None and not unnamed:
        raise UserError(
            f"data.queries_file={queries}, but the rows of {source} hold the texts of their queries; expected it "
            "for ids of queries only. Leave it out."
        )
    if unnamed and queries is None:
        raise UserError(
            f"the rows of {source} name queries by id; expected the file of their texts. Pass --data.queries_file "
            "queries.tsv, or queries.jsonl."
        )
    texts = {row: doc.content for row, doc in _documents(queries, unnamed, bad).items()} if queries and unnamed else {}
    return [
        row._replace(
            query=row.query or texts[row.query_id],
            positives={doc: documents[doc] for doc in row.positives},
            negatives={doc: documents[doc] for doc in row.negatives},
        )
        for row in rows
    ]


def _documents(source: str, wanted: set[str], bad: BadRows) -> Corpus:
    """Read the texts of the wanted ids: `id TAB text` lines, or rows with docid, _id, id or query_id and a text."""
    documents: Corpus = {}
    for where, doc_id, document in _entries(source, bad):
        if doc_id in wanted and documents.setdefault(doc_id, document) != document:
            raise UserError(f"{where}: id {doc_id!r} was used before, with another text; expected one text an id. Remove one.")
    for doc_id in wanted:
        if doc_id not in documents or not documents[doc_id].content.strip():
            raise UserError(
                f"{source} has no text for the id {doc_id!r}, which the rows name; expected one for each. Add it, "
                "or name the file that the rows were made from."
            )
    return documents


def _entries(source: str, bad: BadRows) -> Iterator[tuple[str, str, Document]]:
    path = Path(source)
    if triples.is_triples(path, ["text", "id", "docid", "_id", "query_id", "contents"]):
        for where, row in triples.read_triples(path, bad):
            texts = [*row.values()][1:]
            yield where, row["query"], Document(texts[0] if len(texts) > 1 else "", texts[-1])
        return
    for where, row in read_table(source, None, bad):
        doc_id = next((row[name] for name in ("docid", "_id", "id", "query_id", "qid", "pid") if name in row), None)
        text = next(
            (row[name] for name in ("text", "document_text", "contents", "query_text", "query", "passage") if name in row), None
        )
        title = row.get("title") or ""
        if isinstance(doc_id, int) and not isinstance(doc_id, bool):
            doc_id = str(doc_id)
        if not (isinstance(doc_id, str) and isinstance(text, str) and isinstance(title, str)):
            bad.report(
                where,
                "no document",
                f"the row has the columns {', '.join(row)}",
                "Expected an id (docid, _id or id) and a text; mend the row",
            )
        else:
            yield where, doc_id, Document(title, text)
