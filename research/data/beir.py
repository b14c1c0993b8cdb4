"""A BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.

Readers are strict: a row that is not what the format promises is refused with file, line, value and cure. With
`BadRows(skip=True)` such rows are skipped instead, counted by reason, and the count goes into the run's notes.
"""

from collections.abc import Iterable
from pathlib import Path

from research.data.qrels import read_qrels
from research.data.rows import BadRows, identifier, read_jsonl, string
from research.errors import UserError
from research.types import Corpus, Document, Qrels, Queries

QUERY_IDS, DOC_IDS = ("_id", "id", "query_id", "qid"), ("_id", "id", "docid", "doc_id")


def read_corpus(path: Path, bad: BadRows) -> Corpus:
    """Read corpus.jsonl of a BEIR folder: {"_id", "title" (may be absent or empty), "text"}."""
    return collect_corpus(read_jsonl(path, bad), bad)


def collect_corpus(rows: Iterable[tuple[str, dict]], bad: BadRows) -> Corpus:
    """Collect checked documents from (where, row) pairs: unique ids, string fields, a title or a text."""
    corpus: Corpus = {}
    for where, row in rows:
        doc_id = identifier(row, DOC_IDS, where, bad)
        title = string(row, "title", where, bad)
        text = string(row, "text" if "text" in row else "contents", where, bad)  # Anserini's name
        if doc_id is None or title is None or text is None:
            continue
        if (
            not {"title", "text", "contents"} & row.keys()
        ):  # else a corpus of other names would be read as one of blank documents
            bad.report(
                where,
                "empty document",
                f"document {doc_id!r} has neither title nor text, but {', '.join(row)}",
                "Expected one of them; rename the columns",
            )
            continue
        document = Document(title, text)
        if corpus.get(doc_id, document) != document:
            bad.report(
                where,
                "duplicate document id",
                f"document id {doc_id!r} was used before, with another text",
                "Ids must be unique; rename or remove one",
            )
        elif doc_id in corpus:
            bad.keep(where, "repeats of a document", f"document {doc_id!r} repeats an earlier row, and is taken once")
        else:
            corpus[doc_id] = document
            if not document.content.strip():
                bad.keep(
                    where,
                    "blank documents",
                    f"document {doc_id!r} has a blank title and a blank text; it stays in the "
                    "corpus, as the field's numbers have it",
                )
    return corpus


def read_queries(path: Path, bad: BadRows) -> Queries:
    """Read queries.jsonl of a BEIR folder: {"_id", "text"}."""
    return collect_queries(read_jsonl(path, bad), bad)


def collect_queries(rows: Iterable[tuple[str, dict]], bad: BadRows) -> Queries:
    """Collect checked queries from (where, row) pairs: unique ids, a text that is not empty."""
    queries: Queries = {}
    for where, row in rows:
        query_id = identifier(row, QUERY_IDS, where, bad)
        text = string(row, "text" if "text" in row else "query", where, bad)
        if query_id is None or text is None:
            continue
        if not text.strip():
            bad.report(where, "empty query", f"query {query_id!r} has no text", "Remove the row")
        elif queries.get(query_id, text) != text:
            bad.report(
                where,
                "duplicate query id",
                f"query id {query_id!r} was used before, with another text",
                "Ids must be unique; rename or remove one",
            )
        elif query_id in queries:
            bad.keep(where, "repeats of a query", f"query {query_id!r} repeats an earlier row, and is taken once")
        else:
            queries[query_id] = text
    return queries


def beir_splits(folder: Path) -> list[str]:
    """List the splits for which a BEIR folder has judgements."""
    files = [path for ending in ("*.tsv", "*.tsv.gz") for path in (folder / "qrels").glob(ending)]
    names = (path.name for path in files if path.name[0] not in "._")  # such as macOS puts into archives
    return sorted({name.removesuffix(".gz").removesuffix(".tsv") for name in names})


def read_beir(folder: Path, bad: BadRows) -> tuple[Corpus, Queries, dict[str, Qrels]]:
    """Read corpus, queries, and the judgements of every split of a BEIR folder.

    Raises:
        UserError: a file is missing, or (unless skipped) a row is malformed.
    """
    qrels = {split: read_qrels(_packed_or_not(folder / "qrels" / f"{split}.tsv"), bad) for split in beir_splits(folder)}
    if not qrels:
        raise UserError(f"{folder / 'qrels'} has no .tsv file; expected one qrels file a split. Add qrels/test.tsv, say.")
    corpus, queries = read_beir_texts(folder, bad)
    return corpus, queries, qrels


def read_beir_texts(folder: Path, bad: BadRows, queries: bool = True) -> tuple[Corpus, Queries]:
    """Read corpus and queries of a BEIR folder, judged or not.

    Args:
        folder: of the files.
        bad: what to do with bad rows.
        queries: read them too; else there are none, and the file need not be there.

    Raises:
        UserError: as `read_beir`.
    """
    corpus = read_corpus(_packed_or_not(folder / "corpus.jsonl"), bad)
    return corpus, read_queries(_packed_or_not(folder / "queries.jsonl"), bad) if queries else {}


def _packed_or_not(path: Path) -> Path:
    """Return the file, or the one with .gz after its name if only that exists."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path
