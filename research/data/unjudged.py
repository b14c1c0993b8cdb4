"""A corpus and queries without judgements, from tables, text files, folders of notes, or a data source.

Longer than most files: which columns of somebody's table are meant is decided here alone.
"""

import difflib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from research.data.beir import DOC_IDS, QUERY_IDS, collect_corpus, collect_queries, read_beir_texts
from research.data.hub import load_hub_texts
from research.data.passages import TEXT_ENDINGS, Cut, is_text, name_of, read_passages, refuse_other_kinds
from research.data.rows import BadRows, read_lines
from research.data.shapes.triples import is_triples
from research.data.sources import check_not_blank, load, load_source, parse_source
from research.data.splits import Rows
from research.data.table_files import ENDINGS
from research.data.tables import is_table, local_files, read_table
from research.errors import UserError, did_you_mean, suggest, suggest_file
from research.progress import say
from research.types import Corpus, Queries

CORPUS = {"id": DOC_IDS, "title": ("title",), "text": ("text", "contents")}
QUERIES = {"id": QUERY_IDS, "text": ("text", "query")}
"""Role → names of its column, the first of which the readers of BEIR's rows know."""
NEAR = {
    "id": ("id", "ids", "docid", "doc_id", "docno", "pid", "passage_id", "document_id", "uid", "uuid", "qid", "query_id"),
    "title": ("title", "titles", "headline", "heading", "subject"),
    "text": ("text", "texts", "content", "body", "passage", "document", "document_text", "abstract", "paragraph", "question"),
}
"""Role → names that people give its column: a row is refused with the one that it has, and how to name it."""
FORMATS = f"{', '.join((*ENDINGS, *TEXT_ENDINGS))} or a folder of them"


def read_corpus(
    source: str | Path, columns: dict[str, str] | None = None, cut: Cut | None = None, skip_bad_rows: bool = False
) -> Corpus:
    """Read a corpus from a file or folder.

    Rows of .jsonl, .json, .csv, .tsv (also .gz) and .parquet have `_id` or `id`, `title` and `text`, or the columns that
    `columns` names; rows without an id are known by `file#row`. A .txt file has a passage a line (`file#line`). Of an .md file,
    and of a folder of .txt and .md files, each file is a document, cut to passages (`file#passage`);
    linked subfolders are read too. `.files` of such a corpus maps an id to its file.

    Args:
        source: the file or folder; of tables also a pattern, or several with commas between.
        columns: role (id, title, text) → column, where the names do not say it.
        cut: how long passages are, Cut(words=150, overlap=30) where it is None.
        skip_bad_rows: leave malformed rows out, counted, instead of refusing them.

    Returns:
        {id: Document(title, text)}, in the order of the file.

    Raises:
        UserError: nothing there, another format, or a malformed row.

    Example:
        >>> from research import read_corpus
        >>> corpus = read_corpus("notes")
        >>> corpus["bees.md#1"].title
        'About bees'
    """
    path, bad = Path(source), BadRows(skip_bad_rows)
    tables = [p.name for p in path.iterdir() if is_table(str(p)) and p.is_file()] if path.is_dir() else []
    if is_text(path):
        if tables:
            raise UserError(
                f"{source} holds text files and tables ({tables[0]}); expected one kind of them. Name the file that is meant, "
                f"{path / tables[0]} say, or a folder of text files alone."
            )
        _refuse_columns(source, columns)
        _refuse_cut(source, None if path.is_dir() or path.name.lower().endswith(".md") else cut, "line")
        corpus = read_passages(path, (cut or Cut()).check(), bad)
    elif path.is_dir() and not tables:
        refuse_other_kinds(path, ", ".join(ENDINGS))
    else:
        rows = _rows(source, CORPUS, columns, bad)
        _refuse_cut(source, cut, "row")
        corpus = collect_corpus(rows, bad)
    bad.say_counts(str(source))
    if not any(doc.content.strip() for doc in corpus.values()):
        raise UserError(f"{source} holds no text to search; expected one document or more. Name another file.")
    if copies := len(corpus) - len({doc.content for doc in corpus.values()}):
        say(f"{source}: {copies:,} of {len(corpus):,} documents repeat another's text; a search ranks each of them")
    return corpus


def read_queries(source: str | Path, columns: dict[str, str] | None = None, skip_bad_rows: bool = False) -> Queries:
    """Read queries from a file.

    Rows of tables have `_id` or `id`, and `text` or `query`; rows without an id are known by `file#row`. A .txt file has a
    query a line (`file#line`), a .tsv file without a header `id TAB text`.

    Args:
        source: the file.
        columns: role (id, text) → column, where the names do not say it.
        skip_bad_rows: leave malformed rows out, counted, instead of refusing them.

    Returns:
        {id: text}, in the order of the file.

    Raises:
        UserError: nothing there, another format, a malformed row, or no query.

    Example:
        >>> from research import read_queries
        >>> read_queries("questions.txt")
        {'questions.txt#1': 'who makes honey?', 'questions.txt#2': 'how is cloth made?'}
    """
    path, bad = Path(source), BadRows(skip_bad_rows, columns="--query-columns")
    if path.name.lower().endswith(".txt"):
        _refuse_columns(source, columns)
        queries = {name_of(path.name, where): text.strip() for where, text in read_lines(path)}
    else:
        queries = collect_queries(_rows(source, QUERIES, columns, bad), bad)
    bad.say_counts(str(source))
    if not queries:
        raise UserError(f"{source} holds no query; expected one or more. Add some.")
    return queries


def _refuse_columns(source: str | Path, columns: dict[str, str] | None) -> None:
    if columns is not None:
        raise UserError(f"columns {columns} are named, and {source} is text, which has none; expected a table. Name none.")


def _refuse_cut(source: str | Path, cut: Cut | None, unit: str) -> None:
    if cut is not None:
        raise UserError(
            f"{source} has a passage a {unit}, and a length of passages ({cut.words} words, overlap {cut.overlap}) is for .md "
            "files and folders of texts; expected one of these with --passage-words and --passage-overlap. Leave them out."
        )


def load_texts(name: str, role: str, split: str | None, skip_bad_rows: bool = False) -> tuple[list[str], list[str]]:
    """Load ids and texts to encode: every document of a source, or the queries of a split.

    Raises:
        UserError: as `load`.
    """
    corpus, queries = load_unjudged(name, split, skip_bad_rows, queries=role == "query")
    texts = queries if role == "query" else {name: doc.content for name, doc in corpus.items()}
    return list(texts), list(texts.values())


def load_unjudged(name: str, split: str | None, skip_bad_rows: bool = False, queries: bool = False) -> tuple[Corpus, Queries]:
    """Load corpus and queries of a source; no judgements are needed.

    Args:
        name: builtin:stdlib | builtin:stdlib-small | builtin:packages | beir:PATH | rows:FILE | hf:NAME[@REVISION].
        split: the queries that this one judges; None takes all of the source.
        skip_bad_rows: leave malformed rows out, counted.
        queries: read them too; else there are none.

    Raises:
        UserError: as `load`.
    """
    if split is not None:
        data = load(name, split, skip_bad_rows)
        return data.corpus, data.queries
    kind, rest = parse_source(name)
    bad = BadRows(skip_bad_rows)
    if kind in ("builtin", "rows"):
        corpus, asked, _ = load_source(name, bad)
    else:
        corpus, asked = read_beir_texts(Path(rest), bad, queries) if kind == "beir" else load_hub_texts(rest, bad, queries)
    bad.say_counts(name)
    if not corpus:
        raise UserError(f"{name} has 0 documents; expected one or more. Add rows to its corpus.")
    check_not_blank(name, corpus)
    return corpus, asked


def _rows(source: str | Path, known: dict[str, tuple[str, ...]], columns: dict[str, str] | None, bad: BadRows) -> Rows:
    """Yield rows with BEIR's column names, each with an id."""
    if not Path(source).exists() and not is_table(str(source)):
        raise UserError(f"{source} does not exist; expected {FORMATS}.{suggest_file(source)} Check the path.")
    if Path(source).is_file() and not is_table(str(source)):
        raise UserError(f"{source} is of no known format; expected {FORMATS}. Rename or convert it.")
    for role in columns or ():
        if role not in known:
            raise UserError(f"{bad.columns} names the role {role!r}, which is not known; {suggest(role, known)}. Correct it.")
    names = {name for role in known.values() for name in role}
    if columns is None and Path(source).is_file() and is_triples(Path(source), [*names, *itertools.chain(*NEAR.values())]):
        rows = _without_header(Path(source), list(known), bad)
    else:
        rows = read_table(str(source), None, bad)
    first = next(rows, None)
    if first is None:
        return iter(())
    columns = columns or _columns_of(*first, known, bad.columns)
    return _renamed(itertools.chain([first], rows), str(source), columns, bad)


def _without_header(path: Path, roles: list[str], bad: BadRows) -> Rows:
    """Read rows of `id TAB text` (for a corpus also `id TAB title TAB text`), as in MS MARCO."""
    count = 0
    for where, line in read_lines(path):
        cells = line.split("\t")
        if not count and all(re.fullmatch(r"[^\W\d][\w-]*", cell) for cell in cells):
            raise UserError(
                f"{where}: {', '.join(cells)} seem to name columns; expected usual names, or texts. Name their roles with "
                f"{bad.columns}, or, if they are texts, put the line {' TAB '.join((roles[0], roles[-1]))} before them."
            )
        count = count or len(cells)
        if len(cells) == count <= len(roles):
            yield where, dict(zip(roles if count == len(roles) else (roles[0], roles[-1]), cells, strict=True))
        else:
            expected = f"{count}, as in the first line" if count <= len(roles) else " TAB ".join(roles)
            bad.report(where, "wrong number of cells", f"the line has {len(cells)} cells, expected {expected}", "Mend the line")


def _columns_of(where: str, row: dict, known: dict[str, tuple[str, ...]], option: str) -> dict[str, str]:
    """Map roles to columns by the first row; without an id column the role id is missing.

    Raises:
        UserError: no column for the text, or one for the id or title that is spelt in another way.
    """
    columns = {role: next(name for name in names if name in row) for role, names in known.items() if {*names} & {*row}}
    near = {role: name for role in known if role not in columns and (name := _near(role, row, columns))}
    if near or "text" not in columns:
        named = columns | near
        spelt = ", ".join(f'"{role}": "{named.get(role, "COLUMN")}"' for role in known if role in named or role == "text")
        wrong = next(iter(near.items()), None)
        expected = " and ".join(names[0] for role, names in known.items() if role in named or role == "text")
        raise UserError(
            f"{where}: the row has the columns {', '.join(row)}; expected {expected}"
            + (f", and {wrong[1]!r} may be meant for {known[wrong[0]][0]!r}" if wrong else "")
            + f". Name them: {option} '{{{spelt}}}', or rename the columns."
        )
    return columns


def _near(role: str, row: dict, taken: dict[str, str]) -> str | None:
    free = {name.lower().strip(): name for name in row if isinstance(name, str) and name not in taken.values()}
    for name in NEAR[role]:
        if match := difflib.get_close_matches(name, free, n=1, cutoff=0.85):
            return free[match[0]]
    return None


def _renamed(rows: Rows, source: str, columns: dict[str, str], bad: BadRows) -> Iterator[tuple[str, dict]]:
    """Yield rows of only the named columns, with BEIR's column names."""
    file = local_files(source)[0].name if Path(source).exists() else Path(source).name
    for number, (where, row) in enumerate(rows, 1):
        for role in ("id", "text"):
            if role in columns and columns[role] not in row and (role == "id" or "title" not in columns):
                near = did_you_mean(columns[role], row)
                detail = f"the row has no {columns[role]!r}, but {', '.join(row)}{near and '.' + near}"
                bad.report(where, "missing column", detail, f"Correct the column that is named for {role}, or mend the row")
                break
        else:
            named = {role: row[column] for role, column in columns.items() if column in row}
            yield where, {"_id": named.pop("id", f"{name_of(file, str(number))}"), **named}
